"""The tables of eICU-CRD v2.0 that are read, and their columns.

What an export declares is all that is ever read of it. Left out on purpose, because they are outcomes or were known
only later: the table `apachePatientResult`; `diedinhospital`, `dischargelocation`, `var03hspxlos` and `visitnumber` of
`apachePredVar`; `activeupondischarge` of every table. Left out as free text: the values of `note`.
"""

from collections.abc import Sequence

import polars as pl

from sites.exports.export import DTypes, Table

UNIT = "patientunitstayid"

VITAL_PERIODIC = {
    "temperature": "C",
    "sao2": "%",
    "heartrate": "bpm",
    "respiration": "insp/min",
    "cvp": "mmHg",
    "etco2": "mmHg",
    "systemicsystolic": "mmHg",
    "systemicdiastolic": "mmHg",
    "systemicmean": "mmHg",
    "pasystolic": "mmHg",
    "padiastolic": "mmHg",
    "pamean": "mmHg",
    "st1": "mm",
    "st2": "mm",
    "st3": "mm",
    "icp": "mmHg",
}
"""The columns of `vitalPeriodic` (medians of 5 minutes from the monitor) and their units."""

VITAL_APERIODIC = {
    "noninvasivesystolic": "mmHg",
    "noninvasivediastolic": "mmHg",
    "noninvasivemean": "mmHg",
    "paop": "mmHg",
    "cardiacoutput": "L/min",
    "cardiacinput": "L/min/m2",
    "svr": "dyn*s/cm5",
    "svri": "dyn*s*m2/cm5",
    "pvr": "dyn*s/cm5",
    "pvri": "dyn*s*m2/cm5",
}
"""The columns of `vitalAperiodic` and their units."""

APACHE_APS = (
    *("intubated", "vent", "dialysis", "eyes", "motor", "verbal", "meds", "urine", "wbc", "temperature"),
    *("respiratoryrate", "sodium", "heartrate", "meanbp", "ph", "hematocrit", "creatinine", "albumin", "pao2", "pco2"),
    *("bun", "glucose", "bilirubin", "fio2"),
)
"""The columns of `apacheApsVar`: the worst values of the first 24 hours."""

APACHE_PRED = (
    *("graftcount", "thrombolytics", "aids", "hepaticfailure", "lymphoma", "metastaticcancer", "leukemia"),
    *("immunosuppression", "cirrhosis", "electivesurgery", "activetx", "readmit", "ima", "midur", "ventday1"),
    *("oobventday1", "oobintubday1", "diabetes", "ejectfx", "amilocation", "admitsource"),
)
"""The columns of `apachePredVar` that are known at 24 hours and not in `apacheApsVar`."""


def _table(
    name: str,
    offsets: Sequence[str],
    strings: Sequence[str] = (),
    numbers: Sequence[str] = (),
    *,
    loses: str,
    optional: Sequence[str] = (),
) -> Table:
    """A table of rows that belong to a unit stay, with offsets in minutes from its admission; named as eICU does."""
    columns: DTypes = {
        UNIT: pl.Int64(),
        **{column: pl.Int64() for column in offsets},
        **{column: pl.String() for column in strings},
        **{column: pl.Float64() for column in numbers},
    }
    return Table(name.lower(), columns, optional=frozenset(optional), loses=loses)


PATIENT = Table(
    "patient",
    {
        UNIT: pl.Int64(),
        "patienthealthsystemstayid": pl.Int64(),
        "uniquepid": pl.String(),
        "gender": pl.String(),
        "age": pl.String(),
        "ethnicity": pl.String(),
        "hospitalid": pl.Int64(),
        "apacheadmissiondx": pl.String(),
        "admissionheight": pl.Float64(),
        "admissionweight": pl.Float64(),
        "dischargeweight": pl.Float64(),
        "hospitaladmittime24": pl.String(),
        "hospitaladmitoffset": pl.Int64(),
        "hospitaladmitsource": pl.String(),
        "hospitaldischargeyear": pl.Int64(),
        "hospitaldischargeoffset": pl.Int64(),
        "hospitaldischargelocation": pl.String(),
        "hospitaldischargestatus": pl.String(),
        "unittype": pl.String(),
        "unitadmitsource": pl.String(),
        "unitvisitnumber": pl.Int64(),
        "unitstaytype": pl.String(),
        "unitdischargeoffset": pl.Int64(),
        "unitdischargelocation": pl.String(),
        "unitdischargestatus": pl.String(),
    },
    required=True,
    keys=(UNIT,),
)

HOSPITAL = Table(
    "hospital",
    {
        "hospitalid": pl.Int64(),
        "numbedscategory": pl.String(),
        "teachingstatus": pl.String(),
        "region": pl.String(),
    },
    loses="the region, size and teaching status of hospitals",
    keys=("hospitalid",),
)

TABLES = (
    PATIENT,
    HOSPITAL,
    _table("admissionDx", ["admitdxenteredoffset"], ["admitdxpath"], loses="admission diagnoses"),
    _table("admissiondrug", ["drugoffset", "drugenteredoffset"], ["drugname"], loses="drugs taken before admission"),
    _table("allergy", ["allergyoffset", "allergyenteredoffset"], ["allergyname"], loses="allergies"),
    _table("apacheApsVar", [], numbers=APACHE_APS, loses="APACHE physiology", optional=APACHE_APS),
    _table(
        "apachePredVar",
        [],
        ["admitdiagnosis"],
        APACHE_PRED,
        loses="APACHE predictors (comorbidities, surgery, ventilation on day 1)",
        optional=("admitdiagnosis", *APACHE_PRED),
    ),
    _table("carePlanCareProvider", ["careprovidersaveoffset"], ["specialty"], loses="care providers"),
    _table("carePlanEOL", ["cpleolsaveoffset", "cpleoldiscussionoffset"], loses="end-of-life discussions"),
    _table("carePlanGeneral", ["cplitemoffset"], ["cplgroup", "cplitemvalue"], loses="care plans"),
    _table("carePlanGoal", ["cplgoaloffset"], ["cplgoalcategory", "cplgoalvalue"], loses="goals of care plans"),
    _table(
        "carePlanInfectiousDisease",
        ["cplinfectdiseaseoffset"],
        ["infectdiseasesite", "infectdiseaseassessment"],
        loses="assessments of infections",
    ),
    _table(
        "customLab", ["labotheroffset"], ["labothername", "labothervaluetext"], ["labotherresult"], loses="rare labs"
    ),
    _table("diagnosis", ["diagnosisoffset"], ["diagnosisstring", "icd9code", "diagnosispriority"], loses="diagnoses"),
    _table("infusiondrug", ["infusionoffset"], ["drugname", "drugrate"], loses="infusions"),
    _table(
        "intakeOutput",
        ["intakeoutputoffset", "intakeoutputentryoffset"],
        ["cellpath", "celllabel"],
        ["cellvaluenumeric"],
        loses="fluid balance, urine output and weights",
    ),
    _table(
        "lab",
        ["labresultoffset", "labresultrevisedoffset"],
        ["labname", "labresulttext", "labmeasurenamesystem"],
        ["labresult"],
        loses="laboratory results",
    ),
    _table(
        "medication",
        ["drugorderoffset", "drugstartoffset", "drugstopoffset", "drughiclseqno"],
        ["drugordercancelled", "drugname", "dosage"],
        loses="drug orders",
    ),
    _table(
        "microLab",
        ["culturetakenoffset"],
        ["culturesite", "organism", "antibiotic", "sensitivitylevel"],
        loses="microbiology",
    ),
    _table("note", ["noteoffset", "noteenteredoffset"], ["notepath"], loses="the structure of notes"),
    _table(
        "nurseAssessment",
        ["nurseassessoffset", "nurseassessentryoffset"],
        ["celllabel", "cellattribute", "cellattributevalue"],
        loses="nurses' assessments",
    ),
    _table(
        "nurseCare",
        ["nursecareoffset", "nursecareentryoffset"],
        ["celllabel", "cellattribute", "cellattributevalue"],
        loses="nursing care",
    ),
    _table(
        "nurseCharting",
        ["nursingchartoffset", "nursingchartentryoffset"],
        ["nursingchartcelltypevallabel", "nursingchartcelltypevalname", "nursingchartvalue"],
        loses="bedside charting: vital signs by hand, coma and pain scores",
    ),
    _table(
        "pastHistory",
        ["pasthistoryoffset", "pasthistoryenteredoffset"],
        ["pasthistorypath", "pasthistoryvalue"],
        loses="past history",
    ),
    _table(
        "physicalExam", ["physicalexamoffset"], ["physicalexampath", "physicalexamtext"], loses="physical examinations"
    ),
    _table(
        "respiratoryCare",
        ["respcarestatusoffset", "ventstartoffset", "ventendoffset", "priorventstartoffset", "priorventendoffset"],
        ["airwaytype"],
        loses="airways and the start of ventilation",
    ),
    _table(
        "respiratoryCharting",
        ["respchartoffset", "respchartentryoffset"],
        ["respchartvaluelabel", "respchartvalue"],
        loses="ventilator settings and inspired oxygen",
    ),
    _table("treatment", ["treatmentoffset"], ["treatmentstring"], loses="treatments"),
    _table("vitalAperiodic", ["observationoffset"], numbers=tuple(VITAL_APERIODIC), loses="cuff blood pressures"),
    _table("vitalPeriodic", ["observationoffset"], numbers=tuple(VITAL_PERIODIC), loses="monitored vital signs"),
)
"""Every table that is read."""
