"""The true risk of every sample of every task: what the oracle knows and no model can beat.

A truth has one row for each sample that a task's definition makes from the population:

    mortality/in_hospital/first_24h, first_48h   each ICU stay whose patient is still in it 24 (48) hours after ICU
                                                 admission; died in that hospital stay
    mortality/in_icu/first_24h                   each ICU stay that is still going on after 48 hours, predicted at 24
                                                 hours; died in that ICU stay (MEDS-DEV)
    mortality/in_hospital/admission_24h          each hospital stay that is still going on 24 hours after admission;
                                                 died in it

In an OMOP export a hospital stay begins where it leaves the emergency department; there admission_24h counts from then.

Risks are those derived in `sites.simulate.severity`. An eICU export holds only hospital stays with an ICU stay, so
there admission_24h conditions on it: for a patient who has not yet been in the ICU, on coming to it later.
"""

import numpy as np
import polars as pl

from sites.simulate.population import Population
from sites.simulate.severity import ICU, Course, Floats

ICU_TASKS = {"mortality/in_hospital/first_24h": 24, "mortality/in_hospital/first_48h": 48}
IN_ICU_TASK = "mortality/in_icu/first_24h"
ADMISSION_TASK = "mortality/in_hospital/admission_24h"
TASKS = (*ICU_TASKS, IN_ICU_TASK, ADMISSION_TASK)
"""The tasks that a truth is written for."""


def samples(population: Population) -> pl.DataFrame:
    """Every sample of every task with its true risk.

    Returns:
        admission Int32, stay Int32 (null for admission_24h), task String, offset_minutes Int32 (of the prediction time
        from the start of the hospital stay), true_risk Float64, label Boolean; sorted by task, admission and stay.
    """
    course = Course.of(population.hospital)
    who = population.admissions.select("admission", "frailty", pl.col("died").alias("died_in_hospital"))
    at = population.hours.select("admission", "tick", "place", "level", "stay")
    stays = population.stays.select("stay", "admission", pl.col("tick").alias("start"), "died").join(
        who, on="admission"
    )

    def present(hours: int) -> pl.DataFrame:
        """The ICU stays still going on so many hours after they began, with the severity then."""
        later = stays.with_columns(tick=pl.col("start") + hours)
        return later.join(at, on=["admission", "tick", "stay"]).sort("stay")

    parts = []
    for task, hours in ICU_TASKS.items():
        found = present(hours)
        risk = course.hospital_risk[ICU][found["frailty"].to_numpy(), found["level"].to_numpy()]
        parts.append(_rows(found, task, risk, "died_in_hospital"))
    found = present(24).filter(pl.col("stay").is_in(present(48)["stay"].implode()))
    risk = course.icu_risk(still_there_after_hours=24)[found["frailty"].to_numpy(), found["level"].to_numpy()]
    parts.append(_rows(found, IN_ICU_TASK, risk, "died"))

    # An OMOP stay that starts in the emergency department counts as admitted where it leaves it for a unit.
    origin = pl.col("lead_hours") if population.hospital.kind == "omop" else pl.lit(0, pl.Int32)
    asked = population.admissions.select("admission", tick=(origin + 24).cast(pl.Int32))
    first = population.stays.group_by("admission").agg(first_tick=pl.col("tick").min())
    found = asked.join(at, on=["admission", "tick"]).join(who, on="admission").join(first, on="admission", how="left")
    found = found.sort("admission")
    place, frailty, level = (found[c].to_numpy() for c in ("place", "frailty", "level"))
    risk = course.hospital_risk[place, frailty, level]
    if population.hospital.kind == "eicu":
        found = found.with_columns(risk=pl.Series(risk), waits=pl.Series(course.ward_risk_of_later_icu[frailty, level]))
        found = found.filter(pl.col("first_tick").is_not_null())
        risk = np.where(found["first_tick"] > 24, found["waits"], found["risk"])
    parts.append(_rows(found.with_columns(stay=pl.lit(None, pl.Int32)), ADMISSION_TASK, risk, "died_in_hospital"))
    return pl.concat(parts).sort("task", "admission", "stay")


def _rows(found: pl.DataFrame, task: str, risk: Floats, label: str) -> pl.DataFrame:
    return found.select(
        "admission",
        "stay",
        task=pl.lit(task),
        offset_minutes=pl.col("tick") * 60,
        true_risk=pl.Series(risk, dtype=pl.Float64),
        label=pl.col(label),
    )
