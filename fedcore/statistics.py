"""What sites must agree on before they can train together: a vocabulary, and the centre and scale of every column.

Sites send sketches of their training samples (`privacy.releases.sketches`); the functions here turn merged sketches
into the numbers of a `FeatureSpace`, and those numbers into standardised tensors. Nothing in this file sees a sample
and a sketch together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from privacy.releases.sketches import Counts, Histogram, Moments

CELLS = 128
"""Cells of the public grid on which clipping quantiles are found."""

CLIP_QUANTILES = (0.005, 0.995)
CLIP_DEVIATIONS = 5.0
"""No standardised value is farther from 0 than this."""

Floats = npt.NDArray[np.float32]
Kind = Literal["linear", "log", "count", "slope", "flag"]


@dataclass(frozen=True)
class Column:
    """A numeric column, and the public facts about it: they come from concepts.yaml, never from data.

    Attributes:
        name: Unique.
        low: The smallest plausible value.
        high: The largest.
        kind: `linear`: as it is. `log`: spread over orders of magnitude, seen as log(1 + value / unit). `count`: seen
            as log(1 + value). `slope`: as it is, on a grid dense around 0. `flag`: 0 or 1, never clipped.
    """

    name: str
    low: float
    high: float
    kind: Kind = "linear"

    def seen(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Values on the scale on which they are averaged and standardised; NaN stays."""
        if self.kind == "log":
            unit = self.low if self.low > 0 else self.high * 1e-4
            return cast("npt.NDArray[Any]", np.log1p(np.maximum(values, 0) / unit))
        return cast("npt.NDArray[Any]", np.log1p(values)) if self.kind == "count" else values

    def edges(self) -> npt.NDArray[np.float64]:
        """The public grid on that scale, float64 [CELLS + 1]."""
        if self.kind == "slope":
            return np.linspace(-1.0, 1.0, CELLS + 1) ** 3 * (self.high - self.low)
        low, high = self.seen(np.array([self.low, self.high], np.float64))
        return np.linspace(low, high, CELLS + 1)


def vocabulary(counts: Counts, limit: int) -> tuple[str, ...]:
    """The names that most patients of the federation have, most frequent first, at most `limit`."""
    order = sorted(zip((-counts.counts).tolist(), counts.names, strict=True))
    return tuple(name for _, name in order[:limit])


@dataclass(frozen=True)
class Standard:
    """How columns are standardised.

    Attributes:
        columns: Those that vary, in the order asked for.
        center: Their means.
        scale: Their standard deviations, above 0.
        low: What smaller values are raised to.
        high: What larger values are lowered to.
    """

    columns: tuple[str, ...]
    center: tuple[float, ...]
    scale: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def standard(order: Sequence[str], moments: Moments, histogram: Histogram | None = None) -> Standard:
    """Agree on centre, scale and limits.

    Args:
        order: All columns, in the order in which they shall stand.
        moments: Of the whole federation; columns that it lacks, or that do not vary, are dropped.
        histogram: For the limits (`CLIP_QUANTILES`); a column that it lacks has none.
    """
    at = {name: i for i, name in enumerate(moments.names)}
    mean, deviation = moments.mean(), moments.deviation()
    limits: dict[str, tuple[float, float]] = {}
    if histogram is not None and histogram.names:
        low, high = (histogram.quantile(q).tolist() for q in CLIP_QUANTILES)
        limits = dict(zip(histogram.names, zip(low, high, strict=True), strict=True))
    kept = [name for name in order if name in at and deviation[at[name]] > 0]
    # JSON has no infinity: without a limit of its own, a column ends where standardised values are cut anyway.
    wide = {n: (mean[at[n]] - 1e3 * deviation[at[n]], mean[at[n]] + 1e3 * deviation[at[n]]) for n in kept}
    return Standard(
        tuple(kept),
        tuple(float(mean[at[n]]) for n in kept),
        tuple(float(deviation[at[n]]) for n in kept),
        tuple(float(limits.get(n, wide[n])[0]) for n in kept),
        tuple(float(limits.get(n, wide[n])[1]) for n in kept),
    )


def standardise(
    values: npt.NDArray[Any],
    center: npt.NDArray[Any],
    scale: npt.NDArray[Any],
    low: npt.NDArray[Any],
    high: npt.NDArray[Any],
) -> Floats:
    """Clip, centre and scale; NaN becomes 0, the mean. The arguments broadcast; float32."""
    out = (np.clip(values, low, high) - center) / scale
    out = np.clip(np.nan_to_num(out, nan=0.0, posinf=0.0, neginf=0.0), -CLIP_DEVIATIONS, CLIP_DEVIATIONS)
    return cast("Floats", out.astype(np.float32))
