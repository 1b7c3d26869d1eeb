"""Nothing that came after prediction time, and no outcome, reaches a feature: for every kind of real export.

Two ways to catch a leak:

- of the ingested data: every sample gets a record of its own that stops at its prediction time and goes on with made-up
  events. Its features must be those of the true record;
- of the raw tables: outcomes and what is only known at the end of a stay are altered in a copy of the export. Labels
  must follow, and no feature may.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest

from fedcore.cohort import build_cohort, load_task
from fedcore.features.representation import Raw, load, names
from sites.dataset import Dataset
from sites.exports.registry import kinds
from sites.site import Site

FIRST_24H, FIRST_48H = "mortality/in_hospital/first_24h", "mortality/in_hospital/first_48h"
EXPORTS = {
    "mimic3": "m3=mimic3:mimiciii_demo_1.4",
    "mimic4": "m4=mimic4:mimiciv_demo_2.2",
    "eicu": "e=eicu:eicu_demo_2.0.1",
    "omop": "o=omop:mimiciv_demo_omop_0.9/1_omop_data_csv",
    "physionet2012": "p=physionet2012:physionet2012",
    "uci_heart": "h=uci_heart:uci_heart_disease",
    "meds": "meds=meds:",
}
MOST = 250
"""Samples of each export: enough of them, and quick."""
Open = Callable[[str], list[Site]]
Table = pl.DataFrame


def _samples(site: Site, kind: str) -> pl.DataFrame:
    """Those of a task; heart disease, which no task is for yet, is predicted for an hour after admission."""
    if kind == "uci_heart":
        admitted = site.scan().filter(pl.col("code").str.starts_with("HOSPITAL_ADMISSION//"))
        one_hour = pl.duration(hours=1)
        return admitted.select("subject_id", prediction_time=pl.col("time") + one_hour).sort("subject_id").collect()
    return build_cohort(site, load_task(FIRST_48H if kind == "physionet2012" else FIRST_24H)).samples


def _window(kind: str) -> float:
    return 48.0 if kind == "physionet2012" else 24.0


def _same(one: Raw, other: Raw, key: str) -> bool:
    """Whether an array is the same, positions replaced by what they mean: datasets may number their codes otherwise."""
    first, second = one.arrays[key], other.arrays[key]
    if key.endswith(".index"):
        meanings = (np.array(raw.names[key.partition(".")[0]], dtype=object) for raw in (one, other))
        first, second = (meant[array] for meant, array in zip(meanings, (first, second), strict=True))
    return np.array_equal(first, second, equal_nan=first.dtype.kind == "f")


def _differing(one: Raw, other: Raw) -> list[str]:
    assert one.arrays.keys() == other.arrays.keys()
    return [key for key in one.arrays if not _same(one, other, key)]


# --- of the ingested data -----------------------------------------------------------------------------------------


class Alone(NamedTuple):
    """Each sample as a subject of its own."""

    dataset: Dataset
    samples: pl.DataFrame


def _alone(dataset: Dataset, samples: pl.DataFrame, root: Path, *, after: bool) -> Alone:
    """Cut every sample's record at its prediction time and put false events after it, or else at it."""
    random = np.random.default_rng(0)
    own = samples.select("subject_id", "prediction_time").with_row_index("row")
    events = dataset.scan().join(own.lazy(), on="subject_id", how="inner", maintain_order="left")
    past = events.filter(pl.col("time").is_null() | (pl.col("time") <= pl.col("prediction_time"))).collect()
    false = (
        dataset.scan()
        .filter(pl.col("time").is_not_null())
        .collect()
        .sample(40 * len(own), seed=0, shuffle=True, with_replacement=True)
    )
    false = false.with_columns(pl.col("numeric_value") * 3 + 7, row=pl.Series(np.repeat(own["row"], 40)))
    ends = own.select("row", code=pl.lit("MEDS_DEATH"), numeric_value=pl.lit(None, pl.Float32))
    false = pl.concat([false.drop("subject_id", "time"), ends], how="diagonal").join(own, on="row", how="left")
    # from the next microsecond on, for a month
    late = np.concatenate([[1, 1_000_000], random.integers(1, 30 * 86_400_000_000, len(false) - 2)])
    random.shuffle(late)
    false = false.with_columns(
        time=pl.col("prediction_time") + (pl.Series(late) if after else pl.lit(0)).cast(pl.Duration("us"))
    )
    columns = ["subject_id", "time", "code", "numeric_value", "text_value"]
    whole = pl.concat(
        [frame.with_columns(subject_id=pl.col("row").cast(pl.Int64)).select(columns) for frame in (past, false)]
    )
    shutil.copytree(dataset.root / "metadata", root / "metadata")
    (root / "data").mkdir()
    whole.sort("subject_id", "time", maintain_order=True).write_parquet(root / "data" / "0.parquet")
    return Alone(Dataset(root), own.select("prediction_time", subject_id=pl.col("row").cast(pl.Int64)))


@pytest.mark.real
@pytest.mark.parametrize("kind", kinds())
def test_no_event_after_prediction_time_reaches_a_feature(kind: str, real_sites: Open, tmp_path: Path) -> None:
    text = EXPORTS[kind]
    if kind == "meds":
        text += str(real_sites(EXPORTS["mimic4"])[0].dataset.root)
    (site,) = real_sites(text)
    samples = _samples(site, kind)
    samples = samples.sample(min(MOST, len(samples)), seed=0).sort("subject_id", "prediction_time")
    after = _alone(site.dataset, samples, tmp_path / "after", after=True)
    at = _alone(site.dataset, samples, tmp_path / "at", after=False)
    for name in names():
        true = load(name).extract(site.dataset, samples, _window(kind))
        assert _differing(true, load(name).extract(*after, _window(kind))) == [], name
        if name == "tabular":  # The same false events are seen when they come no later than prediction time.
            assert _differing(true, load(name).extract(*at, _window(kind))) != []


