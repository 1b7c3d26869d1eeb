"""MIMIC-III's patients, hospital stays and ICU stays, cleaned: who was there, when, and who died.

- A stay is fatal if `hospital_expire_flag` is 1; death is at `deathtime`, else `dischtime`. It ends at the later of
  `dischtime` and death: some of the dead are discharged before they die.
- A flag of 0 with a `deathtime` or the location DEAD/EXPIRED, no flag and no `deathtime`, and a survived stay that
  ends after the patient's death are contradictions: the outcome is unknown.
- A patient who did not die in hospital dies at the end of the day `dod`. A date of death that a fatal stay
  contradicts is ignored.
- Dates of birth of patients over 89 are shifted to 300 years before their first admission: they count as 90 then.
- An ICU stay ends with the hospital stay at the latest.
"""

from typing import Final

import polars as pl

from sites.errors import InputError
from sites.exports.export import Tables, end_of_day

OLDEST: Final = 90
"""Years: the age of everyone older than 89."""

_SHIFTED_YEARS: Final = 150
"""Nobody is older than this; the ages over 89 are shifted to 300."""

_NEVER: Final = pl.datetime(9999, 1, 1)


def frames(tables: Tables) -> dict[str, pl.DataFrame]:
    """Clean the small tables.

    Returns:
        subjects: subject_id, patient_id, unit and dbsource of the first ICU stay.
        persons: subject_id, gender, first ethnicity, birth, death; `last` is death or, for the living, year 9999.
        stays: hadm_id, subject_id, birth, discharge, death, died, unknown and what admissions say, without stays after
            death.
        icu_stays: hadm_id, subject_id, the units, intime and outtime.
        everyone: subject_id of PATIENTS, known_death, and whether an option leaves them out.
    """
    everyone, admissions, icustays = (tables.read(name) for name in ("patients", "admissions", "icustays"))
    patients = _of_one_system(tables, everyone, icustays)
    admissions = _of_patients(admissions, patients, everyone, what="hospital stays", tables=tables)
    icustays = _of_patients(icustays, patients, everyone, what="ICU stays", tables=tables)
    admissions = _with_times(admissions, tables)
    patients = _with_death(patients, admissions)
    stays = _stays(admissions, patients, tables)
    patients = _with_birth(patients, admissions, tables)
    ethnicity = (
        admissions.sort("admittime", "hadm_id").group_by("subject_id").agg(pl.col("ethnicity").drop_nulls().first())
    )
    patients = patients.join(ethnicity, on="subject_id", how="left")
    stays = stays.join(patients.select("subject_id", "birth"), on="subject_id")
    icu = _icu(icustays, stays, tables)
    first = icu.sort("intime", "icustay_id").unique("subject_id", keep="first", maintain_order=True)
    subjects = patients.select("subject_id", patient_id="subject_id").join(
        first.select("subject_id", "dbsource", unit="first_careunit"), on="subject_id", how="left"
    )
    return {
        "subjects": subjects.sort("subject_id"),
        "persons": patients,
        "stays": stays,
        "icu_stays": icu,
        "everyone": everyone.select("subject_id")
        .join(
            patients.select("subject_id", known_death="death", left_out=pl.lit(value=False)),
            on="subject_id",
            how="left",
        )
        .with_columns(pl.col("left_out").fill_null(value=True)),
    }


def _of_one_system(tables: Tables, patients: pl.DataFrame, icustays: pl.DataFrame) -> pl.DataFrame:
    """Keep, on request, the patients all of whose ICU stays were charted in one system."""
    wanted = [system for system in ("carevue", "metavision") if system in tables.options]
    if not wanted:
        return patients
    if len(wanted) > 1:
        raise InputError(
            "found the options carevue and metavision together, expected one of them: no patient has all ICU stays in "
            "both; leave one out"
        )
    only = icustays.group_by("subject_id").agg((pl.col("dbsource") == wanted[0]).all().alias("only")).filter("only")
    kept = patients.join(only, on="subject_id", how="semi")
    if kept.is_empty():
        raise InputError(
            f"found no patient all of whose ICU stays have dbsource {wanted[0]} in ICUSTAYS, expected at least one; "
            f"leave the option {wanted[0]} out"
        )
    tables.warn(
        f"{wanted[0]}: kept the {len(kept)} of {len(patients)} patients all of whose ICU stays have this dbsource"
    )
    return kept


def _of_patients(
    rows: pl.DataFrame, patients: pl.DataFrame, everyone: pl.DataFrame, *, what: str, tables: Tables
) -> pl.DataFrame:
    """The rows of these patients; those of nobody are counted, unlike those of whom an option leaves out."""
    strangers = rows.join(everyone, on="subject_id", how="anti").height
    if strangers:
        tables.warn(f"{strangers} {what} are left out: PATIENTS does not hold their subject_id")
    return rows.join(patients, on="subject_id", how="semi")


def _with_times(admissions: pl.DataFrame, tables: Tables) -> pl.DataFrame:
    """Say of each stay whether it was fatal or contradicts itself, and when its patient died."""
    flag, deathtime = pl.col("hospital_expire_flag"), pl.col("deathtime")
    dead_by_place = (pl.col("discharge_location") == "DEAD/EXPIRED").fill_null(value=False)
    died = (flag == 1).fill_null(deathtime.is_not_null())
    rows = admissions.with_columns(
        died=died,
        unknown=~died & (flag.ne_missing(0) | deathtime.is_not_null() | dead_by_place),
        death=pl.when(died).then(pl.coalesce("deathtime", "dischtime")),
    )
    endless = pl.col("admittime").is_null() | (pl.col("dischtime").is_null() & pl.col("death").is_null())
    backwards = ~pl.col("died") & (pl.col("dischtime") < pl.col("admittime"))
    kept = rows.filter(~(endless | backwards))
    if len(kept) < len(rows):
        tables.warn(
            f"{len(rows) - len(kept)} hospital stays are left out: they have no admittime or dischtime, or end alive "
            "before they begin"
        )
    return kept


def _with_death(patients: pl.DataFrame, admissions: pl.DataFrame) -> pl.DataFrame:
    """Add `death` (the first fatal stay's, else the end of the day `dod`) and `last`."""
    in_hospital = admissions.filter("died").group_by("subject_id").agg(pl.col("death").min())
    return (
        patients.join(in_hospital, on="subject_id", how="left")
        .with_columns(death=pl.coalesce("death", end_of_day("dod")))
        .with_columns(last=pl.coalesce("death", _NEVER.cast(pl.Datetime("us"))))
        .drop("dod")
    )


def _stays(admissions: pl.DataFrame, patients: pl.DataFrame, tables: Tables) -> pl.DataFrame:
    """Drop stays that begin at or after death, and find each stay's end and whether its outcome is known."""
    rows = admissions.join(patients.select("subject_id", "last", patient_death="death"), on="subject_id")
    stays = rows.filter(pl.col("admittime") < pl.col("last"))
    if len(stays) < len(rows):
        tables.warn(
            f"{len(rows) - len(stays)} hospital stays are left out: they begin at or after the patient's death "
            "(organ donors are readmitted; deaths recorded before admission)"
        )
    outlived = ~pl.col("died") & (pl.col("dischtime") >= pl.col("last"))
    stays = stays.with_columns(
        death=pl.when("died").then("patient_death"),
        discharge=pl.when("died").then(pl.max_horizontal("dischtime", "patient_death")).otherwise("dischtime"),
        unknown=pl.col("unknown") | outlived,
    ).drop("last", "patient_death")
    unknown = stays["unknown"].sum()
    if unknown:
        tables.warn(
            f"{unknown} hospital stays have an unknown outcome: what is recorded of their death is contradictory"
        )
    return stays


def _with_birth(patients: pl.DataFrame, admissions: pl.DataFrame, tables: Tables) -> pl.DataFrame:
    """Add `birth`; a date of birth 300 years back becomes 90 years before the first admission."""
    first = admissions.group_by("subject_id").agg(pl.col("admittime").min().alias("first"))
    rows = patients.join(first, on="subject_id", how="left")
    years = pl.col("first").dt.year() - pl.col("dob").dt.year()
    born_later = pl.col("dob").dt.date() > pl.col("first").dt.date().dt.offset_by("1d")
    impossible = rows.filter(born_later | ((years > OLDEST + 1) & (years < _SHIFTED_YEARS)))
    if len(impossible):
        tables.warn(
            f"{len(impossible)} patients have no age: their dob lies after their first admission, or too far before it"
        )
    rows = rows.with_columns(
        birth=pl.when(pl.col("subject_id").is_in(impossible["subject_id"].implode()))
        .then(None)
        .when(years >= _SHIFTED_YEARS)
        .then(pl.col("first").dt.offset_by(f"-{OLDEST}y"))
        .otherwise(pl.min_horizontal("dob", pl.coalesce("first", "dob")))
    )
    newborn = rows.filter(pl.col("first") < pl.col("birth").dt.offset_by("1y"))
    if len(newborn):
        tables.warn(f"{len(newborn)} patients were admitted in their first year of life (age 0); they are kept")
    return rows.drop("first", "dob")


def _icu(icustays: pl.DataFrame, stays: pl.DataFrame, tables: Tables) -> pl.DataFrame:
    """Drop ICU stays without a hospital stay or begun after it; end each with the hospital stay at the latest."""
    rows = icustays.join(
        stays.select("hadm_id", "subject_id", "discharge", "death"), on=["hadm_id", "subject_id"], how="inner"
    )
    if len(rows) < len(icustays):
        tables.warn(f"{len(icustays) - len(rows)} ICU stays are left out: their hospital stay is not in the data")
    inside = pl.col("intime") < pl.min_horizontal("discharge", "death")
    kept = rows.filter(inside)
    if len(kept) < len(rows):
        tables.warn(
            f"{len(rows) - len(kept)} ICU stays are left out: they begin at or after the hospital discharge or death"
        )
    open_end = pl.col("outtime").is_null() | (pl.col("outtime") < pl.col("intime"))
    endless = kept.filter(open_end)
    if len(endless):
        tables.warn(f"{len(endless)} ICU stays have no outtime, or one before intime; they end with the hospital stay")
    late = kept.filter(pl.col("outtime") > pl.col("discharge"))
    if len(late):
        tables.warn(f"{len(late)} ICU stays have an outtime after the hospital discharge; they end with it")
    return kept.with_columns(
        outtime=pl.when(open_end).then("discharge").otherwise(pl.min_horizontal("outtime", "discharge"))
    )
