"""A simulated hospital as a MIMIC-IV export: nested `hosp` and `icu`, the genuine columns, item ids and units."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from sites.simulate import mimic4_charts as charts
from sites.simulate import mimic4_tables as tables
from sites.simulate.folder import after, at, columns_of
from sites.simulate.mimic4_ids import Writer
from sites.simulate.observations import arrays, readings
from sites.simulate.population import Population
from sites.simulate.severity import ICU

_RACES = {
    "WHITE": "WHITE",
    "BLACK": "BLACK/AFRICAN AMERICAN",
    "HISPANIC": "HISPANIC/LATINO - PUERTO RICAN",
    "ASIAN": "ASIAN",
    "OTHER": "OTHER",
}


def write_mimic4(population: Population, folder: Path) -> npt.NDArray[np.int64]:
    """Write the export.

    Args:
        population: Whose.
        folder: An empty folder.

    Returns:
        The MEDS subject of each patient (`subject_id`), int64 [patients].
    """
    writer, hours = Writer(population, folder), arrays(population)
    _patients(writer)
    _admissions(writer)
    _stays(writer)
    charts.measurements(writer, readings(population, hours))
    charts.treatments(writer, hours)
    charts.codes(writer, hours)
    return writer.subject


def _patients(w: Writer) -> None:
    people, hospital = w.population.patients, w.population.hospital
    first = w.population.admissions.group_by("patient", maintain_order=True).agg(
        year=pl.col("admitted").first().dt.year(), last_end=pl.col("discharged").last(), died=pl.col("died").last()
    )
    in_hospital = pl.Series(np.where(first["died"], first["last_end"].dt.date().to_numpy(), np.datetime64("NaT", "D")))
    frame = pl.DataFrame(
        {
            "subject_id": w.subject,
            "gender": np.where(people["female"], "F", "M"),
            "anchor_age": np.where(people["age"].to_numpy() > 89, 91, people["age"].to_numpy()),
            "anchor_year": first["year"],
            "anchor_year_group": np.full(len(people), hospital.year_group),
            "dod": pl.select(pl.coalesce(in_hospital.cast(pl.Date), people["died_later"])).to_series(),
        }
    )
    extra = _dead_on_arrival(w)
    gone = extra.select(
        "subject_id",
        gender=pl.lit("M"),
        anchor_age=pl.lit(60),
        anchor_year=pl.col("admittime").dt.year(),
        anchor_year_group=pl.lit(hospital.year_group),
        dod=pl.col("deathtime").dt.date(),
    )
    write = pl.concat([frame, gone.cast(frame.schema)]) if len(gone) else frame
    w.write("hosp/patients", write.sort("subject_id", maintain_order=True))


def _dead_on_arrival(w: Writer) -> pl.DataFrame:
    """Patients whose only admission begins after their death: no stay, shorter than a day."""
    rng = w.population.stream("dead on arrival")
    n = int(rng.binomial(len(w.subject), w.population.hospital.traps.dead_on_arrival))
    admitted = rng.choice(w.population.admissions["admitted"].to_numpy(), n)
    return pl.DataFrame(
        {
            "subject_id": np.arange(19_900_000, 19_900_000 + n),
            "hadm_id": np.arange(29_900_000, 29_900_000 + n),
            "admittime": after(admitted, np.zeros(n, np.int64)),
            "deathtime": after(admitted, -rng.integers(1, 120, n)),
            "dischtime": after(admitted, rng.integers(10, 600, n)),
        }
    )


def _donors(w: Writer) -> pl.DataFrame:
    """Admissions after the patient's death, for organ donation: no stay, shorter than a day."""
    rng = w.population.stream("donors")
    dead = w.population.admissions.filter("died")
    dead = dead.filter(pl.Series(rng.random(len(dead)) < w.population.hospital.traps.organ_donor))
    end = dead["discharged"].to_numpy()
    begin = rng.integers(1, 240, len(dead))
    return pl.DataFrame(
        {
            "subject_id": w.subject[dead["patient"].to_numpy().astype(np.int64)],
            "hadm_id": np.arange(29_950_000, 29_950_000 + len(dead)),
            "admittime": after(end, begin),
            "deathtime": after(end, np.zeros(len(dead), np.int64)),
            "dischtime": after(end, begin + rng.integers(30, 900, len(dead))),
        }
    )


def _admissions(w: Writer) -> None:
    admissions, traps = w.population.admissions, w.population.hospital.traps
    rng = w.population.stream("admissions")
    n, died = len(admissions), admissions["died"].to_numpy()
    early = np.where(died & (rng.random(n) < traps.discharged_before_death), rng.integers(30, 1440, n), 0)
    length = admissions["minutes"].to_numpy()
    discharge = at(w.population, admissions.with_columns(shown=pl.Series(np.maximum(length - early, 1))), "shown")
    emergency = admissions["lead_hours"].to_numpy() > 0
    admitted = admissions["admitted"].to_numpy()
    registered = after(admitted, -rng.integers(20, 400, n)).set(pl.Series(~emergency), None)
    left = after(admitted, admissions["lead_hours"].to_numpy() * 60).set(pl.Series(~emergency), None)
    homes = rng.choice(
        np.array(["HOME", "HOME HEALTH CARE", "SKILLED NURSING FACILITY", "REHAB"]), n, p=[0.4, 0.3, 0.22, 0.08]
    )
    marital = np.array(["MARRIED", "SINGLE", "WIDOWED", "DIVORCED"])
    race = w.population.patients["race"].replace_strict(_RACES).to_numpy()[w.patient]
    frame = pl.DataFrame(
        {
            "subject_id": w.subject[w.patient],
            "hadm_id": w.hadm,
            "admittime": admissions["admitted"],
            "dischtime": discharge,
            "deathtime": admissions["discharged"].set(pl.Series(~died), None),
            "admission_type": np.where(emergency, "EW EMER.", rng.choice(np.array(["URGENT", "OBSERVATION ADMIT"]), n)),
            "admission_location": np.where(emergency, "EMERGENCY ROOM", "TRANSFER FROM HOSPITAL"),
            "discharge_location": np.where(died, "DIED", homes),
            "insurance": np.where(admissions["age"].to_numpy() >= 65, "Medicare", "Other"),
            "language": np.full(n, "ENGLISH"),
            "marital_status": rng.choice(marital, len(w.subject))[w.patient],
            "race": race,
            "edregtime": registered,
            "edouttime": left,
            "hospital_expire_flag": died.astype(np.int64),
        }
    )
    extra = pl.concat([_dead_on_arrival(w), _donors(w)]).with_columns(
        admission_type=pl.lit("URGENT"),
        admission_location=pl.lit("PHYSICIAN REFERRAL"),
        discharge_location=pl.lit("DIED"),
        insurance=pl.lit("Other"),
        race=pl.lit("UNKNOWN"),
        hospital_expire_flag=pl.lit(1, pl.Int64),
    )
    w.write(
        "hosp/admissions",
        columns_of(
            pl.concat([frame, extra], how="diagonal").sort("subject_id", "admittime", maintain_order=True),
            *tables.ADMISSIONS,
        ),
    )


def _stays(w: Writer) -> None:
    stays = w.population.stays
    unit = w.units(stays["admission"].to_numpy())
    frame = stays.select("admission", "stay", "in_minute", "out_minute").with_columns(
        **w.ids(stays), intime=at(w.population, stays, "in_minute"), outtime=at(w.population, stays, "out_minute")
    )
    frame = frame.with_columns(
        first_careunit=unit, last_careunit=unit, los=(pl.col("out_minute") - pl.col("in_minute")) / 1440
    )
    names = ("subject_id", "hadm_id", "stay_id", "first_careunit", "last_careunit", "intime", "outtime", "los")
    w.write("icu/icustays", frame.select(names).sort("subject_id", "intime", maintain_order=True))
    _transfers(w)


def _transfers(w: Writer) -> None:
    """One row for each place a patient was in: a change of place begins a new one."""
    hours = w.population.hours.select("admission", "tick", "place", "minutes")
    new = (
        (pl.col("place") != pl.col("place").shift(1)) | (pl.col("admission") != pl.col("admission").shift(1))
    ).fill_null(True)
    spans = (
        hours.with_columns(span=new.cast(pl.Int32).cum_sum())
        .group_by("span", maintain_order=True)
        .agg(
            pl.col("admission", "place").first(),
            start=pl.col("tick").first() * 60,
            end=pl.col("tick").last() * 60 + pl.col("minutes").last(),
        )
    )
    spans = spans.with_columns(order=pl.int_range(pl.len()).over("admission"))
    # Who leaves the ICU in the middle of an hour is on the ward from that minute.
    start = pl.when(pl.col("order") > 0).then(pl.col("end").shift(1)).otherwise(pl.col("start"))
    spans = spans.with_columns(start=start)
    icu = pl.Series(w.units(spans["admission"].to_numpy()))
    ward = pl.when(pl.col("place") == ICU).then(icu).when(pl.col("place") == 2).then(pl.lit("Emergency Department"))
    kind = pl.when(pl.col("place") == 2).then(pl.lit("ED")).when(pl.col("order") == 0).then(pl.lit("admit"))
    rows = spans.with_columns(
        **w.ids(spans),
        eventtype=kind.otherwise(pl.lit("transfer")),
        careunit=ward.otherwise(pl.lit("Medicine")),
        intime=at(w.population, spans, "start"),
        outtime=at(w.population, spans, "end"),
    )
    leaving = w.population.admissions.select("admission", "minutes")
    leaving = leaving.with_columns(
        **w.ids(leaving),
        eventtype=pl.lit("discharge"),
        careunit=pl.lit(None, pl.String),
        intime=at(w.population, leaving, "minutes"),
        outtime=pl.lit(None, pl.Datetime("us")),
    )
    names = ["subject_id", "hadm_id", "eventtype", "careunit", "intime", "outtime"]
    frame = pl.concat([rows.select(names), leaving.select(names)]).sort(
        "subject_id", "intime", "outtime", nulls_last=True
    )
    frame = frame.with_columns(transfer_id=pl.int_range(30_000_000, 30_000_000 + pl.len()))
    w.write("hosp/transfers", frame.select("subject_id", "hadm_id", "transfer_id", *names[2:]))
