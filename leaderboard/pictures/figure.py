"""What all pictures share: their look, and how they are written.

Figures are matplotlib's own objects, made without `pyplot`, which keeps global state. The same numbers give the same
SVG, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444")
"""Okabe and Ito's, which people tell apart who see fewer colours."""

MUTED = "#8a8a8a"
DPI = 150

LOOK: Any = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.5,
    "svg.hashsalt": "fedward",
    "svg.fonttype": "none",
}


@contextmanager
def drawing(width: float, height: float) -> Iterator[Figure]:
    """A figure of so many inches, in the look of all pictures."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as New

    with mpl.rc_context(LOOK):
        yield New(figsize=(width, height), layout="constrained")


def write(figure: Figure, path: Path) -> tuple[Path, Path]:
    """Write PATH.svg and PATH.png, inside `drawing`.

    Args:
        figure: what was drawn.
        path: without a suffix; its folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    svg, png = path.with_name(path.name + ".svg"), path.with_name(path.name + ".png")
    figure.savefig(svg, metadata={"Date": None, "Creator": None})
    figure.savefig(png, dpi=DPI, metadata={"Software": None})
    return svg, png
