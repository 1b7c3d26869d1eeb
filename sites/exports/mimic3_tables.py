"""The tables of MIMIC-III v1.4 that are read, and their columns.

What is not declared is never read: `has_chartevents_data`, `los`, `expire_flag`, notes, callouts. Some columns are read
only to tell two orders apart from one row that stands there twice (`orderid`, `seq_num`, the parts of a dose).
"""

import polars as pl

from sites.exports.export import DTypes, Table

_TIME = pl.Datetime("us")
_ID: DTypes = {"subject_id": pl.Int64, "hadm_id": pl.Int64}
_ITEM: DTypes = {"subject_id": pl.Int64, "itemid": pl.Int64}
_DOSE = (
    *("drug_type", "prod_strength", "dose_val_rx", "dose_unit_rx"),
    *("form_val_disp", "form_unit_disp", "route"),
)


def _columns(*parts: DTypes) -> DTypes:
    return {name: dtype for part in parts for name, dtype in part.items()}


def _strings(*names: str) -> DTypes:
    return dict.fromkeys(names, pl.String)


def _times(*names: str) -> DTypes:
    return dict.fromkeys(names, _TIME)


TABLES = (
    Table(
        "patients",
        {"subject_id": pl.Int64, "gender": pl.String, "dob": _TIME, "dod": _TIME},
        required=True,
        keys=("subject_id",),
    ),
    Table(
        "admissions",
        _columns(
            _ID,
            _times("admittime", "dischtime", "deathtime", "edregtime", "edouttime"),
            _strings("admission_type", "admission_location", "discharge_location"),
            _strings("ethnicity", "insurance", "language", "marital_status"),
            {"hospital_expire_flag": pl.Int64},
        ),
        optional=frozenset({"edregtime", "edouttime", "ethnicity", "insurance", "language", "marital_status"}),
        required=True,
        keys=("hadm_id",),
    ),
    Table(
        "icustays",
        _columns(
            _ID,
            {"icustay_id": pl.Int64},
            _strings("dbsource", "first_careunit", "last_careunit"),
            _times("intime", "outtime"),
        ),
        required=True,
        keys=("icustay_id",),
    ),
    Table(
        "transfers",
        _columns(_ID, _strings("eventtype", "curr_careunit"), _times("intime")),
        loses="moves between wards",
    ),
    Table(
        "services",
        _columns(_ID, _times("transfertime"), _strings("curr_service")),
        loses="the service that cared for the patient",
    ),
    Table(
        "diagnoses_icd",
        _columns(_ID, _strings("icd9_code", "seq_num")),
        optional=frozenset({"seq_num"}),
        loses="discharge diagnoses",
    ),
    Table(
        "procedures_icd",
        _columns(_ID, _strings("icd9_code", "seq_num")),
        optional=frozenset({"seq_num"}),
        loses="procedures coded at discharge",
    ),
    Table(
        "drgcodes",
        _columns(_ID, _strings("drg_type", "drg_code", "description", "drg_severity", "drg_mortality")),
        optional=frozenset({"description", "drg_severity", "drg_mortality"}),
        loses="diagnosis-related groups",
    ),
    Table(
        "cptevents",
        _columns(_ID, _strings("cpt_cd", "ticket_id_seq"), _times("chartdate")),
        optional=frozenset({"ticket_id_seq", "chartdate"}),
        loses="billed procedures",
    ),
    Table(
        "prescriptions",
        _columns(_ID, _times("startdate", "enddate"), _strings("drug", "ndc", *_DOSE)),
        optional=frozenset({"ndc", *_DOSE}),
        loses="prescribed medication",
    ),
    Table(
        "labevents",
        _columns(_ITEM, _times("charttime"), _strings("value", "valueuom"), {"valuenum": pl.Float64}),
        loses="laboratory results",
    ),
    Table(
        "chartevents",
        _columns(
            _ITEM,
            _times("charttime", "storetime"),
            _strings("value", "valueuom"),
            {"valuenum": pl.Float64, "error": pl.Int64},
        ),
        optional=frozenset({"storetime", "error"}),
        loses="vital signs and bedside charting",
    ),
    Table(
        "datetimeevents",
        _columns(_ITEM, _times("charttime", "storetime", "value"), {"error": pl.Int64}),
        optional=frozenset({"storetime", "error"}),
        loses="charted dates (lines, dressings, last dialysis)",
    ),
    Table(
        "inputevents_cv",
        _columns(
            _ITEM,
            _times("charttime", "storetime"),
            _strings("stopped", "amountuom", "rateuom"),
            {"amount": pl.Float64, "rate": pl.Float64, "orderid": pl.Int64},
        ),
        optional=frozenset({"storetime", "stopped", "orderid"}),
        loses="infusions and fluids charted in CareVue",
    ),
    Table(
        "inputevents_mv",
        _columns(
            _ITEM,
            _times("starttime", "endtime"),
            _strings("amountuom", "rateuom", "statusdescription"),
            {"amount": pl.Float64, "rate": pl.Float64, "patientweight": pl.Float64, "orderid": pl.Int64},
        ),
        optional=frozenset({"patientweight", "orderid"}),
        loses="infusions and fluids charted in MetaVision",
    ),
    Table(
        "outputevents",
        _columns(
            _ITEM,
            _times("charttime", "storetime"),
            _strings("valueuom"),
            {"value": pl.Float64, "iserror": pl.Int64},
        ),
        optional=frozenset({"storetime", "iserror"}),
        loses="urine and other outputs",
    ),
    Table(
        "procedureevents_mv",
        _columns(
            _ITEM,
            _times("starttime", "endtime"),
            _strings("valueuom", "statusdescription"),
            {"value": pl.Float64, "orderid": pl.Int64},
        ),
        optional=frozenset({"orderid"}),
        loses="procedures charted in MetaVision (ventilation, lines, dialysis)",
    ),
    Table(
        "microbiologyevents",
        _columns(
            {"subject_id": pl.Int64},
            _times("chartdate", "charttime"),
            _strings("spec_type_desc", "org_name", "ab_name", "interpretation", "isolate_num", "dilution_text"),
        ),
        optional=frozenset({"ab_name", "interpretation", "isolate_num", "dilution_text"}),
        loses="cultures and resistances",
    ),
)
