"""A MIMIC-IV export of any size for measuring how fast exports are read: many charted rows, little else.

The rows are noise around each item's usual value, not patients with a course; nothing is to be learnt from them.
"""

import gzip
import json
from pathlib import Path

import numpy as np
import polars as pl

from sites.simulate.folder import after, columns_of, write_table
from sites.simulate.population import stream
from sites.simulate.variables import PANEL_OF, VARIABLES

ROWS_OF_A_STAY = 4000
"""Charted rows of one ICU stay; the MIMIC-IV demo has 4,778."""

_BLOCK_STAYS = 100
_HEADER = "subject_id,hadm_id,stay_id,caregiver_id,charttime,storetime,itemid,value,valuenum,valueuom,warning\n"


def write_chart_rows(path: Path, n_rows: int, seed: int, *, compress: bool = True) -> Path:
    """Write a MIMIC-IV export whose `chartevents` has exactly `n_rows` rows, sorted by patient and time.

    Args:
        path: A folder, new or empty.
        n_rows: Rows of chartevents; 20 million are about 1.6 GB of text and take about a minute on one core.
        seed: Fixes every byte.
        compress: Write chartevents as .csv.gz, as genuine exports come, or as .csv.

    Returns:
        The path.
    """
    n = max(1, -(-n_rows // ROWS_OF_A_STAY))
    subject, hadm, stay = (np.arange(n) + base for base in (10_000_000, 20_000_000, 30_000_000))
    rng = stream(seed, "charts", "stays")
    start = np.datetime64("2150-01-01T00:00", "us") + rng.integers(0, 10 * 525_600, n).astype("timedelta64[m]")
    died = rng.random(n) < 0.1
    stays = pl.DataFrame({"subject_id": subject, "hadm_id": hadm, "stay_id": stay, "intime": start, "died": died})
    _write_stays(path, stays)
    target = path / "icu" / ("chartevents.csv.gz" if compress else "chartevents.csv")
    with target.open("wb") as raw:
        out = gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) if compress else raw
        out.write(_HEADER.encode())
        left = n_rows
        for first in range(0, n, _BLOCK_STAYS):
            block = slice(first, min(first + _BLOCK_STAYS, n))
            frame = _block(subject[block], hadm[block], stay[block], start[block], stream(seed, "charts", str(first)))
            text = frame.head(left).write_csv(include_header=False, datetime_format="%Y-%m-%d %H:%M:%S")
            out.write(text.encode())
            left -= min(left, len(frame))
        if compress:
            out.close()
    told = {"hospital": "charts", "seed": seed, "source": f"simulated-charts-{n_rows}-{seed}"}
    (path / "SIMULATED.json").write_text(json.dumps(told, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return path


def _block(
    subject: np.ndarray, hadm: np.ndarray, stay: np.ndarray, start: np.ndarray, rng: np.random.Generator
) -> pl.DataFrame:
    """The rows of some stays."""
    chart = [v for v in VARIABLES if PANEL_OF[v.name].kind == "vitals" and v.name != "urine"]
    per_hour = len(chart)
    n, hours = len(subject), -(-ROWS_OF_A_STAY // per_hour)
    item = np.tile(np.array([v.mimic[0] for v in chart]), n * hours)
    value = np.tile(np.array([v.base for v in chart]), n * hours)
    value = np.round(value + rng.normal(0, np.tile(np.array([v.noise_sd for v in chart]), n * hours)), 1)
    minutes = np.tile(np.repeat(np.arange(hours) * 60, per_hour), n)
    place = np.tile(np.arange(hours * per_hour), n) < ROWS_OF_A_STAY
    of = np.repeat(np.arange(n), hours * per_hour)[place]
    time = after(start[of], minutes[place])
    unit = pl.Series([v.mimic[1] for v in chart] * (n * hours), dtype=pl.String).filter(pl.Series(place))
    number = pl.Series(value[place])
    return pl.DataFrame(
        {
            "subject_id": subject[of],
            "hadm_id": hadm[of],
            "stay_id": stay[of],
            "caregiver_id": np.full(len(of), 41),
            "charttime": time,
            "storetime": time,
            "itemid": item[place],
            "value": number.cast(pl.String),
            "valuenum": number,
            "valueuom": unit,
            "warning": np.zeros(len(of), np.int8),
        }
    )


def _write_stays(path: Path, ids: pl.DataFrame) -> None:
    """The patients, admissions and ICU stays that the rows belong to: one of each."""
    minutes = 60 * (-(-ROWS_OF_A_STAY // 11) + 1)
    end = pl.col("intime") + pl.duration(minutes=minutes)
    patients = ids.select(
        "subject_id",
        gender=pl.when(pl.col("subject_id") % 2 == 0).then(pl.lit("F")).otherwise(pl.lit("M")),
        anchor_age=30 + pl.col("subject_id") % 60,
        anchor_year=pl.col("intime").dt.year(),
        anchor_year_group=pl.lit("2014 - 2016"),
        dod=pl.lit(None, pl.Date),
    )
    write_table(patients, path / "hosp" / "patients.csv.gz")
    admissions = ids.select(
        "subject_id",
        "hadm_id",
        admittime="intime",
        dischtime=end,
        deathtime=pl.when("died").then(end),
        admission_type=pl.lit("URGENT"),
        admission_location=pl.lit("EMERGENCY ROOM"),
        discharge_location=pl.when("died").then(pl.lit("DIED")).otherwise(pl.lit("HOME")),
        race=pl.lit("UNKNOWN"),
        hospital_expire_flag=pl.col("died").cast(pl.Int64),
    )
    names = ("subject_id", "hadm_id", "admittime", "dischtime", "deathtime", "admission_type", "admit_provider_id")
    more = ("admission_location", "discharge_location", "insurance", "language", "marital_status", "race")
    write_table(
        columns_of(admissions, *names, *more, "edregtime", "edouttime", "hospital_expire_flag"),
        path / "hosp" / "admissions.csv.gz",
    )
    unit = pl.lit("Medical Intensive Care Unit (MICU)")
    stays = ids.select(
        "subject_id",
        "hadm_id",
        "stay_id",
        first_careunit=unit,
        last_careunit=unit,
        intime="intime",
        outtime=end,
        los=pl.lit(minutes / 1440),
    )
    write_table(stays, path / "icu" / "icustays.csv.gz")
