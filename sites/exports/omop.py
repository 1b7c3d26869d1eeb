"""OMOP Common Data Model 5.3 and 5.4 as MEDS.

A subject is a person; ids are 64-bit and may be negative. Codes are `<DOMAIN>//OMOP//<concept>`; a concept 0 (no
standard concept was found) gives way to the source's own value, `<DOMAIN>//SOURCE//<value>`.

When a row was known (stays and deaths: `omop_visits`):

- Rows written for the bill or at discharge (`known_at_visit_end` of `omop_visits.yaml`, among them 32821): at the end
  of the hospital stay or visit; without a visit they cannot be dated and are left out.
- Laboratory results: two hours after the time that OMOP keeps, which is the draw.
- Everything else at its start; without a time of day at the end of that day. A condition is never known before the
  visit that recorded it began, however long ago its onset was.
- Birth without a month is 1 July, without a day the 15th.
"""

from collections.abc import Callable

import polars as pl

from sites.exports.export import LAB_TURNAROUND, Events, Export, Frames, code
from sites.exports.omop_frames import frames
from sites.exports.omop_meaning import declared, moment
from sites.exports.omop_tables import DOMAINS, TABLES

OLDEST = 90

_NONE = pl.lit(None, pl.String)
_RACES = {8527: "White", 8516: "Black", 8515: "Asian", 8557: "Pacific Islander", 8657: "American Indian"}
_ETHNICITIES = {38003563: "Hispanic", 38003564: "Not Hispanic"}
_OPERATORS = {4171756: "<", 4171754: "<=", 4172704: ">", 4171755: ">="}


def _concept(domain: str, *more: pl.Expr) -> pl.Expr:
    """The code of a row: its concept, else the source's value; null where it has neither."""
    name = DOMAINS[domain][1]
    concept, value = pl.col(f"{name}_concept_id"), pl.col(f"{name}_source_value").str.strip_chars()
    named = value.is_not_null() & ~value.is_in(["", "0"])
    return (
        pl.when(concept != 0)
        .then(code(domain, pl.lit("OMOP"), concept.cast(pl.String), *more))
        .when(named)
        .then(code(domain, pl.lit("SOURCE"), value, *more))
    )


_UNIT = pl.coalesce(
    pl.when(pl.col("unit_concept_id") != 0).then(pl.col("unit_concept_id").cast(pl.String)),
    pl.col("unit_source_value").str.strip_chars(),
)


def _rows(domain: str, *, end: bool = False) -> Callable[[pl.LazyFrame, Frames], pl.LazyFrame]:
    """Add `subject_id` and `known` to the rows of a domain."""
    _, name, start, until = DOMAINS[domain]
    late = pl.any_horizontal(
        pl.col(f"{name}_type_concept_id").is_between(first, last) for first, last in declared()["known_at_visit_end"]
    ).fill_null(False)
    drawn = pl.col(f"{name}_type_concept_id").is_in(list(declared()["laboratory"])).fill_null(False)

    def prepare(lazy: pl.LazyFrame, small: Frames) -> pl.LazyFrame:
        # Orders for procedures carry dates (HCPCS, bills) even where the export keeps times of day.
        midnight = bool(small["clock"]["timed"][0]) and domain != "PROCEDURE"
        begun = moment(pl.col(f"{start}_date"), pl.col(f"{start}_datetime"), midnight)
        joined = lazy.join(small["visit_ends"].lazy(), on="visit_occurrence_id", how="left")
        if end:
            ended = moment(pl.col(f"{until}_date"), pl.col(f"{until}_datetime"), midnight)
            joined = joined.filter(~late).with_columns(known=ended).filter(pl.col("known") > begun)
        else:
            happened = pl.when(drawn).then(begun + LAB_TURNAROUND).otherwise(begun)
            if domain == "CONDITION":
                happened = pl.max_horizontal(happened, "visit_start")
            at_end = pl.max_horizontal(happened, "visit_end")
            known = pl.when(late & pl.col("visit_end").is_not_null()).then(at_end).when(~late).then(happened)
            joined = joined.with_columns(known=known)
        return joined.with_columns(subject_id=pl.col("person_id"))

    return prepare


def _domain(domain: str, numeric: pl.Expr | None = None, text: pl.Expr | None = None, *more: pl.Expr) -> Events:
    table = DOMAINS[domain][0]
    return Events(table, _concept(domain, *more), pl.col("known"), numeric, text, _rows(domain), name=table)


def _ended(domain: str) -> Events:
    table = DOMAINS[domain][0]
    event = _concept(domain).str.replace(f"^{domain}//", f"{domain}_END//")
    return Events(table, event, pl.col("known"), prepare=_rows(domain, end=True), name=f"{table}, end")


_VALUE = pl.when(pl.col("value_as_concept_id") != 0).then(pl.format("OMOP//{}", "value_as_concept_id"))
_OPERATOR = pl.col("operator_concept_id").replace_strict(_OPERATORS, default=None, return_dtype=pl.String)

CLINICAL_EVENTS = (
    _domain("CONDITION"),
    _domain("DRUG", pl.col("quantity"), pl.col("route_source_value")),
    _ended("DRUG"),
    _domain("PROCEDURE"),
    _domain(
        "MEASUREMENT",
        pl.col("value_as_number"),
        pl.when(pl.col("value_as_number").is_null())
        .then(pl.coalesce("value_source_value", _VALUE))
        .otherwise(pl.concat_str(_OPERATOR, pl.col("value_as_number").cast(pl.String))),
        _UNIT,
    ),
    _domain("OBSERVATION", pl.col("value_as_number"), pl.coalesce("value_as_string", _VALUE)),
    _domain("DEVICE"),
    _ended("DEVICE"),
)


def _person(lazy: pl.LazyFrame, _small: Frames) -> pl.LazyFrame:
    return lazy.with_columns(subject_id=pl.col("person_id"))


def _born(lazy: pl.LazyFrame, small: Frames) -> pl.LazyFrame:
    month, day = pl.col("month_of_birth"), pl.col("day_of_birth")
    middle = pl.datetime(
        "year_of_birth",
        month.fill_null(7),
        pl.when(month.is_null()).then(1).otherwise(day.fill_null(15)),
        time_unit="us",
    )
    born = _person(lazy, small).with_columns(birth=pl.coalesce("birth_datetime", middle))
    return born.filter(pl.col("birth").is_not_null())


def _aged(lazy: pl.LazyFrame, small: Frames) -> pl.LazyFrame:
    stays = small["stays"].lazy().select("subject_id", "admission")
    born = _born(lazy, small).select("subject_id", "birth").join(stays, on="subject_id", how="inner")
    birth, admission = pl.col("birth"), pl.col("admission")
    had_birthday = (admission.dt.month() > birth.dt.month()) | (
        (admission.dt.month() == birth.dt.month()) & (admission.dt.day() >= birth.dt.day())
    )
    years = admission.dt.year() - birth.dt.year() - (~had_birthday).cast(pl.Int32)
    return born.with_columns(years=years.clip(0, OLDEST))


def _static(
    column: str, prefix: str, names: dict[int, str], source: str | None = None, other: str | None = None
) -> Events:
    known = pl.col(column).replace_strict(names, default=other, return_dtype=pl.String)
    value = pl.coalesce(known, pl.when(pl.col(source).str.len_chars() > 0).then(pl.col(source))) if source else known
    event = pl.when(value.is_not_null()).then(code(prefix, value))
    return Events("person", event, pl.lit(None, pl.Datetime("us")), prepare=_person, static=True, name=column)


def _of(frame: str, event: pl.Expr, time: str, name: str, where: pl.Expr | None = None) -> Events:
    """Events of a small frame, which has `subject_id`."""

    def prepare(lazy: pl.LazyFrame, _small: Frames) -> pl.LazyFrame:
        return lazy if where is None else lazy.filter(where)

    return Events(frame, event, pl.col(time), prepare=prepare, name=name)


_THROUGH_ED = pl.col("ed_out").is_not_null()
_PLACE = code("TRANSFER_TO", pl.col("concept").cast(pl.String), "name")

STAY_EVENTS = (
    _static("gender_concept_id", "GENDER", {8507: "M", 8532: "F"}, other="UNK"),
    _static("race_concept_id", "RACE", _RACES, "race_source_value"),
    _static("ethnicity_concept_id", "ETHNICITY", _ETHNICITIES, "ethnicity_source_value"),
    Events("person", pl.lit("MEDS_BIRTH"), pl.col("birth"), prepare=_born, name="birth"),
    Events("person", pl.lit("AGE"), pl.col("admission"), pl.col("years").cast(pl.Float64), prepare=_aged, name="age"),
    _of(
        "stays",
        code("HOSPITAL_ADMISSION", pl.col("concept").cast(pl.String), "admitted_from"),
        "admission",
        "hospital admission",
    ),
    _of("stays", code("HOSPITAL_DISCHARGE", "destination"), "discharge", "hospital discharge"),
    _of("stays", pl.lit("OUTCOME_UNKNOWN"), "discharge", "unknown outcome", pl.col("outcome_unknown")),
    _of("stays", pl.lit("ED_REGISTRATION"), "start", "emergency registration", _THROUGH_ED),
    _of("stays", pl.lit("ED_OUT"), "ed_out", "out of emergency", _THROUGH_ED),
    _of("icu", code("ICU_ADMISSION", "first_unit"), "icu_admission", "ICU admission"),
    _of("icu", code("ICU_DISCHARGE", "last_unit"), "icu_discharge", "ICU discharge"),
    _of("deaths", pl.lit("MEDS_DEATH"), "death", "death"),
    _of("transfers", _PLACE, "start", "transfer"),
    _of("other_visits", code("VISIT", pl.lit("OMOP"), "visit_concept_id"), "start", "other visit"),
)

EXPORT = Export(
    kind="omop",
    title="OMOP CDM 5.3 and 5.4",
    tables=TABLES,
    frames=frames,
    events=(*STAY_EVENTS, *CLINICAL_EVENTS),
    groups=("care_site", "unit"),
    options={
        "admissions": "the visit concepts that are admissions, joined by +, e.g. admissions=9201+262",
        "icu": "the concepts and care-site names of intensive care, joined by +, e.g. icu=32037+burn unit",
        "source": "the patient source, where cdm_source does not name it, e.g. source=bidmc",
    },
    source=lambda options: options.get("source", ""),
    concepts="omop",
)
