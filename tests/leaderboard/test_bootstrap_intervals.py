"""Scopes, intervals and suppression: what `evaluate` says about predictions from several hospitals."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from leaderboard import statistics
from leaderboard.bootstrap import Resampler
from leaderboard.evaluators import registry
from leaderboard.evaluators.registry import MetricSpec, PredictionError, Undefined
from leaderboard.record import canonical_json
from leaderboard.statistics import SitePredictions, estimate, evaluate


def hospital(name, patients=80, *, seed=0, external=False, stays=1.3, shift=0.0, noise=0.7, prevalence=-1.5):
    """Clustered stays: a patient's stays share a latent risk, the model sees part of it."""
    rng = np.random.default_rng([seed, *name.encode()])
    patient = np.repeat(np.arange(patients), 1 + rng.poisson(stays - 1, patients)).astype(np.int64)
    eta = prevalence + shift + rng.normal(size=patients)[patient] + 0.5 * rng.normal(size=len(patient))
    y = rng.random(len(patient)) < 1 / (1 + np.exp(-eta))
    p = 1 / (1 + np.exp(-(eta + noise * rng.normal(size=len(patient)))))
    return SitePredictions(name, external, patient, y, p)


def by_key(metrics):
    return {(m.name, m.scope.kind, m.scope.id): m for m in metrics}


def only(metrics, kind):
    (found,) = [m for m in metrics if m.scope.kind == kind]
    return found


@pytest.fixture(scope="module")
def sites():
    return [hospital("c", shift=0.8), hospital("a"), hospital("x", external=True), hospital("b", 150)]


@pytest.fixture(scope="module")
def scored(sites):
    return evaluate(sites, b=200, seed=5)


def test_the_values_are_those_of_scikit_learn_in_each_scope(sites, scored):
    found = by_key(scored)
    inner = [site for site in sites if not site.external]
    y, p = np.concatenate([s.y for s in inner]), np.concatenate([s.p for s in inner])
    assert found["auroc", "pooled", None].value == pytest.approx(roc_auc_score(y, p))
    assert found["auprc", "pooled", None].value == pytest.approx(average_precision_score(y, p))
    each = {site.site: roc_auc_score(site.y, site.p) for site in sites}
    for site in inner:
        assert found["auroc", "site", site.site].value == pytest.approx(each[site.site])
    assert found["auroc", "external", "x"].value == pytest.approx(each["x"])
    assert found["auroc", "site-macro", None].value == pytest.approx(np.mean([each[name] for name in "abc"]))
    worst = min("abc", key=each.__getitem__)
    assert found["auroc", "worst-site", worst].value == pytest.approx(each[worst])


def test_every_metric_stands_in_every_scope_once_with_its_support(sites, scored):
    assert len(scored) == len({m.key for m in scored}) == len(registry.names()) * (3 + 4)
    pooled = by_key(scored)["brier", "pooled", None]
    inner = [site for site in sites if not site.external]
    assert pooled.n == sum(len(site.y) for site in inner)
    assert pooled.n_pos == sum(int(site.y.sum()) for site in inner)
    assert pooled.n_patients == 80 + 80 + 150
    assert by_key(scored)["brier", "site-macro", None].n_sites == 3


def test_external_sites_do_not_touch_what_is_said_of_the_training_sites(sites, scored):
    without = evaluate([site for site in sites if not site.external], b=200, seed=5)
    assert without == [metric for metric in scored if metric.scope.kind != "external"]


def test_the_same_predictions_and_seed_give_the_same_bits_in_any_order(sites, scored, monkeypatch):
    rng = np.random.default_rng(3)
    turned = []
    for site in reversed(sites):
        o = rng.permutation(len(site.y))
        turned.append(SitePredictions(site.site, site.external, site.patient[o], site.y[o], site.p[o]))
    # Nor may it matter how many replicates are computed at once.
    monkeypatch.setattr(statistics, "_BLOCK", 7_000)
    again = evaluate(turned, b=200, seed=5)
    assert canonical_json(list(again)) == canonical_json(list(scored))


def test_another_seed_moves_the_interval_and_not_the_value(sites, scored):
    for one, other in zip(scored, evaluate(sites, b=200, seed=6), strict=True):
        assert one.value == other.value
        assert (one.ci.low, one.ci.high) != (other.ci.low, other.ci.high)


def test_a_site_draws_the_same_patients_whoever_else_is_there(sites):
    alone = estimate([sites[1]], ["auroc"], b=50, seed=5)
    among = estimate(sites, ["auroc"], b=50, seed=5)
    (one,) = [e for e in alone if e.scope.kind == "site"]
    (other,) = [e for e in among if e.scope.kind == "site" and e.scope.id == "a"]
    np.testing.assert_array_equal(one.replicates, other.replicates)


def test_two_models_of_the_same_patients_are_drawn_in_pairs():
    site = hospital("a", 300)
    p = np.clip(site.p + 1e-3 * np.sin(np.arange(len(site.p))), 0, 1)
    near = SitePredictions("a", False, site.patient, site.y, p)
    one, other = (estimate([s], ["auroc"], b=300, seed=1)[0].replicates for s in (site, near))
    assert np.std(one - other) < np.std(one) / 5


@given(st.lists(st.integers(0, 12), min_size=1, max_size=40), st.integers(0, 5))
@settings(deadline=None)
def test_a_replicate_draws_as_many_patients_as_there_are_and_each_with_all_stays(patients, seed):
    patient = np.array(patients, dtype=np.int64)
    resampler = Resampler(patient, seed, "a")
    weights = resampler.draw(6)
    assert weights.shape == (6, len(patient))
    first = np.unique(patient, return_index=True)[1]
    np.testing.assert_array_equal(weights[:, first].sum(axis=1), np.full(6, resampler.n_patients))
    for one in np.unique(patient):
        stays = weights[:, patient == one]
        assert (stays == stays[:, :1]).all()


def test_sites_of_one_size_draw_independently_of_each_other():
    patient = np.arange(50, dtype=np.int64)
    a, b = (Resampler(patient, 0, name).draw(400).ravel() for name in "ab")
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.03
    np.testing.assert_array_equal(Resampler(patient, 0, "a").draw(400).ravel(), a)


def test_patients_are_drawn_uniformly():
    drawn = Resampler(np.arange(10, dtype=np.int64), 0, "a").draw(20_000)
    np.testing.assert_allclose(drawn.mean(axis=0), 1, atol=0.04)
    np.testing.assert_allclose(drawn.var(axis=0), 0.9, atol=0.05)


def test_stays_of_one_patient_widen_the_interval_as_patients_not_as_samples():
    few = hospital("a", 200, stays=1.0)
    copies = 9
    same = SitePredictions("a", False, *(np.repeat(column, copies) for column in (few.patient, few.y, few.p)))
    strangers = SitePredictions("a", False, np.arange(len(same.y), dtype=np.int64), same.y, same.p)
    se = {
        name: evaluate([s], ["auroc"], b=400, seed=0)[0].se
        for name, s in {"few": few, "same": same, "strangers": strangers}.items()
    }
    assert se["same"] == pytest.approx(se["few"], rel=1e-9)
    assert se["strangers"] == pytest.approx(se["few"] / math.sqrt(copies), rel=0.2)


def test_the_standard_error_of_a_mean_is_the_textbooks():
    rng = np.random.default_rng(0)
    n = 400
    p, y = rng.random(n), rng.random(n) < 0.5
    site = SitePredictions("a", False, np.arange(n, dtype=np.int64), y, p)
    brier = evaluate([site], ["brier"], b=4_000, seed=0)[0]
    loss = (p - y) ** 2
    assert brier.se == pytest.approx(loss.std() / math.sqrt(n), rel=0.05)
    assert brier.ci.low == pytest.approx(brier.value - 1.96 * brier.se, abs=0.2 * brier.se)
    assert brier.ci.high == pytest.approx(brier.value + 1.96 * brier.se, abs=0.2 * brier.se)


def labelled(patients, events, name="a"):
    """One stay a patient, so many of them with the event, and risks that know nothing of it."""
    y = np.arange(patients) < events
    p = np.random.default_rng(patients).permutation(np.linspace(0.05, 0.95, patients))
    return SitePredictions(name, False, np.arange(patients, dtype=np.int64), y, p)


@pytest.mark.parametrize(
    ("patients", "events", "reason"),
    [
        (19, 10, "19 patients; at least 20 are needed"),
        (20, 10, None),
        (40, 9, "9 patients with an event; at least 10 are needed"),
        (40, 10, None),
        (40, 31, "9 patients without an event; at least 10 are needed"),
        (40, 40, "0 patients without an event; at least 10 are needed"),
        (0, 0, "0 patients; at least 20 are needed"),
    ],
)
def test_a_small_group_has_no_value_but_the_reason(patients, events, reason):
    for metric in evaluate([labelled(patients, events)], b=20, seed=0):
        if metric.scope.kind in {"site", "pooled"}:
            assert metric.suppressed == reason
            assert (metric.value is None) == (reason is not None)
            assert (metric.n, metric.n_pos) == (patients, events)


def test_five_stays_that_end_alike_are_one_event():
    patient = np.concatenate([np.repeat(np.arange(9), 5), np.arange(9, 60)]).astype(np.int64)
    y = patient < 9
    site = SitePredictions("a", False, patient, y, np.linspace(0.1, 0.9, len(y)))
    metric = evaluate([site], ["auroc"], b=20, seed=0)[0]
    assert metric.n_pos == 45
    assert metric.suppressed == "9 patients with an event; at least 10 are needed"


def test_a_one_class_site_counts_in_the_pool_and_is_excluded_and_counted_elsewhere():
    one_class = labelled(30, 0, name="z")
    metrics = evaluate([hospital("a", 100), hospital("b", 100), one_class], ["auroc"], b=50, seed=0)
    assert only(metrics, "pooled").n_patients == 230
    for kind in ("site-macro", "worst-site"):
        metric = only(metrics, kind)
        assert (metric.n_sites, metric.n_sites_excluded) == (2, 1)
        assert metric.value is not None
    assert by_key(metrics)["auroc", "site", "z"].suppressed == "0 patients with an event; at least 10 are needed"


def test_where_no_site_has_a_value_neither_has_what_sums_them_up():
    metrics = evaluate([labelled(30, 6, name=name) for name in "abc"], ["auroc", "o_e"], b=50, seed=0)
    assert {m.value is None for m in metrics if m.scope.kind == "pooled"} == {False}
    for metric in metrics:
        if metric.scope.kind in {"site-macro", "worst-site"}:
            assert metric.suppressed == "no site has a value of its own"
            assert (metric.n_sites, metric.n_sites_excluded) == (0, 3)


def test_the_worst_site_is_the_farthest_from_the_ideal_and_the_highest_loss():
    over = hospital("over", 400, shift=-0.3)
    # Doubled odds at one site, a third of the odds at another: the second is farther from O:E 1.
    over = SitePredictions("over", False, over.patient, over.y, over.p / (over.p + (1 - over.p) / 2))
    under = hospital("under", 400)
    under = SitePredictions("under", False, under.patient, under.y, under.p / (under.p + (1 - under.p) * 3))
    metrics = evaluate([over, under, hospital("fine", 400)], b=50, seed=0)
    found = by_key(metrics)
    for name, worst in (("o_e", "under"), ("calibration_intercept", "under")):
        assert (name, "worst-site", worst) in found
        assert found[name, "worst-site", worst].value == found[name, "site", worst].value
    site_values = {s: found["brier", "site", s].value for s in ("over", "under", "fine")}
    (brier,) = [m for m in metrics if m.name == "brier" and m.scope.kind == "worst-site"]
    assert brier.scope.id == max(site_values, key=site_values.__getitem__)
    assert brier.ci.method == "patient-bootstrap-percentile, site reselected"


def test_the_worst_site_is_chosen_anew_in_each_replicate(sites):
    estimates = estimate(sites, ["auroc"], b=100, seed=0)
    by_site = np.array([e.replicates for e in estimates if e.scope.kind == "site"])
    (worst,) = [e for e in estimates if e.scope.kind == "worst-site"]
    (macro,) = [e for e in estimates if e.scope.kind == "site-macro"]
    np.testing.assert_array_equal(worst.replicates, by_site.min(axis=0))
    np.testing.assert_allclose(macro.replicates, by_site.mean(axis=0), rtol=1e-14)


def test_without_a_bootstrap_there_are_values_and_no_intervals(sites):
    for metric in evaluate(sites, b=0, seed=0):
        assert metric.value is not None
        assert metric.ci is None
        assert metric.no_interval == "no bootstrap was asked for"


def test_a_perfect_ranking_claims_no_certainty():
    site = labelled(60, 30)
    site = SitePredictions("a", False, site.patient, site.y, np.sort(site.p)[::-1])
    metric = evaluate([site], ["auroc"], b=100, seed=0)[0]
    assert metric.value == 1.0
    assert metric.ci is None
    assert metric.no_interval == "all resamples give the same value, so they do not say how uncertain it is"


def only_with(y, p, w):
    """A metric that exists only while the first patient was drawn, that is in 63 % of all replicates."""
    if w[np.argmin(p)] == 0:
        raise Undefined("the first is missing")
    return float(np.average(p, weights=w))


def test_an_interval_is_refused_where_the_metric_often_does_not_exist():
    spec = MetricSpec("m", "M", "max", "1", 0.0, 1.0, "samples", only_with)
    metric = evaluate([labelled(60, 30)], [spec], b=400, seed=0)[0]
    assert metric.value is not None
    assert metric.no_interval.startswith("the metric is undefined in 1")
    assert metric.no_interval.endswith("of 400 resamples")


def test_a_metric_of_ones_own_needs_a_function_and_no_more(sites):
    spec = MetricSpec(
        "mean_risk", "Mean risk", "max", "1", 0.0, 1.0, "samples", lambda y, p, w: float(np.average(p, weights=w))
    )
    found = by_key(evaluate(sites, [spec], b=50, seed=0))
    a = next(site for site in sites if site.site == "a")
    assert found["mean_risk", "site", "a"].value == pytest.approx(a.p.mean())
    assert found["mean_risk", "pooled", None].ci is not None


def test_an_evaluator_that_returns_nan_is_stopped(sites):
    spec = MetricSpec("bad", "Bad", "max", "1", 0.0, 1.0, "samples", lambda y, p, w: math.nan)
    with pytest.raises(ValueError, match="'bad' returned nan"):
        evaluate(sites, [spec], b=5, seed=0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"p": np.array([0.1, np.nan])}, r"site a: a predicted risk is a number in \[0, 1\]"),
        ({"p": np.array([0.1, 1.5])}, r"site a: a predicted risk is a number in \[0, 1\]"),
        ({"y": np.array([0, 1])}, "site a: outcomes are booleans, found int64"),
        ({"patient": np.array([1.0, 2.0])}, "site a: patients are int64"),
        ({"patient": np.array([1])}, "site a: patients are int64 and one a sample"),
        ({"p": np.array([0.1])}, "site a: outcomes, risks and weights must be as long"),
    ],
)
def test_unusable_predictions_are_refused_with_the_site(change, said):
    parts = {"patient": np.array([1, 2]), "y": np.array([True, False]), "p": np.array([0.1, 0.2])}
    with pytest.raises(PredictionError, match=said):
        SitePredictions("a", False, **{**parts, **change})


def test_two_sites_of_one_name_are_refused():
    with pytest.raises(PredictionError, match="the site a stands twice"):
        evaluate([hospital("a"), hospital("a")], seed=0)


def test_with_external_sites_alone_only_they_are_scored():
    kinds = {m.scope.kind for m in evaluate([hospital("x", external=True)], b=10, seed=0)}
    assert kinds == {"external"}


def test_all_metrics_over_ten_thousand_patients_take_a_few_seconds():
    sites = [hospital(f"s{i}", 1_667, stays=1.2) for i in range(6)]
    start = time.process_time()
    evaluate(sites, seed=0)
    assert time.process_time() - start < 8


@pytest.fixture(scope="module")
def coverage():
    """By metric: in how many of 300 simulated studies the 95 % interval holds what a large population tells."""
    studies = 300
    truth = hospital("truth", 200_000, seed=10**6, stays=2.0)
    true = {name: registry.load(name).function(truth.y, truth.p, np.ones(len(truth.y))) for name in registry.names()}
    held = dict.fromkeys(true, 0)
    for study in range(studies):
        site = hospital("a", 300, seed=study, stays=2.0, external=True)
        for metric in evaluate([site], b=400, seed=study):
            held[metric.name] += metric.ci.low <= true[metric.name] <= metric.ci.high
    return {name: count / studies for name, count in held.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.names())
def test_intervals_hold_the_truth_of_clustered_patients_as_often_as_they_say(coverage, name):
    # Two binomial standard errors of 300 studies are 2.5 points around 95 %.
    assert 0.92 <= coverage[name] <= 0.975


def test_small_groups_have_an_accuracy_where_it_is_asked_for_and_no_auroc():
    few = SitePredictions("few", False, np.arange(16), np.arange(16) > 0, np.linspace(0, 1, 16))
    refused, told = (
        {
            m.name: m
            for m in evaluate([few], ["accuracy", "brier", "auroc"], b=0, seed=0, small_groups=s)
            if m.scope.kind == "site"
        }
        for s in (False, True)
    )
    assert {m.value for m in refused.values()} == {None}
    assert told["accuracy"].value == 9 / 16 and told["brier"].value is not None
    assert told["auroc"].suppressed == refused["auroc"].suppressed == "16 patients; at least 20 are needed"
