"""Nothing that came after prediction time, and no outcome, reaches a feature: for every kind of real export.

Two ways to catch a leak:

- of the ingested data: every sample gets a record of its own that stops at its prediction time and goes on with made-up
  events. Its features must be those of the true record;
- of the raw tables: outcomes and what is only known at the end of a stay are altered in a copy of the export. Labels
  must follow, and no feature may.
"""

import shutil
import tarfile
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
from sites.site import Site, SiteSpec, open_sites

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


# --- of the raw tables --------------------------------------------------------------------------------------------

Tables = dict[str, pl.DataFrame]
"""Raw tables by their file's name in lower case, without ending; every field is text."""


def _read(folder: Path, key: str, wanted: list[str]) -> Tables:
    """The rows of some patients (or stays), of every table that names them."""
    tables = {}
    for path in sorted([*folder.rglob("*.csv"), *folder.glob("*.csv.gz")]):
        if path.parent.name == "subset_pyhealth":
            continue
        table = pl.read_csv(path, infer_schema=False)
        table = table.rename(str.lower)
        if key in table.columns:
            table = table.filter(pl.col(key).is_in(wanted))
        tables[path.name.lower().partition(".")[0]] = table
    return tables


def _write(tables: Tables, folder: Path) -> Path:
    folder.mkdir()
    for name, table in tables.items():
        table.write_csv(folder / f"{name}.csv")
    return folder


def _last(table: pl.DataFrame, by: str, start: str) -> pl.Expr:
    """The rows of each patient's last stay."""
    return pl.col(start) == pl.col(start).max().over(by)


def _mimic_altered(tables: Tables, dead: str, garbage: dict[str, dict[str, str]]) -> Tables:
    """In each patient's last stay: survivors die and the dead survive, a day later, with other diagnoses."""
    admissions = tables["admissions"]
    last = _last(admissions, "subject_id", "admittime")
    died = pl.col("hospital_expire_flag") == "1"
    a_day_later = (pl.col("dischtime").str.to_datetime() + pl.duration(days=1)).dt.to_string("%Y-%m-%d %H:%M:%S")
    stays = admissions.filter(last)["hadm_id"].implode()
    altered = {
        "admissions": admissions.with_columns(
            hospital_expire_flag=pl.when(last).then(1 - died.cast(pl.Int8)).otherwise("hospital_expire_flag"),
            discharge_location=pl.when(last & died)
            .then(pl.lit("HOME"))
            .when(last)
            .then(pl.lit(dead))
            .otherwise("discharge_location"),
            deathtime=pl.when(last & ~died).then(a_day_later).when(~last).then("deathtime"),
            dischtime=pl.when(last).then(a_day_later).otherwise("dischtime"),
        ),
        "patients": tables["patients"].with_columns(dod=pl.lit(None, pl.String)),
    }
    for name, values in garbage.items():
        mine = pl.col("hadm_id").is_in(stays)
        altered[name] = tables[name].with_columns(
            pl.when(mine).then(pl.lit(value)).otherwise(column).alias(column) for column, value in values.items()
        )
    return tables | altered


def _first_ids(path: Path, key: str, number: int) -> list[str]:
    table = pl.read_csv(path, infer_schema=False).rename(str.lower)
    return table[key].unique().sort()[:number].to_list()


def _mimic4(data: Path) -> tuple[Tables, Tables]:
    folder = data / "mimiciv_demo_2.2"
    tables = _read(folder, "subject_id", _first_ids(folder / "hosp" / "patients.csv", "subject_id", 30))
    garbage = {
        "diagnoses_icd": {"icd_code": "4275", "icd_version": "9"},
        "procedures_icd": {"icd_code": "9960", "icd_version": "9"},
        "drgcodes": {"drg_code": "283", "description": "ACUTE MYOCARDIAL INFARCTION, EXPIRED"},
        "hcpcsevents": {"short_description": "Death certificate"},
    }
    return tables, _mimic_altered(tables, "DIED", garbage)


def _mimic3(data: Path) -> tuple[Tables, Tables]:
    folder = data / "mimiciii_demo_1.4"
    tables = _read(folder, "subject_id", _first_ids(folder / "PATIENTS.csv", "subject_id", 20))
    garbage = {
        "diagnoses_icd": {"icd9_code": "4275"},
        "procedures_icd": {"icd9_code": "9960"},
        "drgcodes": {"drg_code": "283", "description": "ACUTE MYOCARDIAL INFARCTION, EXPIRED"},
        "cptevents": {"cpt_cd": "92950"},
    }
    altered = _mimic_altered(tables, "DEAD/EXPIRED", garbage)
    blank = pl.lit(None, pl.String)
    altered["patients"] = altered["patients"].with_columns(dod_hosp=blank, dod_ssn=blank, expire_flag=pl.lit("0"))
    return tables, altered


def _eicu(data: Path) -> tuple[Tables, Tables]:
    """Survivors die and the dead survive, ten hours later; APACHE's results and every flag of the discharge change."""
    folder = data / "eicu_demo_2.0.1"
    wanted = _first_ids(folder / "patient.csv.gz", "patientunitstayid", 400)
    tables = _read(folder, "patientunitstayid", wanted)
    died = pl.col("hospitaldischargestatus") == "Expired"
    later = (pl.col("hospitaldischargeoffset").cast(pl.Int64) + 600).cast(pl.String)
    patient = tables["patient"].with_columns(
        hospitaldischargestatus=pl.when(died).then(pl.lit("Alive")).otherwise(pl.lit("Expired")),
        hospitaldischargelocation=pl.when(died).then(pl.lit("Home")).otherwise(pl.lit("Death")),
        hospitaldischargeoffset=later,
        unitdischargestatus=pl.lit("Alive"),
        unitdischargelocation=pl.lit("Floor"),
    )
    result = tables["apachepatientresult"].with_columns(
        pl.lit("99").alias(c) for c in tables["apachepatientresult"].columns[2:]
    )
    other = {"diedinhospital": "1", "dischargelocation": "9", "var03hspxlos": "99.5"}
    prediction = tables["apachepredvar"].with_columns(pl.lit(value).alias(column) for column, value in other.items())
    flagged = {
        name: table.with_columns(activeupondischarge=pl.lit("True"))
        for name, table in tables.items()
        if "activeupondischarge" in table.columns
    }
    assert len(flagged) >= 5
    return tables, tables | flagged | {
        "patient": patient,
        "apachepatientresult": result,
        "apachepredvar": prediction,
    }


def _omop(data: Path) -> tuple[Tables, Tables]:
    """In each person's last admission: who was discharged dead goes home, who was not dies; other billing codes."""
    tables = {
        path.stem: pl.read_csv(path, infer_schema=False)
        for path in (data / "mimiciv_demo_omop_0.9" / "1_omop_data_csv").glob("*.csv")
        if path.stem in ("person", "visit_occurrence", "visit_detail", "care_site", "death", "cdm_source")
        or path.stem.endswith(("_occurrence", "_exposure"))
    }
    visits = tables["visit_occurrence"]
    admitted = pl.col("admitting_source_value").is_not_null()
    start = pl.col("visit_start_datetime")
    last = admitted & (start == start.filter(admitted).max().over("person_id"))
    died = pl.col("discharge_to_source_value") == "DIED"
    dies = visits.filter(last & died.ne_missing(pl.lit(True)))
    death = dies.select(
        "person_id", death_date="visit_end_date", death_datetime="visit_end_datetime", death_type_concept_id=pl.lit("0")
    )
    dead = pl.when(last & died.ne_missing(pl.lit(True)))
    home = pl.when(last & died)
    altered = visits.with_columns(
        discharge_to_source_value=dead.then(pl.lit("DIED")).otherwise(
            home.then(pl.lit("HOME")).otherwise("discharge_to_source_value")
        ),
        discharge_to_concept_id=dead.then(pl.lit("4216643")).otherwise(
            home.then(pl.lit("581476")).otherwise("discharge_to_concept_id")
        ),
    )
    stays = visits.filter(last)["visit_occurrence_id"].implode()
    billed = (pl.col("condition_type_concept_id") == "32821") & pl.col("visit_occurrence_id").is_in(stays)
    conditions = tables["condition_occurrence"].with_columns(
        condition_concept_id=pl.when(billed).then(pl.lit("321042")).otherwise("condition_concept_id")
    )
    return tables, tables | {"visit_occurrence": altered, "death": death, "condition_occurrence": conditions}


ALTERED = {"mimic3": _mimic3, "mimic4": _mimic4, "eicu": _eicu, "omop": _omop}


def _unchanged(one: Site, other: Site, samples: pl.DataFrame, kind: str) -> None:
    for name in names():
        first, second = (load(name).extract(site.dataset, samples, _window(kind)) for site in (one, other))
        assert _differing(first, second) == [], name
        assert all(array.size for array in first.arrays.values()), name


def _compare(one: Site, other: Site, kind: str) -> None:
    """Most samples are the same, most labels are not, and of those samples no feature is different."""
    before, after = _samples(one, kind), _samples(other, kind)
    both = before.join(after, on=["subject_id", "prediction_time"])
    assert len(both) > 0.8 * len(before)
    assert (both["label"] != both["label_right"]).mean() > 0.5
    assert before["label"].n_unique() == after["label"].n_unique() == 2
    _unchanged(one, other, both.select("subject_id", "prediction_time"), kind)


def _opened(kind: str, path: Path) -> Site:
    (site,) = open_sites([SiteSpec("site", kind, path)])
    return site


@pytest.mark.real
@pytest.mark.parametrize("kind", list(ALTERED))
def test_no_outcome_in_the_raw_tables_reaches_a_feature(kind: str, real_data: Path, tmp_path: Path) -> None:
    genuine, altered = ALTERED[kind](real_data)
    one, other = (
        _opened(kind, _write(tables, tmp_path / name)) for name, tables in (("one", genuine), ("other", altered))
    )
    _compare(one, other, kind)


@pytest.mark.real
def test_no_outcome_of_the_challenge_reaches_a_feature(real_data: Path, tmp_path: Path) -> None:
    outcomes = pl.read_csv(real_data / "physionet2012" / "Outcomes-a.txt").head(300)
    flipped = outcomes.select(
        "RecordID",
        pl.lit(34).alias("SAPS-I"),
        pl.lit(22).alias("SOFA"),
        pl.lit(2).alias("Length_of_stay"),
        pl.lit(3).alias("Survival"),
        (1 - pl.col("In-hospital_death")).alias("In-hospital_death"),
    )
    wanted = {f"{record}.txt" for record in outcomes["RecordID"]}
    for name, table in (("one", outcomes), ("other", flipped)):
        (tmp_path / name / "set-a").mkdir(parents=True)
        table.write_csv(tmp_path / name / "Outcomes-a.txt")
    with tarfile.open(real_data / "physionet2012" / "set-a.tar.gz") as archive:
        for member in archive:
            if (record := Path(member.name).name) in wanted and (file := archive.extractfile(member)):
                text = file.read()
                for name in ("one", "other"):
                    (tmp_path / name / "set-a" / record).write_bytes(text)
    one, other = (_opened("physionet2012", tmp_path / name) for name in ("one", "other"))
    _compare(one, other, "physionet2012")


@pytest.mark.real
def test_no_diagnosis_of_heart_disease_reaches_a_feature(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "uci_heart_disease"
    shutil.copytree(folder, tmp_path / "other")
    for path in (tmp_path / "other").glob("processed.*"):
        lines = [line.rpartition(",") for line in path.read_text().splitlines() if line]
        path.write_text("".join(f"{findings},{4 - int(num)}\n" for findings, _, num in lines))
    one, other = _opened("uci_heart", folder), _opened("uci_heart", tmp_path / "other")
    assert not one.scan().collect().equals(other.scan().collect())
    _unchanged(one, other, _samples(one, "uci_heart"), "uci_heart")
