"""What sites agree on with differential privacy: where the values of each concept of a public list lie.

Each patient gives one value of each concept, or none, into one cell of a coarse public grid (`NoisyHistogram`). The
concepts come from concepts.yaml, so that which of them are listed tells of no patient; a concept whose counts noise
alone could make is left out. Codes are not agreed on: there is no public list of those that hospitals use.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fedcore.features.events import describing_concepts, scale_of, series_concepts
from fedcore.samples import SiteSamples
from fedcore.statistics import CELLS, CLIP_DEVIATIONS, Column, Standard
from privacy.noise import Source
from privacy.releases.sketches import NoisyHistogram, Sketch
from sites.errors import InputError

KEY = "listed"
"""Under which name the sketch travels."""

COARSE = 16
"""Cells of the public grid: the fewer, the less noise a quantile gathers."""

SPREAD = (0.16, 0.5, 0.84)
"""Of a normal distribution, the mean and one standard deviation to each side."""

Values = npt.NDArray[np.float64]


def listed(*, describing: bool = True) -> tuple[Column, ...]:
    """The public list, sorted by name: measured concepts and, if asked for, describing ones."""
    measured = [Column(c.name, c.low, c.high, scale_of(c)) for c in series_concepts()]
    others = [
        Column(c.name, c.low, c.high, "flag" if (c.low, c.high) == (0, 1) else "linear")
        for c in describing_concepts()
        if c.name != "icu_type"
    ]
    return tuple(sorted([*measured, *(others if describing else [])], key=lambda column: column.name))


def firsts(samples: SiteSamples) -> npt.NDArray[np.int64]:
    """The position of each patient's first sample, ascending."""
    return np.sort(np.unique(samples.patient_id, return_index=True)[1]).astype(np.int64)


def means(samples: SiteSamples, group: str, listed: Sequence[Column], value: npt.NDArray[np.floating]) -> Values:
    """Of each patient's first sample, each listed concept's mean on the scale on which it is standardised.

    Args:
        samples: the site's.
        group: the ragged group whose `index` says which concept a value is of.
        listed: the concepts.
        value: float, one an entry of the group, in the concept's unit; NaN for what is no number.

    Returns:
        float64 [patients, listed], NaN where there is none.
    """
    place = {column.name: i for i, column in enumerate(listed)}
    offsets = np.asarray(samples.raw[f"{group}.offsets"])
    to = np.array([place.get(name, -1) for name in samples.names[group]], np.int64)
    column = to[samples.raw[f"{group}.index"]]
    patients = firsts(samples)
    whose = np.full(len(samples), -1, np.int64)
    whose[patients] = np.arange(len(patients))
    row = np.repeat(whose, np.diff(offsets))
    counted = (column >= 0) & (row >= 0) & ~np.isnan(value)
    shape = (len(patients), len(listed))
    at = row[counted] * len(listed) + column[counted]
    seen = value[counted].astype(np.float64)
    for i, one in enumerate(listed):
        if one.kind in ("log", "count"):
            here = column[counted] == i
            seen[here] = one.seen(seen[here])
    number = np.bincount(at, minlength=shape[0] * shape[1])
    total = np.bincount(at, weights=seen, minlength=shape[0] * shape[1])
    mean: Values = np.divide(total, number, out=np.full(number.shape, np.nan), where=number > 0).reshape(shape)
    return mean


def release(listed: Sequence[Column], values: Values, noise_multiplier: float, source: Source) -> dict[str, Sketch]:
    """The sketch of float [patients, listed], on the scale on which they are standardised."""
    edges = np.stack([column.edges()[:: CELLS // COARSE] for column in listed])
    noise = source.normal((len(listed), COARSE))
    names = [column.name for column in listed]
    return {KEY: NoisyHistogram.release(names, edges, values, noise_multiplier, noise)}


Lies = Mapping[str, tuple[float, float]]
"""Column -> its centre and its scale."""


def lies(sketch: Sketch) -> Lies:
    """Where the values of each concept lie that noise alone could not make.

    A flag stays as it is.

    Args:
        sketch: of the whole federation.

    Raises:
        InputError: it is of another kind, or all is noise.
    """
    if not isinstance(sketch, NoisyHistogram):
        raise InputError("the sites sent sketches of another representation")
    spread = zip(sketch.names, *sketch.quantiles(*SPREAD), strict=True)
    found = {name: (float(middle), float(high - low) / 2) for name, low, middle, high in spread if high > low}
    found |= {column.name: (0.0, 1.0) for column in listed() if column.name in found and column.kind == "flag"}
    if not found:
        raise InputError("with so much noise no feature can be told; expected a larger epsilon or more patients")
    return found


def standard(kept: Lies) -> Standard:
    """How these columns are standardised."""
    return Standard(
        columns=tuple(kept),
        center=tuple(c for c, _ in kept.values()),
        scale=tuple(s for _, s in kept.values()),
        low=tuple(c - CLIP_DEVIATIONS * s for c, s in kept.values()),
        high=tuple(c + CLIP_DEVIATIONS * s for c, s in kept.values()),
    )
