"""What a cell's cache keys rest on."""

from pathlib import Path

import pytest

from bench import code as trained_code
from bench import plan
from bench.code import training_code
from fedcore.fingerprint import reached


def test_a_new_or_changed_evaluator_scores_anew_and_retrains_nothing() -> None:
    training = reached([*trained_code.TRAINING_MODULES, "fedcore.models.gru", "fedcore.strategies.fedavg"])
    scoring = reached(plan.SCORING_MODULES)
    evaluators = {"leaderboard.evaluators.prediction", "leaderboard.evaluators.calibration", "leaderboard.statistics"}
    assert evaluators <= set(scoring)
    assert evaluators.isdisjoint(training)
    assert {"bench.plan", "bench.suite", "leaderboard.store", "leaderboard.statistics"}.isdisjoint(training)


def test_a_users_representation_is_part_of_the_code_of_the_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedcore import fingerprint

    (tmp_path / "shown.py").write_text("from fedcore.features.tabular import REPRESENTATION\n")
    (tmp_path / "seen.py").write_text(
        "from dataclasses import replace\nfrom fedcore.models.logistic import MODEL as LOGISTIC\n"
        "MODEL = replace(LOGISTIC, representation='shown:REPRESENTATION')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def code() -> str:
        for kept in (fingerprint._source, fingerprint._imports, fingerprint._folders):
            kept.cache_clear()
        return training_code("seen:MODEL", "fedavg", None)

    before = code()
    (tmp_path / "unrelated.py").write_text("x = 1\n")
    assert code() == before
    (tmp_path / "shown.py").write_text("from fedcore.features.series import REPRESENTATION\n")
    assert code() != before
