"""Writing the tables of an export: CSV.gz, the same bytes for the same rows."""

import gzip
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from sites.simulate.population import Population

_ROWS_AT_ONCE = 250_000


def write_table(frame: pl.DataFrame, path: Path) -> None:
    """Write `frame` as CSV.gz: one gzip member without a time or a name in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) as out:
        for start in range(0, max(len(frame), 1), _ROWS_AT_ONCE):
            text = frame.slice(start, _ROWS_AT_ONCE).write_csv(
                include_header=start == 0, datetime_format="%Y-%m-%d %H:%M:%S", date_format="%Y-%m-%d"
            )
            out.write(text.encode())


def columns_of(frame: pl.DataFrame, *names: str) -> pl.DataFrame:
    """The named columns in that order; those that `frame` lacks are empty, as in the genuine table."""
    present = set(frame.columns)
    return frame.select(pl.col(n) if n in present else pl.lit(None, pl.String).alias(n) for n in names)


def at(population: Population, frame: pl.DataFrame, minute: str) -> pl.Series:
    """The date and time of minutes from hospital admission: Datetime("us") for each row of `frame`."""
    admitted = population.admissions["admitted"].to_numpy().astype("datetime64[us]")
    return after(admitted[frame["admission"].to_numpy()], frame[minute].to_numpy())


def after(start: npt.NDArray[np.datetime64], minutes: npt.NDArray[np.integer]) -> pl.Series:
    """Start plus whole minutes."""
    return pl.Series(start.astype("datetime64[us]") + minutes.astype("timedelta64[m]"), dtype=pl.Datetime("us"))


def draw_ids(rng: np.random.Generator, low: int, high: int, count: int) -> npt.NDArray[np.int64]:
    """So many different ids in [low, high), in no order."""
    return rng.choice(high - low, count, replace=False).astype(np.int64) + low
