"""MIMIC-IV v2.2 and v3.x (Johnson et al. 2023, doi:10.1038/s41597-022-01899-x), as published on PhysioNet.

Codes are those of the published MIMIC-IV demo in MEDS 0.0.1; what is said at another time than there is said where it
was known:

- Laboratory results and bedside charting at `storetime`, but never before `charttime` (nurses chart ahead). Without
  `storetime` a laboratory result is known `LAB_TURNAROUND` after the draw, bedside charting at `charttime`.
- Microbiology at `storetime`, else at the end of `storedate`, else `CULTURE_TURNAROUND` after the specimen was taken.
- Billing (ICD diagnoses and procedures, DRG, HCPCS) at hospital discharge, whatever `chartdate` says.
- A date without time (`dod`, `omr.chartdate`) at the end of that day.

How stays end is decided in `sites.exports.mimic4_stays`; the columns stand in `sites.exports.mimic4_tables`.
"""

import polars as pl

from sites.exports.export import BIDMC, LAB_TURNAROUND, Events, Export, Frames, code, end_of_day
from sites.exports.mimic4_stays import GROUPS, frames
from sites.exports.mimic4_tables import TABLES

CULTURE_TURNAROUND = pl.duration(hours=72)
"""The stated rule for a culture without any time of storing: known three days after the specimen was taken."""

GIVEN = ("Administered", "Started", "Restarted", "Applied", "Confirmed", "Administered in Other Location")
"""`emar.event_txt` that say that the drug reached the patient, also behind "Delayed "."""


def stored(*otherwise: pl.Expr) -> pl.Expr:
    """`storetime`, but never before `charttime`; where there is none, the first of `otherwise`, else `charttime`."""
    late = pl.max_horizontal("storetime", "charttime")
    return pl.when(pl.col("storetime").is_not_null()).then(late).otherwise(pl.coalesce(*otherwise, "charttime"))


def _unless_number(text: str, number: str) -> pl.Expr:
    return pl.when(pl.col(number).is_null()).then(pl.col(text))


def _has(*columns: str) -> pl.Expr:
    return pl.all_horizontal(pl.col(column).is_not_null() for column in columns)


def at_discharge(rows: pl.LazyFrame, frames: Frames) -> pl.LazyFrame:
    """Add the `discharge` of each row's hospital stay; a row of no known stay has none."""
    stays = frames["hospital_stays"].lazy().select("hadm_id", "discharge")
    return rows.join(stays, on="hadm_id", how="left")


def _transfers(rows: pl.LazyFrame, frames: Frames) -> pl.LazyFrame:
    """The move out of the hospital never stands before the discharge that it is part of."""
    left = pl.when(pl.col("eventtype") == "discharge").then(pl.max_horizontal("intime", "discharge"))
    return at_discharge(rows, frames).with_columns(intime=left.otherwise("intime"))


def _stopped(rows: pl.LazyFrame, _frames: Frames) -> pl.LazyFrame:
    """A stop that is recorded before the start says nothing."""
    return rows.filter(_has("stoptime") & (pl.col("stoptime") >= pl.col("starttime")))


def _final(rows: pl.LazyFrame, _frames: Frames) -> pl.LazyFrame:
    """Rewritten rows were replaced by others."""
    return rows.filter(pl.col("statusdescription").ne_missing("Rewritten"))


def _ended(rows: pl.LazyFrame, frames: Frames) -> pl.LazyFrame:
    return _final(rows, frames).with_columns(endtime=pl.max_horizontal("starttime", "endtime"))


def _weighed(rows: pl.LazyFrame, frames: Frames) -> pl.LazyFrame:
    return _final(rows, frames).filter(_has("patientweight"))


def _given(rows: pl.LazyFrame, _frames: Frames) -> pl.LazyFrame:
    event = pl.col("event_txt").str.strip_prefix("Delayed ")
    return rows.filter(event.is_in(GIVEN) & _has("medication"))


def _grown(rows: pl.LazyFrame, _frames: Frames) -> pl.LazyFrame:
    return rows.filter(_has("ab_name", "org_name"))


def _dosed(value: str, unit: str) -> pl.Expr:
    return pl.concat_str(value, unit, separator=" ", ignore_nulls=True).replace("", None)


def _each(column: str) -> "_Present":
    return _Present(column)


class _Present:
    """Rows in which a column has a value."""

    def __init__(self, column: str) -> None:
        self.column = column

    def __call__(self, rows: pl.LazyFrame, _frames: Frames) -> pl.LazyFrame:
        return rows.filter(_has(self.column))


_TAKEN = pl.coalesce("charttime", end_of_day("chartdate"))
_CULTURED = stored(end_of_day("storedate"), _TAKEN + CULTURE_TURNAROUND)

EVENTS = (
    Events("people", code("GENDER", "gender"), pl.lit(None), static=True, name="gender"),
    Events("people", code("RACE", "race"), pl.lit(None), static=True, prepare=_each("race"), name="race"),
    Events("people", pl.lit("MEDS_BIRTH"), pl.col("birth"), name="birth"),
    Events("hospital_stays", pl.lit("ED_REGISTRATION"), pl.col("edregtime"), prepare=_each("edregtime")),
    Events("hospital_stays", code("HOSPITAL_ADMISSION", "admission_type", "admission_location"), pl.col("admittime")),
    Events("hospital_stays", pl.lit("AGE"), pl.col("admittime"), numeric=pl.col("age"), prepare=_each("age")),
    Events("hospital_stays", code("INSURANCE", "insurance"), pl.col("admittime"), prepare=_each("insurance")),
    Events("hospital_stays", code("LANGUAGE", "language"), pl.col("admittime"), prepare=_each("language")),
    Events(
        "hospital_stays", code("MARITAL_STATUS", "marital_status"), pl.col("admittime"), prepare=_each("marital_status")
    ),
    Events("hospital_stays", pl.lit("ED_OUT"), pl.col("edouttime"), prepare=_each("edouttime")),
    Events("transfers", code("TRANSFER_TO", "eventtype", "careunit"), pl.col("intime"), prepare=_transfers),
    Events("services", code("SERVICE", "curr_service"), pl.col("transfertime")),
    Events("icu_stays", code("ICU_ADMISSION", "first_careunit"), pl.col("intime")),
    Events(
        "labevents",
        code("LAB", "itemid", "valueuom"),
        stored(pl.col("charttime") + LAB_TURNAROUND),
        numeric=pl.col("valuenum"),
        text=_unless_number("value", "valuenum"),
    ),
    Events(
        "chartevents",
        code("LAB", "itemid", "valueuom"),
        stored(),
        numeric=pl.col("valuenum"),
        text=_unless_number("value", "valuenum"),
    ),
    Events("outputevents", code("SUBJECT_FLUID_OUTPUT", "itemid", "valueuom"), stored(), numeric=pl.col("value")),
    Events(
        "inputevents",
        code("INFUSION_START", "itemid"),
        pl.col("starttime"),
        numeric=pl.col("rate"),
        text=pl.col("rateuom"),
        prepare=_final,
    ),
    Events(
        "inputevents",
        code("INFUSION_END", "itemid"),
        pl.col("endtime"),
        numeric=pl.col("amount"),
        text=pl.col("amountuom"),
        prepare=_ended,
    ),
    Events(
        "inputevents",
        pl.lit("SUBJECT_WEIGHT_AT_INFUSION//KG"),
        pl.col("starttime"),
        numeric=pl.col("patientweight"),
        prepare=_weighed,
        once=True,
    ),
    Events(
        "ingredientevents",
        code("INGREDIENT_START", "itemid"),
        pl.col("starttime"),
        numeric=pl.col("rate"),
        text=pl.col("rateuom"),
        prepare=_final,
    ),
    Events(
        "ingredientevents",
        code("INGREDIENT_END", "itemid"),
        pl.col("endtime"),
        numeric=pl.col("amount"),
        text=pl.col("amountuom"),
        prepare=_ended,
    ),
    Events("procedureevents", code("PROCEDURE//START", "itemid"), pl.col("starttime"), prepare=_final),
    Events(
        "procedureevents",
        code("PROCEDURE//END", "itemid"),
        pl.col("endtime"),
        numeric=pl.col("value"),
        text=pl.col("valueuom"),
        prepare=_ended,
    ),
    Events("datetimeevents", code("DATETIME", "itemid"), stored(), text=pl.col("value").dt.to_string("iso:strict")),
    Events(
        "prescriptions",
        code("MEDICATION//START", "drug"),
        pl.col("starttime"),
        text=_dosed("dose_val_rx", "dose_unit_rx"),
    ),
    Events("prescriptions", code("MEDICATION//STOP", "drug"), pl.col("stoptime"), prepare=_stopped),
    Events("emar", code("MEDICATION//ADMINISTERED", "medication"), stored(), prepare=_given),
    Events("microbiologyevents", code("SPECIMEN", "spec_type_desc"), _TAKEN, once=True, name="specimens"),
    Events("microbiologyevents", code("MICROBIOLOGY", "spec_type_desc", "org_name"), _CULTURED, once=True),
    Events(
        "microbiologyevents",
        code("SUSCEPTIBILITY", "org_name", "ab_name", "interpretation"),
        _CULTURED,
        prepare=_grown,
        name="susceptibilities",
    ),
    Events(
        "omr",
        pl.col("result_name"),
        end_of_day("chartdate"),
        numeric=pl.col("result_value").cast(pl.Float64, strict=False),
        text=pl.when(pl.col("result_value").cast(pl.Float64, strict=False).is_null()).then(pl.col("result_value")),
    ),
    Events("icu_stays", code("ICU_DISCHARGE", "last_careunit"), pl.col("outtime")),
    Events("deaths", pl.lit("MEDS_DEATH"), pl.col("death")),
    Events("hospital_stays", code("HOSPITAL_DISCHARGE", "discharge_location"), pl.col("discharge")),
    Events(
        "hospital_stays",
        pl.lit("OUTCOME_UNKNOWN"),
        pl.col("discharge"),
        prepare=lambda rows, _frames: rows.filter("outcome_unknown"),
    ),
    Events(
        "diagnoses_icd",
        code("DIAGNOSIS//ICD", "icd_version", pl.col("icd_code").str.strip_chars()),
        pl.col("discharge"),
        prepare=at_discharge,
    ),
    Events(
        "procedures_icd",
        code("PROCEDURE//ICD", "icd_version", pl.col("icd_code").str.strip_chars()),
        pl.col("discharge"),
        prepare=at_discharge,
    ),
    Events("drgcodes", code("DRG", "drg_type", "drg_code", "description"), pl.col("discharge"), prepare=at_discharge),
    Events("hcpcsevents", code("HCPCS", "short_description"), pl.col("discharge"), prepare=at_discharge),
)

EXPORT = Export(
    kind="mimic4",
    title="MIMIC-IV v2.2 and v3.x",
    tables=TABLES,
    frames=frames,
    events=EVENTS,
    groups=GROUPS,
    source=lambda _options: BIDMC,
    concepts="mimic",
)
