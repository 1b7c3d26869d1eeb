"""What a record says of training."""

from dataclasses import replace

from bench.training import _training
from fedcore.engines.grid import Dropped
from fedcore.federation import FederationResult
from fedcore.server import RoundReport, Trial

TRIALS = [
    Trial({"l2": 0.1}, 2, 0.5, 2),
    Trial({"l2": 0.3}, 1, 0.4, 2),
    Trial({"l2": 9.0}, None, None, 1, "diverged"),
]
RESULT = FederationResult(
    predictions={},
    arrays={},
    space=None,
    settings={"l2": 0.3},
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
    rounds = _training(RESULT).rounds
    assert [(one.round, one.train_loss) for one in rounds] == [(1, 0.6), (2, 0.6)]


def test_a_site_that_took_no_part_in_training_stands_in_the_record_with_the_reason() -> None:
    skipped = _training(replace(RESULT, skipped={"usa": "fewer than 10 training patients"})).skipped
    assert [(one.name, one.reason) for one in skipped] == [("usa", "fewer than 10 training patients")]


def test_a_trial_without_a_loss_says_why() -> None:
    assert _training(RESULT).trials[2].note == "diverged"


def test_the_trials_of_sites_that_train_alone_name_their_site_and_no_curve_mixes_them() -> None:
    alone = replace(RESULT, chosen=None, settings={}, trials=[replace(trial, site="boston") for trial in TRIALS])
    assert {trial.settings["site"] for trial in _training(alone).trials} == {"boston"}
    assert _training(alone).rounds == ()


def test_answers_that_did_not_count_are_those_of_the_chosen_trial_one_entry_a_reason() -> None:
    (dropped,) = _training(RESULT).dropped
    assert (dropped.site, dropped.action, dropped.reason, dropped.rounds) == ("usa", "train", "late", (1, 2))
