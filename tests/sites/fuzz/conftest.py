"""Small valid exports of every kind, as plain text, for the fuzz test to damage."""

import csv
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from sites.ingest import ingest
from sites.simulate.federation import simulate
from sites.spec import SiteSpec

PATIENTS, ROWS = 5, 24
"""Of a simulated export: the patients that are kept, and the rows of each that are kept in a large table."""


@dataclass(frozen=True)
class SmallExport:
    """An export that reads without an error.

    Attributes:
        name: What the fuzz test calls it.
        kind: The export kind.
        path: Its folder.
    """

    name: str
    kind: str
    path: Path


def _excerpt(source: Path, out: Path, person: str, *, of: str) -> Path:
    """The first patients of a simulated export, uncompressed; they are those of the table `of`."""
    keep: pl.Series | None = None
    for file in sorted(source.rglob("*.csv.gz"), key=lambda path: not path.name.startswith(f"{of}.")):
        rows = pl.read_csv(file, infer_schema=False)
        if keep is None:
            keep = rows[person].unique(maintain_order=True).head(PATIENTS)
        if person in rows.columns:
            rows = rows.filter(pl.col(person).is_in(keep.to_list())).group_by(person, maintain_order=True).head(ROWS)
        place = out / file.relative_to(source).with_suffix("")
        place.parent.mkdir(parents=True, exist_ok=True)
        rows.write_csv(place, null_value="")
    return out


def _older_omop(source: Path, out: Path) -> Path:
    """CDM 5.4 as 5.3: other names of the columns of where patients came from and went to."""
    shutil.copytree(source, out)
    path = out / "visit_occurrence.csv"
    rows = pl.read_csv(path, infer_schema=False)
    rows.rename(
        {
            "admitted_from_concept_id": "admitting_source_concept_id",
            "admitted_from_source_value": "admitting_source_value",
            "discharged_to_concept_id": "discharge_to_concept_id",
            "discharged_to_source_value": "discharge_to_source_value",
        }
    ).write_csv(path, null_value="")
    return out


Rows = Sequence[Mapping[str, object]]


def _mimic3(out: Path) -> Path:
    who = [{"subject_id": s, "hadm_id": 10 * s} for s in range(1, 7)]
    tables: dict[str, Rows] = {
        "PATIENTS": [
            {"subject_id": w["subject_id"], "gender": "FM"[w["subject_id"] % 2], "dob": "2100-06-01 00:00:00"}
            | {"dod": "2150-01-05 10:00:00" if w["subject_id"] == 3 else ""}
            for w in who
        ],
        "ADMISSIONS": [
            w
            | {"admittime": "2150-01-01 10:00:00", "dischtime": "2150-01-05 10:00:00"}
            | {"deathtime": "2150-01-05 10:00:00" if w["subject_id"] == 3 else "", "admission_type": "EMERGENCY"}
            | {"admission_location": "CLINIC", "discharge_location": "HOME", "ethnicity": "WHITE"}
            | {"hospital_expire_flag": int(w["subject_id"] == 3)}
            for w in who
        ],
        "ICUSTAYS": [
            w
            | {"icustay_id": 100 * w["subject_id"], "dbsource": "carevue", "first_careunit": "MICU"}
            | {"last_careunit": "MICU", "intime": "2150-01-01 11:00:00", "outtime": "2150-01-04 11:00:00"}
            for w in who
        ],
        "LABEVENTS": [
            {"subject_id": w["subject_id"], "itemid": 50912, "charttime": f"2150-01-0{day} 06:00:00"}
            | {"value": f"1.{day}", "valuenum": f"1.{day}", "valueuom": "mg/dL"}
            for w in who
            for day in (1, 2, 3)
        ],
        "CHARTEVENTS": [
            {"subject_id": w["subject_id"], "itemid": 211, "charttime": f"2150-01-01 1{hour}:00:00"}
            | {"storetime": f"2150-01-01 1{hour}:30:00", "value": str(70 + hour), "valuenum": 70 + hour}
            | {"valueuom": "BPM", "error": ""}
            for w in who
            for hour in range(2, 8)
        ],
        "OUTPUTEVENTS": [
            {"subject_id": w["subject_id"], "itemid": 40055, "charttime": "2150-01-02 10:00:00"}
            | {"storetime": "2150-01-02 10:15:00", "value": 60 + w["subject_id"], "valueuom": "ml", "iserror": ""}
            for w in who
        ],
        "DIAGNOSES_ICD": [w | {"seq_num": n, "icd9_code": code} for w in who for n, code in ((1, "4019"), (2, "0389"))],
        "PRESCRIPTIONS": [
            w
            | {"startdate": "2150-01-02 00:00:00", "enddate": "2150-01-03 00:00:00", "drug": "Insulin, regular"}
            | {"ndc": "0", "dose_val_rx": "5"}
            for w in who
        ],
        "MICROBIOLOGYEVENTS": [
            {"subject_id": w["subject_id"], "chartdate": "2150-01-02 00:00:00", "charttime": "2150-01-02 08:00:00"}
            | {"spec_type_desc": "BLOOD CULTURE", "org_name": "", "ab_name": "", "interpretation": ""}
            for w in who
        ],
    }
    out.mkdir()
    for name, rows in tables.items():
        with (out / f"{name}.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return out


def _physionet(out: Path) -> Path:
    (out / "set-a").mkdir(parents=True)
    outcomes = ["RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death"]
    for number in range(132539, 132545):
        lines = ["Time,Parameter,Value", f"00:00,RecordID,{number}", "00:00,Age,54", "00:00,Gender,0"]
        lines += ["00:00,Height,-1", f"00:00,ICUType,{1 + number % 4}", "00:00,Weight,81.5"]
        lines += [f"{hour:02d}:1{number % 10},HR,{60 + hour}" for hour in range(1, 12)]
        (out / "set-a" / f"{number}.txt").write_text("\n".join(lines) + "\n")
        outcomes.append(f"{number},6,1,5,-1,{number % 3 // 2}")
    (out / "Outcomes-a.txt").write_text("\n".join(outcomes) + "\n")
    return out


def _hearts(out: Path) -> Path:
    out.mkdir()
    rows = [f"{40 + n}.0,{n % 2}.0,1.0,145.0,2{n:02d}.0,1.0,2.0,150.0,0.0,2.3,3.0,?,6.0,{n % 3}" for n in range(9)]
    (out / "processed.cleveland.data").write_text("\n".join(rows[:6]) + "\n")
    (out / "processed.va.data").write_text("\n".join(rows[6:]) + "\n")
    return out


def _meds(source: SmallExport, out: Path) -> Path:
    """What the ingest itself wrote for another export, in two shards."""
    dataset = ingest(SiteSpec(source.name, source.kind, source.path), out.parent / "made")
    (out / "data").mkdir(parents=True)
    (out / "metadata").mkdir()
    for name in ("dataset.json", "codes.parquet"):
        shutil.copyfile(dataset.root / "metadata" / name, out / "metadata" / name)
    events = dataset.scan().collect()
    middle = events["subject_id"].unique().sort()[2]
    for number, part in enumerate((pl.col("subject_id") < middle, pl.col("subject_id") >= middle)):
        events.filter(part).write_parquet(out / "data" / f"{number}.parquet")
    return out


@pytest.fixture(scope="session")
def small_exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SmallExport]:
    """By name: one small export of every kind."""
    root = tmp_path_factory.mktemp("small")
    simulated = {site.kind: site.path for site in simulate(root / "simulated", 3, 50)}
    make: dict[str, Callable[[Path], Path]] = {
        "mimic3": _mimic3,
        "mimic4": lambda out: _excerpt(simulated["mimic4"], out, "subject_id", of="icustays"),
        "eicu": lambda out: _excerpt(simulated["eicu"], out, "patientunitstayid", of="patient"),
        "omop": lambda out: _excerpt(simulated["omop"], out, "person_id", of="visit_detail"),
        "omop53": lambda out: _older_omop(root / "omop", out),
        "physionet2012": _physionet,
        "uci_heart": _hearts,
        "meds": lambda out: _meds(SmallExport("mimic3", "mimic3", root / "mimic3"), out),
    }
    kinds = {"omop53": "omop"}
    return {name: SmallExport(name, kinds.get(name, name), write(root / name)) for name, write in make.items()}
