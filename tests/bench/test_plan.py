"""What a cell's cache keys rest on."""

from bench import plan
from fedcore.fingerprint import reached


def test_a_new_or_changed_evaluator_scores_anew_and_retrains_nothing() -> None:
    training = reached([*plan.TRAINING_MODULES, "fedcore.models.gru", "fedcore.strategies.fedavg"])
    scoring = reached(plan.SCORING_MODULES)
    evaluators = {"leaderboard.evaluators.prediction", "leaderboard.evaluators.calibration", "leaderboard.statistics"}
    assert evaluators <= set(scoring)
    assert evaluators.isdisjoint(training)
