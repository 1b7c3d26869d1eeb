"""MIMIC-III: counts against plain polars on the raw tables, and each trap on a hospital of a few rows."""

import gzip
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from sites.dataset import Dataset
from sites.errors import InputError
from sites.exports.mimic3 import EXPORT
from sites.ingest import ingest
from sites.spec import SiteSpec

ADMISSION = {
    "subject_id": 1,
    "hadm_id": 10,
    "admittime": "2150-01-01 10:00:00",
    "dischtime": "2150-01-09 12:00:00",
    "deathtime": None,
    "admission_type": "EMERGENCY",
    "admission_location": "CLINIC",
    "discharge_location": "HOME",
    "ethnicity": "WHITE",
    "hospital_expire_flag": 0,
}
ICUSTAY = {
    "subject_id": 1,
    "hadm_id": 10,
    "icustay_id": 100,
    "dbsource": "carevue",
    "first_careunit": "MICU",
    "last_careunit": "MICU",
    "intime": "2150-01-01 11:00:00",
    "outtime": "2150-01-05 11:00:00",
}
PATIENT = {"subject_id": 1, "gender": "F", "dob": "2100-06-01 00:00:00", "dod": None}
DEAD = {"dischtime": "2150-01-05 10:00:00", "deathtime": "2150-01-05 10:00:00"} | {
    "hospital_expire_flag": 1,
    "discharge_location": "DEAD/EXPIRED",
}
CHART = {"subject_id": 1, "itemid": 211, "charttime": "2150-01-01 12:00:00", "storetime": "2150-01-01 12:30:00"} | {
    "value": "80",
    "valuenum": 80,
    "valueuom": "BPM",
    "error": None,
}
INPUT = {"subject_id": 1, "itemid": 221906, "starttime": "2150-01-02 10:00:00", "endtime": "2150-01-02 14:00:00"} | {
    "amount": 8.0,
    "amountuom": "mg",
    "rate": 0.1,
    "rateuom": "mcg/kg/min",
    "patientweight": 70.0,
    "statusdescription": "FinishedRunning",
}

Row = Mapping[str, object]


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2150-01-{text}")


def write(folder: Path, tables: Mapping[str, Sequence[Row]]) -> Path:
    """A MIMIC-III export of these rows; PATIENTS, ADMISSIONS and ICUSTAYS have one row each unless given."""
    folder.mkdir(parents=True, exist_ok=True)
    defaults = {"PATIENTS": [PATIENT], "ADMISSIONS": [ADMISSION], "ICUSTAYS": [ICUSTAY]}
    for name, rows in {**defaults, **tables}.items():
        pl.DataFrame(rows, infer_schema_length=None).write_csv(folder / f"{name}.csv")
    return folder


def read(folder: Path, home: Path, option: str = "") -> Dataset:
    home.mkdir(exist_ok=True)
    return ingest(SiteSpec.parse(f"mimic3{option}:{folder}", named=False), home)


def events(folder: Path, home: Path, prefix: str) -> list[tuple[datetime, str, float | None, str | None]]:
    """The events of a code or of its continuations, in time."""
    found = read(folder, home).scan().filter(pl.col("code").str.starts_with(prefix)).collect()
    return found.select("time", "code", "numeric_value", "text_value").rows()


@pytest.fixture(scope="module")
def raw(real_data: Path) -> Path:
    return real_data / "mimiciii_demo_1.4"


@pytest.fixture(scope="module")
def demo(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return read(raw, tmp_path_factory.mktemp("home"))


def table(raw: Path, name: str) -> pl.DataFrame:
    file = next(raw.glob(f"{name}.csv*"))
    return pl.read_csv(file, infer_schema=False, null_values="")


def times(*columns: str) -> list[pl.Expr]:
    return [pl.col(c).str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us") for c in columns]


def starting(dataset: Dataset, prefix: str) -> pl.DataFrame:
    return dataset.scan().filter(pl.col("code").str.starts_with(prefix)).collect()


@pytest.mark.real
def test_demo_has_100_patients_129_admissions_136_icu_stays_and_40_deaths_in_hospital(demo: Dataset, raw: Path) -> None:
    admissions = table(raw, "ADMISSIONS")
    assert demo.manifest.n_patients == len(table(raw, "PATIENTS")) == 100
    assert len(starting(demo, "HOSPITAL_ADMISSION")) == len(starting(demo, "HOSPITAL_DISCHARGE")) == 129
    assert len(starting(demo, "ICU_ADMISSION")) == len(starting(demo, "ICU_DISCHARGE")) == 136
    deaths = starting(demo, "MEDS_DEATH").rename({"time": "death"})
    stays = admissions.with_columns(
        *times("admittime", "dischtime", "deathtime"), subject_id=pl.col("subject_id").cast(int)
    )
    in_stay = stays.join(deaths, on="subject_id").filter(
        pl.col("death").is_between("admittime", pl.max_horizontal("dischtime", "deathtime"))
    )
    assert len(in_stay) == (admissions["hospital_expire_flag"] == "1").sum() == 40
    assert not len(starting(demo, "OUTCOME_UNKNOWN"))


@pytest.mark.real
def test_the_dead_of_the_demo_are_discharged_at_the_later_of_discharge_and_death(demo: Dataset, raw: Path) -> None:
    dead = (
        table(raw, "ADMISSIONS")
        .filter(pl.col("hospital_expire_flag") == "1")
        .with_columns(*times("dischtime", "deathtime"), subject_id=pl.col("subject_id").cast(pl.Int64))
        .select("subject_id", time=pl.max_horizontal("dischtime", "deathtime"))
    )
    discharges = starting(demo, "HOSPITAL_DISCHARGE//DEAD/EXPIRED").select("subject_id", "time")
    assert discharges.sort("subject_id").equals(dead.sort("subject_id"))
    deaths = starting(demo, "MEDS_DEATH").select("subject_id", death="time")
    assert discharges.join(deaths, on="subject_id").filter(pl.col("death") > pl.col("time")).is_empty()


@pytest.mark.real
def test_every_charted_number_of_the_demo_is_an_event_at_the_time_it_was_stored(demo: Dataset, raw: Path) -> None:
    deaths = starting(demo, "MEDS_DEATH").select(pl.col("subject_id").cast(pl.String), death="time")
    fields = ["subject_id", "itemid", "valueuom", "charttime", "value", "valuenum", "time"]

    def in_life(rows: pl.DataFrame) -> pl.DataFrame:
        alive = pl.col("death").is_null() | (pl.col("charttime") <= pl.col("death"))
        return rows.join(deaths, on="subject_id", how="left").filter(alive).select(fields).unique()

    charted = (
        table(raw, "CHARTEVENTS")
        .filter(pl.col("error").is_null() | (pl.col("error") == "0"))
        .with_columns(*times("charttime", "storetime"))
        .with_columns(time=pl.max_horizontal("charttime", "storetime"))
    )
    results = table(raw, "LABEVENTS").with_columns(*times("charttime"))
    results = results.with_columns(time=pl.col("charttime") + timedelta(hours=2))
    assert len(charted) == 758_355 - 648
    expected = pl.concat([in_life(charted), in_life(results)]).select(
        pl.col("subject_id").cast(pl.Int64),
        "time",
        pl.format("LAB//{}//{}", "itemid", pl.col("valueuom").fill_null("UNK")).alias("code"),
        pl.col("valuenum").cast(pl.Float64).cast(pl.Float32).alias("numeric_value"),
    )
    found = starting(demo, "LAB//").select("subject_id", "time", "code", "numeric_value")
    keys = ["subject_id", "time", "code", "numeric_value"]
    assert len(found) == len(expected) > 800_000
    assert found.sort(keys).equals(expected.sort(keys))


@pytest.mark.real
def test_billing_of_the_demo_is_known_at_discharge_and_complete(demo: Dataset, raw: Path) -> None:
    ends = (
        table(raw, "ADMISSIONS")
        .with_columns(*times("dischtime", "deathtime"))
        .select("hadm_id", time=pl.max_horizontal("dischtime", "deathtime"))
    )
    for name, prefix in (("DIAGNOSES_ICD", "DIAGNOSIS//ICD//9//"), ("PROCEDURES_ICD", "PROCEDURE//ICD//9//")):
        coded = table(raw, name).join(ends, on="hadm_id")
        expected = coded.select(pl.col("subject_id").cast(pl.Int64), "time", code=prefix + pl.col("icd9_code")).unique()
        found = starting(demo, prefix).select("subject_id", "time", "code").unique()
        assert found.sort(pl.all()).equals(expected.sort(pl.all()))
        assert len(starting(demo, prefix)) == len(table(raw, name))


@pytest.mark.real
def test_no_event_of_the_demo_tells_an_outcome_before_the_discharge(demo: Dataset) -> None:
    telling = demo.scan().filter(
        pl.col("code").str.contains("(?i)expired|MEDS_DEATH|^DRG|^DIAGNOSIS|^PROCEDURE//(ICD|CPT)|HOSPITAL_DISCHARGE")
    )
    stays = starting(demo, "HOSPITAL_ADMISSION").sort("subject_id", "time").select("subject_id", start="time")
    ends = starting(demo, "HOSPITAL_DISCHARGE").sort("subject_id", "time").select("subject_id", end="time")
    intervals = pl.concat([stays, ends.select("end")], how="horizontal")
    assert len(intervals) == 129
    inside = (
        telling.collect()
        .join(intervals, on="subject_id")
        .filter((pl.col("time") >= pl.col("start")) & (pl.col("time") < pl.col("end")))
    )
    assert inside.is_empty()


@pytest.mark.real
def test_carevue_keeps_the_patients_all_of_whose_icu_stays_are_carevue(raw: Path, home: Path) -> None:
    stays = table(raw, "ICUSTAYS")
    only = set(stays["subject_id"]) - set(stays.filter(pl.col("dbsource") != "carevue")["subject_id"])
    dataset = read(raw, home, ",carevue")
    assert set(dataset.subjects["subject_id"].cast(pl.String)) == only
    assert dataset.manifest.source == "bidmc-carevue"
    assert dataset.scan().select(pl.col("subject_id").n_unique()).collect().item() == len(only)
    assert not any("whose patient or stay" in warning for warning in dataset.manifest.warnings)


def test_only_an_option_gives_mimic3_a_source_of_its_own() -> None:
    assert EXPORT.source({}) == EXPORT.source({"metavision": ""}) == "bidmc"
    assert EXPORT.source({"carevue": ""}) == "bidmc-carevue"


def test_a_patient_with_stays_in_both_systems_is_in_neither_part(tmp_path: Path, home: Path) -> None:
    other = {**ICUSTAY, "icustay_id": 101, "dbsource": "metavision", "intime": "2150-01-06 11:00:00"}
    folder = write(tmp_path / "m3", {"ICUSTAYS": [ICUSTAY, {**other, "outtime": "2150-01-07 11:00:00"}]})
    for option in (",carevue", ",metavision"):
        with pytest.raises(InputError, match="found no patient all of whose ICU stays have dbsource"):
            read(folder, home, option)
    with pytest.raises(InputError, match="carevue and metavision together"):
        read(folder, home, ",carevue,metavision")


def test_upper_case_headers_in_compressed_files_are_read(tmp_path: Path, home: Path) -> None:
    folder = write(tmp_path / "m3", {"CHARTEVENTS": [CHART]})
    for file in list(folder.iterdir()):
        header, rows = file.read_text().split("\n", 1)
        with gzip.open(folder / f"{file.stem.lower()}.csv.gz", "wt") as packed:
            packed.write(header.upper() + "\n" + rows)
        file.unlink()
    assert events(folder, home, "LAB//") == [(at("01 12:30"), "LAB//211//BPM", 80.0, None)]


def test_charting_marked_as_an_error_is_left_out(tmp_path: Path, home: Path) -> None:
    output = {"subject_id": 1, "itemid": 40055, "charttime": "2150-01-02 09:00:00", "value": 30.0, "valueuom": "ml"}
    folder = write(
        tmp_path / "m3",
        {
            "CHARTEVENTS": [{**CHART, "error": 1}, {**CHART, "value": "81", "valuenum": 81, "error": 0}],
            "OUTPUTEVENTS": [{**output, "iserror": None}, {**output, "value": 99.0, "iserror": 1}],
            "DATETIMEEVENTS": [{**CHART, "value": "2150-01-01 00:00:00", "error": 1}],
        },
    )
    assert [event[2] for event in events(folder, home, "LAB//")] == [81.0]
    assert [event[2] for event in events(folder, home, "SUBJECT_FLUID_OUTPUT")] == [30.0]
    assert events(folder, home, "DATETIME") == []


def test_charting_is_known_when_stored_but_never_before_it_was_charted(tmp_path: Path, home: Path) -> None:
    ahead = {**CHART, "charttime": "2150-01-01 14:00:00", "storetime": "2150-01-01 13:50:00"}
    never = {**CHART, "charttime": "2150-01-01 15:00:00", "storetime": None}
    folder = write(tmp_path / "m3", {"CHARTEVENTS": [CHART, ahead, never]})
    assert [event[0] for event in events(folder, home, "LAB//")] == [at("01 12:30"), at("01 14:00"), at("01 15:00")]


def test_words_beside_a_number_are_kept_and_a_repeated_number_is_not(tmp_path: Path, home: Path) -> None:
    tube = {**CHART, "itemid": 723, "value": "1.0 ET/Trach", "valuenum": 1, "valueuom": None}
    warm = {**CHART, "itemid": 678, "value": "98.6", "valuenum": 98.6, "valueuom": "?F"}
    lab = {"subject_id": 1, "itemid": 51003, "charttime": "2150-01-02 06:00:00", "value": "<0.01", "valuenum": None}
    folder = write(tmp_path / "m3", {"CHARTEVENTS": [tube, warm], "LABEVENTS": [{**lab, "valueuom": "ng/mL"}]})
    assert events(folder, home, "LAB//723") == [(at("01 12:30"), "LAB//723//UNK", 1.0, "1.0 ET/Trach")]
    [(_, unit_kept, number, text)] = events(folder, home, "LAB//678")
    assert (unit_kept, round(number or 0, 3), text) == ("LAB//678//?F", 98.6, None)
    assert events(folder, home, "LAB//51003") == [(at("02 08:00"), "LAB//51003//ng/mL", None, "<0.01")]


def test_laboratory_results_are_known_two_hours_and_cultures_a_week_after_the_draw(tmp_path: Path, home: Path) -> None:
    lab = {"subject_id": 1, "itemid": 50912, "charttime": "2150-01-02 06:00:00", "value": "1.1", "valuenum": 1.1}
    culture = {"subject_id": 1, "chartdate": "2150-01-02 00:00:00", "charttime": None, "spec_type_desc": "URINE"} | {
        "org_name": "ESCHERICHIA COLI",
        "ab_name": "GENTAMICIN",
        "interpretation": "S",
    }
    folder = write(tmp_path / "m3", {"LABEVENTS": [{**lab, "valueuom": "mg/dL"}], "MICROBIOLOGYEVENTS": [culture]})
    assert events(folder, home, "LAB//")[0][0] == at("02 08:00")
    assert events(folder, home, "SPECIMEN") == [(at("02 23:59:59"), "SPECIMEN//URINE", None, None)]
    known = [(time, code) for time, code, _, _ in events(folder, home, "MICROBIOLOGY//")]
    assert known == [(at("09 23:59:59"), "MICROBIOLOGY//URINE//ESCHERICHIA COLI")]
    [(_, code, _, _)] = events(folder, home, "SUSCEPTIBILITY")
    assert code == "SUSCEPTIBILITY//ESCHERICHIA COLI//GENTAMICIN//S"


def test_prescriptions_are_known_at_the_end_of_the_day_and_a_stop_before_the_start_says_nothing(
    tmp_path: Path, home: Path
) -> None:
    drug = {"subject_id": 1, "hadm_id": 10, "startdate": "2150-01-02 00:00:00", "enddate": "2150-01-04 00:00:00"}
    orders = [
        {**drug, "drug": "Heparin", "ndc": "63323026201"},
        {**drug, "drug": "Insulin", "ndc": "0", "enddate": "2150-01-01 00:00:00"},
    ]
    folder = write(tmp_path / "m3", {"PRESCRIPTIONS": orders})
    assert events(folder, home, "MEDICATION") == [
        (at("02 23:59:59"), "MEDICATION//START//Heparin", None, "63323026201"),
        (at("02 23:59:59"), "MEDICATION//START//Insulin", None, None),
        (at("04 23:59:59"), "MEDICATION//STOP//Heparin", None, "63323026201"),
    ]


def test_rewritten_orders_are_left_out_and_only_the_rate_is_known_while_an_infusion_runs(
    tmp_path: Path, home: Path
) -> None:
    orders = [
        INPUT,
        {**INPUT, "itemid": 1, "statusdescription": "Rewritten"},
        {**INPUT, "itemid": 2, "rate": None, "rateuom": None, "endtime": "2150-01-02 10:01:00"},
        {**INPUT, "itemid": 3, "rate": None, "rateuom": None},
        {**INPUT, "itemid": 4, "endtime": "2150-01-02 09:00:00"},
    ]
    folder = write(tmp_path / "m3", {"INPUTEVENTS_MV": orders})
    starts = events(folder, home, "INFUSION_START")
    assert [(code, round(number, 2) if number else None, text) for _, code, number, text in starts] == [
        ("INFUSION_START//2", 8.0, "mg"),
        ("INFUSION_START//221906", 0.1, "mcg/kg/min"),
        ("INFUSION_START//3", None, None),
        ("INFUSION_START//4", 0.1, "mcg/kg/min"),
    ]
    assert events(folder, home, "INFUSION_END//221906") == [(at("02 14:00"), "INFUSION_END//221906", 8.0, "mg")]
    assert events(folder, home, "INFUSION_END//4") == []  # a stop before the start


def test_carevue_drips_end_where_they_are_stopped(tmp_path: Path, home: Path) -> None:
    drip = {"subject_id": 1, "itemid": 30120, "charttime": "2150-01-02 10:00:00", "storetime": "2150-01-02 10:20:00"}
    blank = {"amount": None, "amountuom": None, "rate": None, "rateuom": None, "stopped": None}
    rows = [
        {**drip, **blank, "rate": 0.05, "rateuom": "mcgkgmin"},
        {**drip, **blank, "charttime": "2150-01-02 12:00:00", "storetime": None, "stopped": "D/C'd"},
    ]
    folder = write(tmp_path / "m3", {"INPUTEVENTS_CV": rows})
    [(time, code, number, unit)] = events(folder, home, "INFUSION_START")
    assert (time, code, unit) == (at("02 10:20"), "INFUSION_START//30120", "mcgkgmin")
    assert number == pytest.approx(0.05)
    assert events(folder, home, "INFUSION_END") == [(at("02 12:00"), "INFUSION_END//30120", None, None)]


def test_irrigant_in_stays_a_positive_volume_for_the_concepts_to_subtract(tmp_path: Path, home: Path) -> None:
    flush = {"subject_id": 1, "itemid": 227488, "charttime": "2150-01-02 09:00:00", "value": 3000.0, "valueuom": "mL"}
    folder = write(tmp_path / "m3", {"OUTPUTEVENTS": [flush]})
    assert events(folder, home, "SUBJECT_FLUID_OUTPUT") == [
        (at("02 09:00"), "SUBJECT_FLUID_OUTPUT//227488//mL", 3000.0, None)
    ]


def test_two_equal_volumes_stored_at_once_both_count_and_a_duplicated_row_counts_once(
    tmp_path: Path, home: Path
) -> None:
    urine = {"subject_id": 1, "itemid": 40055, "charttime": "2150-01-02 09:00:00", "storetime": "2150-01-02 11:30:00"}
    rows = [{**urine, "value": 60.0, "valueuom": "ml"}, {**urine, "value": 60.0, "valueuom": "ml"}]
    rows.append({**rows[0], "charttime": "2150-01-02 10:00:00"})
    folder = write(tmp_path / "m3", {"OUTPUTEVENTS": rows})
    volumes = [event[2] for event in events(folder, home, "SUBJECT_FLUID_OUTPUT")]
    assert volumes == [60.0, 60.0]


def test_an_icu_stay_ends_with_the_hospital_stay_at_the_latest(tmp_path: Path, home: Path) -> None:
    late = {**ICUSTAY, "outtime": "2150-01-09 15:00:00"}
    endless = {**ICUSTAY, "icustay_id": 101, "intime": "2150-01-07 11:00:00", "outtime": None}
    after = {**ICUSTAY, "icustay_id": 102, "intime": "2150-01-10 11:00:00", "outtime": "2150-01-11 11:00:00"}
    stray = {**ICUSTAY, "icustay_id": 103, "hadm_id": 99}
    folder = write(tmp_path / "m3", {"ICUSTAYS": [late, endless, after, stray]})
    dataset = read(folder, home)
    assert [event[0] for event in events(folder, home, "ICU_DISCHARGE")] == [at("09 12:00"), at("09 12:00")]
    warnings = " ".join(dataset.manifest.warnings)
    assert "1 ICU stays have an outtime after the hospital discharge" in warnings
    assert "1 ICU stays have no outtime" in warnings
    assert "1 ICU stays are left out: they begin at or after the hospital discharge" in warnings
    assert "1 ICU stays are left out: their hospital stay is not in the data" in warnings


def test_nothing_charted_after_death_is_an_event_and_what_was_stored_later_stays(tmp_path: Path, home: Path) -> None:
    before = {**CHART, "charttime": "2150-01-05 09:55:00", "storetime": "2150-01-05 10:40:00"}
    after = {
        **CHART,
        "charttime": "2150-01-05 10:05:00",
        "storetime": "2150-01-05 10:40:00",
        "valuenum": 0,
        "value": "0",
    }
    folder = write(tmp_path / "m3", {"ADMISSIONS": [{**ADMISSION, **DEAD}], "CHARTEVENTS": [before, after]})
    assert events(folder, home, "LAB//") == [(at("05 10:40"), "LAB//211//BPM", 80.0, None)]
    assert events(folder, home, "MEDS_DEATH") == [(at("05 10:00"), "MEDS_DEATH", None, None)]


def test_a_death_after_the_discharge_moves_the_discharge_and_the_diagnoses(tmp_path: Path, home: Path) -> None:
    admission = {**ADMISSION, **DEAD, "deathtime": "2150-01-06 10:00:00"}
    diagnosis = {"subject_id": 1, "hadm_id": 10, "icd9_code": "0389"}
    folder = write(
        tmp_path / "m3", {"ADMISSIONS": [admission], "DIAGNOSES_ICD": [diagnosis, {**diagnosis, "icd9_code": None}]}
    )
    for prefix in ("HOSPITAL_DISCHARGE", "MEDS_DEATH", "DIAGNOSIS//ICD//9//0389"):
        assert [event[0] for event in events(folder, home, prefix)] == [at("06 10:00")]
    assert len(events(folder, home, "DIAGNOSIS")) == 1


def test_the_readmission_of_an_organ_donor_is_left_out_and_counted(tmp_path: Path, home: Path) -> None:
    donor = {**ADMISSION, **DEAD, "hadm_id": 11, "admittime": "2150-01-05 10:01:00", "dischtime": "2150-01-06 08:00:00"}
    diagnoses = [{"subject_id": 1, "hadm_id": hadm, "icd9_code": code} for hadm, code in ((10, "43411"), (11, "V594"))]
    folder = write(tmp_path / "m3", {"ADMISSIONS": [{**ADMISSION, **DEAD}, donor], "DIAGNOSES_ICD": diagnoses})
    assert len(events(folder, home, "HOSPITAL_ADMISSION")) == 1
    assert events(folder, home, "MEDS_DEATH") == [(at("05 10:00"), "MEDS_DEATH", None, None)]
    assert [event[1] for event in events(folder, home, "DIAGNOSIS")] == ["DIAGNOSIS//ICD//9//43411"]
    [warning] = [w for w in read(folder, home).manifest.warnings if "death" in w]
    assert warning.startswith("1 hospital stays are left out")


def test_a_death_before_the_admission_leaves_no_stay(tmp_path: Path, home: Path) -> None:
    admission = {**ADMISSION, **DEAD, "deathtime": "2150-01-01 09:00:00"}
    folder = write(tmp_path / "m3", {"ADMISSIONS": [admission]})
    assert events(folder, home, "HOSPITAL_") == []
    assert events(folder, home, "ICU_") == []
    assert events(folder, home, "MEDS_DEATH") == [(at("01 09:00"), "MEDS_DEATH", None, None)]
    assert any("begin at or after the patient's death" in warning for warning in read(folder, home).manifest.warnings)


def test_a_date_of_death_counts_as_the_end_of_that_day(tmp_path: Path, home: Path) -> None:
    folder = write(tmp_path / "m3", {"PATIENTS": [{**PATIENT, "dod": "2150-01-09 00:00:00"}]})
    assert events(folder, home, "MEDS_DEATH") == [(at("09 23:59:59"), "MEDS_DEATH", None, None)]
    assert events(folder, home, "HOSPITAL_DISCHARGE")[0][0] == at("09 12:00")  # a survivor of the stay
    assert events(folder, home, "OUTCOME_UNKNOWN") == []


@pytest.mark.parametrize(
    ("admission", "patient"),
    [
        ({"deathtime": "2150-01-05 10:00:00"}, {}),
        ({"discharge_location": "DEAD/EXPIRED"}, {}),
        ({"hospital_expire_flag": None}, {}),
        ({"hospital_expire_flag": 7}, {}),
        ({}, {"dod": "2150-01-04 00:00:00"}),
    ],
    ids=[
        "survived with a time of death",
        "survived to be dead",
        "no flag",
        "a flag that says nothing",
        "survived longer than dod",
    ],
)
def test_a_contradictory_death_is_an_unknown_outcome(admission: Row, patient: Row, tmp_path: Path, home: Path) -> None:
    folder = write(tmp_path / "m3", {"ADMISSIONS": [{**ADMISSION, **admission}], "PATIENTS": [{**PATIENT, **patient}]})
    assert events(folder, home, "OUTCOME_UNKNOWN") == [(at("09 12:00"), "OUTCOME_UNKNOWN", None, None)]
    assert any(
        warning.startswith("1 hospital stays have an unknown") for warning in read(folder, home).manifest.warnings
    )


def test_a_300_year_old_is_90_at_the_first_admission(tmp_path: Path, home: Path) -> None:
    later = {**ADMISSION, "hadm_id": 11, "admittime": "2152-01-01 10:00:00", "dischtime": "2152-01-02 10:00:00"}
    folder = write(
        tmp_path / "m3", {"PATIENTS": [{**PATIENT, "dob": "1850-01-01 00:00:00"}], "ADMISSIONS": [ADMISSION, later]}
    )
    assert [event[2] for event in events(folder, home, "AGE")] == [90.0, 90.0]
    assert events(folder, home, "MEDS_BIRTH")[0][0] == datetime.fromisoformat("2060-01-01 10:00")


def test_age_is_in_completed_years(tmp_path: Path, home: Path) -> None:
    assert [e[2] for e in events(write(tmp_path / "m3", {}), home, "AGE")] == [49.0]  # 1 June 2100 to 1 January 2150


def test_neonates_are_kept_and_counted(tmp_path: Path, home: Path) -> None:
    folder = write(tmp_path / "m3", {"PATIENTS": [{**PATIENT, "dob": "2150-01-01 00:00:00"}]})
    assert [event[2] for event in events(folder, home, "AGE")] == [0.0]
    assert events(folder, home, "MEDS_BIRTH")[0][0] == at("01 00:00")
    assert any("first year of life" in warning for warning in read(folder, home).manifest.warnings)


def test_a_patient_born_after_the_first_admission_has_no_age(tmp_path: Path, home: Path) -> None:
    folder = write(tmp_path / "m3", {"PATIENTS": [{**PATIENT, "dob": "2151-01-01 00:00:00"}]})
    assert events(folder, home, "AGE") == []
    assert events(folder, home, "MEDS_BIRTH") == []
    assert any(warning.startswith("1 patients have no age") for warning in read(folder, home).manifest.warnings)


def test_groups_are_those_of_the_first_icu_stay(tmp_path: Path, home: Path) -> None:
    first = {**ICUSTAY, "icustay_id": 99, "intime": "2150-01-01 10:30:00", "outtime": "2150-01-01 10:45:00"}
    folder = write(tmp_path / "m3", {"ICUSTAYS": [ICUSTAY, {**first, "first_careunit": "CCU"}]})
    assert read(folder, home).subjects.select("unit", "dbsource").rows() == [("CCU", "carevue")]


def test_a_repeated_stay_is_refused_with_its_rows(tmp_path: Path, home: Path) -> None:
    folder = write(tmp_path / "m3", {"ICUSTAYS": [ICUSTAY, ICUSTAY]})
    with pytest.raises(InputError, match="icustay_id 100 twice"):
        read(folder, home)
