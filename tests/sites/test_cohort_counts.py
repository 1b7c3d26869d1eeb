"""Who is predicted for, and with which label, in every real export: found a second time from its raw tables.

The second way uses nothing of the project: polars reads the raw tables, each hospital's rules are written out below,
and the tasks are read as their files say (fedcore/tasks):

- `in_hospital/first_24h`, `first_48h`: of each ICU stay, X hours after its beginning, if by then (at X included) the
  patient is alive and has left neither the ICU nor the hospital. Positive: died in that hospital stay.
- `in_hospital/admission_24h`: the same from the hospital admission, without the ICU.
- `in_icu/first_24h`: of each ICU stay, 24 hours after its beginning, if the patient is alive and in it, and no other
  ICU stay has begun, 48 hours after it. Positive: died no later than the ICU stay ended.
- A stay of unknown outcome is no sample.

Where the rules of dying and of stays come from the export they stand in the reader of that export.
"""

import re
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from pathlib import Path

import polars as pl
import pytest

from fedcore.cohort import CannotServe, build_cohort, load_task, tasks
from sites.site import Site

MINUTE = timedelta(minutes=1)
SAMPLE = ["subject_id", "prediction_time", "label"]
IN_ICU, ADMISSION = "mortality/in_icu/first_24h", "mortality/in_hospital/admission_24h"
FIRST_24H, FIRST_48H = "mortality/in_hospital/first_24h", "mortality/in_hospital/first_48h"


@dataclass(frozen=True)
class Raw:
    """What the raw tables say.

    Attributes:
        stays: stay, subject_id, patient, group, admitted, left, death (null: survived), unknown; a row a hospital stay.
        icu: stay, entered, exited; a row an ICU stay.
    """

    stays: pl.DataFrame
    icu: pl.DataFrame


def _table(path: Path) -> pl.DataFrame:
    """A whole table with names in lower case, its dates read as such."""
    table = pl.read_csv(path, infer_schema_length=None, try_parse_dates=True)
    return table.rename(str.lower)


# --- the tasks, read plainly --------------------------------------------------------------------------------------


def _in_hospital(raw: Raw, hours: int, icu: bool) -> pl.DataFrame:
    stays = raw.stays.join(raw.icu, on="stay") if icu else raw.stays.with_columns(entered="admitted", exited="left")
    now = pl.col("entered") + timedelta(hours=hours)
    here = (pl.min_horizontal("exited", "left") > now) & (pl.col("death").is_null() | (pl.col("death") > now))
    return stays.filter(here & ~pl.col("unknown")).with_columns(
        prediction_time=now, label=pl.col("death").is_not_null()
    )


def _in_icu(raw: Raw) -> pl.DataFrame:
    stays = raw.stays.join(raw.icu, on="stay")
    until = pl.col("entered") + timedelta(hours=48)
    next_one = pl.col("entered").sort().shift(-1).over("subject_id", mapping_strategy="explode")
    stays = stays.sort("subject_id", "entered").with_columns(next_one=next_one)
    alone = (pl.col("next_one") > until).fill_null(True)
    here = (pl.col("exited") > until) & (pl.col("death").is_null() | (pl.col("death") > until))
    return stays.filter(alone & here & ~pl.col("unknown")).with_columns(
        prediction_time=pl.col("entered") + timedelta(hours=24),
        label=(pl.col("death") <= pl.col("exited")).fill_null(False),
    )


TASKS: dict[str, Callable[[Raw], pl.DataFrame]] = {
    ADMISSION: lambda raw: _in_hospital(raw, 24, icu=False),
    FIRST_24H: lambda raw: _in_hospital(raw, 24, icu=True),
    FIRST_48H: lambda raw: _in_hospital(raw, 48, icu=True),
    IN_ICU: _in_icu,
}


# --- the exports, read plainly ------------------------------------------------------------------------------------


def _mimic(admissions: pl.DataFrame, icustays: pl.DataFrame, dead_place: str) -> Raw:
    """MIMIC: `hospital_expire_flag` says who died, at `deathtime`, else at `dischtime`.

    A stay ends at max(dischtime, deathtime), an ICU stay no later than its hospital stay. A survivor with a
    `deathtime`, or with the place of the dead, contradicts himself: the outcome is unknown (the demos have none).
    """
    died = pl.col("hospital_expire_flag") == 1
    stays = admissions.select(
        "subject_id",
        stay="hadm_id",
        patient="subject_id",
        group=pl.lit(""),
        admitted=pl.col("admittime").cast(pl.Datetime("us")),
        left=pl.max_horizontal("dischtime", "deathtime").cast(pl.Datetime("us")),
        death=pl.when(died).then(pl.coalesce("deathtime", "dischtime")).cast(pl.Datetime("us")),
        unknown=~died & (pl.col("deathtime").is_not_null() | (pl.col("discharge_location") == dead_place)),
    ).with_columns(pl.col("unknown").fill_null(False))
    assert not stays["unknown"].any()
    ends = icustays.join(stays, left_on="hadm_id", right_on="stay")
    icu = ends.select(
        stay="hadm_id", entered=pl.col("intime").cast(pl.Datetime("us")), exited=pl.min_horizontal("outtime", "left")
    )
    return Raw(stays, icu)


def _mimic4(data: Path) -> Raw:
    folder = data / "mimiciv_demo_2.2"
    return _mimic(_table(folder / "hosp" / "admissions.csv"), _table(folder / "icu" / "icustays.csv"), "DIED")


def _mimic3(data: Path) -> Raw:
    folder = data / "mimiciii_demo_1.4"
    return _mimic(_table(folder / "ADMISSIONS.csv"), _table(folder / "ICUSTAYS.csv"), "DEAD/EXPIRED")


def _carevue(data: Path) -> Raw:
    """Patients none of whose ICU stays was charted in MetaVision."""
    whole, icustays = _mimic3(data), _table(data / "mimiciii_demo_1.4" / "ICUSTAYS.csv")
    other = icustays.filter(pl.col("dbsource") != "carevue")["subject_id"].to_list()
    stays = whole.stays.filter(~pl.col("subject_id").is_in(other))
    return Raw(stays, whole.icu.join(stays, on="stay", how="semi"))


def _merged(spans: list[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    """Spans that touch or overlap, as one."""
    out: list[tuple[datetime, datetime]] = []
    for begin, end in sorted(spans):
        if out and begin <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        else:
            out.append((begin, end))
    return out


def _eicu(data: Path) -> Raw:
    """eICU: minutes from each unit admission; `hospitaladmitoffset` places it in the hospital stay, a subject.

    - Minute 0 is the recorded hospital admission; the stay begins there or at its first unit admission, and ends at the
      recorded discharge or the last unit discharge, whichever is wider.
    - ICU stays are the unit stays of positive length other than step-down; those that touch or overlap are one.
    - Death: at unit discharge where `unitdischargestatus` is Expired; else, of those whose `hospitaldischargestatus` is
      Expired, at the later of hospital discharge and last unit discharge + 1 minute.
    - Unknown: no status; the hospital says Alive, a unit says Expired or a location says Death; a unit after the death.
    - A patient belongs to the region of the hospital of the first stay, by year and number; 1 January at
      `hospitaladmittime24` stands for minute 0.
    """
    folder = data / "eicu_demo_2.0.1"
    regions = dict(_table(folder / "hospital.csv.gz").select("hospitalid", "region").iter_rows())
    stays, icu = [], []
    home: dict[str, str] = {}
    rows = _table(folder / "patient.csv.gz").sort("hospitaldischargeyear", "patienthealthsystemstayid")
    for (number,), part in rows.group_by("patienthealthsystemstayid", maintain_order=True):
        units = part.to_dicts()
        one = units[0]
        clock = str(one["hospitaladmittime24"])
        zero = datetime.fromisoformat(f"{one['hospitaldischargeyear']}-01-01 {clock}")
        spans = [
            (zero - MINUTE * u["hospitaladmitoffset"], MINUTE * u["unitdischargeoffset"], u["unitdischargestatus"], u)
            for u in units
        ]
        last = max(begin + length for begin, length, _, _ in spans)
        recorded = zero + MINUTE * (one["hospitaldischargeoffset"] - one["hospitaladmitoffset"])
        deaths = [begin + length for begin, length, status, _ in spans if status == "Expired"]
        status = one["hospitaldischargestatus"]
        dead_places = [u["unitdischargelocation"] for u in units] + [one["hospitaldischargelocation"]]
        unknown = (
            (status is None and not deaths)
            or (status == "Alive" and (bool(deaths) or "Death" in dead_places))
            or (bool(deaths) and any(begin >= max(deaths) for begin, _, s, _ in spans if s != "Expired"))
        )
        death = max(deaths) if deaths else max(recorded, last + MINUTE) if status == "Expired" else None
        ends = [recorded, last] + ([death] if death else [])
        group = home.setdefault(one["uniquepid"], (regions[one["hospitalid"]] or "unknown").lower())
        admitted = min([zero, *(begin for begin, _, _, _ in spans)])
        stays.append((number, number, one["uniquepid"], group, admitted, max(ends), death, unknown))
        wards = [
            (begin, begin + length)
            for begin, length, _, u in spans
            if length > timedelta(0) and u["unitstaytype"] != "stepdown/other"
        ]
        icu += [(number, *span) for span in _merged(wards)]
    return _raw(stays, icu)


def _raw(stays: list[tuple[object, ...]], icu: list[tuple[object, ...]]) -> Raw:
    time = pl.Datetime("us")
    columns = {"stay": pl.Int64, "subject_id": pl.Int64, "patient": pl.String, "group": pl.String}
    columns |= {"admitted": time, "left": time, "death": time, "unknown": pl.Boolean}
    return Raw(
        pl.DataFrame(stays, columns, orient="row"),
        pl.DataFrame(icu, {"stay": pl.Int64, "entered": time, "exited": time}, orient="row"),
    )


INTENSIVE = {
    *("Cardiac Vascular Intensive Care Unit (CVICU)", "Coronary Care Unit (CCU)", "Trauma SICU (TSICU)"),
    *("Medical Intensive Care Unit (MICU)", "Medical/Surgical Intensive Care Unit (MICU/SICU)"),
    *("Neuro Surgical Intensive Care Unit (Neuro SICU)", "Surgical Intensive Care Unit (SICU)"),
}
"""The intensive-care units of MIMIC-IV: not Neuro Stepdown, Neuro Intermediate or PACU."""


def _end_of_day(moment: datetime) -> datetime:
    """A date without time counts as the end of that day."""
    return moment + timedelta(hours=23, minutes=59, seconds=59) if moment.time() == time(0) else moment


def _omop_mimic(data: Path) -> Raw:
    """MIMIC-IV as OMOP: an admission is a visit that records from where; one inside another belongs to it.

    - A stay through the emergency department begins when the patient leaves it for another place.
    - Intensive care: visit details at the care sites `INTENSIVE`; those that touch or overlap are one ICU stay.
    - Who was discharged to DIED died in that stay, at the time of `death` (a date alone: at the end of that day); the
      stay ends at the later of its end and the death.
    """
    folder = data / "mimiciv_demo_omop_0.9" / "1_omop_data_csv"
    names = dict(_table(folder / "care_site.csv").select("care_site_id", "care_site_name").iter_rows())
    died = dict(_table(folder / "death.csv").select("person_id", "death_datetime").iter_rows())
    details = _table(folder / "visit_detail.csv")
    details = details.filter(pl.col("visit_detail_end_datetime") > pl.col("visit_detail_start_datetime"))
    visits = _table(folder / "visit_occurrence.csv").drop_nulls("admitting_source_value")
    stays: list[tuple[object, ...]] = []
    icu: list[tuple[object, ...]] = []
    until: dict[int, datetime] = {}
    for visit in visits.sort("person_id", "visit_start_datetime").iter_rows(named=True):
        person, number = visit["person_id"], visit["visit_occurrence_id"]
        begin, end = visit["visit_start_datetime"], visit["visit_end_datetime"]
        inside = person in until and begin < until[person]
        until[person] = max(end, until.get(person, end))
        places = [
            (row[0], row[1], "Emergency" if row[2] == 8870 else names.get(row[3], ""))
            for row in details.filter(pl.col("visit_occurrence_id") == number)
            .select("^visit_detail_(start|end)_datetime$", "visit_detail_concept_id", "care_site_id")
            .sort("visit_detail_start_datetime")
            .iter_rows()
        ]
        spans = _merged([(b, e) for b, e, name in places if name in INTENSIVE])
        if inside:
            assert end <= until[person]
            assert not spans  # the demo's only one
            continue
        elsewhere = [b for b, _, name in places if name != "Emergency"]
        if places and places[0][2] == "Emergency" and elsewhere and begin < elsewhere[0] <= end:
            begin = elsewhere[0]
        death = _end_of_day(died[person]) if visit["discharge_to_source_value"] == "DIED" else None
        stays.append((number, person, str(person), "", begin, max(end, death or end), death, False))
        icu += [(number, *span) for span in spans]
    return _raw(stays, icu)


def _omop_synthea(data: Path) -> Raw:
    """Synthea as OMOP: inpatient visits (9201), dates alone, each the end of its day; no intensive care.

    A death on a day of the visit is a death in it.
    """
    with zipfile.ZipFile(data / "omop_synthea27nj" / "Synthea27Nj_5.4.zip") as archive:
        visits, deaths = (
            pl.read_csv(archive.read(f"{name}.csv"), try_parse_dates=True) for name in ("VISIT_OCCURRENCE", "DEATH")
        )
    stays = visits.filter(pl.col("visit_concept_id") == 9201).join(deaths, on="person_id", how="left")
    rows: list[tuple[object, ...]] = []
    for row in stays.iter_rows(named=True):
        begin, end = _end_of_day(row["visit_start_datetime"]), _end_of_day(row["visit_end_datetime"])
        death = _end_of_day(row["death_datetime"]) if row["death_datetime"] else None
        death = death if death and begin <= death <= end else None
        number = row["visit_occurrence_id"]
        rows.append((number, row["person_id"], str(row["person_id"]), "", begin, end, death, False))
    return _raw(rows, [])


def _physionet2012(data: Path) -> Raw:
    """PhysioNet 2012: each record is an ICU stay and a hospital stay of more than 48 hours, and begins at 00:00.

    In-hospital_death is the outcome, placed with the discharge at 48:01; when the ICU stay ended is not known.
    """
    folder, zero = data / "physionet2012", datetime.fromisoformat("2012-01-01")
    died = dict(pl.read_csv(folder / "Outcomes-a.txt").select("RecordID", "In-hospital_death").iter_rows())
    types = {"1": "coronary-care-unit", "2": "cardiac-surgery-recovery-unit", "3": "medical-icu", "4": "surgical-icu"}
    stays: list[tuple[object, ...]] = []
    icu: list[tuple[object, ...]] = []
    end = zero + timedelta(hours=48, minutes=1)
    with tarfile.open(folder / "set-a.tar.gz") as archive:
        for member in archive:
            if (found := re.search(r"(\d+)\.txt$", member.name)) and (file := archive.extractfile(member)):
                head = file.read(400).decode()
                kind = re.search(r"00:00,ICUType,(\d)", head)
                number = int(found[1])
                death = end if died[number] else None
                stays.append((number, number, found[1], types[kind[1]] if kind else "", zero, end, death, False))
                icu.append((number, zero, None))
    return _raw(stays, icu)


# --- the two ways -------------------------------------------------------------------------------------------------

READERS: dict[str, tuple[str, Callable[[Path], Raw]]] = {
    "mimic3": ("m3=mimic3:mimiciii_demo_1.4", _mimic3),
    "mimic3,carevue": ("cv=mimic3,carevue:mimiciii_demo_1.4", _carevue),
    "mimic4": ("m4=mimic4:mimiciv_demo_2.2", _mimic4),
    "eicu": ("e=eicu:eicu_demo_2.0.1", _eicu),
    "eicu,by=region": ("e=eicu,by=region:eicu_demo_2.0.1", _eicu),
    "omop (MIMIC-IV)": ("o=omop:mimiciv_demo_omop_0.9/1_omop_data_csv", _omop_mimic),
    "omop (Synthea)": ("s=omop:omop_synthea27nj/Synthea27Nj_5.4.zip", _omop_synthea),
    "physionet2012": ("p=physionet2012:physionet2012", _physionet2012),
    "physionet2012,by=icu_type": ("p=physionet2012,by=icu_type:physionet2012", _physionet2012),
}
SERVED = {"physionet2012": {FIRST_48H}, "omop (Synthea)": {ADMISSION}}
"""What an export serves, where it is not every task."""


@pytest.mark.real
@pytest.mark.parametrize("export", list(READERS))
def test_the_samples_of_every_task_are_those_of_a_plain_reading_of_the_raw_tables(
    export: str, real_data: Path, real_sites: Callable[[str], list[Site]]
) -> None:
    text, read = READERS[export]
    raw, sites = read(real_data), real_sites(text)
    groups = [site.name.removeprefix(f"{site.spec.name}-") for site in sites]
    assert set(TASKS) == {name for name in tasks() if name.startswith("mortality/")}
    for name, plain in TASKS.items():
        expected = plain(raw)
        for site, group in zip(sites, groups, strict=True):
            own = expected.filter(pl.col("group") == group) if len(sites) > 1 else expected
            if name not in SERVED.get(export.partition(",")[0], TASKS):
                with pytest.raises(CannotServe):
                    build_cohort(site, load_task(name))
                continue
            found = build_cohort(site, load_task(name)).samples
            assert found.select(SAMPLE).equals(own.select(SAMPLE).sort(SAMPLE)), (site.name, name)
            assert found["patient_id"].n_unique() == own["patient"].n_unique()
            assert found.height > 0
        assert len(sites) == 1 or set(groups) == set(raw.stays["group"])


@pytest.mark.real
@pytest.mark.parametrize("export", [e for e in READERS if "by=" not in e])
def test_stays_deaths_and_unknown_outcomes_are_those_of_a_plain_reading_of_the_raw_tables(
    export: str, real_data: Path, real_sites: Callable[[str], list[Site]]
) -> None:
    text, read = READERS[export]
    raw, (site,) = read(real_data), real_sites(text)
    events = site.scan().select("subject_id", "time", "code").collect()

    def times(prefix: str) -> list[tuple[int, datetime]]:
        rows = events.filter(pl.col("code").str.starts_with(prefix)).select("subject_id", "time")
        return sorted(rows.iter_rows())

    dead = raw.stays.drop_nulls("death").filter(~pl.col("unknown"))
    owner = raw.icu.join(raw.stays, on="stay")
    assert times("HOSPITAL_ADMISSION//") == sorted(raw.stays.select("subject_id", "admitted").iter_rows())
    assert times("HOSPITAL_DISCHARGE//") == sorted(raw.stays.select("subject_id", "left").iter_rows())
    assert times("ICU_ADMISSION//") == sorted(owner.select("subject_id", "entered").iter_rows())
    assert times("ICU_DISCHARGE//") == sorted(owner.select("subject_id", "exited").drop_nulls().iter_rows())
    assert set(dead.select("subject_id", "death").iter_rows()) <= set(times("MEDS_DEATH"))
    unknown = raw.stays.filter("unknown").select("subject_id", "left")
    assert times("OUTCOME_UNKNOWN") == sorted(unknown.iter_rows())
    left = raw.stays.group_by("subject_id").agg(pl.col("left").max())
    last = dict(left.iter_rows())
    elsewhere = set(times("MEDS_DEATH")) - set(dead.select("subject_id", "death").iter_rows())
    assert all(subject not in last or when > last[subject] for subject, when in elsewhere)


@pytest.mark.real
def test_an_export_taken_as_a_meds_dataset_has_the_samples_of_the_export(
    real_sites: Callable[[str], list[Site]],
) -> None:
    (site,) = real_sites("m4=mimic4:mimiciv_demo_2.2")
    (same,) = real_sites(f"meds=meds:{site.dataset.root}")
    for name in TASKS:
        found = build_cohort(same, load_task(name)).samples
        assert found.equals(build_cohort(site, load_task(name)).samples)


@pytest.mark.real
def test_heart_disease_serves_no_task_of_mortality(real_sites: Callable[[str], list[Site]]) -> None:
    (site,) = real_sites("h=uci_heart:uci_heart_disease")
    for name in TASKS:
        with pytest.raises(CannotServe):
            build_cohort(site, load_task(name))
