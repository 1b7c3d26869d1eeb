"""Ingest: a valid MEDS dataset, all or nothing, the same bytes whatever the machine does."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from meds.schema import CodeMetadataSchema, DataSchema, DatasetMetadataSchema, SubjectSplitSchema

import sites.ingest as ingest_module
from sites import tables
from sites.dataset import Dataset
from sites.errors import InputError
from sites.ingest import check, ingest
from sites.spec import SiteSpec
from sites.tables import Batch, Reader

MakeExport = Callable[..., Path]


def spec(path: Path, name: str = "a", options: str = "") -> SiteSpec:
    return SiteSpec.parse(f"{name}=mimic4{options}:{path}")


def files(dataset: Dataset) -> dict[str, str]:
    return {
        path.relative_to(dataset.root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(dataset.root.rglob("*"))
        if path.is_file() and path.name != "origins.json"
    }


def many_rows(n: int = 4000) -> dict[str, str]:
    head = "subject_id,hadm_id,stay_id,charttime,storetime,itemid,value,valuenum,valueuom\n"
    rows = (
        f'{1 + i % 3},,,2150-01-{1 + i * 7 % 28:02d} {i % 24:02d}:00:00,,{220000 + i % 11},"a, {i % 5}",{i % 13},bpm\n'
        for i in range(n)
    )
    return {"icu/chartevents": head + "".join(rows)}


def test_the_dataset_is_valid_meds(mimic4_export: MakeExport, home: Path) -> None:
    dataset = ingest(spec(mimic4_export(many_rows())), home)
    for shard in dataset.shards:
        DataSchema.validate(pq.read_table(shard))
    metadata = dataset.root / "metadata"
    CodeMetadataSchema.validate(pq.read_table(metadata / "codes.parquet"))
    SubjectSplitSchema.validate(pq.read_table(metadata / "subject_splits.parquet"))
    DatasetMetadataSchema.validate(json.loads((metadata / "dataset.json").read_text()))
    assert set(dataset.scan().select("code").unique().collect()["code"]) == set(dataset.codes["code"])
    assert dataset.manifest.n_events == dataset.scan().collect().height == dataset.codes["n_events"].sum()


def test_subjects_are_whole_and_sorted_in_one_shard(
    mimic4_export: MakeExport, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest_module, "SHARD_EVENTS", 1500)
    dataset = ingest(spec(mimic4_export(many_rows())), home)
    assert len(dataset.shards) == 3
    seen: set[int] = set()
    for shard in dataset.shards:
        events = pl.read_parquet(shard)
        subjects = set(events["subject_id"].to_list())
        assert not subjects & seen
        seen |= subjects
        assert events.equals(events.sort("subject_id", "time", maintain_order=True))
    assert seen == {1, 2, 3}


def test_exact_duplicate_rows_are_one_and_equal_readings_are_two(mimic4_export: MakeExport, home: Path) -> None:
    """80 bpm charted twice in one row each is one event; 80 bpm at 11:00 and 11:10, stored together, are two."""
    dataset = ingest(spec(mimic4_export()), home)
    pulse = dataset.scan().filter(pl.col("code") == "LAB//220045//bpm").collect()
    assert pulse.height == 2
    assert [str(time) for time in pulse["time"]] == ["2150-01-02 11:30:00"] * 2
    assert any(sentence.startswith("1 events were left out") for sentence in dataset.manifest.warnings)


def test_rows_of_unknown_patients_and_without_time_are_counted(mimic4_export: MakeExport, home: Path) -> None:
    rows = """subject_id,transfertime,prev_service,curr_service
1,2150-01-01 10:00:00,,MED
99,2150-01-01 10:00:00,,MED
,2150-01-01 10:00:00,,MED
1,,,SURG
"""
    dataset = ingest(spec(mimic4_export({"hosp/services": rows})), home)
    assert dataset.scan().filter(pl.col("code").str.starts_with("SERVICE")).collect().height == 1
    told = [sentence for sentence in dataset.manifest.warnings if sentence.startswith("services")]
    assert any("2 rows left out, whose patient" in sentence for sentence in told)
    assert any("1 rows left out, which have no time" in sentence for sentence in told)


def test_absent_tables_are_named_with_what_is_lost(mimic4_export: MakeExport, home: Path) -> None:
    dataset = ingest(spec(mimic4_export()), home)
    assert "labevents is absent: laboratory results will be missing" in dataset.manifest.warnings


def test_a_table_without_rows_is_named_too(mimic4_export: MakeExport, home: Path) -> None:
    dataset = ingest(spec(mimic4_export({"hosp/services": "subject_id,transfertime,curr_service\n"})), home)
    assert "services holds no rows: the service a patient is under will be missing" in dataset.manifest.warnings


def test_equal_bytes_whatever_the_block_size_and_the_threads(
    mimic4_export: MakeExport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = mimic4_export(many_rows())
    monkeypatch.setattr(ingest_module, "SHARD_EVENTS", 1500)
    first = files(ingest(spec(export), tmp_path / "one", jobs=1))
    monkeypatch.setattr(tables, "BLOCK_BYTES", 5000)
    monkeypatch.setattr("sites.shards._FLUSH_EVENTS", 700)
    monkeypatch.setattr(ingest_module, "_BUCKET_EVENTS", 100)
    assert files(ingest(spec(export), tmp_path / "two", jobs=4)) == first


def test_equal_bytes_on_one_core_and_on_two(mimic4_export: MakeExport, tmp_path: Path) -> None:
    export = mimic4_export(many_rows())
    program = (
        "import sys; from pathlib import Path; from sites.ingest import ingest; from sites.spec import SiteSpec;"
        "ingest(SiteSpec.parse(sys.argv[1]), Path(sys.argv[2]), jobs=int(sys.argv[3]))"
    )
    found = []
    for threads in ("1", "2"):
        home = tmp_path / f"home{threads}"
        environment = os.environ | {"POLARS_MAX_THREADS": threads}
        subprocess.run(
            [sys.executable, "-c", program, f"a=mimic4:{export}", str(home), threads], env=environment, check=True
        )
        (root,) = [path for path in (home / "datasets").iterdir() if not path.name.startswith(".")]
        found.append(files(Dataset(root)))
    assert found[0] == found[1]


def test_a_second_ingest_reads_no_file(mimic4_export: MakeExport, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export = mimic4_export()
    first = ingest(spec(export), home)
    opened = []
    original = Path.open

    def recording(self: Path, *args: object, **kwargs: object) -> object:
        opened.append(self)
        return original(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "open", recording)
    assert ingest(spec(export), home).root == first.root
    assert not [path for path in opened if path.is_relative_to(export)]


def test_the_content_decides_not_the_time_or_the_place(mimic4_export: MakeExport, home: Path) -> None:
    first = ingest(spec(mimic4_export()), home)
    assert ingest(spec(mimic4_export(name="copy")), home).root == first.root
    changed = mimic4_export()
    path = changed / "icu" / "chartevents.csv"
    path.write_text(path.read_text().replace(",80,80,", ",81,81,"))
    second = ingest(spec(changed), home)
    assert second.root != first.root
    assert second.manifest.content_sha256 != first.manifest.content_sha256


def test_options_that_only_divide_share_the_dataset(mimic4_export: MakeExport, home: Path) -> None:
    export = mimic4_export()
    assert ingest(spec(export, options=",by=unit"), home).root == ingest(spec(export), home).root
    assert ingest(spec(export, options=",demo"), home).manifest.data_kind == "demo"
    assert ingest(spec(export), home).manifest.data_kind == "real"


@pytest.mark.parametrize("where", ["chartevents", "sorting"])
def test_an_interrupted_ingest_leaves_nothing_at_the_target_and_goes_on(
    mimic4_export: MakeExport, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    export = mimic4_export(many_rows() | {"hosp/services": "subject_id,transfertime,curr_service\n1,2150-01-01,MED\n"})
    whole = files(ingest(spec(export), tmp_path / "other"))

    def interrupt(what: str, _share: float) -> None:
        if where in what:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(spec(export), home, progress=interrupt)
    assert [path.name for path in (home / "datasets").glob("[!.]*")] == []
    read: list[str] = []
    original = Reader.progress_batches

    def recording(self: Reader, name: str) -> Iterator[Batch]:
        read.append(name)
        return original(self, name)

    monkeypatch.setattr(Reader, "progress_batches", recording)
    assert files(ingest(spec(export), home)) == whole
    assert "services" not in read
    assert ("chartevents" in read) == (where == "chartevents")
    assert not list((home / "datasets").glob(".*.partial"))


def test_bad_input_in_the_last_table_leaves_nothing(mimic4_export: MakeExport, home: Path) -> None:
    rows = "subject_id,itemid,charttime,value,valueuom\n1,226559,2150-01-02 11:00:00,much,ml\n"
    with pytest.raises(InputError, match=r"outputevents\.csv, line 2, column value: found 'much'"):
        ingest(spec(mimic4_export({"icu/outputevents": rows})), home)
    assert not [path for path in (home / "datasets").iterdir() if path.suffix != ".lock"]


def test_two_ingests_at_once_make_one_dataset(mimic4_export: MakeExport, home: Path) -> None:
    export = mimic4_export(many_rows())
    made: list[Dataset] = []
    threads = [threading.Thread(target=lambda: made.append(ingest(spec(export), home))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({dataset.root for dataset in made}) == 1
    assert len(made) == 3
    assert made[0].manifest.n_events == made[0].scan().collect().height


def test_a_simulated_hospital_says_so_and_carries_its_truth(mimic4_export: MakeExport, home: Path) -> None:
    export = mimic4_export()
    (export / "SIMULATED.json").write_text('{"hospital": "x", "seed": 0, "truth": "truth.parquet", "source": "sim-x"}')
    pl.DataFrame({"subject_id": [1], "risk": [0.5]}).write_parquet(export / "truth.parquet")
    manifest = ingest(spec(export), home).manifest
    assert (manifest.data_kind, manifest.source) == ("simulated", "sim-x")
    dataset = ingest(spec(export), home)
    assert manifest.truth is not None
    assert pl.read_parquet(dataset.root / manifest.truth)["risk"].to_list() == [0.5]


def test_check_tells_files_groups_and_losses_without_writing(mimic4_export: MakeExport, home: Path) -> None:
    report = check(spec(mimic4_export()))
    assert (report.n_patients, report.source, report.data_kind) == (3, "bidmc", "real")
    assert report.groups["unit"] == {"MICU": 1, "SICU": 1, None: 1}
    assert report.absent["labevents"] == "laboratory results"
    assert report.files["patients"][1] > 0
    assert not home.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a=mimic9:/nowhere", "mimic4"),
        ("a=mimic4:/nowhere/at/all", "no such file or folder"),
        ("a=mimic4,colour=red:{export}", "colour"),
        ("a=mimic4,by=ward:{export}", "unit"),
        ("a=nobody.knows.this:{export}", "nobody.knows.this"),
    ],
)
def test_what_cannot_be_opened_gets_a_sentence(mimic4_export: MakeExport, home: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        ingest(SiteSpec.parse(text.format(export=mimic4_export())), home)


@pytest.mark.real
def test_a_folder_of_another_kind_is_named(real_data: Path, home: Path) -> None:
    with pytest.raises(InputError, match="looks like eicu"):
        ingest(spec(real_data / "eicu_demo_2.0.1"), home)
    with pytest.raises(InputError, match="looks like mimic3"):
        ingest(spec(real_data / "mimiciii_demo_1.4"), home)
