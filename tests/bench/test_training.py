"""What a record says of training."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.account import RELEASED, releases, training
from bench.training import _federation
from fedcore.engines.grid import Dropped
from fedcore.errors import CheckpointError, EngineError, FederationError, StorageError
from fedcore.federation import FederationRequest, FederationResult
from fedcore.rounds import RoundReport, Trial
from sites.errors import InputError

TRIALS = [
    Trial({"l2": 0.1}, 2, 0.5, 2),
    Trial({"l2": 0.3}, 1, 0.4, 2),
    Trial({"l2": 9.0}, None, None, 1, "diverged"),
]
RESULT = FederationResult(
    predictions={},
    arrays={},
    space=None,
    setting={"l2": 0.3},
    selection="lowest tuning log loss of 3 settings",
    trials=TRIALS,
    chosen=1,
    rounds=[RoundReport(t, r, 0.7 - t / 10, 0.6 - r / 10, 1.0, 2) for t in (0, 1) for r in (1, 2)],
    skipped={},
    dropped=[Dropped(0, 1, "usa", "train", "late"), *(Dropped(1, r, "usa", "train", "late") for r in (1, 2))],
    own_start=False,
    bytes_up=0,
    bytes_down=0,
)


def test_the_rounds_of_a_record_are_those_of_the_chosen_trial() -> None:
    rounds = training(RESULT).rounds
    assert [(one.round, one.train_loss) for one in rounds] == [(1, 0.6), (2, 0.6)]


def test_a_site_that_took_no_part_in_training_stands_in_the_record_with_the_reason() -> None:
    skipped = training(replace(RESULT, skipped={"usa": "fewer than 10 training patients"})).skipped
    assert [(one.name, one.reason) for one in skipped] == [("usa", "fewer than 10 training patients")]


def test_a_trial_without_a_loss_says_why() -> None:
    assert training(RESULT).trials[2].note == "diverged"


def test_the_trials_of_sites_that_train_alone_name_their_site_and_no_curve_mixes_them() -> None:
    alone = replace(RESULT, chosen=None, setting={}, trials=[replace(trial, site="boston") for trial in TRIALS])
    assert {trial.settings["site"] for trial in training(alone).trials} == {"boston"}
    assert training(alone).rounds == ()


def test_answers_that_did_not_count_are_those_of_the_chosen_trial_one_entry_a_reason() -> None:
    (dropped,) = training(RESULT).dropped
    assert (dropped.site, dropped.action, dropped.reason, dropped.rounds) == ("usa", "train", "late", (1, 2))


@pytest.mark.parametrize(
    ("raised", "calls", "kept"),
    [
        ([FederationError("every site failed")], 1, False),
        ([InputError("Krum needs more sites")], 1, False),
        ([StorageError("the disk is full")], 1, True),
        ([EngineError("ended with code -9")], 1, True),
        ([KeyboardInterrupt()], 1, True),
        ([CheckpointError("of another federation"), None], 2, True),
        ([CheckpointError("of another federation"), FederationError("every site failed")], 2, False),
    ],
)
def test_only_what_can_be_gone_on_from_keeps_its_checkpoint(
    raised: list[BaseException | None], calls: int, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, met = tmp_path / "checkpoint", []

    def federation(
        samples: Any, request: Any, *, folder: Path, ledgers: Path, guards: Any, on_round: Any, watch: Any
    ) -> FederationResult:
        met.append(folder.exists())
        folder.mkdir(exist_ok=True)
        error = raised[len(met) - 1]
        if error is not None:
            raise error
        return RESULT

    monkeypatch.setattr("bench.training.run_federation", federation)
    last = raised[-1]
    request = FederationRequest(model="logistic", strategy="fedavg")
    if last is None:
        assert _federation([], request, checkpoint, tmp_path / "ledgers", lambda _: None, {}) is RESULT
    else:
        with pytest.raises(type(last)):
            _federation([], request, checkpoint, tmp_path / "ledgers", lambda _: None, {})
    assert met == [False] * calls
    assert checkpoint.exists() == kept


def _left(strategy: str, result: FederationResult) -> dict[str, list[str]]:
    served: Any = [
        SimpleNamespace(samples=SimpleNamespace(site=name, external=name == "paris"))
        for name in ("boston", "lyon", "paris", "usa")
    ]
    spec: Any = SimpleNamespace(strategy=SimpleNamespace(name=strategy), privacy=None)
    left: dict[str, list[str]] = {}
    for release in releases(spec, served, result):
        left.setdefault(release.where, []).append(release.what)
    return left


def test_a_record_lists_what_each_site_answered_and_no_more() -> None:
    told = {"query.site", "query.statistics", "query.space"}
    answered = {"boston": told | {"train", "evaluate"}, "lyon": told, "usa": {"query.site"}}
    result = replace(RESULT, answered={site: frozenset(actions) for site, actions in answered.items()})
    everything = [what for action, what in RELEASED.items() if action != "train.masked"]
    assert _left("cyclic", result) == {"boston": everything, "lyon": everything[:2], "usa": everything[:1]}
    assert _left("pooled", result) == {}
    alone = replace(result, answered={"boston": frozenset({"model"})}, by_site={"boston": RESULT, "lyon": RESULT})
    assert _left("external", alone) == {"boston": ["model that the site trained alone"]}
