"""A MEDS dataset is taken as it is, or refused with what to do."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from meds.schema import DataSchema

from sites.errors import InputError
from sites.ingest import check, ingest
from sites.spec import SiteSpec

EVENTS = pl.DataFrame(
    {
        "subject_id": [2, 2, 2, 1, 1],
        "time": [None, "2150-01-01 10:00:00", "2150-01-01 10:00:00", None, "2150-01-02 10:00:00"],
        "code": ["GENDER//F", "LAB//1", "LAB//1", "GENDER//M", "LAB//2"],
        "numeric_value": pl.Series([None, 1.5, 1.5, None, None], dtype=pl.Float32),
        "text_value": [None, None, None, None, "high"],
        "person": [7, 7, 7, 7, 7],
    }
).with_columns(pl.col("time").str.to_datetime(time_unit="us"))


def write(root: Path, shards: list[pl.DataFrame], name: str = "my hospital") -> Path:
    (root / "data" / "train").mkdir(parents=True, exist_ok=True)
    (root / "metadata").mkdir(exist_ok=True)
    for number, shard in enumerate(shards):
        pq.write_table(conform(shard), root / "data" / "train" / f"{number}.parquet")
    (root / "metadata" / "dataset.json").write_text(json.dumps({"dataset_name": name}))
    pl.DataFrame({"code": [], "description": []}).write_parquet(root / "metadata" / "codes.parquet")
    return root


def conform(shard: pl.DataFrame) -> pa.Table:
    table = shard.to_arrow()
    types = {"code": pa.string(), "text_value": pa.large_string()}
    return table.cast(pa.schema([(f.name, types.get(f.name, f.type)) for f in table.schema]))


def spec(root: Path, options: str = "") -> SiteSpec:
    return SiteSpec.parse(f"a=meds{options}:{root}")


def test_the_events_stay_as_they_are_duplicates_included(tmp_path: Path, home: Path) -> None:
    root = write(tmp_path / "m", [EVENTS.head(3), EVENTS.tail(2)])
    for shard in (root / "data").rglob("*.parquet"):
        DataSchema.validate(pq.read_table(shard).drop(["person"]))
    dataset = ingest(spec(root), home)
    kept = EVENTS.drop("person")
    assert dataset.scan().collect().equals(kept.sort("subject_id", "time", maintain_order=True))
    assert dataset.subjects["patient_id"].to_list() == [1, 2]
    assert not any("left out" in sentence for sentence in dataset.manifest.warnings)


def test_patient_names_the_column_of_the_person(tmp_path: Path, home: Path) -> None:
    root = write(tmp_path / "m", [EVENTS])
    dataset = ingest(spec(root, ",patient=person"), home)
    assert dataset.subjects.rows() == [(1, 7), (2, 7)]
    assert dataset.manifest.n_patients == 1
    with pytest.raises(InputError, match="no whole-number column ward"):
        ingest(spec(root, ",patient=ward"), home)
    two = write(tmp_path / "two", [EVENTS.with_columns(person=pl.int_range(pl.len()))])
    with pytest.raises(InputError, match="more than one person"):
        ingest(spec(two, ",patient=person"), home)


def test_the_source_is_told_or_seen_in_the_name(tmp_path: Path, home: Path) -> None:
    unknown = ingest(spec(write(tmp_path / "m", [EVENTS])), home).manifest
    assert unknown.source.startswith("meds:")
    assert any("no patient source is named" in sentence for sentence in unknown.warnings)
    assert ingest(spec(tmp_path / "m", ",source=st-mary"), home).manifest.source == "st-mary"
    mimic = check(spec(write(tmp_path / "n", [EVENTS], "MIMIC-IV demo")))
    assert mimic.source == "bidmc"


@pytest.mark.parametrize(
    ("shards", "said"),
    [
        ([EVENTS.rename({"numeric_value": "value"})], "rename the column value to numeric_value"),
        ([EVENTS.rename({"subject_id": "patient_id"})], "rename the column patient_id to subject_id"),
        ([EVENTS.with_columns(pl.col("numeric_value").cast(pl.Float64))], "cast the column numeric_value from double"),
        ([EVENTS.with_columns(pl.col("time").cast(pl.Datetime("ns")))], "cast the column time from timestamp.ns. to"),
        ([EVENTS.drop("code")], "add the column code"),
        ([EVENTS.with_columns(pl.col("time") - pl.int_range(pl.len()) * timedelta(days=1))], "sorted by time"),
        ([EVENTS[[1, 0, 2]]], "those without time first"),
        ([EVENTS[[0, 3, 1]]], "subject 2 apart"),
        ([EVENTS.head(2), EVENTS.tail(3)], "subject 2 has rows in more than one shard"),
    ],
)
def test_what_does_not_conform_gets_a_sentence(
    tmp_path: Path, home: Path, shards: list[pl.DataFrame], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        ingest(spec(write(tmp_path / "m", shards)), home)


def test_order_is_checked_across_batches(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sites.exports.meds._BATCH_ROWS", 1)
    root = write(tmp_path / "m", [EVENTS])
    assert ingest(spec(root), home).manifest.n_events == 5
    for rows, said in ([1, 0, 2], "row 2.*without time first"), ([0, 3, 1], "subject 2 apart"):
        with pytest.raises(InputError, match=said):
            ingest(spec(write(tmp_path / "bad", [EVENTS[rows]])), home)


def test_a_subject_in_two_splits_is_refused(tmp_path: Path, home: Path) -> None:
    root = write(tmp_path / "m", [EVENTS])
    splits = pl.DataFrame({"subject_id": [1, 2, 2], "split": ["train", "train", "held_out"]})
    splits.write_parquet(root / "metadata" / "subject_splits.parquet")
    with pytest.raises(InputError, match="patient 2 in the splits held_out and train"):
        ingest(spec(root), home)


def test_a_damaged_shard_is_refused(tmp_path: Path, home: Path) -> None:
    root = write(tmp_path / "m", [EVENTS])
    (root / "data" / "train" / "0.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="no readable Parquet"):
        ingest(spec(root), home)


def test_a_dataset_of_ours_is_a_meds_dataset(mimic4_export: Callable[..., Path], home: Path) -> None:
    first = ingest(SiteSpec.parse(f"a=mimic4:{mimic4_export()}"), home)
    second = ingest(spec(first.root), home)
    columns = second.scan().collect_schema().names()
    assert first.scan().collect().sort(columns).equals(second.scan().collect().sort(columns))
    assert (second.manifest.source, second.manifest.concepts) == ("bidmc", "mimic")


@pytest.mark.real
def test_the_published_demo_is_told_what_to_rename(real_data: Path, home: Path) -> None:
    with pytest.raises(InputError) as caught:
        ingest(spec(real_data / "mimiciv_demo_meds"), home)
    assert "rename the column value to numeric_value" in str(caught.value)
    assert "metadata/dataset.json" in str(caught.value)


@pytest.mark.real
def test_the_published_demo_is_read_once_it_is_renamed(real_data: Path, home: Path, tmp_path: Path) -> None:
    published = pl.read_parquet(real_data / "mimiciv_demo_meds" / "mimic_iv_demo_meds_events.parquet")
    events = published.rename({"value": "numeric_value"}).drop("table").sort("subject_id", "time", maintain_order=True)
    manifest = ingest(spec(write(tmp_path / "m", [events], "mimic-iv-demo-meds"), ",demo"), home).manifest
    assert (manifest.n_events, manifest.n_subjects, manifest.source) == (916_166, 100, "bidmc")
