"""What a person gets who hands in something unusable: one sentence on standard error, exit code 2, nothing left."""

import gzip
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from bench.cli import main
from sites.exports.registry import load

MakeExport = Callable[..., Path]

HEAD = "subject_id,hadm_id,stay_id,charttime,storetime,itemid,value,valuenum,valueuom\n"
ROW = "1,10,100,2150-01-02 11:00:00,2150-01-02 11:30:00,220045,80,80,bpm\n"
ADMISSIONS = (
    "subject_id,hadm_id,admittime,dischtime,deathtime,admission_type,admission_location,discharge_location,"
    "hospital_expire_flag\n1,10,{admitted},2150-01-05 12:00:00,,URGENT,EMERGENCY ROOM,HOME,0\n"
)
ICUSTAYS = (
    "subject_id,hadm_id,stay_id,first_careunit,last_careunit,intime,outtime\n"
    "1,10,100,MICU,SICU,2150-01-02 10:00:00,2150-01-04 10:00:00\n"
    "2,20,200,SICU,SICU,2151-03-01 11:00:00,2151-03-03 03:00:00\n"
)
PATIENTS = "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod\n"


@dataclass(frozen=True)
class Told:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    """The command line, in this process."""

    def run(*arguments: str) -> Told:
        monkeypatch.setattr(sys, "argv", ["bench", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capfd.readouterr()
        return Told(int(stop.value.code or 0), out, err)

    return run


Bench = Callable[..., Told]


def refused(told: Told, home: Path, *said: str) -> None:
    """One sentence that says all this, exit code 2, and no data under FEDWARD_HOME."""
    assert told.code == 2, told
    sentence = told.err.strip()
    assert sentence.startswith("bench: ")
    assert "\n" not in sentence
    assert "Traceback" not in told.out + told.err
    for words in said:
        assert words in sentence, f"{words!r} is not in: {sentence}"
    left = [path for path in home.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert [path.name for path in left if path.name != "hashes.json"] == []


TABLES = {
    "text in a number column": (
        {"icu/chartevents": HEAD + ROW + ROW.replace(",80,80,", ",80,eighty,")},
        ("chartevents.csv, line 3, column valuenum", "found 'eighty'", "expected a number", "correct the value"),
    ),
    "an impossible date": (
        {"hosp/admissions": ADMISSIONS.format(admitted="2150-02-30 10:00:00")},
        ("admissions.csv, line 2, column admittime", "'2150-02-30 10:00:00'", "YYYY-MM-DD", "correct"),
    ),
    "an impossible time of day": (
        {"icu/chartevents": HEAD + ROW.replace("11:30", "25:61")},
        ("chartevents.csv, line 2, column storetime", "25:61", "expected a date"),
    ),
    "a missing column": (
        {"icu/chartevents": HEAD.replace("valuenum", "valuenumber") + ROW},
        ("chartevents.csv, line 1", "no column valuenum", "is valuenumber meant?", "export the table again"),
    ),
    "a wrong delimiter": (
        {"icu/chartevents": (HEAD + ROW).replace(",", ";")},
        ("chartevents.csv, line 1", "separated by semicolons", "expected commas", "write the file anew"),
    ),
    "a duplicated stay": (
        {"icu/icustays": ICUSTAYS + "1,10,100,MICU,MICU,2150-01-02 10:00:00,2150-01-05 10:00:00\n"},
        ("icustays.csv, data rows 1 and 3", "stay_id 100 twice", "expected one row", "remove the duplicate"),
    ),
    "a table without rows": ({"hosp/patients": PATIENTS}, ("patients.csv", "no rows", "expected at least one")),
    "an empty file": ({"hosp/patients": ""}, ("patients.csv", "is empty", "export the table again")),
    "a table of another place": (
        {"hosp/patients": PATIENTS + "1,F,60,2150,2011 - 2013,\n2,M\n"},
        ("patients.csv, line 3", "found 2 fields", "expected 6", "see whether the file is complete"),
    ),
    "Latin-1 text": (
        {"icu/chartevents": HEAD + ROW.replace("bpm", "\udce9")},
        ("chartevents.csv, line 2", "0xe9", "expected UTF-8", "iconv"),
    ),
}


@pytest.mark.parametrize("what", TABLES)
def test_a_bad_table_is_placed_to_the_row_and_column(
    mimic4_export: MakeExport, bench: Bench, home: Path, what: str
) -> None:
    tables, said = TABLES[what]
    export = mimic4_export({name: text for name, text in tables.items() if "\udce9" not in text})
    for name, text in tables.items():
        (export / f"{name}.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    refused(bench("site", "ingest", f"a=mimic4:{export}"), home, *said)


def test_a_bad_table_stops_a_whole_run_the_same_way(mimic4_export: MakeExport, bench: Bench, home: Path) -> None:
    tables, said = TABLES["text in a number column"]
    export = mimic4_export(tables)
    site = ("--site", f"a=mimic4:{export}")
    refused(bench("run", "--suite", "quickstart", *site, "--out", str(home / "r")), home, *said)


def test_check_refuses_what_ingest_refuses(mimic4_export: MakeExport, bench: Bench, home: Path) -> None:
    tables, said = TABLES["a duplicated stay"]
    refused(bench("site", "check", f"mimic4:{mimic4_export(tables)}"), home, *said)


def test_a_truncated_gzip_is_refused(mimic4_export: MakeExport, bench: Bench, home: Path) -> None:
    export = mimic4_export()
    table = export / "icu" / "chartevents.csv"
    whole = gzip.compress((HEAD + ROW * 500).encode())
    table.unlink()
    table.with_name("chartevents.csv.gz").write_bytes(whole[: len(whole) // 2])
    told = bench("site", "ingest", f"a=mimic4:{export}")
    refused(told, home, "chartevents.csv.gz", "truncated", "without its end mark", "copy")


def test_a_traceback_is_shown_only_on_request(mimic4_export: MakeExport, bench: Bench) -> None:
    export = mimic4_export({"hosp/patients": ""})
    told = bench("site", "ingest", f"a=mimic4:{export}", "--debug")
    assert told.code == 2
    assert "Traceback" in told.err
    assert told.err.strip().splitlines()[-1].startswith("bench: ")


# --- MEDS: patients and splits ------------------------------------------------------------------------------------


def meds(folder: Path, splits: dict[str, list[object]], **columns: list[object]) -> Path:
    (folder / "data").mkdir(parents=True)
    (folder / "metadata").mkdir()
    subjects = [1, 1, 2]
    events = pl.DataFrame(
        {
            "subject_id": subjects,
            "time": [None, datetime.fromisoformat("2150-01-01"), None],
            "code": ["GENDER//F", "HOSPITAL_ADMISSION//UNK", "GENDER//M"],
            "numeric_value": pl.Series([None, None, None], dtype=pl.Float32),
            **columns,
        },
        schema_overrides={"time": pl.Datetime("us")},
    )
    events.write_parquet(folder / "data" / "0.parquet")
    pl.DataFrame({"code": events["code"].unique()}).write_parquet(folder / "metadata" / "codes.parquet")
    (folder / "metadata" / "dataset.json").write_text(json.dumps({"dataset_name": "x", "meds_version": "0.4.1"}))
    pl.DataFrame(splits).write_parquet(folder / "metadata" / "subject_splits.parquet")
    return folder


def test_a_patient_in_two_splits_is_refused(tmp_path: Path, bench: Bench, home: Path) -> None:
    folder = meds(tmp_path / "meds", {"subject_id": [1, 2, 1], "split": ["train", "train", "held_out"]})
    said = (
        "subject_splits.parquet",
        "patient 1",
        "held_out and train",
        "each patient in one",
        "split the dataset anew",
    )
    refused(bench("site", "ingest", f"a=meds:{folder}"), home, *said)


def test_a_patient_of_two_subjects_in_two_splits_is_refused(tmp_path: Path, bench: Bench, home: Path) -> None:
    splits: dict[str, list[object]] = {"subject_id": [1, 2], "split": ["train", "held_out"]}
    folder = meds(tmp_path / "meds", splits, person=[7, 7, 7])
    refused(bench("site", "ingest", f"a=meds,patient=person:{folder}"), home, "patient 7", "held_out and train")
    assert bench("site", "ingest", f"a=meds:{folder}").code == 0


def test_splits_without_their_columns_are_refused(tmp_path: Path, bench: Bench, home: Path) -> None:
    folder = meds(tmp_path / "meds", {"subject": [1, 2], "split": ["train", "train"]})
    refused(bench("site", "ingest", f"a=meds:{folder}"), home, "found the columns subject, split", "rename")


# --- folders and sites --------------------------------------------------------------------------------------------


def headers_only(folder: Path, kind: str) -> Path:
    """A folder that looks like an export of a kind, without rows."""
    for table in load(kind).tables:
        place = folder / table.folder / f"{table.name}.csv"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(",".join(table.columns) + "\n")
    return folder


@pytest.mark.parametrize(("named", "actual"), [("mimic4", "eicu"), ("eicu", "mimic4"), ("omop", "mimic3")])
def test_a_folder_of_another_kind_is_named(tmp_path: Path, bench: Bench, home: Path, named: str, actual: str) -> None:
    folder = headers_only(tmp_path / "export", actual)
    refused(bench("site", "ingest", f"a={named}:{folder}"), home, str(folder), f"looks like {actual}", "instead")


@pytest.mark.parametrize(
    ("site", "said"),
    [
        ("a=mimic4:{tmp}/nowhere", ("nowhere", "no such file or folder", "mimic4")),
        ("a=mimic4:{tmp}/mimic4/hosp/patients.csv", ("patients.csv", "found a file", "expected the folder")),
        ("a=mimic4,colour=red:{tmp}/mimic4", ("option 'colour'", "expected one of", "correct it")),
        ("a=mimic4,by=ward:{tmp}/mimic4", ("by=ward", "expected one of", "choose")),
        ("a=mimic9:{tmp}/mimic4", ("mimic9", "mimic4")),
        ("a=mimic4", ("'a=mimic4'", "NAME=KIND[,OPTION...]:PATH")),
        ("a=uci_heart:{tmp}/mimic4", ("processed.cleveland.data", "looks like mimic4")),
        ("a=physionet2012:{tmp}/mimic4", ("set-a.tar.gz", "looks like mimic4")),
        ("a=meds:{tmp}/mimic4", ("no valid MEDS", "looks like mimic4")),
    ],
)
def test_a_site_that_is_none_is_refused(
    mimic4_export: MakeExport, tmp_path: Path, bench: Bench, home: Path, site: str, said: tuple[str, ...]
) -> None:
    mimic4_export()
    refused(bench("site", "ingest", site.format(tmp=tmp_path)), home, *said)


# --- suites -------------------------------------------------------------------------------------------------------

SUITE = """
name: mine
version: 1.0.0
description: d
tasks: [mortality/in_hospital/first_24h]
entries: [{model: logistic, strategies: [fedavg]}]
seeds: [0]
"""


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("model: logistic", "model: logisitc", ("'logisitc'", "expected one of gru, logistic")),
        ("[fedavg]", "[fedagv]", ("'fedagv'", "expected one of", "fedavg")),
        ("/first_24h", "/first_25h", ("first_25h", "mortality/in_hospital/first_24h")),
        ("tasks:", "task:", ("mine.yaml", "tasks", "required")),
        ("seeds: [0]", "seeds: zero", ("mine.yaml", "seeds", "'zero'")),
        ("name: mine", "name: [", ("mine.yaml", "not YAML")),
    ],
)
def test_a_suite_that_asks_for_what_is_not_there_is_refused(
    mimic4_export: MakeExport, tmp_path: Path, bench: Bench, home: Path, right: str, wrong: str, said: tuple[str, ...]
) -> None:
    suite = tmp_path / "mine.yaml"
    suite.write_text(SUITE.replace(right, wrong))
    results = tmp_path / "results"
    told = bench("run", "--suite", str(suite), "--site", f"a=mimic4:{mimic4_export()}", "--out", str(results))
    refused(told, home / "nothing", *said)
    assert not list(results.rglob("*.json")) if results.exists() else True
