"""Series: an hourly grid of the window before prediction time, as GRU-D (Che et al. 2018) wants it.

Each hour holds the last reading of each concept in that hour. Hours without one carry the last value forward, hours
before the first one hold the mean (0); a mask says which values were measured, and `delta` how long ago. What
describes the patient (age, sex, ...) stands in every hour.
"""

from dataclasses import asdict

import numpy as np
import polars as pl

from fedcore.features import noisy
from fedcore.features.events import Record, describing_concepts, scale_of, series_concepts
from fedcore.features.representation import Arrays, FeatureSpace, Raw
from fedcore.samples import SiteSamples
from fedcore.statistics import Column, standard, standardise
from privacy.noise import Source
from privacy.releases.sketches import DEFAULT_MINIMUM, Moments, Sketch, Sketches
from sites.dataset import Dataset
from sites.errors import InputError


def columns() -> tuple[Column, ...]:
    """Measured concepts, then describing ones. Wide laboratory values are seen as logarithms, as in `tabular`."""
    return (
        *(Column(c.name, c.low, c.high, scale_of(c)) for c in series_concepts()),
        *(Column(c.name, c.low, c.high) for c in describing_concepts()),
    )


def _hours(window_hours: float) -> int:
    return max(1, round(window_hours))


class Series:
    """See the module."""

    name = "series"

    def extract(self, dataset: Dataset, samples: pl.DataFrame, window_hours: float) -> Raw:
        """Find the last reading of each hour.

        Returns:
            The cells of the grid that were measured: `cells.offsets` int64 [n + 1], `cells.index` int32 (concept),
            `cells.hour` int16 (0 is the first hour of the window, -1 for what describes the patient) and
            `cells.value` float32, in the concept's unit.
        """
        record = Record(dataset, samples, window_hours)
        hours = _hours(window_hours)
        # The window holds both its ends: what is charted at prediction time belongs to the last hour.
        hour = ((pl.col("hours") + window_hours).floor().clip(0, hours - 1)).cast(pl.Int16)
        cells = []
        for shard in record.shards():
            # Sorted by row, concept and time: the last of an hour is the one before a change.
            changes = pl.any_horizontal(pl.col(c).ne_missing(pl.col(c).shift(-1)) for c in ("row", "concept", "hour"))
            grid = (
                shard.measured.with_columns(hour=hour)
                .filter(changes)
                .select("row", "hour", index=pl.col("concept").cast(pl.Int32), value="value")
            )
            once = shard.described.select(
                "row",
                hour=pl.lit(-1, pl.Int16),
                index=pl.col("concept").cast(pl.Int32) + len(series_concepts()),
                value="value",
            )
            cells.append(pl.concat([grid, once]))
        found = pl.concat(cells).sort("row", "hour", "index")
        per_row = np.bincount(found["row"].to_numpy(), minlength=samples.height)
        return Raw(
            {
                "cells.offsets": np.concatenate([[0], np.cumsum(per_row)]).astype(np.int64),
                "cells.index": found["index"].to_numpy(),
                "cells.hour": found["hour"].to_numpy(),
                "cells.value": found["value"].to_numpy().astype(np.float32),
            },
            {"cells": tuple(c.name for c in columns())},
        )

    def sketch(self, samples: SiteSamples, minimum: int = DEFAULT_MINIMUM) -> dict[str, Sketch]:
        """Moments of each concept over the measured cells. Its plausible range is public and serves for clipping."""
        owner = np.repeat(samples.patient_id, np.diff(samples.raw["cells.offsets"]))
        names = samples.names["cells"]
        values = _seen(samples)
        return {"concepts": Moments.release(names, samples.raw["cells.index"], values, owner, minimum)}

    def sketch_privately(self, samples: SiteSamples, noise_multiplier: float, source: Source) -> dict[str, Sketch]:
        """One value of each patient for each concept, on a coarse public grid, with noise."""
        listed = noisy.listed()
        values = noisy.means(samples, "cells", listed, samples.raw["cells.value"])
        return noisy.release(listed, values, noise_multiplier, source)

    def agree(self, sketches: Sketches) -> FeatureSpace:
        """Keep the concepts that vary; of noisy sketches, the concepts met."""
        if noisy.KEY in sketches:
            agreed = noisy.standard(noisy.lies(sketches[noisy.KEY]))
            return FeatureSpace(self.name, **asdict(agreed), sizes={"x": len(agreed.columns)})
        moments = sketches["concepts"]
        if not isinstance(moments, Moments):
            raise InputError("the sites sent sketches of another representation than series")
        agreed = standard([c.name for c in columns()], moments)
        if not agreed.columns:
            raise InputError("no site has enough training patients with measurements to agree on a single series")
        return FeatureSpace(
            representation=self.name,
            **asdict(agreed),
            sizes={"x": len(agreed.columns)},
        )

    def encode(self, samples: SiteSamples, space: FeatureSpace) -> Arrays:
        """Fill the grid.

        Returns:
            float32 [n, hours, concepts] each: `x` standardised, carried forward, 0 before the first reading; `mask` 1
            where measured in this hour; `delta` the hours since the last reading (or since the window began), 0 where
            measured.
        """
        hours = _hours(samples.window_hours)
        place = {name: i for i, name in enumerate(space.columns)}
        to = np.array([place.get(name, -1) for name in samples.names["cells"]], np.int64)
        column = to[samples.raw["cells.index"]]
        known = column >= 0
        column = column[known]
        row = np.repeat(np.arange(len(samples)), np.diff(samples.raw["cells.offsets"]))[known]
        hour = samples.raw["cells.hour"][known].astype(np.int64)
        limits = (np.array(v, np.float64)[column] for v in (space.center, space.scale, space.low, space.high))
        value = standardise(_seen(samples)[known], *limits)
        x = np.zeros((len(samples), hours, len(place)), np.float32)
        mask = np.zeros_like(x)
        delta = np.zeros_like(x)
        timed = hour >= 0
        x[row[timed], hour[timed], column[timed]] = value[timed]
        mask[row[timed], hour[timed], column[timed]] = 1
        x[row[~timed], :, column[~timed]] = value[~timed, None]
        mask[row[~timed], :, column[~timed]] = 1
        delta[:, 0] = 1 - mask[:, 0]
        for h in range(1, hours):
            x[:, h] = np.where(mask[:, h] > 0, x[:, h], x[:, h - 1])
            delta[:, h] = np.where(mask[:, h] > 0, 0, delta[:, h - 1] + 1)
        return {"x": x, "mask": mask, "delta": delta}


def _seen(samples: SiteSamples) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """The cells' values on the scale on which they are standardised."""
    index, value = np.asarray(samples.raw["cells.index"]), samples.raw["cells.value"].astype(np.float64)
    known = {c.name: c for c in columns()}
    for i, name in enumerate(samples.names["cells"]):
        if known[name].kind != "linear":
            here = index == i
            value[here] = known[name].seen(value[here])
    return value


REPRESENTATION = Series()
