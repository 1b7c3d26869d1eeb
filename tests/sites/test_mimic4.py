"""MIMIC-IV: what its tables mean, against counts made another way, and the traps they hold."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sites.errors import InputError
from sites.ingest import ingest
from sites.spec import SiteSpec

MakeExport = Callable[..., Path]

ADMISSIONS = (
    "subject_id,hadm_id,admittime,dischtime,deathtime,admission_type,admission_location,discharge_location,"
    "hospital_expire_flag\n"
)
PATIENTS = "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod\n"
STAYS = "subject_id,hadm_id,stay_id,first_careunit,last_careunit,intime,outtime\n"


def read(path: Path, home: Path) -> tuple[pl.DataFrame, tuple[str, ...]]:
    dataset = ingest(SiteSpec.parse(f"a=mimic4:{path}"), home)
    return dataset.scan().collect(), dataset.manifest.warnings


def times(events: pl.DataFrame, code: str, subject: int = 1) -> list[str]:
    found = events.filter((pl.col("subject_id") == subject) & pl.col("code").str.starts_with(code))
    return [str(time) for time in found["time"]]


def one_patient(admissions: str, patients: str = "1,F,60,2150,2011 - 2013,\n", stays: str = "") -> dict[str, str]:
    return {
        "hosp/patients": PATIENTS + patients + "9,M,50,2150,2020 - 2022,\n",
        "hosp/admissions": ADMISSIONS + admissions,
        "icu/icustays": STAYS + (stays or "9,90,900,SICU,SICU,2150-01-01 00:00:00,2150-01-02 00:00:00\n"),
        "icu/chartevents": "subject_id,charttime,itemid,valuenum,valueuom\n",
    }


def test_the_dead_are_discharged_no_earlier_than_they_die(mimic4_export: MakeExport, home: Path) -> None:
    events, _ = read(mimic4_export(), home)
    assert times(events, "MEDS_DEATH", 2) == ["2151-03-02 22:20:00"]
    assert times(events, "HOSPITAL_DISCHARGE//DIED", 2) == ["2151-03-02 22:20:00"]
    assert times(events, "OUTCOME_UNKNOWN") == []


def test_an_icu_stay_ends_with_the_hospital_stay(mimic4_export: MakeExport, home: Path) -> None:
    events, warnings = read(mimic4_export(), home)
    assert times(events, "ICU_DISCHARGE//SICU", 2) == ["2151-03-02 22:20:00"]
    assert times(events, "ICU_DISCHARGE//SICU", 1) == ["2150-01-04 10:00:00"]
    assert any(sentence.startswith("icustays: 1 stays end after the hospital stay") for sentence in warnings)


def test_a_date_of_death_outside_counts_as_the_end_of_that_day(mimic4_export: MakeExport, home: Path) -> None:
    events, _ = read(mimic4_export(), home)
    assert times(events, "MEDS_DEATH", 3) == ["2170-01-01 23:59:59"]


def test_a_date_of_death_before_the_last_discharge_alive_stands_behind_it(
    mimic4_export: MakeExport, home: Path
) -> None:
    tables = one_patient(
        "1,10,2150-01-01 10:00:00,2150-01-05 12:00:00,,URGENT,ER,HOME,0\n", "1,F,60,2150,2011 - 2013,2150-01-03\n"
    )
    events, warnings = read(mimic4_export(tables), home)
    assert times(events, "MEDS_DEATH") == ["2150-01-05 12:00:01"]
    assert any("1 dod lie before the last discharge alive" in sentence for sentence in warnings)


def test_an_organ_donor_dies_once_and_the_readmission_is_no_outcome(mimic4_export: MakeExport, home: Path) -> None:
    tables = one_patient(
        "1,10,2150-01-01 10:00:00,2150-01-05 12:00:00,2150-01-05 12:00:00,URGENT,ER,DIED,1\n"
        "1,11,2150-01-05 13:00:00,2150-01-06 12:00:00,2150-01-06 10:00:00,URGENT,ORGAN DONOR,DIED,1\n"
    )
    events, warnings = read(mimic4_export(tables), home)
    assert times(events, "MEDS_DEATH") == ["2150-01-05 12:00:00"]
    assert times(events, "OUTCOME_UNKNOWN") == ["2150-01-06 12:00:00"]
    assert any("go on after the patient's death" in sentence for sentence in warnings)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("2150-01-01 10:00:00,2150-01-05 12:00:00,2149-12-31 10:00:00,URGENT,ER,DIED,1", "before the admission"),
        ("2150-01-01 10:00:00,2150-01-05 12:00:00,2150-01-05 12:00:00,URGENT,ER,HOME,0", "contradictory"),
        ("2150-01-01 10:00:00,2150-01-05 12:00:00,,URGENT,ER,DIED,0", "contradictory"),
        ("2150-01-01 10:00:00,2150-01-05 12:00:00,,URGENT,ER,HOME,", "contradictory"),
        ("2150-01-01 10:00:00,2150-01-05 12:00:00,,URGENT,ER,HOME,7", "contradictory"),
    ],
)
def test_a_contradictory_outcome_is_unknown_and_counted(
    mimic4_export: MakeExport, home: Path, row: str, said: str
) -> None:
    events, warnings = read(mimic4_export(one_patient(f"1,10,{row}\n")), home)
    assert times(events, "MEDS_DEATH") == []
    assert times(events, "OUTCOME_UNKNOWN") == ["2150-01-05 12:00:00"]
    assert any(said in sentence for sentence in warnings)


def test_a_death_without_time_stands_at_discharge(mimic4_export: MakeExport, home: Path) -> None:
    events, _ = read(
        mimic4_export(one_patient("1,10,2150-01-01 10:00:00,2150-01-05 12:00:00,,URGENT,ER,DIED,1\n")), home
    )
    assert times(events, "MEDS_DEATH") == times(events, "HOSPITAL_DISCHARGE") == ["2150-01-05 12:00:00"]


def test_overlapping_stays_end_where_the_next_begins(mimic4_export: MakeExport, home: Path) -> None:
    tables = one_patient(
        "1,10,2150-01-01 10:00:00,2150-01-05 12:00:00,,URGENT,ER,HOME,0\n"
        "1,11,2150-01-04 10:00:00,2150-01-09 12:00:00,,URGENT,ER,HOME,0\n"
    )
    events, warnings = read(mimic4_export(tables), home)
    assert times(events, "HOSPITAL_DISCHARGE") == ["2150-01-04 10:00:00", "2150-01-09 12:00:00"]
    assert any("1 hospital stays end where the next one begins" in sentence for sentence in warnings)


def test_ages_above_89_count_as_90(mimic4_export: MakeExport, home: Path) -> None:
    events, _ = read(mimic4_export(), home)
    age = events.filter(pl.col("code") == "AGE")
    assert age.filter(pl.col("subject_id") == 2)["numeric_value"].to_list() == [90.0]
    assert age.filter(pl.col("subject_id") == 1)["numeric_value"].to_list() == [60.0, 60.0]
    assert age.filter(pl.col("subject_id") == 3)["numeric_value"].to_list() == [45.0]


def test_billing_is_known_at_discharge(mimic4_export: MakeExport, home: Path) -> None:
    tables = {
        "hosp/diagnoses_icd": "subject_id,hadm_id,seq_num,icd_code,icd_version\n1,10,1,0389 ,9\n1,77,1,I10,10\n",
        "hosp/procedures_icd": "subject_id,hadm_id,seq_num,chartdate,icd_code,icd_version\n1,10,1,2150-01-02,0331,9\n",
        "hosp/drgcodes": "subject_id,hadm_id,drg_type,drg_code,description\n1,10,APR,720,SEPSIS\n",
        "hosp/hcpcsevents": "subject_id,hadm_id,chartdate,hcpcs_cd,short_description\n1,10,2150-01-01,G0378,Hospital\n",
    }
    events, warnings = read(mimic4_export(tables), home)
    for code in ("DIAGNOSIS//ICD//9//0389", "PROCEDURE//ICD//9//0331", "DRG//APR//720//SEPSIS", "HCPCS//Hospital"):
        assert times(events, code) == ["2150-01-05 12:00:00"]
    assert times(events, "DIAGNOSIS//ICD//10//I10") == []  # a stay that is not among the admissions
    assert any(sentence.startswith("diagnoses_icd: 1 rows left out") for sentence in warnings)


def test_a_result_is_known_when_it_was_stored(mimic4_export: MakeExport, home: Path) -> None:
    tables = {
        "hosp/labevents": """subject_id,itemid,charttime,storetime,value,valuenum,valueuom
1,50912,2150-01-02 10:00:00,2150-01-02 13:00:00,1.2,1.2,mg/dL
1,50912,2150-01-03 10:00:00,,<0.1,,mg/dL
""",
        "icu/outputevents": """subject_id,itemid,charttime,storetime,value,valueuom
1,226559,2150-01-02 18:00:00,2150-01-02 17:42:00,60,ml
""",
        "icu/chartevents": """subject_id,itemid,charttime,valuenum,valueuom
1,220045,2150-01-02 12:00:00,80,bpm
""",
        "hosp/microbiologyevents": """\
subject_id,chartdate,charttime,storedate,storetime,spec_type_desc,org_name,ab_name,interpretation
1,2150-01-02 00:00:00,2150-01-02 09:00:00,2150-01-04 00:00:00,2150-01-04 08:00:00,BLOOD,E. COLI,CEFEPIME,S
1,2150-01-02 00:00:00,2150-01-02 09:00:00,2150-01-04 00:00:00,2150-01-04 08:00:00,BLOOD,E. COLI,GENTAMICIN,R
1,2150-01-03 00:00:00,,2150-01-05 00:00:00,,URINE,,,
1,2150-01-03 00:00:00,,,,SPUTUM,,,
""",
        "hosp/omr": "subject_id,chartdate,result_name,result_value\n1,2150-01-02,Blood Pressure,120/80\n",
    }
    events, _ = read(mimic4_export(tables), home)
    assert times(events, "LAB//50912//mg/dL") == ["2150-01-02 13:00:00", "2150-01-03 12:00:00"]
    assert events.filter(pl.col("code") == "LAB//50912//mg/dL")["text_value"].to_list() == [None, "<0.1"]
    assert times(events, "SUBJECT_FLUID_OUTPUT//226559//ml") == ["2150-01-02 18:00:00"]
    assert times(events, "LAB//220045//bpm") == ["2150-01-02 12:00:00"]
    assert times(events, "SPECIMEN//BLOOD") == ["2150-01-02 09:00:00"]
    assert times(events, "MICROBIOLOGY//BLOOD//E. COLI") == ["2150-01-04 08:00:00"]
    assert times(events, "SUSCEPTIBILITY//E. COLI") == ["2150-01-04 08:00:00"] * 2
    assert times(events, "MICROBIOLOGY//URINE//UNK") == ["2150-01-05 23:59:59"]
    assert times(events, "MICROBIOLOGY//SPUTUM//UNK") == ["2150-01-06 23:59:59"]
    assert times(events, "Blood Pressure") == ["2150-01-02 23:59:59"]


def test_treatments(mimic4_export: MakeExport, home: Path) -> None:
    tables = {
        "hosp/prescriptions": """subject_id,starttime,stoptime,drug,dose_val_rx,dose_unit_rx
1,2150-01-02 10:00:00,2150-01-03 10:00:00,Heparin,5000,UNIT
1,2150-01-02 10:00:00,2150-01-01 10:00:00,Aspirin,81,mg
1,,2150-01-01 10:00:00,Insulin,,
""",
        "hosp/emar": """subject_id,charttime,storetime,medication,event_txt
1,2150-01-02 10:00:00,2150-01-02 10:05:00,Heparin,Administered
1,2150-01-02 11:00:00,2150-01-02 11:05:00,Heparin,Not Given
1,2150-01-02 12:00:00,2150-01-02 12:05:00,Heparin,Delayed Administered
""",
        "icu/inputevents": """\
subject_id,itemid,starttime,endtime,amount,amountuom,rate,rateuom,patientweight,statusdescription
1,221906,2150-01-02 12:00:00,2150-01-02 14:00:00,2,mg,0.1,mcg/kg/min,70,FinishedRunning
1,221906,2150-01-02 12:00:00,2150-01-02 13:00:00,1,mg,0.1,mcg/kg/min,70,Rewritten
""",
        "icu/procedureevents": """subject_id,itemid,starttime,endtime,value,valueuom,statusdescription
1,225792,2150-01-02 12:00:00,2150-01-03 12:00:00,1440,min,FinishedRunning
""",
    }
    events, _ = read(mimic4_export(tables), home)
    assert times(events, "MEDICATION//START//Heparin") == ["2150-01-02 10:00:00"]
    assert times(events, "MEDICATION//STOP//Heparin") == ["2150-01-03 10:00:00"]
    assert times(events, "MEDICATION//STOP//Aspirin") == []
    assert times(events, "MEDICATION//START//Insulin") == []
    assert times(events, "MEDICATION//ADMINISTERED//Heparin") == ["2150-01-02 10:05:00", "2150-01-02 12:05:00"]
    assert times(events, "INFUSION_START//221906") == ["2150-01-02 12:00:00"]
    assert times(events, "INFUSION_END//221906") == ["2150-01-02 14:00:00"]
    ends = events.filter(pl.col("code") == "INFUSION_END//221906")
    assert ends["numeric_value"].to_list() == [2.0]
    assert times(events, "PROCEDURE//START//225792") == ["2150-01-02 12:00:00"]
    assert times(events, "PROCEDURE//END//225792") == ["2150-01-03 12:00:00"]


def test_leaving_the_hospital_stands_no_earlier_than_the_discharge(mimic4_export: MakeExport, home: Path) -> None:
    rows = """subject_id,hadm_id,transfer_id,eventtype,careunit,intime,outtime
2,20,1,admit,SICU,2151-03-01 10:00:00,2151-03-02 00:00:10
2,20,2,discharge,,2151-03-02 00:00:10,
"""
    events, _ = read(mimic4_export({"hosp/transfers": rows}), home)
    assert times(events, "TRANSFER_TO//discharge//UNK", 2) == ["2151-03-02 22:20:00"]


def test_the_outcome_changes_nothing_that_is_known_before_it(mimic4_export: MakeExport, home: Path) -> None:
    """No feature can see the outcome: two hospitals that differ in it alone have the same events before it."""
    rest = {
        "hosp/diagnoses_icd": "subject_id,hadm_id,icd_code,icd_version\n1,10,0389,9\n",
        "hosp/transfers": "subject_id,hadm_id,eventtype,careunit,intime\n1,10,discharge,,2150-01-05 11:59:00\n",
    }
    stay = "1,10,2150-01-01 10:00:00,2150-01-05 12:00:00"
    icu = "1,10,100,MICU,MICU,2150-01-02 10:00:00,2150-01-04 10:00:00\n"
    alive = one_patient(f"{stay},,URGENT,ER,HOME,0\n", "1,F,60,2150,2011 - 2013,\n", icu)
    died = one_patient(f"{stay},2150-01-05 12:30:00,URGENT,ER,DIED,1\n", "1,F,60,2150,2011 - 2013,2150-01-05\n", icu)
    both = [read(mimic4_export(tables | rest, name=f"h{i}"), home)[0] for i, tables in enumerate((alive, died))]
    discharge = pl.datetime(2150, 1, 5, 12)
    before = [events.filter(pl.col("time").is_null() | (pl.col("time") < discharge)) for events in both]
    assert before[0].equals(before[1])
    assert not set(before[0]["code"].str.split("//").list.first()) & {
        "HOSPITAL_DISCHARGE", "MEDS_DEATH", "DIAGNOSIS", "OUTCOME_UNKNOWN"
    }  # fmt: skip


TINY = ["hosp/patients", "hosp/admissions", "icu/icustays", "icu/chartevents"]


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_mutated_export_is_refused_or_counted_right(
    mimic4_export: MakeExport, tmp_path: Path, data: st.DataObject
) -> None:
    export = mimic4_export()
    path = export / f"{data.draw(st.sampled_from(TINY))}.csv"
    text = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 2))] = bytes(
            data.draw(st.lists(st.sampled_from(list(b'019,"\n:- x\xff')), max_size=2))
        )
    path.write_bytes(text)
    try:
        dataset = ingest(SiteSpec.parse(f"a=mimic4:{export}"), tmp_path / "fuzz")
    except InputError as error:
        assert "\n" not in str(error)
        return
    events = dataset.scan().collect()
    raw = {
        name: pl.read_csv(export / f"{name}.csv", infer_schema=False).rename(lambda column: column.strip().lower())
        for name in TINY
    }
    number = pl.col("subject_id").str.strip_chars().cast(pl.Float64).cast(pl.Int64)
    patients = raw["hosp/patients"].select(number).to_series().to_list()
    admissions = raw["hosp/admissions"].filter(number.is_in(patients))
    timed = admissions.filter(pl.col("admittime").is_not_null() & pl.col("dischtime").is_not_null())
    starts = events["code"].str.split("//").list.first()
    assert dataset.manifest.n_patients == len(patients)
    assert (starts == "HOSPITAL_ADMISSION").sum() == timed.height
    left_out = raw["hosp/admissions"].height - timed.height
    assert (left_out > 0) == any(w.startswith("admissions:") and "left out" in w for w in dataset.manifest.warnings)


@pytest.fixture(scope="module")
def demo(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    home = tmp_path_factory.mktemp("home")
    return ingest(SiteSpec.parse(f"a=mimic4:{real_data / 'mimiciv_demo_2.2'}"), home).scan().collect()


def raw(real_data: Path, name: str) -> pl.DataFrame:
    return pl.read_csv(real_data / "mimiciv_demo_2.2" / name, infer_schema=False)


def count(events: pl.DataFrame, prefix: str) -> int:
    return events.filter(pl.col("code").str.starts_with(prefix)).height


@pytest.mark.real
def test_the_demo_counts_are_those_of_the_raw_tables(demo: pl.DataFrame, real_data: Path) -> None:
    admissions = raw(real_data, "hosp/admissions.csv")
    assert demo["subject_id"].n_unique() == raw(real_data, "hosp/patients.csv").height == 100
    assert count(demo, "HOSPITAL_ADMISSION//") == count(demo, "HOSPITAL_DISCHARGE//") == admissions.height == 275
    assert count(demo, "ICU_ADMISSION//") == count(demo, "ICU_DISCHARGE//") == 140
    assert count(demo, "HOSPITAL_DISCHARGE//DIED") == 15
    assert count(demo, "MEDS_DEATH") == raw(real_data, "hosp/patients.csv")["dod"].count() == 31
    assert count(demo, "DIAGNOSIS//ICD//") == raw(real_data, "hosp/diagnoses_icd.csv").unique().height
    assert count(demo, "TRANSFER_TO//") == raw(real_data, "hosp/transfers.csv").height
    assert count(demo, "SUBJECT_FLUID_OUTPUT//") == raw(real_data, "icu/outputevents.csv").height
    read_columns = ["subject_id", "charttime", "itemid", "valuenum", "valueuom"]
    rows = sum(
        raw(real_data, name).select(read_columns).unique().height
        for name in ("icu/chartevents.csv.gz", "hosp/labevents.csv.gz")
    )
    assert count(demo, "LAB//") == rows


@pytest.mark.real
def test_the_demo_s_dead_die_in_their_stay(demo: pl.DataFrame, real_data: Path) -> None:
    """4 of the 15 are discharged a day before they die, by `dischtime`."""
    dead = raw(real_data, "hosp/admissions.csv").filter(pl.col("hospital_expire_flag") == "1")
    assert (dead["dischtime"] < dead["deathtime"]).sum() >= 4
    death = demo.filter(pl.col("code") == "MEDS_DEATH").select("subject_id", died="time")
    left = demo.filter(pl.col("code") == "HOSPITAL_DISCHARGE//DIED").select("subject_id", left="time")
    joined = left.join(death, on="subject_id")
    assert joined.height == 15
    assert (joined["died"] <= joined["left"]).all()
    assert joined["died"].dt.to_string("%Y-%m-%d %H:%M:%S").sort().equals(dead["deathtime"].sort(), null_equal=True)
    earlier = demo.filter(
        pl.col("code").str.starts_with("HOSPITAL_DISCHARGE") & (pl.col("code") != "HOSPITAL_DISCHARGE//DIED")
    )
    assert (earlier.join(death, on="subject_id").select(pl.col("time") < pl.col("died")).to_series()).all()


@pytest.mark.real
def test_the_demo_s_codes_are_those_of_the_published_meds(demo: pl.DataFrame, real_data: Path) -> None:
    published = pl.read_parquet(real_data / "mimiciv_demo_meds" / "mimic_iv_demo_meds_events.parquet")

    def same(prefix: str, columns: list[str]) -> bool:
        ours, theirs = (
            events.filter(pl.col("code").str.starts_with(prefix)).select(columns).unique().sort(columns)
            for events in (demo, published)
        )
        return ours.equals(theirs)

    for prefix in ("HOSPITAL_ADMISSION//", "ICU_ADMISSION//", "ED_REGISTRATION", "ED_OUT", "MEDS_BIRTH", "GENDER//"):
        assert same(prefix, ["subject_id", "time", "code"]), prefix
    for prefix in ("HOSPITAL_DISCHARGE//", "ICU_DISCHARGE//", "TRANSFER_TO//", "DIAGNOSIS//ICD//", "PROCEDURE//ICD//",
                   "SUBJECT_FLUID_OUTPUT//", "LAB//", "BMI", "Weight",
                   "PROCEDURE//START//", "PROCEDURE//END//"):  # fmt: skip
        assert same(prefix, ["subject_id", "code"]), prefix


@pytest.mark.real
def test_no_diagnosis_of_a_demo_stay_is_known_before_its_discharge(demo: pl.DataFrame) -> None:
    ends = demo.filter(pl.col("code").str.starts_with("HOSPITAL_DISCHARGE")).select("subject_id", "time").unique()
    billed = demo.filter(pl.col("code").str.contains(r"^(DIAGNOSIS|PROCEDURE//ICD|DRG|HCPCS)//"))
    assert billed.join(ends, on=["subject_id", "time"], how="anti").is_empty()


@pytest.mark.real
def test_a_demo_culture_is_known_after_its_specimen(demo: pl.DataFrame, real_data: Path) -> None:
    rows = raw(real_data, "hosp/microbiologyevents.csv")
    known = demo.filter(pl.col("code").str.starts_with("MICROBIOLOGY//"))
    without = rows.filter(pl.col("storetime").is_null() & pl.col("storedate").is_null()).height
    assert without == 16
    taken = rows.select(pl.col("charttime").str.to_datetime("%Y-%m-%d %H:%M:%S").min()).item()
    assert known["time"].min() > taken + timedelta(hours=1)
