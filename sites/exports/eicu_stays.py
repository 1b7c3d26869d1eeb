"""Unit stays, hospital stays and deaths of eICU-CRD: everything that is decided once for each stay.

eICU has no dates, only minutes from each unit admission. Unit stays of one hospital stay
(`patienthealthsystemstayid`) hang together through `hospitaladmitoffset`; hospital stays of one year have no order
among themselves. Therefore a MEDS subject is a hospital stay, and no history crosses stays.

Rules, each counted in a warning:

- Minute 0 is the hospital admission, at `hospitaladmittime24` on 1 January of `hospitaldischargeyear`: a fixed origin
  that no order of stays may be read from. Every offset from it is exact.
- A patient in a unit is in the hospital: where the recorded hospital admission lies after the first unit admission
  (positive `hospitaladmitoffset`), the stay begins at the first unit admission; where the recorded hospital discharge
  lies before the last unit discharge, it ends at the last unit discharge.
- ICU stays are the unit stays of positive length other than `stepdown/other`. ICU stays of one hospital stay that touch
  or overlap (a transfer between units) are one ICU stay: the first unit admits, the last one discharges.
- A death stands at the unit's discharge where `unitdischargestatus` is Expired, else (hospital status Expired) at the
  later of hospital discharge and last unit discharge + 1 minute.
- The outcome is unknown where no status tells it, or where they contradict each other: hospital Alive but a unit
  Expired (or discharged to Death), another unit stay after the one that ended in death, or two hospital statuses.
"""

from hashlib import blake2b

import polars as pl

from sites.errors import InputError
from sites.exports.export import Tables
from sites.exports.plausible import demand

STEPDOWN = "stepdown/other"
OLDEST = 90
"""Ages above 89 are written `> 89`; they count as 90."""

GROUPS = ("hospital", "region", "beds", "teaching", "unit")


def person_id(uniquepid: pl.Series) -> pl.Series:
    """Turn `uniquepid` into numbers: the first 8 bytes of BLAKE2b, the same on every machine and in every version.

    Args:
        uniquepid: String [n], the person, e.g. `002-1039`; no nulls.

    Returns:
        Int64 [n].

    Raises:
        InputError: Two different persons got the same number (chance for the whole of eICU: 1e-9).
    """
    persons = uniquepid.unique().sort()
    numbers = [
        int.from_bytes(blake2b(p.encode(), digest_size=8).digest(), signed=True, byteorder="big") for p in persons
    ]
    if len(set(numbers)) < len(numbers):
        raise InputError(
            "patient: two different values of uniquepid have the same 64-bit hash; expected distinct persons; "
            "rename one of them."
        )
    return uniquepid.replace_strict(persons, pl.Series(numbers, dtype=pl.Int64), return_dtype=pl.Int64)


_TEN_YEARS = 10 * 366 * 24 * 60


def _minutes(column: str) -> pl.Expr:
    return pl.duration(minutes=pl.col(column))


def check(patient: pl.DataFrame) -> None:
    """Raise an InputError for the first row of `patient` that cannot be placed in time or given to a person."""
    for column in ("patientunitstayid", "patienthealthsystemstayid", "uniquepid"):
        demand("patient", patient, column, pl.col(column).is_not_null(), "an id; add it or remove the row")
    year, clock = pl.col("hospitaldischargeyear"), pl.col("hospitaladmittime24")
    demand("patient", patient, "hospitaldischargeyear", year.is_between(1900, 2200), "a year; correct it")
    parsed = clock.str.to_time("%H:%M:%S", strict=False).is_not_null() | clock.is_null()
    demand("patient", patient, "hospitaladmittime24", parsed, "a time of day such as 23:36:00; correct it")
    for column in ("hospitaladmitoffset", "unitdischargeoffset", "hospitaldischargeoffset"):
        # an ICU stay of ten years is no ICU stay; beyond it dates would leave the calendar
        near = pl.col(column).is_between(-_TEN_YEARS, _TEN_YEARS)
        demand("patient", patient, column, near, "minutes within ten years; correct it")
    age = pl.col("age").str.strip_chars()
    aged = age.str.contains(r"^(>\s*)?\d{1,3}(\.\d+)?$") | (age == "")
    demand("patient", patient, "age", aged, "years or > 89; correct it, or leave the field empty if it is unknown")


def units(patient: pl.DataFrame) -> pl.DataFrame:
    """Every unit stay in absolute time: subject_id, patientunitstayid, origin, unit_admission, unit_discharge, ...

    Sorted by hospital stay and time. Times are Datetime("us").
    """
    clock = pl.col("hospitaladmittime24").str.to_time("%H:%M:%S", strict=False).fill_null(pl.time(0, 0))
    origin = pl.datetime(pl.col("hospitaldischargeyear").fill_null(2014), 1, 1, time_unit="us") + (
        clock.cast(pl.Duration("us"))
    )
    return (
        patient.rename({"patienthealthsystemstayid": "subject_id"})
        .with_columns(pl.col("hospitaladmitoffset").fill_null(0))
        # The fields of the hospital stay are written with every unit stay; the first one gives the origin.
        .with_columns(origin=origin.first().over("subject_id"))
        .with_columns(unit_admission=pl.col("origin") - _minutes("hospitaladmitoffset"))
        .with_columns(
            unit_discharge=pl.col("unit_admission") + _minutes("unitdischargeoffset"),
            recorded_discharge=pl.col("unit_admission") + _minutes("hospitaldischargeoffset"),
            length=pl.col("unitdischargeoffset").fill_null(0),
        )
        .sort("subject_id", "unit_admission", "unitvisitnumber", "patientunitstayid", nulls_last=True)
    )


def icu_stays(stays: pl.DataFrame) -> pl.DataFrame:
    """Join touching unit stays to ICU stays.

    Args:
        stays: What `units` returns.

    Returns:
        One row for each ICU stay: subject_id, icu_admission, icu_discharge, first_unit,
        last_unit, segments.
    """
    icu = stays.filter((pl.col("length") > 0) & (pl.col("unitstaytype").fill_null("") != STEPDOWN))
    until = pl.col("unit_discharge").cum_max().shift(1).over("subject_id")
    return (
        icu.with_columns(new=(pl.col("unit_admission") > until).fill_null(True))
        .with_columns(icu_stay=pl.col("new").cum_sum().over("subject_id"))
        .group_by("subject_id", "icu_stay", maintain_order=True)
        .agg(
            icu_admission=pl.col("unit_admission").first(),
            icu_discharge=pl.col("unit_discharge").max(),
            first_unit=pl.col("unittype").first(),
            last_unit=pl.col("unittype").sort_by("unit_discharge").last(),
            segments=pl.len(),
        )
        .drop("icu_stay")
    )


def hospital_stays(stays: pl.DataFrame) -> pl.DataFrame:
    """Admission, discharge, death and outcome of each hospital stay.

    Args:
        stays: What `units` returns.

    Returns:
        One row for each hospital stay: subject_id, origin, admission, discharge, death (null: none), no_status,
        contradictory, outcome_unknown (bool), and what the first unit stay says of the patient.
    """
    status, unit_status = pl.col("hospitaldischargestatus"), pl.col("unitdischargestatus")
    in_unit = (unit_status == "Expired").fill_null(False)
    end = pl.max_horizontal("unit_admission", "unit_discharge")
    grouped = stays.group_by("subject_id", maintain_order=True).agg(
        pl.col("origin", "hospitaladmitsource", "age", "gender", "ethnicity", "uniquepid").first(),
        pl.col("hospitalid", "unittype", "hospitaldischargeyear", "recorded_discharge").first(),
        pl.col("hospitaldischargelocation").drop_nulls().first(),
        status=status.drop_nulls().first(),
        statuses=status.drop_nulls().n_unique(),
        first_unit_admission=pl.col("unit_admission").min(),
        last_unit_discharge=end.max(),
        death_in_unit=end.filter(in_unit).max(),
        unit_says_death=(in_unit | (pl.col("unitdischargelocation") == "Death").fill_null(False)).any(),
        alive_in_unit=pl.col("unit_admission").filter(~in_unit).max(),
    )
    alive, expired = (pl.col("status") == "Alive").fill_null(False), (pl.col("status") == "Expired").fill_null(False)
    location_says_death = (pl.col("hospitaldischargelocation") == "Death").fill_null(False)
    no_status = ~alive & ~expired & pl.col("death_in_unit").is_null()
    contradictory = (
        (alive & (pl.col("unit_says_death") | location_says_death))
        | (pl.col("statuses") > 1)
        | (pl.col("alive_in_unit") >= pl.col("death_in_unit")).fill_null(False)
    )
    late = pl.max_horizontal("recorded_discharge", pl.col("last_unit_discharge") + pl.duration(minutes=1))
    return (
        grouped.with_columns(no_status=no_status, contradictory=contradictory)
        .with_columns(outcome_unknown=pl.col("no_status") | pl.col("contradictory"))
        .with_columns(
            admission=pl.min_horizontal("origin", "first_unit_admission"),
            death=pl.when(~pl.col("outcome_unknown")).then(
                pl.coalesce(pl.col("death_in_unit"), pl.when(expired).then(late))
            ),
        )
        .with_columns(discharge=pl.max_horizontal("recorded_discharge", "last_unit_discharge", "death"))
    )


def subjects(stays: pl.DataFrame, hospital: pl.DataFrame) -> pl.DataFrame:
    """Subjects, their persons, and the groups of the person's first stay.

    Hospital stays of one year cannot be ordered; the first is the one with the earliest year of discharge, then the
    lowest `patienthealthsystemstayid`. (In the demo 19 persons have stays in more than one hospital.)

    Args:
        stays: What `hospital_stays` returns.
        hospital: The `hospital` table; may be empty.

    Returns:
        subject_id, patient_id and the columns of `GROUPS`, one row for each hospital stay.
    """
    groups = stays.join(hospital, on="hospitalid", how="left").with_columns(
        patient_id=person_id(stays["uniquepid"]),
        hospital=pl.col("hospitalid").cast(pl.String),
        beds=pl.col("numbedscategory"),
        teaching=pl.col("teachingstatus").replace_strict(
            {"t": "teaching", "f": "non-teaching"}, default=None, return_dtype=pl.String
        ),
        unit=pl.col("unittype"),
    )
    first = (
        groups.sort("hospitaldischargeyear", "subject_id", nulls_last=True)
        .group_by("patient_id")
        .agg(pl.col(*GROUPS).first())
    )
    return groups.select("subject_id", "patient_id").join(first, on="patient_id", how="left").sort("subject_id")


def frames(tables: Tables) -> dict[str, pl.DataFrame]:
    """The small tables that events are made from: `units`, `icu`, `stays`, `subjects`; says what was decided."""
    patient = tables.read("patient")
    check(patient)
    stays = units(patient)
    hospitals, icu = hospital_stays(stays), icu_stays(stays)
    for sentence in _decisions(stays, hospitals, icu):
        tables.warn(sentence)
    return {
        "subjects": subjects(hospitals, tables.read("hospital")),
        "units": stays.select("patientunitstayid", "subject_id", "unit_admission", "unit_discharge", "length"),
        "icu": icu,
        "stays": hospitals,
    }


def _decisions(stays: pl.DataFrame, hospitals: pl.DataFrame, icu: pl.DataFrame) -> list[str]:
    empty, stepdown = pl.col("length") <= 0, pl.col("unitstaytype").fill_null("") == STEPDOWN
    dropped = stays.select(empty=empty.sum(), stepdown=(stepdown & ~empty).sum()).row(0)
    late = hospitals.filter(pl.col("first_unit_admission") < pl.col("origin")).height
    early = hospitals.filter(pl.col("recorded_discharge") < pl.col("last_unit_discharge")).height
    joined = icu["segments"].sum() - icu.height
    lost, against = (
        hospitals["no_status"].sum(),
        hospitals.filter(pl.col("contradictory") & ~pl.col("no_status")).height,
    )
    affected = stays.join(hospitals.filter("outcome_unknown"), on="subject_id", how="semi").height
    said = {
        f"patient: {dropped[0]} unit stays of no length and {dropped[1]} step-down stays of {stays.height} unit stays "
        "are not ICU stays.": dropped[0] + dropped[1],
        f"patient: {joined} unit stays touch the one before and were joined to it: {icu.height} ICU stays.": joined,
        f"patient: {late} hospital stays begin at their first unit admission, since the recorded hospital admission "
        "lies after it.": late,
        f"patient: {early} hospital stays end at their last unit discharge, since the recorded hospital discharge lies "
        "before it.": early,
        f"patient: the outcome of {lost + against} hospital stays ({affected} unit stays) is unknown: {lost} have no "
        f"status, {against} contradictory ones.": lost + against,
    }
    return [sentence for sentence, count in said.items() if count]
