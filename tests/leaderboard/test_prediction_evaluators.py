"""AUROC, AUPRC, Brier and log loss are scikit-learn's, with weights and ties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from leaderboard.evaluators import registry
from leaderboard.evaluators.registry import MetricSpec, PredictionError, Undefined

ORACLES = {
    "auroc": lambda y, p, w: roc_auc_score(y, p, sample_weight=w),
    "auprc": lambda y, p, w: average_precision_score(y, p, sample_weight=w),
    "brier": lambda y, p, w: brier_score_loss(y, p, sample_weight=w),
    "log_loss": lambda y, p, w: log_loss(y, p, sample_weight=w, labels=[False, True]),
}

GRID = [0.0, 0.1, 0.25, 0.5, 0.5 + 1e-12, 0.9, 1.0]


@st.composite
def scored(draw):
    """Outcomes with both classes weighted, risks with many ties, weights with zeros."""
    rows = st.tuples(st.booleans(), st.sampled_from(GRID) | st.floats(0, 1), st.integers(0, 3))
    drawn = draw(st.lists(rows, min_size=0, max_size=25))
    ends = [(True, draw(st.sampled_from(GRID)), 1), (False, draw(st.sampled_from(GRID)), 1)]
    y, p, w = zip(*drawn, *ends, strict=True)
    return np.array(y), np.array(p, dtype=float), np.array(w, dtype=float)


@pytest.mark.parametrize("name", ORACLES)
@settings(deadline=None)
@given(data=st.data())
def test_each_agrees_with_scikit_learn_on_ties_and_zero_weights(name, data):
    y, p, w = data.draw(scored())
    assert registry.load(name).function(y, p, w) == pytest.approx(ORACLES[name](y, p, w), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", ORACLES)
def test_each_agrees_with_scikit_learn_on_many_samples_with_real_weights(name):
    rng = np.random.default_rng(1)
    p = rng.beta(1, 6, 20_000).round(3)
    y, w = rng.random(p.size) < p, rng.exponential(size=p.size)
    assert registry.load(name).function(y, p, w) == pytest.approx(ORACLES[name](y, p, w), rel=1e-9)


@pytest.mark.parametrize("name", registry.names())
@settings(deadline=None)
@given(data=st.data())
def test_a_weight_of_two_is_the_sample_twice(name, data):
    y, p, w = data.draw(scored())
    spec, times = registry.load(name), w.astype(int)
    once = np.repeat(y, times), np.repeat(p, times), np.ones(times.sum())
    assert value(spec, y, p, w) == pytest.approx(value(spec, *once), rel=1e-6, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("name", registry.names())
@settings(deadline=None)
@given(data=st.data())
def test_neither_the_scale_of_weights_nor_the_order_of_samples_counts(name, data):
    y, p, w = data.draw(scored())
    spec, order = registry.load(name), np.random.default_rng(0).permutation(len(y))
    expected = value(spec, y, p, w)
    assert value(spec, y, p, w * 7.3) == pytest.approx(expected, rel=1e-6, abs=1e-6, nan_ok=True)
    assert value(spec, y[order], p[order], w[order]) == pytest.approx(expected, rel=1e-6, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("name", registry.names())
@settings(deadline=None)
@given(data=st.data())
def test_replicates_are_what_the_function_says_for_each_row_of_weights(name, data):
    y, p, w = data.draw(scored())
    spec = registry.load(name)
    rng = np.random.default_rng(len(y))
    rows = np.vstack([w, np.ones_like(w), rng.integers(0, 3, (5, len(w))).astype(float), np.zeros_like(w)])
    expected = [value(spec, y, p, row) for row in rows]
    np.testing.assert_allclose(spec.replicates(y, p)(rows), expected, rtol=1e-6, atol=1e-6, equal_nan=True)


@settings(deadline=None)
@given(scored())
def test_auroc_and_auprc_see_ranks_alone(sample):
    y, p, w = sample
    # A map that keeps order and ties, exactly: the rank among the distinct risks.
    ranks = np.unique(p, return_inverse=True)[1] / len(p)
    for name in ("auroc", "auprc"):
        function = registry.load(name).function
        assert function(y, ranks, w) == pytest.approx(function(y, p, w), rel=1e-12)


@settings(deadline=None)
@given(scored())
def test_turning_all_risks_over_turns_the_auroc_over(sample):
    y, p, w = sample
    ranks = np.unique(p, return_inverse=True)[1] / len(p)
    auroc = registry.load("auroc").function
    assert auroc(y, 1 - ranks, w) == pytest.approx(1 - auroc(y, ranks, w), abs=1e-12)


def test_a_model_that_knows_nothing_has_auroc_half_and_the_prevalence_as_auprc():
    y = np.array([True] * 3 + [False] * 9)
    p, w = np.full(12, 0.2), np.ones(12)
    assert registry.load("auroc").function(y, p, w) == 0.5
    assert registry.load("auprc").function(y, p, w) == 0.25


@pytest.mark.parametrize(
    ("name", "events", "weight", "reason"),
    [
        ("auroc", 0, 1.0, "no sample has the event"),
        ("auroc", 4, 1.0, "every sample has the event"),
        ("auroc", 2, 0.0, "no sample has any weight"),
        ("auprc", 0, 1.0, "no sample has the event"),
        ("brier", 2, 0.0, "no sample has any weight"),
        ("log_loss", 2, 0.0, "no sample has any weight"),
        ("calibration_slope", 4, 1.0, "every sample has the event"),
        ("calibration_intercept", 0, 1.0, "no sample has the event"),
        ("o_e", 2, 0.0, "no sample has any weight"),
    ],
)
def test_an_undefined_metric_is_refused_with_the_reason(name, events, weight, reason):
    y = np.arange(4) < events
    with pytest.raises(Undefined, match=reason):
        registry.load(name).function(y, np.array([0.1, 0.2, 0.3, 0.4]), np.full(4, weight))


@pytest.mark.parametrize(
    ("p", "w", "said"),
    [
        ([0.1, math.nan], [1.0, 1.0], r"\[0, 1\]"),
        ([0.1, 1.1], [1.0, 1.0], r"\[0, 1\]"),
        ([0.1, 0.2], [1.0, -1.0], "at least 0"),
        ([0.1, 0.2], [1.0, math.nan], "at least 0"),
        ([0.1, 0.2, 0.3], [1.0, 1.0], "as long as each other"),
    ],
)
@pytest.mark.parametrize("name", registry.names())
def test_unusable_predictions_are_refused_by_every_metric(name, p, w, said):
    with pytest.raises(PredictionError, match=said):
        registry.load(name).function(np.array([True, False]), np.array(p), np.array(w))


def test_the_registry_finds_the_seven_and_names_them_when_asked_for_another():
    seven = {"auroc", "auprc", "brier", "log_loss", "calibration_slope", "calibration_intercept", "o_e"}
    assert seven <= set(registry.names())
    with pytest.raises(KeyError, match="there is no metric 'f1'; there are: auroc"):
        registry.load("f1")


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("auroc", [0.9, 0.7, 0.6]),
        ("brier", [0.1, 0.2, 0.3]),
        ("calibration_slope", [1.05, 0.9, 1.4, -0.2]),
        ("calibration_intercept", [0.1, -0.2, 0.9]),
        ("o_e", [1.0, 1.9, 0.5, 2.5, 0.1]),
    ],
)
def test_badness_orders_values_from_best_to_worst(name, order):
    badness = registry.load(name).badness(np.array(order))
    assert list(np.argsort(badness)) == list(range(len(order)))


@pytest.mark.parametrize("wrong", [math.nan, math.inf, 1.5, -0.1])
def test_a_value_out_of_range_is_the_evaluators_defect(wrong):
    with pytest.raises(ValueError, match="'auroc' returned"):
        registry.load("auroc").checked(wrong)


def value(spec: MetricSpec, y, p, w) -> float:
    """The value, or NaN where the metric refuses."""
    try:
        return spec.function(y, p, w)
    except Undefined:
        return math.nan
