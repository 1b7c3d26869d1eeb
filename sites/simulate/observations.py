"""What is measured on each patient: vital signs and laboratory results, drawn given the latent course."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from sites.simulate.hospital import REASONS
from sites.simulate.population import Population
from sites.simulate.severity import ICU, SEVERITY
from sites.simulate.variables import INDEX, ORGANS, PANELS, STRIKES, Panel, Variable

Indices = npt.NDArray[np.int64]

_SPARSE_AFTER_HOURS = 48
_SLIPS = {"heart_rate": 0.0, "temperature": 9.9, "oxygen_saturation": 0.0, "systolic_pressure": 920.0, "ph": 735.0}


@dataclass(frozen=True)
class Hours:
    """The hours of a population as arrays, with what a reading depends on."""

    admission: Indices
    patient: Indices
    tick: Indices
    minutes: Indices
    stay: Indices  # -1 outside the ICU
    since: Indices  # ticks since the ICU stay (or the admission) began
    in_icu: npt.NDArray[np.bool_]
    z: npt.NDArray[np.float64]
    frailty: npt.NDArray[np.float64]
    reason: Indices
    ventilated: npt.NDArray[np.bool_]


def arrays(population: Population) -> Hours:
    """The hours of a population with everything a reading depends on, joined."""
    hours = population.hours
    admission = hours["admission"].to_numpy().astype(np.int64)
    tick = hours["tick"].to_numpy().astype(np.int64)
    stay = hours["stay"].fill_null(-1).to_numpy().astype(np.int64)
    in_icu = hours["place"].to_numpy() == ICU
    start = np.append(population.stays["tick"].to_numpy(), 0)[stay]
    reason = population.admissions["reason"].to_numpy().astype(np.int64)[admission]
    z = SEVERITY[hours["level"].to_numpy()]
    # On a ventilator above a threshold that is the stay's own, lower for diseases of the lung.
    threshold = population.stream("ventilator").normal(1.9, 0.6, len(population.admissions))[admission]
    lungs = np.array([STRIKES[r]["lung"] for r in REASONS])[reason]
    return Hours(
        admission=admission,
        patient=population.admissions["patient"].to_numpy().astype(np.int64)[admission],
        tick=tick,
        minutes=hours["minutes"].to_numpy().astype(np.int64),
        stay=stay,
        since=np.where(in_icu, tick - start, tick),
        in_icu=in_icu,
        z=z,
        frailty=population.admissions["frailty"].to_numpy().astype(np.float64)[admission],
        reason=reason,
        ventilated=in_icu & (z * lungs > threshold),
    )


def _when(panel: Panel, hours: Hours, population: Population, rng: np.random.Generator) -> tuple[Indices, Indices]:
    """The hours in which a panel is measured, and the minute from hospital admission."""
    hospital = population.hospital
    habit = hospital.habits.get(panel.name, 1.0)
    if panel.kind == "vitals":
        base = max(1, round(hospital.vitals_every_hours * panel.every / habit))
        every = np.where(hours.since < _SPARSE_AFTER_HOURS, base, 4 * base)
        chosen = hours.in_icu & (hours.since % every == 0)
        if panel.ventilated:
            chosen &= hours.ventilated
        rows = np.flatnonzero(chosen)
        rows = rows[rng.random(len(rows)) < 0.96]
        jitter = rng.integers(0, 20, len(rows))
        jitter[rng.random(len(rows)) < 0.6] = 0  # most are charted on the hour, 24:00 included
    else:
        usual = habit / (hospital.labs_every_hours * panel.every)
        rate = usual * np.where(hours.in_icu, 1 + panel.eager * np.maximum(hours.z, 0), 0.15)
        rate = np.where(hours.in_icu & (hours.since == 0), np.minimum(0.9, 0.9 * habit / np.sqrt(panel.every)), rate)
        rate = np.where(hours.in_icu & (hours.since > _SPARSE_AFTER_HOURS), rate * 0.25, rate)
        rows = np.flatnonzero(rng.random(len(hours.tick)) < rate)
        jitter = rng.integers(0, 60, len(rows))
    early = jitter < hours.minutes[rows]  # nothing is measured at or after the end of the stay
    rows, jitter = rows[early], jitter[early]
    return rows, hours.tick[rows] * 60 + jitter


def _values(
    variable: Variable, rows: Indices, hours: Hours, organs: npt.NDArray[np.float64], population: Population
) -> npt.NDArray[np.float64]:
    """Readings of one variable at the given hours."""
    rng = population.stream("readings", variable.name)
    people, organ = population.patients, ORGANS.index(variable.organ)
    own = rng.normal(0, variable.patient_sd, len(people))
    for disease, shift in variable.diseases.items():
        own = own + shift * people[disease].cast(pl.Float64).to_numpy()
    strike = np.array([STRIKES[r][variable.organ] for r in REASONS])
    shift_of = np.array([variable.reasons.get(r, 0.0) for r in REASONS])
    value = (
        variable.base
        + variable.severity * strike[hours.reason[rows]] * (hours.z[rows] + organs[hours.admission[rows], organ])
        + variable.frailty * (hours.frailty[rows] - 3.5)
        + shift_of[hours.reason[rows]]
        + own[hours.patient[rows]]
        + rng.normal(0, variable.noise_sd, len(rows))
    )
    if variable.logarithmic:
        value = np.exp(value)
    if variable.name == "gcs_verbal":
        value = np.where(hours.ventilated[rows], 1.0, value)  # intubated: no verbal response
    return np.asarray(np.round(np.clip(value, variable.low, variable.high), variable.decimals), dtype=np.float64)


def readings(population: Population, hours: Hours | None = None) -> pl.DataFrame:
    """Draw every reading and result.

    Args:
        population: Whose.
        hours: Its `arrays`, where they are at hand.

    Returns:
        admission Int32, stay Int32 (null outside the ICU), patient Int32, variable Int16 (index of `VARIABLES`), minute
        Int32 (from hospital admission), stored Int32 (minute when it was stored, likewise), value Float64, ventilated
        Boolean; sorted by admission, minute and variable. All lie before the end of the hospital stay but those of
        `Traps.after_death`.
    """
    hospital, traps = population.hospital, population.hospital.traps
    hours = hours or arrays(population)
    organs = population.stream("organs").normal(0, 0.25, (len(population.admissions), len(ORGANS)))
    parts: dict[str, list[npt.NDArray[np.generic]]] = {c: [] for c in ("row", "variable", "minute", "stored", "value")}
    for panel in PANELS:
        rng = population.stream("panel", panel.name)
        rows, minute = _when(panel, hours, population, rng)
        if panel.kind == "labs":
            delay = 10 + rng.exponential(hospital.result_delay_minutes, len(rows))
        else:
            delay = rng.exponential(hospital.charting_delay_minutes, len(rows))
        stored = minute + delay.astype(np.int64)
        for variable in panel.variables:
            if variable.name in hospital.never:
                continue
            gone = rng.random(len(population.admissions)) < hospital.missing
            kept = ~gone[hours.admission[rows]]
            value = _values(variable, rows, hours, organs, population)
            if variable.name in _SLIPS:
                value = np.where(rng.random(len(rows)) < traps.implausible, _SLIPS[variable.name], value)
            again = kept & (rng.random(len(rows)) < traps.duplicate_rows)
            for mask in (kept, again):
                parts["row"].append(rows[mask])
                parts["minute"].append(minute[mask])
                parts["stored"].append(stored[mask])
                parts["value"].append(value[mask])
                parts["variable"].append(np.full(int(mask.sum()), INDEX[variable.name], np.int16))
    joined = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    row = joined["row"].astype(np.int64)
    frame = pl.DataFrame(
        {
            "admission": hours.admission[row].astype(np.int32),
            "stay": hours.stay[row].astype(np.int32),
            "patient": hours.patient[row].astype(np.int32),
            "variable": joined["variable"],
            "minute": joined["minute"].astype(np.int32),
            "stored": joined["stored"].astype(np.int32),
            "value": joined["value"],
            "ventilated": hours.ventilated[row],
        }
    ).with_columns(pl.when(pl.col("stay") >= 0).then(pl.col("stay")).alias("stay"))
    frame = pl.concat([frame, _after_death(population)])
    return frame.sort("admission", "minute", "variable", "value", maintain_order=True)


def _after_death(population: Population) -> pl.DataFrame:
    """Results that came in after the patient's death: one creatinine each."""
    rng = population.stream("after death")
    dead = population.admissions.filter("died")
    late = dead.filter(pl.Series(rng.random(len(dead)) < population.hospital.traps.after_death))
    minute = late["minutes"] + pl.Series(rng.integers(5, 120, len(late)))
    return late.select(
        "admission",
        pl.lit(None, pl.Int32).alias("stay"),
        "patient",
        pl.lit(INDEX["creatinine"], pl.Int16).alias("variable"),
        minute.cast(pl.Int32).alias("minute"),
        (minute + 60).cast(pl.Int32).alias("stored"),
        pl.Series(np.round(rng.lognormal(0.8, 0.4, len(late)), 2)).alias("value"),
        pl.lit(False).alias("ventilated"),
    )
