"""Tiny exports in the genuine formats."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Tables = Mapping[str, str]

MIMIC4: dict[str, str] = {
    "hosp/patients": """subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod
1,F,60,2150,2011 - 2013,
2,M,91,2150,2014 - 2016,2151-03-02
3,F,40,2160,2014 - 2016,2170-01-01
""",
    "hosp/admissions": """\
subject_id,hadm_id,admittime,dischtime,deathtime,admission_type,admission_location,discharge_location,insurance,\
language,marital_status,race,edregtime,edouttime,hospital_expire_flag
1,10,2150-01-01 10:00:00,2150-01-05 12:00:00,,URGENT,EMERGENCY ROOM,HOME,Medicare,ENGLISH,SINGLE,WHITE,\
2150-01-01 08:00:00,2150-01-01 11:00:00,0
1,11,2150-06-01 10:00:00,2150-06-03 12:00:00,,ELECTIVE,,HOME,Medicare,ENGLISH,SINGLE,WHITE,,,0
2,20,2151-03-01 10:00:00,2151-03-02 00:00:00,2151-03-02 22:20:00,URGENT,,DIED,Other,,,UNKNOWN,,,1
3,30,2165-01-01 10:00:00,2165-01-09 12:00:00,,URGENT,,HOME,Other,,,ASIAN,,,0
""",
    "icu/icustays": """subject_id,hadm_id,stay_id,first_careunit,last_careunit,intime,outtime,los
1,10,100,MICU,SICU,2150-01-02 10:00:00,2150-01-04 10:00:00,2
2,20,200,SICU,SICU,2151-03-01 11:00:00,2151-03-03 03:00:00,2
""",
    "icu/chartevents": """\
subject_id,hadm_id,stay_id,charttime,storetime,itemid,value,valuenum,valueuom
1,10,100,2150-01-02 11:00:00,2150-01-02 11:30:00,220045,80,80,bpm
1,10,100,2150-01-02 11:00:00,2150-01-02 11:30:00,220045,80,80,bpm
1,10,100,2150-01-02 11:10:00,2150-01-02 11:30:00,220045,80,80,bpm
2,20,200,2151-03-01 12:00:00,,223900,No Response-ETT,1,
2,20,200,2151-03-01 12:00:00,,220048,AF (Atrial Fibrillation),,
""",
}


def write_tables(root: Path, tables: Tables) -> Path:
    for name, text in tables.items():
        path = root / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def mimic4_export(tmp_path: Path) -> Callable[..., Path]:
    """Write a small MIMIC-IV: `mimic4_export({"hosp/labevents": text}, name="x")` adds tables or replaces them."""

    def make(changed: Tables | None = None, name: str = "mimic4") -> Path:
        return write_tables(tmp_path / name, MIMIC4 | dict(changed or {}))

    return make
