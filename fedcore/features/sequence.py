"""Sequence: the last events before prediction time, as tokens that mean the same at every hospital.

A token is a harmonised concept (with its value), or a group of diagnoses, procedures or drugs, or how the patient was
admitted. Codes that only one hospital could understand are left out. Each event comes with the hours since the event
before it.
"""

from dataclasses import asdict

import numpy as np
import polars as pl

from fedcore.features import noisy
from fedcore.features.events import Record, series_concepts
from fedcore.features.representation import Arrays, FeatureSpace, Raw
from fedcore.samples import SiteSamples
from fedcore.statistics import Standard, standard, standardise, vocabulary
from privacy.noise import Source
from privacy.releases.sketches import DEFAULT_MINIMUM, Counts, Moments, Sketch, Sketches
from sites.dataset import Dataset
from sites.errors import InputError

LENGTH = 256
"""The most events of a sample."""

VOCABULARY = 4000
PADDING, UNKNOWN, FIRST = 0, 1, 2
"""Positions in the model's vocabulary: padding, tokens that are not in it, and where its words begin."""


class Sequence:
    """See the module."""

    name = "sequence"

    def extract(self, dataset: Dataset, samples: pl.DataFrame, window_hours: float) -> Raw:
        """Find each sample's last `LENGTH` events: measurements of the window, and codes of the whole record.

        Returns:
            `events.offsets` int64 [n + 1], `events.index` int32 (token), `events.hours` float32 (<= 0, before
            prediction time) and `events.value` float32 (in the concept's unit; NaN for codes), in order of time.
        """
        record = Record(dataset, samples, window_hours)
        names = [c.name for c in series_concepts()]
        parts = []
        for shard in record.shards():
            measured = shard.measured.select("row", "hours", pl.col("concept").cast(pl.Int32).alias("index"), "value")
            coded = shard.coded.select(
                "row",
                "hours",
                (pl.col("index").cast(pl.Int32) + len(names)).alias("index"),
                value=pl.lit(None, pl.Float64),
            )
            events = pl.concat([measured, coded]).sort("row", "hours", "index")
            from_end = pl.len().over("row") - pl.int_range(pl.len(), dtype=pl.Int64).over("row")
            parts.append(events.filter(from_end <= LENGTH))
        found = pl.concat(parts).sort("row", maintain_order=True)
        per_row = np.bincount(found["row"].to_numpy(), minlength=samples.height)
        return Raw(
            {
                "events.offsets": np.concatenate([[0], np.cumsum(per_row)]).astype(np.int64),
                "events.index": found["index"].to_numpy(),
                "events.hours": found["hours"].to_numpy().astype(np.float32),
                "events.value": found["value"].fill_null(float("nan")).to_numpy().astype(np.float32),
            },
            {"events": (*names, *record.groups)},
        )

    def sketch(self, samples: SiteSamples, minimum: int = DEFAULT_MINIMUM) -> dict[str, Sketch]:
        """Patients by token, and moments of the values by concept."""
        owner = np.repeat(samples.patient_id, np.diff(samples.raw["events.offsets"]))
        index, value, names = samples.raw["events.index"], samples.raw["events.value"], samples.names["events"]
        numbers = ~np.isnan(value)
        return {
            "tokens": Counts.release(names, index, owner, minimum),
            "values": Moments.release(names, index[numbers], value[numbers], owner[numbers], minimum),
        }

    def sketch_privately(self, samples: SiteSamples, noise_multiplier: float, source: Source) -> dict[str, Sketch]:
        """One value of each patient for each concept, on a coarse public grid, with noise; no codes."""
        listed = noisy.listed(describing=False)
        values = noisy.means(samples, "events", listed, samples.raw["events.value"])
        return noisy.release(listed, values, noise_multiplier, source)

    def agree(self, sketches: Sketches) -> FeatureSpace:
        """Keep the most frequent tokens; of noisy sketches, the concepts met."""
        if noisy.KEY in sketches:
            agreed = noisy.standard(noisy.lies(sketches[noisy.KEY]))
            return self._space(agreed, agreed.columns)
        tokens, values = sketches["tokens"], sketches["values"]
        if not (isinstance(tokens, Counts) and isinstance(values, Moments)):
            raise InputError("the sites sent sketches of another representation than sequence")
        words = vocabulary(tokens, VOCABULARY)
        if not words:
            raise InputError("no site has enough training patients to agree on a single token")
        return self._space(standard(values.names, values), words)

    def _space(self, agreed: Standard, words: tuple[str, ...]) -> FeatureSpace:
        sizes = {"vocabulary": len(words) + FIRST, "length": LENGTH}
        return FeatureSpace(self.name, **asdict(agreed), vocabulary=words, sizes=sizes)

    def encode(self, samples: SiteSamples, space: FeatureSpace) -> Arrays:
        """Lay the events out.

        Returns:
            `code` int32 [n, LENGTH], 0 where there is no event (at the end) and 1 for tokens outside the vocabulary;
            `gap_hours` float32 [n, LENGTH], hours since the event before; `value` float32 [n, LENGTH], standardised
            by concept, 0 for codes; `length` int32 [n].
        """
        names = samples.names["events"]
        offsets, index = np.asarray(samples.raw["events.offsets"]), np.asarray(samples.raw["events.index"])
        length = np.diff(offsets)
        row = np.repeat(np.arange(len(samples)), length)
        at = np.arange(len(index)) - np.repeat(offsets[:-1], length)
        word = {name: i + FIRST for i, name in enumerate(space.vocabulary)}
        code = np.full((len(samples), LENGTH), PADDING, np.int32)
        code[row, at] = np.array([word.get(name, UNKNOWN) for name in names], np.int32)[index]
        hours = samples.raw["events.hours"]
        gap = np.diff(hours, prepend=np.float32(0))
        gap[at == 0] = 0
        gaps = np.zeros((len(samples), LENGTH), np.float32)
        gaps[row, at] = gap
        place = {name: i for i, name in enumerate(space.columns)}
        numbered = np.array([place.get(name, -1) for name in names], np.int64)[index]
        known = (numbered >= 0) & ~np.isnan(samples.raw["events.value"])
        values = np.zeros((len(samples), LENGTH), np.float32)
        limits = (np.array(v, np.float64)[numbered[known]] for v in (space.center, space.scale, space.low, space.high))
        values[row[known], at[known]] = standardise(samples.raw["events.value"][known], *limits)
        return {"code": code, "gap_hours": gaps, "value": values, "length": length.astype(np.int32)}


REPRESENTATION = Sequence()
