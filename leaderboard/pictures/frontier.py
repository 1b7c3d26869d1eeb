"""What privacy costs: a score at each budget of epsilon, beside what there is without noise and without information.

Points are means over split seeds, bars their 95 % intervals (Student's t). To the right of the gap no noise was added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from leaderboard.pictures.figure import COLOURS, MUTED, drawing, write


@dataclass(frozen=True)
class Point:
    """A score: its mean over seeds and its interval, None with a single seed."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Frontier:
    """One task's picture.

    Attributes:
        title: what it is.
        score: what is scored.
        curves: by federation, epsilon -> score; None: without noise.
        anchors: by name, the score of what knows no budget.
        nothing: the score of who knows nothing.
    """

    title: str
    score: str
    curves: Mapping[str, Mapping[float | None, Point]]
    anchors: Mapping[str, Point]
    nothing: float


def draw(frontier: Frontier, path: Path) -> tuple[Path, Path]:
    """Draw it, and write PATH.svg and PATH.png.

    Args:
        frontier: what to draw.
        path: without a suffix.
    """
    budgets = sorted({budget for curve in frontier.curves.values() for budget in curve if budget is not None})
    beyond = budgets[-1] * 2.5
    with drawing(6.4, 4.0) as figure:
        axis = figure.subplots()
        for style, (name, point) in zip(("--", "-.", (0, (1, 1))), frontier.anchors.items(), strict=False):
            axis.axhline(point.value, color=MUTED, linestyle=style, linewidth=1.2, label=f"{name}, no noise")
        axis.axhline(frontier.nothing, color="black", linewidth=1, label="no information")
        for number, (name, curve) in enumerate(frontier.curves.items()):
            colour, aside = COLOURS[number % len(COLOURS)], 1.03 ** (number - (len(frontier.curves) - 1) / 2)
            known = [budget for budget in budgets if budget in curve]
            axis.errorbar(
                [budget * aside for budget in known],
                [curve[budget].value for budget in known],
                yerr=_bars([curve[budget] for budget in known]),
                color=colour,
                marker="o",
                markersize=4,
                capsize=2,
                label=name,
            )
            if None in curve:
                axis.errorbar(
                    [beyond * aside],
                    [curve[None].value],
                    yerr=_bars([curve[None]]),
                    color=colour,
                    marker="D",
                    markersize=4,
                    capsize=2,
                )
        axis.axvline((budgets[-1] * beyond) ** 0.5, color=MUTED, linestyle=":", linewidth=1)
        axis.set(xscale="log", title=frontier.title, xlabel="patient-level epsilon, of everything a site releases")
        axis.set_ylabel(frontier.score)
        axis.set_xticks([*budgets, beyond], [*(f"{budget:g}" for budget in budgets), "no noise"], minor=False)
        axis.set_xticks([], minor=True)
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return write(figure, path)


def _bars(points: Sequence[Point]) -> list[list[float]]:
    low = [0.0 if point.low is None else point.value - point.low for point in points]
    high = [0.0 if point.high is None else point.high - point.value for point in points]
    return [low, high]
