"""What a sample's record shows before its prediction time: the one place that decides which events may be seen.

Three kinds of facts, each as a table with a row number into `samples`:

- measured: harmonised readings of the window before prediction time;
- described: the last value known by then of what does not change within a stay (age, sex, height, ICU type, ...);
- coded: diagnoses, procedures, drugs and admissions known by then, as groups that hospitals share.

An event counts if `time <= prediction_time`; a time is when a fact was known (`sites.exports.export`), so that no
feature can know more than those who treated the patient. Facts without time (sex) are always known. The window begins
at `prediction_time - window_hours`, the trigger of our tasks, and includes that very moment.

Shards are read one after another: memory is bounded by a shard, and no Python runs for each patient or event.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import polars as pl

from sites.codes import group
from sites.concepts import Concept, concepts, harmonise, mapping
from sites.dataset import Dataset

DESCRIBING = ("body", "cardiac")
"""Kinds of concepts of which only the last known value is a feature."""

ADMINISTRATIVE = ("HOSPITAL_ADMISSION//", "ICU_ADMISSION//", "SERVICE//")
"""Codes that count as they are: how and where the patient was admitted."""

OLDEST_YEARS = 90.0
"""Ages above 89 are not told apart in de-identified exports."""


def series_concepts() -> tuple[Concept, ...]:
    """The concepts that are measured again and again."""
    return tuple(c for c in concepts() if c.kind not in DESCRIBING)


def describing_concepts() -> tuple[Concept, ...]:
    """The concepts that describe the patient."""
    return tuple(c for c in concepts() if c.kind in DESCRIBING)


def scale_of(concept: Concept) -> Literal["linear", "log"]:
    """Logarithms for what spans two orders of magnitude or begins at 0; a percentage does neither."""
    wide = concept.kind in ("lab", "output") and concept.unit != "%" and concept.high >= 100 * concept.low
    return "log" if wide else "linear"


@dataclass(frozen=True)
class Shard:
    """One shard's facts, each up to the prediction times.

    Attributes:
        measured: row (UInt32), concept (UInt16, position in `series_concepts()`), hours (Float64, <= 0, before
            prediction time), value (Float64); sorted by row, concept, hours.
        described: row, concept (UInt16, position in `describing_concepts()`), value; one row each, sorted.
        coded: row, index (UInt32, position in `Record.groups`), hours; sorted by row, hours, index.
    """

    measured: pl.DataFrame
    described: pl.DataFrame
    coded: pl.DataFrame


@dataclass(frozen=True)
class Record:
    """The events of a dataset that samples may see.

    Attributes:
        dataset: The site's events.
        samples: `subject_id` and `prediction_time` of each sample.
        window_hours: How far back measurements are looked at.
    """

    dataset: Dataset
    samples: pl.DataFrame
    window_hours: float

    @cached_property
    def _grouped(self) -> pl.DataFrame:
        """Code to group, for the codes of this dataset that have one."""
        codes = self.dataset.codes.select("code")
        own = codes.filter(pl.any_horizontal(pl.col("code").str.starts_with(p) for p in ADMINISTRATIVE))
        shared = group(codes["code"].to_list()).select("code", "group").drop_nulls()
        found = pl.concat([shared, own.select("code", group="code")]).unique()
        return found.with_columns(index=(pl.col("group").rank("dense") - 1).cast(pl.UInt32)).sort("code", "group")

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """The groups of codes at this site, sorted."""
        return tuple(self._grouped["group"].unique().sort())

    def shards(self) -> Iterator[Shard]:
        """Read the dataset, shard by shard."""
        own = self.samples.with_row_index("row").select("row", "subject_id", "prediction_time").lazy()
        window = pl.duration(microseconds=round(self.window_hours * 3.6e9))
        bounds = own.group_by("subject_id").agg(
            first=pl.col("prediction_time").min() - window, last=pl.col("prediction_time").max()
        )
        for path in self.dataset.shards:
            yield Shard(*pl.collect_all(self._facts(path, own, bounds, window)))

    def _facts(
        self, path: Path, own: pl.LazyFrame, bounds: pl.LazyFrame, window: pl.Expr
    ) -> tuple[pl.LazyFrame, pl.LazyFrame, pl.LazyFrame]:
        key, codes = self.dataset.manifest.concepts, self.dataset.codes["code"].to_list()
        meanings = mapping(key, codes)
        events = (
            pl.scan_parquet(path)
            .join(bounds, on="subject_id", how="inner")
            .filter(pl.col("time").is_null() | (pl.col("time") <= pl.col("last")))
        )
        before = pl.col("time") <= pl.col("prediction_time")
        hours = (pl.col("time") - pl.col("prediction_time")).dt.total_microseconds() / 3.6e9

        def readings(found: pl.LazyFrame, wanted: tuple[Concept, ...]) -> pl.LazyFrame:
            names = [c.name for c in wanted]
            known = meanings.filter(pl.col("concept").is_in(names))["code"].unique().sort().to_list()
            place = pl.col("concept").replace_strict(names, range(len(names)), return_dtype=pl.UInt16)
            return (
                harmonise(found.drop("first", "last"), key, known)
                .filter(pl.col("concept").is_in(names))
                .with_columns(concept=place)
                .join(own, on="subject_id", how="inner")
            )

        measured = (
            readings(events.filter(pl.col("time") >= pl.col("first")), series_concepts())
            .filter(before & (pl.col("time") >= pl.col("prediction_time") - window))
            .select("row", "concept", "value", hours=hours)
            .sort("row", "concept", "hours")
        )
        described = (
            readings(events, describing_concepts())
            .filter(before | pl.col("time").is_null())
            .sort("row", "concept", "time", nulls_last=False)
            .group_by("row", "concept", maintain_order=True)
            .agg(pl.col("value").last())
        )
        coded = (
            events.join(self._grouped.lazy().select("code", "index"), on="code", how="inner")
            .join(own, on="subject_id", how="inner")
            .filter(before)
            .select("row", "index", hours=hours)
            .sort("row", "hours", "index")
        )
        return measured, self._with_age(events, own, described), coded

    def _with_age(self, events: pl.LazyFrame, own: pl.LazyFrame, described: pl.LazyFrame) -> pl.LazyFrame:
        """Where no age is charted, the time since birth."""
        names = [c.name for c in describing_concepts()]
        age = pl.lit(names.index("age"), pl.UInt16)
        days = (pl.col("prediction_time") - pl.col("time")).dt.total_days()
        born = (
            events.filter(pl.col("code").str.starts_with("MEDS_BIRTH"))
            .join(own, on="subject_id", how="inner")
            .group_by("row")
            .agg(concept=age, value=(days / 365.25).max())
            .join(described.filter(pl.col("concept") == age), on="row", how="anti")
        )
        value = pl.when(pl.col("concept") == age).then(pl.col("value").clip(0, OLDEST_YEARS)).otherwise("value")
        return pl.concat([described, born]).with_columns(value).sort("row", "concept")
