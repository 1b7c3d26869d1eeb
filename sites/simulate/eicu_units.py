"""The ids of a simulated hospital in an eICU export, and which unit stay a row belongs to."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from sites.simulate.population import Population


@dataclass(frozen=True)
class Ids:
    """The ids of one hospital's rows in the export.

    Attributes:
        unit: patientunitstayid of each ICU stay.
        system: patienthealthsystemstayid of each admission (also of those that are not exported).
        person: uniquepid of each patient.
        unknown: Whether an admission's outcome is missing, bool [admissions].
    """

    unit: npt.NDArray[np.int64]
    system: npt.NDArray[np.int64]
    person: npt.NDArray[np.str_]
    unknown: npt.NDArray[np.bool_]


def in_units(p: Population, ids: Ids, frame: pl.DataFrame, minute: str) -> pl.DataFrame:
    """Rows with patientunitstayid and `offset`: of the unit stay under way, else the last before, else the first."""
    stays = (
        p.stays.select("admission", "stay", "in_minute")
        .with_columns(unit=pl.Series(ids.unit))
        .sort("in_minute", maintain_order=True)
    )
    frame = (
        frame.drop("stay", strict=False)
        .with_columns(pl.col(minute).cast(pl.Int32).alias("at"))
        .sort("at", maintain_order=True)
    )
    columns = ["admission", "unit", "in_minute"]
    before = frame.join_asof(
        stays.select(columns),
        left_on="at",
        right_on="in_minute",
        by="admission",
        check_sortedness=False,
        coalesce=False,
    )
    first = stays.group_by("admission").agg(first_unit=pl.col("unit").first(), first_in=pl.col("in_minute").first())
    joined = before.join(first, on="admission", how="inner", maintain_order="left")
    return (
        joined.with_columns(
            patientunitstayid=pl.coalesce("unit", "first_unit"),
            offset=pl.col("at") - pl.coalesce("in_minute", "first_in"),
        )
        .drop("unit", "first_unit", "in_minute", "first_in", "at")
        .sort("admission", minute, maintain_order=True)
    )
