"""Hand-made MEDS datasets, as `sites.ingest` would leave them on disk."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from sites.dataset import Dataset, Manifest

ORIGIN = datetime(2150, 1, 1)  # noqa: DTZ001 MEDS times have no zone
SCHEMA = {
    "subject_id": pl.Int64,
    "time": pl.Datetime("us"),
    "code": pl.String,
    "numeric_value": pl.Float32,
    "text_value": pl.String,
}


def at(hours: float | None) -> datetime | None:
    """The time this many hours after the origin; None is no time (a static fact)."""
    return None if hours is None else ORIGIN + timedelta(hours=hours)


@dataclass
class SiteOnDisk:
    """What of `sites.site.Site` cohorts and features need."""

    name: str
    dataset: Dataset
    subjects: pl.DataFrame
    external: bool = False


def write_site(
    root: Path,
    events: Iterable[tuple[Any, ...]],
    *,
    name: str = "boston",
    kind: str = "mimic4",
    concepts: str = "mimic",
    shards: int = 1,
    patients: dict[int, int] | None = None,
    content: str = "0" * 64,
) -> Any:
    """Write `(subject, hours, code[, number])` rows as a dataset of several shards and return its site."""
    rows = [(s, at(h), code, *(rest or [None]), None) for s, h, code, *rest in events]
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row").sort("subject_id", "time", "code", maintain_order=True)
    (root / "data").mkdir(parents=True)
    (root / "metadata").mkdir()
    ids = sorted(frame["subject_id"].unique().to_list())
    for k in range(shards):
        part = frame.filter(pl.col("subject_id").is_in(ids[k::shards]))
        part.write_parquet(root / "data" / f"{k}.parquet")
    subjects = pl.DataFrame(
        {"subject_id": ids, "patient_id": [(patients or {}).get(i, i) for i in ids]},
        schema={"subject_id": pl.Int64, "patient_id": pl.Int64},
    )
    subjects.write_parquet(root / "metadata" / "subjects.parquet")
    frame.select("code").unique().sort("code").write_parquet(root / "metadata" / "codes.parquet")
    manifest = Manifest(
        kind=kind,
        title=kind,
        source=kind,
        part="",
        options={},
        data_kind="simulated",
        source_sha256="0" * 64,
        content_sha256=content,
        groups=(),
        concepts=concepts,
        n_subjects=len(ids),
        n_patients=subjects["patient_id"].n_unique(),
        n_events=frame.height,
        warnings=(),
    )
    (root / "metadata" / "fedward.json").write_text(manifest.model_dump_json())
    return SiteOnDisk(name, Dataset(root), subjects)


@pytest.fixture
def meds_site(tmp_path: Path) -> Callable[..., Any]:
    """`meds_site(events, ...)`: see `write_site`."""
    number = count()
    return lambda events, **options: write_site(tmp_path / f"dataset{next(number)}", events, **options)
