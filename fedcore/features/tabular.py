"""Tabular: what a clinician's summary table would show at prediction time.

For every repeatedly measured concept, over the whole window: how often it was measured, the first, last, mean, lowest
and highest value and the least-squares slope per hour (where there are two readings or more); and over its last
quarter: how often, mean, lowest and highest. For describing concepts (age, sex, height, weight, ...) the last known
value; the ICU type as four flags. For diagnoses, procedures, drugs and admissions known by then, how often each
group occurs: a site that charts nothing has these.

Counts are seen as log(1 + n), laboratory values that span orders of magnitude as logarithms; every column is clipped
at agreed quantiles and standardised; a missing value becomes the mean, and a flag beside it says that it is missing.
"""

from collections.abc import Iterator
from dataclasses import asdict
from functools import cache, reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fedcore.features import noisy
from fedcore.features.events import Record, describing_concepts, scale_of, series_concepts
from fedcore.features.representation import Arrays, FeatureSpace, Raw
from fedcore.samples import SiteSamples
from fedcore.statistics import CELLS, Column, Floats, Kind, standard, standardise, vocabulary
from privacy.noise import Source
from privacy.releases.sketches import DEFAULT_MINIMUM, Counts, Histogram, Moments, Sketch, Sketches
from sites.dataset import Dataset
from sites.errors import InputError

VOCABULARY = 500
"""The most groups of codes that become columns."""

BLOCK = 64
"""Columns that are summed at once."""

ROWS = 8192
"""Samples that are encoded at once."""

RESOLVED = 40
"""A column's grid leaves a site only if so many times the minimum of patients have it: the outermost cell that may be
told apart then holds at most a fortieth of them. Of fewer patients the tails cannot be told without telling persons,
and limits from joined cells would cut into the bulk."""

MOST_READINGS = 10_000.0
LATE = 0.25
"""The share of the window that counts as its last part."""

WHOLE_STATISTICS = ("count", "first", "last", "mean", "min", "max", "slope")
LATE_STATISTICS = ("late_count", "late_mean", "late_min", "late_max")
ICU_TYPES = (1, 2, 3, 4)


@cache
def columns() -> tuple[Column, ...]:
    """The raw columns, in the order in which they are extracted."""
    out = []
    for concept in series_concepts():
        for name in (*WHOLE_STATISTICS, *LATE_STATISTICS):
            if name.endswith("count"):
                out.append(Column(f"{concept.name}.{name}", 0, MOST_READINGS, "count"))
            else:
                kind: Kind = "slope" if name == "slope" else scale_of(concept)
                out.append(Column(f"{concept.name}.{name}", concept.low, concept.high, kind))
    for concept in describing_concepts():
        if concept.name != "icu_type":
            kind = "flag" if (concept.low, concept.high) == (0, 1) else "linear"
            out.append(Column(concept.name, concept.low, concept.high, kind))
    return (*out, *(Column(f"icu_type={k}", 0, 1, "flag") for k in ICU_TYPES))


@cache
def _shown() -> tuple[Column, ...]:
    """The columns that are standardised: the raw ones, and a flag for what is missing."""
    whole = [Column(f"{c.name}.missing", 0, 1, "flag") for c in series_concepts()]
    once = [Column(f"{c.name}.missing", 0, 1, "flag") for c in describing_concepts()]
    return (*columns(), *whole, *once)


def _show(raw: npt.NDArray[Any], names: tuple[str, ...]) -> npt.NDArray[np.float32]:
    """Raw columns on the scale on which they are standardised, and the flags; float32 [n, `_shown()`]."""
    place = {name: i for i, name in enumerate(names)}
    out = np.empty((len(raw), len(_shown())), np.float32)
    for i, column in enumerate(_shown()):
        concept = column.name.removesuffix(".missing")
        if concept == column.name:
            out[:, i] = column.seen(raw[:, place[column.name]])
        else:
            source = next(n for n in (f"{concept}.last", concept, f"{concept}=1") if n in place)
            out[:, i] = np.isnan(raw[:, place[source]])
    return out


class Tabular:
    """See the module."""

    name = "tabular"

    def extract(self, dataset: Dataset, samples: pl.DataFrame, window_hours: float) -> Raw:
        """Summarise each sample's window.

        Returns:
            `x` float32 [n, columns], NaN where nothing was measured (counts are 0); `codes.offsets`, `codes.index`
            (int32) and `codes.count` (float32): the groups of codes known by prediction time and how often.
        """
        record = Record(dataset, samples, window_hours)
        width = len(WHOLE_STATISTICS) + len(LATE_STATISTICS)
        series, describing = series_concepts(), describing_concepts()
        x = np.full((samples.height, len(columns())), np.nan, np.float32)
        for i, column in enumerate(columns()):
            if column.kind == "count":
                x[:, i] = 0
        coded = []
        for shard in record.shards():
            for offset, statistics in _summaries(shard.measured, window_hours):
                row, concept = statistics.pop("row"), statistics.pop("concept")
                for i, values in enumerate(statistics.values()):
                    x[row, concept.astype(np.int64) * width + offset + i] = values
            _describe(x, shard.described, len(series) * width, [c.name for c in describing])
            coded.append(shard.coded.group_by("row", "index").agg(count=pl.len()).sort("row", "index"))
        codes = pl.concat(coded).sort("row", "index")
        per_row = np.bincount(codes["row"].to_numpy(), minlength=samples.height)
        return Raw(
            {
                "x": x,
                "codes.offsets": np.concatenate([[0], np.cumsum(per_row)]).astype(np.int64),
                "codes.index": codes["index"].to_numpy().astype(np.int32),
                "codes.count": codes["count"].to_numpy().astype(np.float32),
            },
            {"x": tuple(c.name for c in columns()), "codes": record.groups},
        )

    def sketch(self, samples: SiteSamples, minimum: int = DEFAULT_MINIMUM) -> dict[str, Sketch]:
        """Moments and clipping grids of the columns, patients by group of codes."""
        shown = _show(samples.raw["x"], samples.names["x"])
        names = [c.name for c in _shown()]
        _, one_each = np.unique(samples.patient_id, return_index=True)
        patients = shown[np.sort(one_each)]
        resolved = np.sum(~np.isnan(patients), axis=0) >= RESOLVED * minimum
        clipped = [i for i, c in enumerate(_shown()) if c.kind != "flag" and resolved[i]]
        owner = np.repeat(samples.patient_id, np.diff(samples.raw["codes.offsets"]))
        return {
            "columns": _moments(names, shown, samples.patient_id, minimum),
            "grid": Histogram.release(
                [names[i] for i in clipped],
                np.stack([_shown()[i].edges() for i in clipped]) if clipped else np.zeros((0, CELLS + 1)),
                patients[:, clipped],
                minimum,
            ),
            "codes": Counts.release(samples.names["codes"], samples.raw["codes.index"], owner, minimum),
        }

    def sketch_privately(self, samples: SiteSamples, noise_multiplier: float, source: Source) -> dict[str, Sketch]:
        """One value of each patient for each concept, on a coarse public grid, with noise; no codes."""
        listed = noisy.listed()
        place = {name: i for i, name in enumerate(samples.names["x"])}
        shown = {column.name: column for column in columns()}
        typical = [next(n for n in (f"{one.name}.mean", one.name) if n in shown) for one in listed]
        x = samples.raw["x"][noisy.firsts(samples)]
        values = np.stack([shown[name].seen(x[:, place[name]]) for name in typical], axis=1)
        return noisy.release(listed, values.astype(np.float64), noise_multiplier, source)

    def agree(self, sketches: Sketches) -> FeatureSpace:
        """Keep the columns that vary and the most frequent groups of codes; of noisy sketches, the concepts met."""
        if noisy.KEY in sketches:
            agreed = noisy.standard(_kept_privately(noisy.lies(sketches[noisy.KEY])))
            return FeatureSpace(self.name, **asdict(agreed), sizes={"x": len(agreed.columns)})
        moments, grid, codes = sketches["columns"], sketches["grid"], sketches["codes"]
        if not (isinstance(moments, Moments) and isinstance(grid, Histogram) and isinstance(codes, Counts)):
            raise InputError("the sites sent sketches of another representation than tabular")
        agreed = standard([c.name for c in _shown()], moments, grid)
        words = vocabulary(codes, VOCABULARY)
        if not agreed.columns and not words:
            raise InputError("no site has enough training patients to agree on a single feature")
        return FeatureSpace(
            representation=self.name,
            **asdict(agreed),
            vocabulary=words,
            sizes={"x": len(agreed.columns) + len(words)},
        )

    def encode(self, samples: SiteSamples, space: FeatureSpace) -> Arrays:
        """Return `x` float32 [n, columns + vocabulary]: standardised columns, then log(1 + count) of each group."""
        place = {c.name: i for i, c in enumerate(_shown())}
        kept = [place[name] for name in space.columns]
        limits = [np.array(v, np.float64) for v in (space.center, space.scale, space.low, space.high)]
        x = np.zeros((len(samples), len(kept) + len(space.vocabulary)), np.float32)
        for first in range(0, len(samples), ROWS):
            rows = slice(first, first + ROWS)
            shown = _show(np.asarray(samples.raw["x"][rows]), samples.names["x"])
            x[rows, : len(kept)] = standardise(shown[:, kept], *limits)
        word = {name: i for i, name in enumerate(space.vocabulary)}
        to = np.array([word.get(name, -1) for name in samples.names["codes"]], np.int64)
        row = np.repeat(np.arange(len(samples)), np.diff(samples.raw["codes.offsets"]))
        column = to[samples.raw["codes.index"]]
        known = column >= 0
        x[row[known], len(kept) + column[known]] = np.log1p(samples.raw["codes.count"][known])
        return {"x": x}


def _kept_privately(lies: noisy.Lies) -> noisy.Lies:
    """Of a concept the last value and whether it is missing: each column more is more noise."""
    kept = {}
    for column in _shown():
        concept, _, statistic = column.name.partition(".")
        if statistic in ("", "last", "missing") and concept in lies:
            kept[column.name] = (0.0, 1.0) if column.kind == "flag" else lies[concept]
    return kept


def _moments(names: list[str], shown: Floats, patient: npt.NDArray[np.int64], minimum: int) -> Moments:
    """Moments of what is present, a few columns at a time."""
    parts = []
    for first in range(0, len(names), BLOCK):
        block = shown[:, first : first + BLOCK]
        row, column = np.nonzero(~np.isnan(block))
        parts.append(Moments.release(names[first : first + BLOCK], column, block[row, column], patient[row], minimum))
    return reduce(Moments.merge, parts)


def _summaries(measured: pl.DataFrame, window_hours: float) -> Iterator[tuple[int, dict[str, npt.NDArray[Any]]]]:
    """Statistics of each row and concept: of the whole window, then of its last part.

    Sums run over each sample's readings in order of time, so they do not depend on the number of threads.
    """
    row, concept, hours, value = (measured[c].to_numpy() for c in ("row", "concept", "hours", "value"))
    late = hours > -LATE * window_hours
    for offset, names, seen in ((0, WHOLE_STATISTICS, slice(None)), (len(WHOLE_STATISTICS), LATE_STATISTICS, late)):
        r, c, t, v = row[seen], concept[seen], hours[seen], value[seen]
        if not len(r):
            continue
        start = np.flatnonzero(np.concatenate([[True], (r[1:] != r[:-1]) | (c[1:] != c[:-1])]))
        n = np.diff(np.append(start, len(r)))
        mean = np.add.reduceat(v, start) / n
        every = {
            "row": r[start], "concept": c[start], "count": n, "first": v[start], "last": v[start + n - 1],
            "mean": mean, "min": np.minimum.reduceat(v, start), "max": np.maximum.reduceat(v, start),
        }  # fmt: skip
        if "slope" in names:
            from_mean = t - np.repeat(np.add.reduceat(t, start) / n, n)
            spread = np.add.reduceat(from_mean**2, start)
            shared = np.add.reduceat(from_mean * (v - np.repeat(mean, n)), start)
            # Readings minutes apart make no trend.
            every["slope"] = np.divide(shared, spread, out=np.full(len(n), np.nan), where=spread > MINIMUM_SPREAD)
        yield offset, {name: every[name.removeprefix("late_")] for name in ("row", "concept", *names)}


MINIMUM_SPREAD = 0.005
"""In squared hours: two readings six minutes apart."""


def _describe(x: npt.NDArray[np.float32], described: pl.DataFrame, offset: int, names: list[str]) -> None:
    """Enter the describing concepts; the ICU type becomes flags."""
    ordinary = [name for name in names if name != "icu_type"]
    for i, name in enumerate(names):
        found = described.filter(pl.col("concept") == i)
        row, value = found["row"].to_numpy(), found["value"].to_numpy()
        if name == "icu_type":
            for k, kind in enumerate(ICU_TYPES):
                x[row, offset + len(ordinary) + k] = value == kind
        else:
            x[row, offset + ordinary.index(name)] = value


REPRESENTATION = Tabular()
