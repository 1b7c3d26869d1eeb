"""What attacks find at how many false alarms: their ROC on logarithmic axes, a panel a federation.

The dashed diagonal is guessing. Where there is a privacy budget, the black line is what it leaves any attack: no curve
may pass it but by chance. To the left of the dotted line fewer than ten non-members lie above the threshold, and a
curve tells of single patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from leaderboard.pictures.figure import COLOURS, MUTED, drawing, write

if TYPE_CHECKING:
    from matplotlib.artist import Artist

Floats = NDArray[np.float64]

FEW = 10
"""Non-members above a threshold, below which a rate is not told."""


@dataclass(frozen=True)
class Panel:
    """One federation's curves.

    Attributes:
        title: what it is.
        curves: by attack, false and true positive rates from (0, 0) to (1, 1).
        others: how many non-members are behind them.
        bound: false positive rates and the largest true ones that the budget leaves; None: there is no budget.
    """

    title: str
    curves: Mapping[str, tuple[Floats, Floats]]
    others: int
    bound: tuple[Floats, Floats] | None = None


def _fine(fpr: Floats, tpr: Floats) -> tuple[Floats, Floats]:
    """The curve with points enough that a tie, which is a straight line, looks on logarithmic axes as it is."""
    between = np.geomspace(max(float(fpr[fpr > 0].min(initial=1.0)), 1e-9), 1, 300)
    x, y = np.append(fpr, between), np.append(tpr, np.interp(between, fpr, tpr))
    order = np.lexsort((y, x))
    return x[order], y[order]


def draw(rows: Sequence[Sequence[Panel]], path: Path) -> tuple[Path, Path]:
    """Draw the panels, rows of like length, and write PATH.svg and PATH.png.

    Args:
        rows: the panels.
        path: without a suffix.
    """
    across, down = max(len(row) for row in rows), len(rows)
    names = list(dict.fromkeys(name for row in rows for panel in row for name in panel.curves))
    least = 0.7 / max(panel.others for row in rows for panel in row)
    with drawing(2.75 * across + 0.4, 2.6 * down + 0.9) as figure:
        axes = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        for row, line in zip(rows, axes, strict=True):
            for place, panel in enumerate(row):
                axis = line[place]
                axis.plot([least, 1], [least, 1], color=MUTED, linestyle="--", linewidth=1)
                axis.axvline(FEW / panel.others, color=MUTED, linestyle=":", linewidth=1)
                for name, (fpr, tpr) in panel.curves.items():
                    axis.plot(*_fine(fpr, tpr), color=COLOURS[names.index(name) % len(COLOURS)], label=name)
                if panel.bound is not None:
                    axis.plot(*panel.bound, color="black", linewidth=1.2, label="most that the budget leaves")
                axis.set(xscale="log", yscale="log", xlim=(least, 1), ylim=(least, 1.15), title=panel.title)
            for axis in line[len(row) :]:
                axis.set_visible(False)
        for place in range(across):
            lowest = max(number for number, row in enumerate(rows) if len(row) > place)
            axes[lowest][place].tick_params(labelbottom=True)
        figure.supxlabel("false positive rate: non-members taken for members", fontsize=9)
        figure.supylabel("true positive rate: members found", fontsize=9)
        shown: dict[str, Artist] = {}
        for axis in axes.flat:
            handles, labels = axis.get_legend_handles_labels()
            shown |= dict(zip(labels, handles, strict=True))
        figure.legend(list(shown.values()), list(shown), loc="outside upper center", ncols=min(len(shown), 2 * across))
        return write(figure, path)
