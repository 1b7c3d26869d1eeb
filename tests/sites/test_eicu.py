"""eICU-CRD: hospital stays in exact minutes, deaths by rule, nothing known before it was entered."""

import csv
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from sites.dataset import Dataset
from sites.errors import InputError
from sites.exports.eicu import EXPORT, lab_name
from sites.exports.eicu_stays import person_id
from sites.exports.eicu_tables import VITAL_PERIODIC
from sites.ingest import ingest
from sites.spec import SiteSpec

MIDNIGHT = datetime(2014, 1, 1)  # noqa: DTZ001 (hospital time has no zone)

STAY = {
    "patientunitstayid": 1,
    "patienthealthsystemstayid": 10,
    "uniquepid": "002-1039",
    "gender": "Female",
    "age": "67",
    "ethnicity": "Caucasian",
    "hospitalid": 59,
    "apacheadmissiondx": "",
    "admissionheight": "170.2",
    "admissionweight": "70",
    "dischargeweight": "",
    "hospitaladmittime24": "00:00:00",
    "hospitaladmitoffset": -60,
    "hospitaladmitsource": "Emergency Department",
    "hospitaldischargeyear": 2014,
    "hospitaldischargetime24": "01:00:00",
    "hospitaldischargeoffset": 5000,
    "hospitaldischargelocation": "Home",
    "hospitaldischargestatus": "Alive",
    "unittype": "MICU",
    "unitadmitsource": "Emergency Department",
    "unitvisitnumber": 1,
    "unitstaytype": "admit",
    "unitdischargeoffset": 3000,
    "unitdischargelocation": "Floor",
    "unitdischargestatus": "Alive",
}
"""Admitted at midnight, to the unit an hour later, for 50 hours; discharged home alive at minute 5060."""


def _write(folder: Path, table: str, rows: list[dict[str, object]]) -> None:
    folder.mkdir(exist_ok=True)
    with (folder / f"{table}.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _events(folder: Path, stays: list[dict[str, object]], **tables: list[dict[str, object]]) -> pl.DataFrame:
    """Ingest a hand-written export; events with `minute` counted from midnight of 1 January 2014."""
    _write(folder, "patient", [STAY | stay for stay in stays])
    for table, rows in tables.items():
        _write(folder, table, rows)
    dataset = _ingest(folder)
    minute = (pl.col("time") - MIDNIGHT).dt.total_seconds() / 60
    return dataset.scan().with_columns(minute=minute).collect()


def _ingest(folder: Path) -> Dataset:
    return ingest(SiteSpec("test", "eicu", folder), folder.parent / "home")


def _minutes(events: pl.DataFrame, prefix: str) -> list[float]:
    return events.filter(pl.col("code").str.starts_with(prefix))["minute"].to_list()


def _codes(events: pl.DataFrame, prefix: str) -> list[str]:
    return sorted(events.filter(pl.col("code").str.starts_with(prefix))["code"].to_list())


# --- stays -------------------------------------------------------------------------------------------------------


def test_offsets_of_every_unit_stay_count_from_the_hospital_admission(tmp_path: Path) -> None:
    second = {"patientunitstayid": 2, "hospitaladmitoffset": -4060, "unitdischargeoffset": 500, "unitvisitnumber": 2}
    second |= {"hospitaldischargeoffset": 1000}
    observed = [{"patientunitstayid": unit, "observationoffset": 30, "heartrate": 80 + unit} for unit in (1, 2)]
    events = _events(
        tmp_path / "e", [{}, second], vitalPeriodic=[dict.fromkeys(VITAL_PERIODIC, "") | row for row in observed]
    )
    assert _minutes(events, "HOSPITAL_ADMISSION") == [0]
    assert _minutes(events, "ICU_ADMISSION") == [60, 4060]
    assert _minutes(events, "LAB//heartrate//bpm") == [90, 4090]
    assert events.filter(pl.col("code") == "LAB//heartrate//bpm")["numeric_value"].to_list() == [81, 82]


def test_touching_and_overlapping_unit_stays_are_one_icu_stay(tmp_path: Path) -> None:
    def at(unit: int, start: int, stop: int, kind: str) -> dict[str, object]:
        row = {"patientunitstayid": unit, "hospitaladmitoffset": -start, "unitdischargeoffset": stop - start}
        return row | {"hospitaldischargeoffset": 9000 - start, "unittype": kind}

    stays = [at(1, 100, 200, "MICU"), at(2, 200, 400, "SICU"), at(3, 350, 390, "CTICU"), at(4, 401, 500, "MICU")]
    events = _events(tmp_path / "e", stays)
    assert _minutes(events, "ICU_ADMISSION") == [100, 401]
    assert _minutes(events, "ICU_DISCHARGE") == [400, 500]
    assert _codes(events, "ICU_DISCHARGE") == ["ICU_DISCHARGE//MICU", "ICU_DISCHARGE//SICU"]
    assert len(_minutes(events, "TRANSFER_TO//admit")) == 4


def test_step_down_and_zero_length_unit_stays_are_no_icu_stays_and_are_counted(tmp_path: Path) -> None:
    step_down = {"unitstaytype": "stepdown/other"}
    empty = {"patientunitstayid": 2, "patienthealthsystemstayid": 20, "unitdischargeoffset": 0}
    events = _events(tmp_path / "e", [step_down, empty])
    assert _minutes(events, "ICU_ADMISSION") == []
    assert len(_minutes(events, "HOSPITAL_ADMISSION")) == 2
    warnings = " ".join(_ingest(tmp_path / "e").manifest.warnings)
    assert "1 unit stays of no length and 1 step-down stays of 2 unit stays are not ICU stays" in warnings


def test_a_hospital_stay_holds_its_unit_stays_whatever_was_recorded(tmp_path: Path) -> None:
    late_admission = {"hospitaladmitoffset": 25}
    early_discharge = {"patientunitstayid": 2, "patienthealthsystemstayid": 20, "hospitaldischargeoffset": 2900}
    events = _events(tmp_path / "e", [late_admission, early_discharge])
    first, second = (events.filter(pl.col("subject_id") == stay) for stay in (10, 20))
    assert _minutes(first, "ICU_ADMISSION") == [-25]
    assert _minutes(first, "HOSPITAL_ADMISSION") == [-25]
    assert _minutes(second, "HOSPITAL_DISCHARGE") == _minutes(second, "ICU_DISCHARGE") == [3060]


@pytest.mark.parametrize(
    ("hospital", "unit", "discharge", "death", "left", "unknown"),
    [
        ("Alive", "Alive", 5000, [], [5060], []),
        ("Expired", "Expired", 3000, [3060], [3060], []),
        ("Expired", "Expired", 2900, [3060], [3060], []),  # hospital discharge before the unit discharge
        ("Expired", "Alive", 5000, [5060], [5060], []),
        ("Expired", "Alive", 3000, [3061], [3061], []),  # dead on the floor at once: after the unit's discharge
        ("", "Expired", 5000, [3060], [5060], []),  # the unit says it
        ("", "Alive", 5000, [], [5060], [5060]),
        ("Alive", "Expired", 5000, [], [5060], [5060]),
    ],
)
def test_death_stands_where_the_statuses_put_it(
    tmp_path: Path,
    hospital: str,
    unit: str,
    discharge: int,
    death: list[int],
    left: list[int],
    unknown: list[int],
) -> None:
    stay = {"hospitaldischargestatus": hospital, "unitdischargestatus": unit, "hospitaldischargeoffset": discharge}
    events = _events(tmp_path / "e", [stay])
    assert _minutes(events, "MEDS_DEATH") == death
    assert _minutes(events, "HOSPITAL_DISCHARGE") == left
    assert _minutes(events, "OUTCOME_UNKNOWN") == unknown


def test_a_unit_stay_after_a_death_contradicts_it(tmp_path: Path) -> None:
    dead = {"unitdischargestatus": "Expired", "hospitaldischargestatus": "Expired"}
    again = {"patientunitstayid": 2, "hospitaladmitoffset": -4060, "hospitaldischargeoffset": 1000}
    events = _events(tmp_path / "e", [dead, again | {"hospitaldischargestatus": "Expired", "unitdischargeoffset": 500}])
    assert _minutes(events, "MEDS_DEATH") == []
    assert len(_minutes(events, "OUTCOME_UNKNOWN")) == 1


# --- persons -----------------------------------------------------------------------------------------------------


def test_persons_keep_their_number_and_no_two_share_one() -> None:
    names = pl.Series(["002-1039", "021-039", "0021-039", "002-1039", "a"])
    numbers = person_id(names)
    assert numbers[0] == numbers[3]
    assert numbers.n_unique() == 4
    # blake2b, 8 bytes: the same on every machine, for ever
    assert numbers[0] == person_id(pl.Series(["002-1039", "zzz"]))[0] == -5404900223645762105


def test_age_above_89_counts_as_90_and_missing_age_as_unknown(tmp_path: Path) -> None:
    old, missing = {"age": "> 89"}, {"patientunitstayid": 2, "patienthealthsystemstayid": 20, "age": ""}
    events = _events(tmp_path / "e", [old, missing])
    aged = events.filter(pl.col("code") == "AGE")
    assert aged.select("subject_id", "minute", "numeric_value").rows() == [(10, 0.0, 90.0)]
    assert events.filter(pl.col("code") == "MEDS_BIRTH")["time"].to_list() == [MIDNIGHT.replace(year=1924)]


def test_a_patient_belongs_wholly_to_the_site_of_the_first_stay(tmp_path: Path) -> None:
    stays = [
        {"hospitaldischargeyear": 2015, "hospitalid": 1},
        {"patientunitstayid": 2, "patienthealthsystemstayid": 20, "hospitalid": 2},
        {"patientunitstayid": 3, "patienthealthsystemstayid": 30, "hospitalid": 3, "uniquepid": "003-1"},
    ]
    hospitals = [
        {"hospitalid": number, "numbedscategory": "<100", "teachingstatus": "f", "region": region}
        for number, region in ((1, "South"), (2, "West"), (3, ""))
    ]
    _events(tmp_path / "e", stays, hospital=hospitals)
    groups = _ingest(tmp_path / "e").subjects.select("subject_id", "hospital", "region", "teaching")
    assert groups.rows() == [
        (10, "2", "West", "non-teaching"),
        (20, "2", "West", "non-teaching"),
        (30, "3", None, "non-teaching"),
    ]


# --- what was known when -----------------------------------------------------------------------------------------


def _lab(
    name: str = "potassium", drawn: int = 10, revised: int = 50, result: str = "4", text: str = ""
) -> dict[str, object]:
    row = {"patientunitstayid": 1, "labresultoffset": drawn, "labname": name, "labresult": result}
    return row | {"labresulttext": text, "labmeasurenamesystem": "mmol/L", "labresultrevisedoffset": revised}


def test_a_result_is_known_when_it_was_entered(tmp_path: Path) -> None:
    events = _events(
        tmp_path / "e",
        [{}],
        lab=[_lab()],
        nurseCharting=[
            {
                "patientunitstayid": 1,
                "nursingchartoffset": 100,
                "nursingchartentryoffset": 400,
                "nursingchartcelltypevallabel": label,
                "nursingchartcelltypevalname": name,
                "nursingchartvalue": value,
            }
            for label, name, value in (("Heart Rate", "Heart Rate", "88"), ("SVO2", "Value", "70"))
        ],
        allergy=[{"patientunitstayid": 1, "allergyoffset": 5, "allergyenteredoffset": 7, "allergyname": "PCN"}],
        microLab=[
            {
                "patientunitstayid": 1,
                "culturetakenoffset": 0,
                "culturesite": "Blood",
                "organism": "Staphylococcus aureus",
                "antibiotic": "oxacillin",
                "sensitivitylevel": "Resistant",
            }
        ],
    )
    assert _minutes(events, "LAB//potassium//mmol/L") == [110]
    assert _minutes(events, "LAB//Heart Rate") == [460]
    assert _minutes(events, "LAB//SVO2") == [460]
    assert _minutes(events, "ALLERGY//PCN") == [67]
    assert _minutes(events, "MICROBIOLOGY//Blood//Staphylococcus aureus") == [60 + 72 * 60]


def test_apache_is_known_at_24_hours_and_minus_one_is_missing(tmp_path: Path) -> None:
    short = {"unitdischargeoffset": 180}
    aps = dict.fromkeys((c for t in EXPORT.tables if t.name == "apacheapsvar" for c in t.columns), "-1")
    pred = dict.fromkeys((c for t in EXPORT.tables if t.name == "apachepredvar" for c in t.columns), "-1")
    told = {"diedinhospital": "1", "var03hspxlos": "9", "dischargelocation": "6", "visitnumber": "1"}
    events = _events(
        tmp_path / "e",
        [short | {"apacheadmissiondx": "Sepsis"}],
        apacheApsVar=[aps | {"patientunitstayid": 1, "heartrate": "130", "urine": "-1"}],
        apachePredVar=[pred | told | {"patientunitstayid": 1, "aids": "0", "admitdiagnosis": "SEPSIS"}],
        apachePatientResult=[{"patientunitstayid": 1, "actualhospitalmortality": "EXPIRED", "predictediculos": "7"}],
    )
    found = events.filter(pl.col("code").str.starts_with("APACHE"))
    assert dict(found.select("code", "numeric_value").rows()) == {
        "APACHE//heartrate": 130.0,
        "APACHE//aids": 0.0,
        "APACHE//admissiondx//Sepsis": None,
    }
    assert set(found["minute"]) == {60.0 + 24 * 60}


def test_no_outcome_column_is_ever_read() -> None:
    read = {(table.name, column) for table in EXPORT.tables for column in table.columns}
    never = {"diedinhospital", "dischargelocation", "var03hspxlos", "activeupondischarge", "actualhospitalmortality"}
    assert not {column for _, column in read} & never
    assert "apachepatientresult" not in {table for table, _ in read}


def test_what_happens_later_changes_nothing_that_was_known_before(tmp_path: Path) -> None:
    """Flip every outcome and cut everything entered after hour 24: what was known at hour 24 stays as it was."""
    labs = [_lab(drawn=d, revised=r, result=str(d)) for d, r in ((0, 40), (1300, 1500), (1379, 1379), (1380, 1381))]
    secret = {"activeupondischarge": "True"}
    diagnoses = [
        {"patientunitstayid": 1, "diagnosisoffset": o, "diagnosisstring": f"d{o}", "icd9code": "401.9, I10"}
        | secret
        | {"diagnosispriority": "Major"}
        for o in (5, 1379, 2000)
    ]
    then = _events(tmp_path / "then", [{}], lab=labs, diagnosis=diagnoses)
    died = {"hospitaldischargestatus": "Expired", "unitdischargestatus": "Expired", "unitdischargelocation": "Death"}
    died |= {"hospitaldischargelocation": "Death", "dischargeweight": "60", "unitdischargeoffset": 1500}
    known = [
        row for row in labs if max(int(str(row["labresultoffset"])), int(str(row["labresultrevisedoffset"]))) < 1380
    ]
    now = _events(
        tmp_path / "now",
        [died | {"hospitaldischargeoffset": 1500}],
        lab=known,
        diagnosis=[row | {"activeupondischarge": "False"} for row in diagnoses[:2]],
    )
    columns = ["time", "code", "numeric_value", "text_value"]
    before = [
        events.filter(pl.col("time").is_null() | (pl.col("minute") < 24 * 60)).select(columns) for events in (then, now)
    ]
    assert before[0].rows() == before[1].rows()
    assert before[0].filter(pl.col("code").str.starts_with("LAB//potassium")).height == 2
    assert not before[0]["code"].str.contains("DEATH|DISCHARGE|OUTCOME").any()


# --- codes and values --------------------------------------------------------------------------------------------


def test_one_field_may_hold_icd9_and_icd10_codes(tmp_path: Path) -> None:
    codes = ["401.9, I10", "V58.61, E888.9, Z79.01", "038.9,A41.9", "31.1", "", "S02.0XXA"]
    rows = [
        {"patientunitstayid": 1, "diagnosisoffset": i, "diagnosisstring": "x", "icd9code": c, "diagnosispriority": ""}
        for i, c in enumerate(codes)
    ]
    events = _events(tmp_path / "e", [{}], diagnosis=rows)
    assert _codes(events, "DIAGNOSIS//ICD") == sorted(
        [
            "DIAGNOSIS//ICD//9//4019",
            "DIAGNOSIS//ICD//10//I10",
            "DIAGNOSIS//ICD//9//V5861",
            "DIAGNOSIS//ICD//9//E8889",
            "DIAGNOSIS//ICD//10//Z7901",
            "DIAGNOSIS//ICD//9//0389",
            "DIAGNOSIS//ICD//10//A419",
            "DIAGNOSIS//ICD//UNK//311",
            "DIAGNOSIS//ICD//10//S020XXA",
        ]
    )
    assert len(_codes(events, "DIAGNOSIS//STRING//x")) == 6


def test_lab_names_are_spelled_as_eicu_spells_them() -> None:
    written = pl.DataFrame({"n": ["WBC  X 1000", "Potassium ", "PH", "Our own  lab", None]})
    assert written.select(lab_name("n"))["n"].to_list() == ["WBC x 1000", "potassium", "pH", "Our own lab", None]


def test_a_value_below_the_limit_of_detection_keeps_its_text_and_has_no_number(tmp_path: Path) -> None:
    labs = [_lab("troponin - I", result="", text="<0.02"), _lab("lactate", result="", text="1.5")]
    events = _events(tmp_path / "e", [{}], lab=labs).filter(pl.col("code").str.starts_with("LAB"))
    found = {code: (number, text) for code, number, text in events.select("code", "numeric_value", "text_value").rows()}
    assert found == {"LAB//troponin - I//mmol/L": (None, "<0.02"), "LAB//lactate//mmol/L": (1.5, None)}


def test_implausible_heights_pass_as_they_are(tmp_path: Path) -> None:
    tall = {"patientunitstayid": 2, "patienthealthsystemstayid": 20, "admissionheight": "600"}
    events = _events(tmp_path / "e", [{"admissionheight": "0.3"}, tall])
    heights = events.filter(pl.col("code") == "BODY//HEIGHT//cm")["numeric_value"].to_list()
    assert heights == pytest.approx([0.3, 600.0])


def test_drug_orders_count_when_given_and_not_when_cancelled(tmp_path: Path) -> None:
    def order(
        name: str, ordered: int, start: int, stop: int, cancelled: str = "No", code: str = ""
    ) -> dict[str, object]:
        row = {"patientunitstayid": 1, "drugorderoffset": ordered, "drugstartoffset": start, "drugstopoffset": stop}
        return row | {"drugordercancelled": cancelled, "drugname": name, "drughiclseqno": code, "dosage": "1 mg"}

    orders = [
        order("entered late", 100, -50, 300),
        order("starts later", 10, 200, 500),
        order("stops before it starts", 10, 200, 150),
        order("never given", 10, 20, 30, cancelled="Yes"),
        order("", 10, 20, 30, code="549"),
    ]
    events = _events(tmp_path / "e", [{}], medication=orders)
    found = dict(events.filter(pl.col("code").str.starts_with("MEDICATION")).select("code", "minute").rows())
    assert found == {
        "MEDICATION//START//entered late": 160,
        "MEDICATION//STOP//entered late": 360,
        "MEDICATION//START//starts later": 260,
        "MEDICATION//STOP//starts later": 560,
        "MEDICATION//START//stops before it starts": 260,
        "MEDICATION//START//HICL 549": 80,
        "MEDICATION//STOP//HICL 549": 90,
    }


def test_a_coma_score_in_the_examination_is_a_chart_item(tmp_path: Path) -> None:
    root = "notes/Progress Notes/Physical Exam/Physical Exam/Neurologic/GCS"
    rows = [
        {
            "patientunitstayid": 1,
            "physicalexamoffset": 9,
            "physicalexampath": f"{root}/{path}",
            "physicalexamtext": text,
        }
        for path, text in (("Motor Score/6", "6"), ("15", "15"), ("Score/scored", "scored"))
    ]
    events = _events(tmp_path / "e", [{}], physicalExam=rows)
    found = dict(events.filter(pl.col("minute") == 69).select("code", "numeric_value").rows())
    assert found == {
        "LAB//Motor Score//UNK": 6.0,
        "LAB//GCS Total//UNK": 15.0,
        f"PHYSICAL_EXAM//{root}/Score/scored": None,
    }


def test_an_infusion_at_rate_zero_is_off(tmp_path: Path) -> None:
    rows = [
        {"patientunitstayid": 1, "infusionoffset": i, "drugname": "Propofol (mcg/kg/min)", "drugrate": rate}
        for i, rate in enumerate(("20", "ERROR", "0", ""))
    ]
    events = _events(tmp_path / "e", [{}], infusiondrug=rows)
    assert _minutes(events, "INFUSION_START//Propofol (mcg/kg/min)") == [60]
    assert _minutes(events, "INFUSION_END//Propofol (mcg/kg/min)") == [62]


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [
        ("hospitaldischargeyear", "99999", "found 99999, expected a year"),
        ("hospitaladmittime24", "25:99:00", "found '25:99:00', expected a time of day"),
        ("hospitaladmitoffset", str(10**15), "expected minutes within ten years"),
        ("age", "abc", "found 'abc', expected years or > 89"),
        ("uniquepid", "", "found no value, expected an id"),
        ("patienthealthsystemstayid", "", "found no value, expected an id"),
    ],
)
def test_what_cannot_be_placed_gets_a_sentence(tmp_path: Path, column: str, value: str, sentence: str) -> None:
    fine = {"patientunitstayid": 2, "patienthealthsystemstayid": 20}
    with pytest.raises(InputError, match=f"patient, data row 2, column {column}: .*{sentence}"):
        _events(tmp_path / "e", [fine, {column: value}])


# --- the demo ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = real_data / "eicu_demo_2.0.1"
    return ingest(SiteSpec("eicu", "eicu", path), tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def raw(real_data: Path) -> pl.DataFrame:
    return pl.read_csv(real_data / "eicu_demo_2.0.1" / "patient.csv.gz", infer_schema_length=None)


def _count(dataset: Dataset, prefix: str) -> int:
    return dataset.scan().filter(pl.col("code").str.starts_with(prefix)).select(pl.len()).collect().item()


@pytest.mark.real
def test_demo_has_the_stays_persons_and_deaths_of_the_raw_table(demo: Dataset, raw: pl.DataFrame) -> None:
    stays = raw.unique("patienthealthsystemstayid")
    assert demo.subjects.height == stays.height == 2174
    assert demo.subjects["patient_id"].n_unique() == raw["uniquepid"].n_unique() == 1841
    assert demo.subjects["hospital"].n_unique() <= raw["hospitalid"].n_unique() == 186
    assert _count(demo, "MEDS_DEATH") == stays.filter(pl.col("hospitaldischargestatus") == "Expired").height == 182
    # unknown: 25 stays (28 unit stays) without a status, 5 that are alive at hospital and dead at unit discharge
    says_both = raw.filter(
        (pl.col("hospitaldischargestatus") == "Alive") & (pl.col("unitdischargestatus") == "Expired")
    )
    no_status = stays["hospitaldischargestatus"].null_count()
    assert raw["hospitaldischargestatus"].null_count() == 28
    assert _count(demo, "OUTCOME_UNKNOWN") == no_status + says_both["patienthealthsystemstayid"].n_unique() == 30


@pytest.mark.real
def test_demo_has_the_icu_stays_that_a_loop_over_the_raw_table_finds(demo: Dataset, raw: pl.DataFrame) -> None:
    expected = []
    for (stay,), units in raw.group_by("patienthealthsystemstayid"):
        until = None
        real = units.filter((pl.col("unitdischargeoffset") > 0) & (pl.col("unitstaytype") != "stepdown/other"))
        for start, length in sorted(zip(-real["hospitaladmitoffset"], real["unitdischargeoffset"], strict=True)):
            if until is None or start > until:
                expected.append((stay, start))
            until = max(until or start, start + length)
    origins = {
        stay: datetime(year, 1, 1) + timedelta(hours=int(clock[:2]), minutes=int(clock[3:5]), seconds=int(clock[6:]))  # noqa: DTZ001
        for stay, year, clock in raw.select(
            "patienthealthsystemstayid", "hospitaldischargeyear", "hospitaladmittime24"
        ).rows()
    }
    found = demo.scan().filter(pl.col("code").str.starts_with("ICU_ADMISSION")).collect()
    minutes = [(s, (time - origins[s]).total_seconds() / 60) for s, time in found.select("subject_id", "time").rows()]
    assert sorted(minutes) == sorted(expected)
    assert len(expected) == 2203


@pytest.mark.real
def test_demo_deaths_stand_in_their_stay_and_in_the_unit_where_they_happened(demo: Dataset, raw: pl.DataFrame) -> None:
    def times(code: str) -> pl.DataFrame:
        events = demo.scan().filter(pl.col("code").str.starts_with(code))
        return events.group_by("subject_id").agg(pl.col("time").max().alias(code)).collect()

    dead = times("MEDS_DEATH").join(times("HOSPITAL_DISCHARGE"), on="subject_id", how="left")
    dead = dead.join(times("ICU_DISCHARGE"), on="subject_id", how="left").join(
        times("HOSPITAL_ADMISSION"), on="subject_id", how="left"
    )
    assert dead.filter(pl.col("MEDS_DEATH") > pl.col("HOSPITAL_DISCHARGE")).is_empty()
    assert dead.filter(pl.col("MEDS_DEATH") <= pl.col("HOSPITAL_ADMISSION")).is_empty()
    in_unit = raw.filter(
        (pl.col("unitdischargestatus") == "Expired")
        & (pl.col("hospitaldischargestatus") == "Expired")
        & (pl.col("unitstaytype") != "stepdown/other")
        & (pl.col("unitdischargeoffset") > 0)
    )["patienthealthsystemstayid"].unique()
    same = dead.filter(pl.col("MEDS_DEATH") == pl.col("ICU_DISCHARGE"))["subject_id"].unique()
    assert set(same) == set(in_unit)


@pytest.mark.real
def test_demo_events_are_the_rows_of_the_raw_tables(demo: Dataset, real_data: Path) -> None:
    def rows(table: str) -> pl.DataFrame:
        return pl.read_csv(real_data / "eicu_demo_2.0.1" / f"{table}.csv.gz", infer_schema_length=None)

    diagnoses = rows("diagnosis")
    same = ["patientunitstayid", "diagnosisoffset", "diagnosisstring", "icd9code", "diagnosispriority"]
    assert _count(demo, "DIAGNOSIS//STRING") == diagnoses.unique(same).height
    # a code that stands twice in one field is one event
    codes = diagnoses.unique(same).drop_nulls("icd9code")["icd9code"].str.replace_all(".", "", literal=True)
    assert _count(demo, "DIAGNOSIS//ICD") == codes.str.split(", ").list.unique().list.len().sum()
    treated = rows("treatment").unique(["patientunitstayid", "treatmentoffset", "treatmentstring"])
    assert _count(demo, "TREATMENT") == treated.height
    aps = rows("apacheApsVar").drop("apacheapsvarid", "patientunitstayid")
    assert _count(demo, "APACHE//hematocrit") == aps.filter(pl.col("hematocrit") != -1).height
    urine = rows("intakeOutput").filter(pl.col("cellpath").str.ends_with("|Urine"))
    same = ["patientunitstayid", "intakeoutputoffset", "intakeoutputentryoffset", "cellvaluenumeric"]
    assert _count(demo, "SUBJECT_FLUID_OUTPUT//Urine//ml") == urine.unique(same).height


@pytest.mark.real
def test_demo_reads_no_stray_copy_of_a_table(demo: Dataset, real_data: Path) -> None:
    assert (real_data / "eicu_demo_2.0.1" / "subset_pyhealth" / "lab.csv").is_file()
    assert _count(demo, "LAB//potassium") == 0
    assert any("lab is absent" in warning for warning in demo.manifest.warnings)


@pytest.mark.real
def test_demo_regions_are_five_sites_and_the_unknown_one_is_a_region_of_its_own(demo: Dataset) -> None:
    regions = demo.subjects.unique("patient_id")["region"].value_counts()
    assert regions.height == 5
    assert None in regions["region"].to_list()
    assert demo.subjects.group_by("patient_id").agg(pl.col("region", "hospital", "unit").n_unique()).select(
        pl.col("region", "hospital", "unit").max()
    ).row(0) == (1, 1, 1)
