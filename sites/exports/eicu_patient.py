"""Events of eICU's table `patient`: the hospital stay, its ICU stays, the person, and how it ended."""

import polars as pl

from sites.exports.eicu_rows import number, unit_rows
from sites.exports.eicu_stays import OLDEST
from sites.exports.eicu_tables import UNIT
from sites.exports.export import Events, Frames, code

APACHE_MINUTES = pl.lit(24 * 60)
"""APACHE describes the first 24 hours of a unit stay: it is known at their end."""

NONE = pl.lit(None, pl.String)


def _of(frame: str, event: pl.Expr, time: str, name: str, where: pl.Expr | None = None) -> Events:
    """Events of a small frame (`stays`, `icu`), which has `subject_id`."""

    def prepare(lazy: pl.LazyFrame, _frames: Frames) -> pl.LazyFrame:
        return lazy if where is None else lazy.filter(where)

    return Events(frame, event, pl.col(time), prepare=prepare, name=name)


def _static(event: pl.Expr, name: str) -> Events:
    return Events("stays", event, pl.lit(None, pl.Datetime("us")), static=True, name=name)


def _aged(lazy: pl.LazyFrame, _frames: Frames) -> pl.LazyFrame:
    """Hospital stays with `years`, and the birth that many years before the admission."""
    over = pl.col("age").str.contains(">")
    years = pl.when(over).then(pl.lit(OLDEST, pl.Int64)).otherwise(number("age").cast(pl.Int64).clip(0, OLDEST))
    stays = lazy.with_columns(years=years).filter(pl.col("years").is_not_null())
    return stays.with_columns(birth=pl.col("admission").dt.offset_by(pl.format("-{}y", pl.col("years"))))


def _real_units(lazy: pl.LazyFrame, frames: Frames) -> pl.LazyFrame:
    return lazy.join(frames["units"].lazy(), on=UNIT, how="inner").filter(pl.col("length") > 0)


_SEX = pl.col("gender").str.to_lowercase().replace_strict({"male": "M", "female": "F"}, default="UNK")

STAY_EVENTS = (
    _static(code("GENDER", _SEX), "sex"),
    _static(code("RACE", "ethnicity"), "ethnicity"),
    Events("stays", pl.lit("MEDS_BIRTH"), pl.col("birth"), prepare=_aged, name="birth (from the age)"),
    Events("stays", pl.lit("AGE"), pl.col("admission"), pl.col("years").cast(pl.Float64), prepare=_aged, name="age"),
    _of("stays", code("HOSPITAL_ADMISSION", NONE, "hospitaladmitsource"), "admission", "hospital admission"),
    _of("stays", code("HOSPITAL_DISCHARGE", "hospitaldischargelocation"), "discharge", "hospital discharge"),
    _of("stays", pl.lit("MEDS_DEATH"), "death", "death", pl.col("death").is_not_null()),
    _of("stays", pl.lit("OUTCOME_UNKNOWN"), "discharge", "unknown outcome", pl.col("outcome_unknown")),
    _of("icu", code("ICU_ADMISSION", "first_unit"), "icu_admission", "ICU admission"),
    _of("icu", code("ICU_DISCHARGE", "last_unit"), "icu_discharge", "ICU discharge"),
    Events(
        "patient",
        code("TRANSFER_TO", "unitstaytype", "unittype"),
        pl.col("unit_admission"),
        text=pl.col("unitadmitsource"),
        prepare=_real_units,
        name="unit stay",
    ),
    unit_rows(
        "patient",
        pl.lit("BODY//HEIGHT//cm"),
        pl.lit(0),
        numeric=pl.col("admissionheight"),
        having="admissionheight",
        name="height",
    ),
    unit_rows(
        "patient",
        pl.lit("BODY//WEIGHT//kg"),
        pl.lit(0),
        numeric=pl.col("admissionweight"),
        having="admissionweight",
        name="weight",
    ),
    unit_rows(
        "patient",
        pl.lit("BODY//WEIGHT//kg"),
        pl.col("unitdischargeoffset"),
        numeric=pl.col("dischargeweight"),
        having="dischargeweight",
        name="weight at discharge",
    ),
    unit_rows(
        "patient",
        code("APACHE", pl.lit("admissiondx"), "apacheadmissiondx"),
        APACHE_MINUTES,
        having="apacheadmissiondx",
        name="APACHE admission diagnosis",
    ),
)
