"""PhysioNet/CinC Challenge 2012 (Silva et al. 2012): 4,000 ICU stays a set, their first 48 hours, from MIMIC-II.

The clock is the time elapsed since the ICU admission, which stands for the hospital admission too, and it tells when
a value is known: the Challenge hands over what was charted by 48:00, that minute included. There are no dates; 00:00
is 2012-01-01 in every record.

Of the outcomes only In-hospital_death is read (Survival, Length_of_stay, SAPS-I and SOFA never are), and it becomes
known at 48:01, when the stay ends for us: `HOSPITAL_DISCHARGE` and, of the dead, `MEDS_DEATH`.

-1 stands for missing and makes no event. Heart rate 0, pH 735 or two values at one time stay as they are: the concepts
state what is plausible.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import polars as pl

from sites.exports.export import BIDMC, Events, Export, Frames, Options, Table, Tables, code
from sites.exports.physionet2012_files import ORIGIN, chosen_set, files, read_outcomes, read_records, recognises

ICU_TYPES: Final = {
    1: "Coronary Care Unit",
    2: "Cardiac Surgery Recovery Unit",
    3: "Medical ICU",
    4: "Surgical ICU",
}
OLDEST: Final = 90
MISSING: Final = -1.0

_TABLES = (
    Table("outcomes", {"record_id": pl.Int64, "set": pl.String, "died": pl.Boolean}, required=True),
    Table(
        "descriptors",
        {"record_id": pl.Int64, "age": pl.Float64, "gender": pl.Float64, "icu_type": pl.Float64},
        required=True,
    ),
    Table(
        "records",
        {"record_id": pl.Int64, "time": pl.Datetime("us"), "parameter": pl.String, "value": pl.Float64},
        required=True,
    ),
)


def _batches(path: Path, table: str, options: Options) -> Iterator[pl.DataFrame]:
    one = chosen_set(path, options)
    if table == "outcomes":
        yield read_outcomes(one)
        return
    for rows in read_records(one):
        yield rows if table == "records" else _descriptors(rows)


def _descriptors(rows: pl.DataFrame) -> pl.DataFrame:
    """One row a record; what is -1 or not there is null."""
    at_start = rows.lazy().filter((pl.col("time") == ORIGIN) & (pl.col("value") != MISSING))
    wanted = {"age": "Age", "gender": "Gender", "icu_type": "ICUType"}
    found = at_start.group_by("record_id").agg(
        pl.col("value").filter(pl.col("parameter") == parameter).first().alias(name)
        for name, parameter in wanted.items()
    )
    every = rows.lazy().select("record_id").unique()
    return every.join(found, on="record_id", how="left").sort("record_id").collect()


def _frames(tables: Tables) -> dict[str, pl.DataFrame]:
    outcomes, descriptors = tables.read("outcomes"), tables.read("descriptors")
    stays = descriptors.join(outcomes, on="record_id", how="left").with_columns(
        subject_id="record_id",
        set=pl.lit(outcomes["set"][0]),
        icu_type=pl.col("icu_type").replace_strict(ICU_TYPES, default=None, return_dtype=pl.String),
        discharge=pl.lit(ORIGIN, dtype=pl.Datetime("us")) + pl.duration(hours=48, minutes=1),
    )
    unknown = stays["died"].null_count()
    if unknown:
        tables.warn(f"{unknown} records have no In-hospital_death in the outcomes; their outcome is unknown")
    strangers = outcomes.join(stays, on="record_id", how="anti").height
    if strangers:
        tables.warn(f"{strangers} records of the outcomes are not in the set; they are left out")
    subjects = stays.select("subject_id", "icu_type", patient_id="subject_id")
    return {"subjects": subjects, "stays": stays}


def _values(rows: pl.LazyFrame, _frames: Frames) -> pl.LazyFrame:
    return rows.filter(pl.col("value") != MISSING).with_columns(subject_id="record_id")


def _where(condition: pl.Expr, event: pl.Expr) -> pl.Expr:
    """A code where the condition holds, otherwise no event."""
    return pl.when(condition).then(event)


_START = pl.lit(ORIGIN, dtype=pl.Datetime("us"))
_AGE = pl.when(pl.col("age").is_between(0, 150)).then(pl.col("age").clip(upper_bound=OLDEST))
_BIRTH = _START.dt.offset_by(pl.format("-{}y", _AGE.cast(pl.Int64)))
_SEX = pl.col("gender").replace_strict({0.0: "F", 1.0: "M"}, default=None, return_dtype=pl.String)

EXPORT = Export(
    kind="physionet2012",
    title="PhysioNet/CinC Challenge 2012",
    tables=_TABLES,
    frames=_frames,
    events=(
        Events("stays", _where(_AGE.is_not_null(), pl.lit("MEDS_BIRTH")), _BIRTH),
        Events("stays", code("GENDER", _SEX), pl.lit(None), static=True),
        Events("stays", pl.lit("HOSPITAL_ADMISSION//UNK//UNK"), _START),
        Events("stays", _where(_AGE.is_not_null(), pl.lit("AGE")), _START, numeric=_AGE),
        Events("stays", code("ICU_ADMISSION", "icu_type"), _START),
        Events("records", code("LAB", "parameter", pl.lit("UNK")), pl.col("time"), pl.col("value"), prepare=_values),
        Events("stays", pl.lit("HOSPITAL_DISCHARGE//UNK"), pl.col("discharge")),
        Events("stays", _where(pl.col("died"), pl.lit("MEDS_DEATH")), pl.col("discharge")),
        Events("stays", _where(pl.col("died").is_null(), pl.lit("OUTCOME_UNKNOWN")), pl.col("discharge")),
    ),
    groups=("icu_type",),
    options={"set": "which set is read (a, b or c) where the folder holds several"},
    source=lambda _options: BIDMC,
    part=lambda _options, frames: f"set-{frames['stays']['set'][0]}",
    concepts="physionet2012",
    batches=_batches,
    files=files,
    recognises=recognises,
)
