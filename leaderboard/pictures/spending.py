"""What sites have spent, round by round: first on what they agree on, then on training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from leaderboard.pictures.figure import COLOURS, MUTED, drawing, write


@dataclass(frozen=True)
class Spending:
    """One federation's panel.

    Attributes:
        title: what it is.
        budget: epsilon.
        spent: by site, rounds and the epsilon spent after each; at round 0 on statistics alone.
    """

    title: str
    budget: float
    spent: Mapping[str, tuple[Sequence[int], Sequence[float]]]


def draw(panels: Sequence[Spending], path: Path) -> tuple[Path, Path]:
    """Draw the panels side by side, and write PATH.svg and PATH.png.

    Args:
        panels: one at least.
        path: without a suffix.
    """
    names = list(dict.fromkeys(name for panel in panels for name in panel.spent))
    with drawing(2.5 * len(panels) + 1.6, 3.2) as figure:
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for panel, axis in zip(panels, axes, strict=True):
            axis.axhline(panel.budget, color="black", linewidth=1, label="budget")
            for name, (rounds, spent) in panel.spent.items():
                colour = COLOURS[names.index(name) % len(COLOURS)]
                axis.plot(rounds, spent, color=colour, marker="o", markersize=3, label=name)
            axis.axvline(0, color=MUTED, linestyle=":", linewidth=1)
            axis.set(title=panel.title, xlabel="round (0: statistics)", ylim=(0, panel.budget * 1.1))
        axes[0].set_ylabel("epsilon spent")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 4))
        return write(figure, path)
