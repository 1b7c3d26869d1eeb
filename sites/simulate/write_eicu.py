"""Simulated hospitals as one eICU-CRD export: the genuine tables and columns, offsets in minutes from unit admission.

The export holds hospital stays with at least one ICU stay and nothing of the others, as the genuine one does.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from sites.simulate import eicu_care as care
from sites.simulate import eicu_readings as readings_of
from sites.simulate import eicu_tables as tables
from sites.simulate.eicu_units import Ids, in_units
from sites.simulate.folder import draw_ids, write_table
from sites.simulate.hospital import REASONS
from sites.simulate.observations import arrays, readings
from sites.simulate.population import Population, stream

_DX = {
    "sepsis": "Sepsis, pulmonary",
    "respiratory": "Pneumonia, bacterial",
    "cardiac": "Infarction, acute myocardial (MI)",
    "neurologic": "CVA, cerebrovascular accident/stroke",
    "surgical": "CABG alone, coronary artery bypass grafting",
    "gastrointestinal": "Bleeding, upper GI",
    "trauma": "Thorax/multiple trauma",
    "renal": "Renal failure, acute",
}
_ETHNICITY = {
    "WHITE": "Caucasian",
    "BLACK": "African American",
    "HISPANIC": "Hispanic",
    "ASIAN": "Asian",
    "OTHER": "Other/Unknown",
}


def write_eicu(populations: Sequence[Population], folder: Path) -> list[npt.NDArray[np.int64]]:
    """Write one export of several hospitals.

    Args:
        populations: One for each hospital.
        folder: An empty folder.

    Returns:
        For each hospital the MEDS subject of each admission (`patienthealthsystemstayid`), int64 [admissions]; -1 where
        the export does not tell the outcome.
    """
    found = _ids(populations)
    tables: dict[str, list[pl.DataFrame]] = {}
    for population, ids in zip(populations, found, strict=True):
        for name, frame in _tables(population, ids).items():
            tables.setdefault(name, []).append(frame)
    for name, frames in tables.items():
        frame = pl.concat(frames, how="vertical_relaxed")
        key = frame.columns[0]
        if frame[key].null_count() == len(frame) and name not in ("patient", "hospital"):
            frame = frame.with_columns(pl.int_range(1, pl.len() + 1).alias(key))
        write_table(frame, folder / f"{name}.csv.gz")
    return [np.where(i.unknown, -1, i.system) for i in found]


def _ids(populations: Sequence[Population]) -> list[Ids]:
    names = [p.hospital.name for p in populations]
    rng = stream(populations[0].seed, "eicu ids", *names)
    unit = draw_ids(rng, 141_000, 3_400_000, sum(len(p.stays) for p in populations))
    system = draw_ids(rng, 128_000, 2_800_000, sum(len(p.admissions) for p in populations))
    person = np.array(
        [f"{2 + i % 30:03d}-{i}" for i in draw_ids(rng, 1000, 400_000, sum(len(p.patients) for p in populations))]
    )
    found: list[Ids] = []
    at = np.zeros(3, int)
    for i, p in enumerate(populations):
        end = at + np.array([len(p.stays), len(p.admissions), len(p.patients)])
        own = person[at[2] : end[2]].copy()
        if i:
            # Persons who were in another hospital of the export before: same sex, two medical records there.
            before, sex = populations[i - 1].patients["female"].to_numpy(), p.patients["female"].to_numpy()
            for here in np.flatnonzero(rng.random(len(own)) < p.hospital.traps.two_hospitals):
                alike = np.flatnonzero(before == sex[here])
                if len(alike):
                    own[here] = found[i - 1].person[rng.choice(alike)]
        unknown = rng.random(len(p.admissions)) < p.hospital.traps.outcome_unknown
        found.append(Ids(unit[at[0] : end[0]], system[at[1] : end[1]], own, unknown))
        at = end
    return found


def _tables(p: Population, ids: Ids) -> dict[str, pl.DataFrame]:
    """Every table of one hospital; an empty first column is numbered when the hospitals stand together."""
    hours = arrays(p)
    h = p.hospital
    hospital = pl.DataFrame(
        {
            "hospitalid": [h.hospital_id],
            "numbedscategory": [h.beds],
            "teachingstatus": ["t" if h.teaching else "f"],
            "region": pl.Series([h.region], dtype=pl.String),
        }
    )
    found = in_units(p, ids, readings(p, hours), "minute").with_columns(
        stored=pl.col("stored") - pl.col("minute") + pl.col("offset")
    )
    return {
        "hospital": hospital,
        "patient": _patient(p, ids),
        **readings_of.monitor(p, found),
        "lab": readings_of.lab(found),
        "nurseCharting": readings_of.nurse(found),
        **readings_of.flowsheet(found),
        **readings_of.apache(p, ids, found),
        **care.treated(p, ids, hours),
        **care.problems(p, ids, hours),
    }


def _clock(p: Population, frame: pl.DataFrame, minute: str) -> pl.Series:
    admitted = p.admissions["admitted"].to_numpy()[frame["admission"].to_numpy()]
    return pl.Series(admitted + frame[minute].to_numpy().astype("timedelta64[m]")).dt.strftime("%H:%M:%S")


def _patient(p: Population, ids: Ids) -> pl.DataFrame:
    rng = p.stream("eicu patient")
    admissions = p.admissions.select(
        "admission", "patient", "minutes", "reason", "age", "admitted", pl.col("died").alias("dead")
    )
    stays = p.stays.with_columns(patientunitstayid=pl.Series(ids.unit)).join(
        admissions, on="admission", maintain_order="left"
    )
    stays = stays.join(p.patients.drop("age"), on="patient", maintain_order="left").with_columns(zero=pl.lit(0))
    unknown = pl.Series(ids.unknown[stays["admission"].to_numpy()])
    n = len(stays)
    homes = pl.Series(
        rng.choice(np.array(["Home", "Skilled Nursing Facility", "Rehabilitation"]), n, p=[0.7, 0.2, 0.1])
    )
    status = pl.when(unknown).then(None).when("dead").then(pl.lit("Expired")).otherwise(pl.lit("Alive"))
    unit_status = (
        pl.when(unknown & pl.col("died")).then(None).when("died").then(pl.lit("Expired")).otherwise(pl.lit("Alive"))
    )
    return stays.select(
        "patientunitstayid",
        patienthealthsystemstayid=pl.Series(ids.system[stays["admission"].to_numpy()]),
        gender=pl.when("female").then(pl.lit("Female")).otherwise(pl.lit("Male")),
        age=pl.when(pl.col("age") > 89).then(pl.lit("> 89")).otherwise(pl.col("age").cast(pl.String)),
        ethnicity=pl.col("race").replace_strict(_ETHNICITY),
        hospitalid=pl.lit(p.hospital.hospital_id),
        wardid=pl.lit(p.hospital.hospital_id + 100),
        apacheadmissiondx=pl.Series([_DX[r] for r in REASONS])[stays["reason"].to_numpy().astype(np.int64)],
        admissionheight="height_cm",
        hospitaladmittime24=_clock(p, stays, "zero"),
        hospitaladmitoffset=-pl.col("in_minute"),
        hospitaladmitsource=pl.when(pl.col("tick") <= 6)
        .then(pl.lit("Emergency Department"))
        .otherwise(pl.lit("Floor")),
        hospitaldischargeyear=pl.lit(2014),
        hospitaldischargetime24=_clock(p, stays, "minutes"),
        hospitaldischargeoffset=pl.col("minutes") - pl.col("in_minute"),
        hospitaldischargelocation=pl.when(unknown).then(None).when("dead").then(pl.lit("Death")).otherwise(homes),
        hospitaldischargestatus=status,
        unittype=pl.lit("Med-Surg ICU"),
        unitadmittime24=_clock(p, stays, "in_minute"),
        unitadmitsource=pl.when(pl.col("tick") <= 6).then(pl.lit("Emergency Department")).otherwise(pl.lit("Floor")),
        unitvisitnumber="ordinal",
        unitstaytype=pl.when(pl.col("ordinal") == 1).then(pl.lit("admit")).otherwise(pl.lit("readmit")),
        admissionweight="weight_kg",
        dischargeweight=pl.lit(None, pl.Float64),
        unitdischargetime24=_clock(p, stays, "out_minute"),
        unitdischargeoffset=pl.col("out_minute") - pl.col("in_minute"),
        unitdischargelocation=pl.when("died").then(pl.lit("Death")).otherwise(pl.lit("Floor")),
        unitdischargestatus=unit_status,
        uniquepid=pl.Series(ids.person[stays["patient"].to_numpy()]),
    ).select(tables.PATIENT)
