"""A MEDS dataset on disk, as `sites.ingest` leaves it, and what is known about it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import BaseModel, ConfigDict

DataKind = Literal["simulated", "demo", "real"]


class Manifest(BaseModel):
    """`metadata/fedward.json` of a dataset.

    Attributes:
        kind: The export kind it was made from (`mimic4`, ...).
        source: The patient source; datasets of one source hold overlapping patients.
        part: A declared disjoint part of the source, or "".
        data_kind: simulated, demo or real; never ranked against one another.
        source_sha256: Hash of the export's files that were read, of the options and of the reading code's version.
        content_sha256: Hash of the written data shards and of subjects.parquet.
        groups: The columns of subjects.parquet that `by=` can split by.
        concepts: The key of this dataset's item ids in concepts.yaml.
        warnings: What was lost, excluded or odd, one sentence each.
        truth: For simulated hospitals: the file of the true risks below the dataset's root, a copy of the one beside
            the export. Only tests and evaluators may read it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    title: str
    source: str
    part: str
    options: dict[str, str]
    data_kind: DataKind
    source_sha256: str
    content_sha256: str
    groups: tuple[str, ...]
    concepts: str
    n_subjects: int
    n_patients: int
    n_events: int
    warnings: tuple[str, ...]
    truth: str | None = None


@dataclass(frozen=True)
class Dataset:
    """One MEDS dataset.

    The folder holds `data/*.parquet` (subject_id, time, code, numeric_value, text_value; a subject in one shard only,
    sorted by subject and time), `metadata/{dataset.json,codes.parquet,subject_splits.parquet}` as MEDS says,
    `metadata/subjects.parquet` (subject_id, patient_id and the group columns) and `metadata/fedward.json`.
    """

    root: Path

    @cached_property
    def manifest(self) -> Manifest:
        """What is known about it."""
        text = (self.root / "metadata" / "fedward.json").read_text(encoding="utf-8")
        return Manifest.model_validate_json(text)

    @cached_property
    def shards(self) -> tuple[Path, ...]:
        """The data shards, in order."""
        return tuple(sorted((self.root / "data").rglob("*.parquet")))

    @cached_property
    def subjects(self) -> pl.DataFrame:
        """subject_id Int64, patient_id Int64 and the group columns (String), sorted by subject_id."""
        return pl.read_parquet(self.root / "metadata" / "subjects.parquet")

    @cached_property
    def codes(self) -> pl.DataFrame:
        """Code, description, parent_codes: every code of the data."""
        return pl.read_parquet(self.root / "metadata" / "codes.parquet")

    def scan(self) -> pl.LazyFrame:
        """All events, lazily."""
        return pl.scan_parquet(list(self.shards))
