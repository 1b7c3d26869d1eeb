"""UCI heart disease (Detrano et al. 1989): four hospitals, one visit a patient, 13 findings, what angiography showed.

The files `processed.<hospital>.data` have no header and no dates; "?" is missing. Every patient is admitted at one
made-up moment, when all findings are known; the angiographic diagnosis `num` (0: no disease; 1-4) is known a day
later, at discharge, so that it is a label and never a feature. A serum cholesterol or blood pressure of 0 stays as it
is: the concepts state what is plausible.

A subject id is 1,000,000 times the hospital's number plus the line of the file.
"""

import math
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, NoReturn

import polars as pl

from sites.errors import InputError
from sites.exports.export import Events, Export, Frames, Options, Table, Tables, code

HOSPITALS: Final = {"cleveland": 1, "hungarian": 2, "switzerland": 3, "va": 4}
FINDINGS: Final = (
    *("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg"),
    *("thalach", "exang", "oldpeak", "slope", "ca", "thal"),
)
"""The columns before `num`: demographics, chest pain, blood pressure, cholesterol, ECG at rest and under exercise."""

_NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,2})?")
_COLUMNS: Final = (*FINDINGS, "num")
_ADMISSION: Final = pl.lit(datetime(1988, 1, 1), dtype=pl.Datetime("us"))  # noqa: DTZ001 - a made-up moment
_DISCHARGE: Final = _ADMISSION + pl.duration(days=1)

_TABLE = Table(
    "patients",
    {"subject_id": pl.Int64, "hospital": pl.String} | dict.fromkeys(_COLUMNS, pl.Float64),
    required=True,
)


def _found(path: Path) -> dict[str, Path]:
    """Hospital to file, of those that are there (a file may be named itself)."""
    entries = sorted(path.iterdir()) if path.is_dir() else [path]
    names = {f"processed.{hospital}.data": hospital for hospital in HOSPITALS}
    found = {names[e.name.lower()]: e for e in entries if e.name.lower() in names}
    return {hospital: found[hospital] for hospital in HOSPITALS if hospital in found}


def _files(path: Path, _options: Options) -> Sequence[Path]:
    found = _found(path)
    if not found:
        raise InputError(
            f"{path}: found none of processed.cleveland.data, processed.hungarian.data, processed.switzerland.data and "
            "processed.va.data, expected at least one; give the folder that holds them"
        )
    return list(found.values())


def _batches(path: Path, _table: str, options: Options) -> Iterator[pl.DataFrame]:
    _files(path, options)
    for hospital, file in _found(path).items():
        yield _read(file, hospital)


def _read(file: Path, hospital: str) -> pl.DataFrame:
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except UnicodeDecodeError:
        raise InputError(
            f"{file}: found bytes that are not ASCII text, expected numbers; copy the file again"
        ) from None
    rows: list[list[float | int | str | None]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != len(_COLUMNS):
            _fail(file, number, None, line, f"{len(_COLUMNS)} fields separated by commas")
        values = [_number(file, number, *pair) for pair in zip(_COLUMNS, fields, strict=True)]
        rows.append([HOSPITALS[hospital] * 1_000_000 + number, hospital, *values])
    if not rows:
        raise InputError(f"{file}: the file holds no rows; expected one patient a line")
    return pl.DataFrame(rows, schema=dict(_TABLE.columns), orient="row")


def _number(file: Path, line: int, column: str, text: str) -> float | None:
    if text == "?":
        return None
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(value):
        _fail(file, line, column, text, 'a number, or "?" where it is missing')
    if column == "age" and not 0 <= value <= 120:
        _fail(file, line, column, text, "an age in years")
    if column == "num" and value not in (0, 1, 2, 3, 4):
        _fail(file, line, column, text, "0, 1, 2, 3 or 4")
    return value


def _fail(file: Path, line: int, column: str | None, found: str, expected: str) -> NoReturn:
    place = f"{file}, line {line}" + (f", column {column}" if column else "")
    raise InputError(f"{place}: found {found[:80]!r}, expected {expected}; correct the line or copy the file again")


def _frames(tables: Tables) -> dict[str, pl.DataFrame]:
    visits = tables.read("patients")
    unknown = visits["num"].null_count()
    if unknown:
        tables.warn(f"{unknown} patients have no diagnosis (num); their outcome is unknown")
    return {"subjects": visits.select("subject_id", "hospital", patient_id="subject_id"), "visits": visits}


def _part(_options: Options, frames: Frames) -> str:
    """Of one hospital's file, the hospital: no patient of it stands in another's."""
    hospitals = frames["subjects"]["hospital"].unique().to_list()
    return str(hospitals[0]) if len(hospitals) == 1 else ""


def _findings(rows: pl.LazyFrame, _frames: Frames) -> pl.LazyFrame:
    """One row for each finding that is not missing."""
    long = rows.unpivot(list(FINDINGS), index="subject_id", variable_name="finding", value_name="value")
    return long.filter(pl.col("value").is_not_null())


_AGE = pl.col("age")
_BIRTH = _ADMISSION.dt.offset_by(pl.format("-{}y", _AGE.cast(pl.Int64)))
_SEX = pl.col("sex").replace_strict({0.0: "F", 1.0: "M"}, default=None, return_dtype=pl.String)
_AGED = _AGE.is_not_null()

EXPORT = Export(
    kind="uci_heart",
    title="UCI heart disease",
    tables=(_TABLE,),
    frames=_frames,
    events=(
        Events("visits", pl.when(_AGED).then(pl.lit("MEDS_BIRTH")), _BIRTH),
        Events("visits", code("GENDER", _SEX), pl.lit(None), static=True),
        Events("visits", pl.lit("HOSPITAL_ADMISSION//UNK//UNK"), _ADMISSION),
        Events("visits", pl.when(_AGED).then(pl.lit("AGE")), _ADMISSION, numeric=_AGE),
        Events("visits", code("LAB", "finding", pl.lit("UNK")), _ADMISSION, pl.col("value"), prepare=_findings),
        Events(
            "visits",
            pl.when(pl.col("num").is_not_null()).then(pl.lit("DIAGNOSIS//UCI//HEART_DISEASE")),
            _DISCHARGE,
            numeric=pl.col("num"),
        ),
        Events("visits", pl.when(pl.col("num").is_null()).then(pl.lit("OUTCOME_UNKNOWN")), _DISCHARGE),
        Events("visits", pl.lit("HOSPITAL_DISCHARGE//UNK"), _DISCHARGE),
    ),
    groups=("hospital",),
    source=lambda _options: "uci-heart",
    part=_part,
    concepts="uci_heart",
    batches=_batches,
    files=_files,
    recognises=lambda path: bool(_found(path)),
)
