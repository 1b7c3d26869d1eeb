"""`run_federation`: what it learns, that it repeats, and how it refuses."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from fedcore.errors import FederationError
from fedcore.federation import FederationRequest, FederationResult, run_federation
from fedcore.learner import log_loss
from fedcore.rounds import RoundReport
from fedcore.samples import SiteSamples
from fedcore.server import MIN_TUNING_PATIENTS
from sites.errors import InputError


@pytest.fixture
def sites(make_hospital: Any) -> list[SiteSamples]:
    return [
        make_hospital("alpha", n=600),
        make_hospital("beta", n=300, shift=1.0),
        make_hospital("gamma", n=400, shift=-1.0),
        make_hospital("outside", n=200, external=True),
    ]


def _run(sites: list[SiteSamples], model: str, strategy: str, **more: Any) -> FederationResult:
    return run_federation(sites, FederationRequest(model=model, strategy=strategy, **more))


def _auroc(sites: list[SiteSamples], result: FederationResult) -> float:
    held_out = [s.split == "held_out" for s in sites]
    y = np.concatenate([s.label[m] for s, m in zip(sites, held_out, strict=True)])
    p = np.concatenate([result.predictions[s.site][m] for s, m in zip(sites, held_out, strict=True)])
    return float(roc_auc_score(y, p))


@pytest.mark.parametrize(("model", "strategy"), [("logistic", "fedavg"), ("logistic", "pooled"), ("trees", "pooled")])
def test_it_learns_and_predicts_for_every_sample_of_every_site(
    model: str, strategy: str, sites: list[SiteSamples]
) -> None:
    result = _run(sites, model, strategy)
    assert sorted(result.predictions) == ["alpha", "beta", "gamma", "outside"]
    for site in sites:
        p = result.predictions[site.site]
        assert p.dtype == np.float64
        assert p.shape == (len(site),)
        assert ((p >= 0) & (p <= 1)).all()
    assert _auroc(sites, result) > 0.75


def test_federated_logistic_regression_comes_close_to_pooled(sites: list[SiteSamples]) -> None:
    assert _auroc(sites, _run(sites, "logistic", "fedavg")) > _auroc(sites, _run(sites, "logistic", "pooled")) - 0.01


def test_pooled_is_scikit_learns_optimum_on_the_rows_brought_together(sites: list[SiteSamples]) -> None:
    result = _run(sites, "logistic", "pooled", settings=[{"l2": 0.02}])
    x = np.concatenate([s.raw["x"][s.split == "train"] for s in sites[:3]])
    y = np.concatenate([s.label[s.split == "train"] for s in sites[:3]])
    x = ((x - x.mean(0)) / x.std(0)).astype(np.float32).astype(np.float64)
    theirs = LogisticRegression(C=1 / (len(y) * 0.02), tol=1e-10, max_iter=1000).fit(x, y)
    np.testing.assert_allclose(result.arrays["weight"], theirs.coef_, atol=1e-4)


def test_one_federated_site_is_that_site_alone(sites: list[SiteSamples]) -> None:
    alone = _run(sites[:1], "gru", "local", rounds=2, config={"dropout": 0.0}).predictions["alpha"]
    assert np.array_equal(
        alone, _run(sites[:1], "gru", "pooled", rounds=2, config={"dropout": 0.0}).predictions["alpha"]
    ) is (
        False  # the streams of batches are named after the site, "alpha" and "pooled"
    )
    assert np.corrcoef(alone, _run(sites[:1], "gru", "pooled", rounds=2).predictions["alpha"])[0, 1] > 0.5


def test_local_gives_each_site_its_own_model_and_none_to_external_ones(sites: list[SiteSamples]) -> None:
    result = _run(sites, "logistic", "local")
    assert sorted(result.predictions) == sorted(result.by_site) == ["alpha", "beta", "gamma"]
    for site in sites[:3]:
        own = _run([site], "logistic", "pooled", settings=[dict(result.by_site[site.site].setting)])
        np.testing.assert_array_equal(result.predictions[site.site], own.predictions[site.site])
    assert {trial.site for trial in result.trials} == {report.site for report in result.rounds} == set(result.by_site)
    assert (result.bytes_up, result.bytes_down) == (0, 0)


def test_external_takes_over_what_the_largest_other_site_trained_alone(sites: list[SiteSamples]) -> None:
    result, local = _run(sites, "logistic", "external"), _run(sites, "logistic", "local")
    sources = {"alpha": "gamma", "beta": "alpha", "gamma": "alpha", "outside": "alpha"}
    assert sorted(result.predictions) == sorted(sources)
    for site, source in sources.items():
        np.testing.assert_array_equal(result.predictions[site], result.by_site[source].predictions[site])
    for source in ("alpha", "gamma"):
        np.testing.assert_array_equal(result.by_site[source].arrays["weight"], local.by_site[source].arrays["weight"])
    with pytest.raises(InputError, match="only one site can train, and no other takes its model over"):
        _run(sites[:1], "logistic", "external")


@pytest.mark.parametrize(
    ("model", "strategy"),
    [("logistic", "fedavg"), ("gru", "fedavg"), ("gru", "pooled"), ("logistic", "local"), ("trees", "local")],
)
def test_same_seed_same_bits_whatever_the_order_of_sites(model: str, strategy: str, sites: list[SiteSamples]) -> None:
    torch.manual_seed(1)
    first = _run(sites, model, strategy, rounds=2, seed=3)
    torch.manual_seed(2)
    second = _run(sites[::-1], model, strategy, rounds=2, seed=3)
    assert {site: p.tobytes() for site, p in first.predictions.items()} == {
        site: p.tobytes() for site, p in second.predictions.items()
    }
    assert {name: value.tobytes() for name, value in first.arrays.items()} == {
        name: value.tobytes() for name, value in second.arrays.items()
    }
    assert first.trials == second.trials
    assert (first.bytes_up, first.bytes_down) == (second.bytes_up, second.bytes_down)


def test_another_seed_is_another_training(sites: list[SiteSamples]) -> None:
    first, second = (_run(sites, "logistic", "fedavg", rounds=2, seed=seed) for seed in (0, 1))
    assert not np.array_equal(first.arrays["weight"], second.arrays["weight"])


def test_threads_are_given_back(sites: list[SiteSamples]) -> None:
    torch.set_num_threads(2)
    _run(sites, "logistic", "pooled")
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


def test_the_best_setting_and_round_on_tuning_is_the_result_and_all_trials_are_kept(sites: list[SiteSamples]) -> None:
    heard: list[RoundReport] = []
    request = FederationRequest(
        model="logistic",
        strategy="fedavg",
        rounds=4,
        settings=({"step_size": 1e-5}, {"step_size": 0.1}, {"step_size": 1e-4}),
    )
    result = run_federation(sites, request, on_round=heard.append)
    assert [trial.setting["step_size"] for trial in result.trials] == [1e-5, 0.1, 1e-4]
    assert result.setting["step_size"] == 0.1
    assert result.chosen == 1
    assert heard == result.rounds
    assert [(report.trial, report.round) for report in heard] == [(t, r) for t in range(3) for r in range(1, 5)]
    for number, trial in enumerate(result.trials):
        losses = [report.tuning_loss for report in heard if report.trial == number]
        assert trial.tuning_loss == min(losses)
        assert trial.best_round == losses.index(min(losses)) + 1
    tuning = [s.split == "tuning" for s in sites[:3]]
    loss = [log_loss(s.label[m], result.predictions[s.site][m]) for s, m in zip(sites, tuning, strict=False)]
    assert np.isclose(np.concatenate(loss).mean(), min(t.tuning_loss for t in result.trials))


def test_too_few_tuning_patients_fall_back_to_the_declared_defaults(make_hospital: Any) -> None:
    small = [make_hospital("alpha", n=120), make_hospital("beta", n=120)]
    result = _run(small, "logistic", "pooled")
    assert "declared defaults" in result.selection
    assert str(MIN_TUNING_PATIENTS) in result.selection
    assert len(result.trials) == 1


def _with_tuning(samples: SiteSamples, events: int, others: int) -> SiteSamples:
    """The hospital with so many tuning patients who have the event, and who do not."""
    spare = np.flatnonzero(samples.split != "train")
    split, label = samples.split.copy(), samples.label.copy()
    split[spare] = "held_out"
    split[spare[: events + others]] = "tuning"
    label[spare[: events + others]] = np.arange(events + others) < events
    return replace(samples, split=split, label=label)


@pytest.mark.parametrize(
    ("tuning", "chooses"),
    [
        ([(10, 10), (10, 10)], True),
        ([(10, 10), (10, 9)], False),  # of the second site nothing is known but its total
        ([(10, 10), (11, 10)], True),
        ([(19, 200)], False),
        ([(20, 20)], True),
        ([(9, 291)], True),  # 300 in all, though nothing is known of the nine
        ([(9, 290)], False),
        ([(2, 148), (3, 147)], True),
    ],
)
def test_tuning_chooses_on_twenty_of_each_outcome_or_three_hundred_in_all(
    tuning: list[tuple[int, int]], chooses: bool, make_hospital: Any
) -> None:
    sites = [
        _with_tuning(make_hospital(f"site{number}", n=900), *counts) for number, counts in enumerate(tuning, start=1)
    ]
    result = _run(sites, "logistic", "fedavg", rounds=1, settings=[{"step_size": 0.1}, {"step_size": 0.01}])
    assert (len(result.trials) == 2) is chooses
    assert result.selection.startswith("lowest tuning log loss" if chooses else "declared defaults")


def test_a_setting_that_diverges_is_kept_as_a_failed_trial(sites: list[SiteSamples]) -> None:
    result = _run(
        sites, "logistic", "fedavg", rounds=2, settings=[{"step_size": 1e30, "l2": 1e20}, {"step_size": 0.01}]
    )
    assert "the training loss is not a number with step_size 1e+30" in str(result.trials[0].error)
    assert result.setting["step_size"] == 0.01


def test_all_settings_diverging_is_a_sentence(sites: list[SiteSamples]) -> None:
    with pytest.raises(
        FederationError,
        match=r"none of 1 settings came to a model: every site failed by round 1; alpha: the training loss is not",
    ):
        _run(sites, "logistic", "fedavg", rounds=2, settings=[{"step_size": 1e30, "l2": 1e20}])


def _relabelled(site: SiteSamples, label: bool) -> SiteSamples:
    return replace(site, label=np.full(len(site), label))


@pytest.mark.parametrize("model", ["logistic", "gru"])
def test_a_one_class_site_trains_with_the_others(model: str, sites: list[SiteSamples]) -> None:
    result = _run([*sites[:2], _relabelled(sites[2], True)], model, "fedavg", rounds=2)
    assert result.skipped == {}
    assert np.isfinite(result.predictions["gamma"]).all()


@pytest.mark.parametrize("model", ["logistic", "gru", "trees"])
def test_a_one_class_site_trains_alone(model: str, sites: list[SiteSamples]) -> None:
    result = _run([_relabelled(sites[0], False)], model, "local", rounds=2)
    assert (result.predictions["alpha"] < 0.5).all()


def test_a_site_without_training_samples_is_left_out_with_the_reason_and_still_scored(sites: list[SiteSamples]) -> None:
    late = replace(sites[2], split=np.full(len(sites[2]), "held_out"))
    result = _run([*sites[:2], late], "logistic", "fedavg", rounds=2)
    assert result.skipped == {"gamma": "fewer than 10 training patients"}
    assert len(result.predictions["gamma"]) == len(late)
    alone = _run([*sites[:2], late], "logistic", "local")
    assert list(alone.skipped) == ["gamma"]
    assert "gamma" not in alone.predictions


def _with_training_patients(samples: SiteSamples, number: int) -> SiteSamples:
    train = np.flatnonzero(samples.split == "train")[number:]
    return replace(samples, split=np.where(np.isin(np.arange(len(samples)), train), "held_out", samples.split))


@pytest.mark.parametrize("model", ["logistic", "gru"])
def test_a_site_of_nine_training_patients_sends_no_model_and_changes_nothing(
    model: str, sites: list[SiteSamples]
) -> None:
    few = _run([*sites[:2], _with_training_patients(sites[2], 9)], model, "fedavg", rounds=2)
    without = _run(sites[:2], model, "fedavg", rounds=2)
    assert few.skipped == {"gamma": "fewer than 10 training patients"}
    assert all(few.arrays[name].tobytes() == array.tobytes() for name, array in without.arrays.items())
    enough = _run([*sites[:2], _with_training_patients(sites[2], 10)], model, "fedavg", rounds=2)
    assert enough.skipped == {}
    assert any(enough.arrays[name].tobytes() != array.tobytes() for name, array in without.arrays.items())


def test_a_federation_never_trains_on_what_is_not_the_training_split(sites: list[SiteSamples]) -> None:
    spoiled = [
        replace(
            s,
            label=np.where(s.split == "train", s.label, ~s.label),
            raw={"x": np.where((s.split == "train")[:, None], s.raw["x"], 1e6)},
        )
        for s in sites[:3]
    ]
    fixed = {"rounds": 2, "settings": [{"step_size": 0.01}]}
    first, second = (_run(these, "logistic", "fedavg", **fixed) for these in (sites[:3], spoiled))
    assert first.space == second.space
    # the rounds are the same; only which of them counts may differ
    assert first.rounds[0].train_loss == second.rounds[0].train_loss
    assert first.rounds[1].train_loss == second.rounds[1].train_loss


def test_external_sites_change_nothing(sites: list[SiteSamples]) -> None:
    with_it, without = _run(sites, "logistic", "fedavg", rounds=2), _run(sites[:3], "logistic", "fedavg", rounds=2)
    assert with_it.arrays["weight"].tobytes() == without.arrays["weight"].tobytes()
    assert with_it.bytes_up == without.bytes_up


@pytest.mark.parametrize(
    ("request_", "error", "sentence"),
    [
        ({"model": "gpt", "strategy": "fedavg"}, InputError, "unknown model 'gpt'"),
        ({"model": "logistic", "strategy": "best"}, InputError, "unknown strategy 'best'"),
        ({"model": "trees", "strategy": "fedavg"}, InputError, "strategy 'fedavg' needs a network"),
        (
            {"model": "logistic", "strategy": "fedavg", "config": {"lr": 1}},
            InputError,
            "unknown hyperparameter 'lr'",
        ),
    ],
)
def test_what_cannot_be_run_is_a_sentence(
    request_: dict[str, Any], error: type[Exception], sentence: str, sites: list[SiteSamples]
) -> None:
    with pytest.raises(error, match=sentence):
        run_federation(sites, FederationRequest(**request_))


def test_sites_that_make_no_federation_are_a_sentence(sites: list[SiteSamples]) -> None:
    with pytest.raises(FederationError, match="all sites are external"):
        _run(sites[3:], "logistic", "fedavg")
    with pytest.raises(FederationError, match="two sites are named 'alpha'"):
        _run([sites[0], sites[0]], "logistic", "fedavg")
    nobody = [replace(s, split=np.full(len(s), "held_out")) for s in sites[:2]]
    with pytest.raises(InputError, match=r"no site can train \(alpha, beta: fewer than 10"):
        _run(nobody, "logistic", "fedavg")


def test_a_request_knows_its_fields() -> None:
    with pytest.raises(ValidationError):
        FederationRequest(model="logistic", strategy="fedavg", epsilon=1)  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        FederationRequest(model="logistic", strategy="fedavg", rounds=0)


def test_the_federation_needs_no_xgboost() -> None:
    code = "import sys; sys.modules['xgboost'] = None; import fedcore.federation; print('there')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "there"
