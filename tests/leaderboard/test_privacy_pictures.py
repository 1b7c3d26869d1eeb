"""Pictures of privacy: what stands in them, and that they are the same each time."""

from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from leaderboard.pictures import frontier, spending
from leaderboard.pictures.frontier import Frontier, Point


def test_a_frontier_shows_budgets_no_noise_and_no_information(tmp_path: Path) -> None:
    curves = {
        "logistic fedavg": {0.5: Point(0.6, 0.5, 0.7), 8.0: Point(0.8, 0.7, 0.9), None: Point(0.85)},
        "gru fedavg": {8.0: Point(0.7)},
    }
    picture = Frontier("a task", "AUROC", curves, {"logistic pooled": Point(0.86)}, 0.5)
    svg, png = frontier.draw(picture, tmp_path / "a" / "frontier")
    text = svg.read_text(encoding="utf-8")
    for word in ("0.5", "8", "no noise", "no information", "logistic fedavg", "gru fedavg", "logistic pooled"):
        assert f">{word}" in text, word
    assert png.read_bytes()[:4] == b"\x89PNG"
    assert frontier.draw(picture, tmp_path / "b" / "frontier")[0].read_text(encoding="utf-8") == text


def test_spending_shows_each_site_beside_its_budget(tmp_path: Path) -> None:
    spent = {"amman": ([0, 1], [0.4, 0.9]), "bern": ([0, 1], [0.4, 1.0])}
    svg, _ = spending.draw([spending.Spending("epsilon 1", 1.0, spent)], tmp_path / "spent")
    text = svg.read_text(encoding="utf-8")
    assert all(f">{word}" in text for word in ("amman", "bern", "budget", "epsilon spent"))
