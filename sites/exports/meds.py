"""A MEDS dataset as it is (Medical Event Data Standard 0.4, https://github.com/Medical-Event-Data-Standard/meds).

Its events are taken as they stand, duplicates included; times are as honest as those who made it were. What does not
conform is refused with a sentence that says what to rename: shards `data/**/*.parquet` with subject_id, time, code
(numeric_value, text_value), sorted by time within a subject, a subject in one shard; `metadata/dataset.json` and
`metadata/codes.parquet`.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from sites.errors import InputError
from sites.exports.export import BIDMC, Events, Export, Frames, Options, Table, Tables

_TYPES: dict[str, tuple[pa.DataType, ...]] = {
    "subject_id": (pa.int64(),),
    "time": (pa.timestamp("us"),),
    "code": (pa.string(), pa.large_string()),
    "numeric_value": (pa.float32(),),
    "text_value": (pa.large_string(), pa.string()),
}
_REQUIRED = ("subject_id", "time", "code")
_MEANT = {
    "subject_id": ("patient_id", "person_id", "subject", "patient"),
    "time": ("timestamp", "datetime", "event_time", "start"),
    "code": ("concept", "event", "event_code"),
    "numeric_value": ("value", "numeric", "value_num", "valuenum"),
    "text_value": ("text", "string_value", "value_text"),
}
_METADATA = ("metadata/dataset.json", "metadata/codes.parquet")
_SPLITS = "metadata/subject_splits.parquet"
_BATCH_ROWS = 1 << 19


def _shards(path: Path) -> list[Path]:
    return sorted((path / "data").rglob("*.parquet")) if path.is_dir() else []


def _recognises(path: Path) -> bool:
    return bool(_shards(path)) and (path / _METADATA[0]).is_file()


def _files(path: Path, _options: Options) -> Sequence[Path]:
    """Every file that is read.

    Raises:
        InputError: It is no MEDS dataset; all that is to be done stands in one sentence.
    """
    shards = _shards(path)
    todo = [] if shards else ["put the event shards into the folder data"]
    loose = sorted(path.glob("*.parquet")) if path.is_dir() else []
    for shard in shards or loose:
        names = _schema(shard).names
        if not shards and "code" not in names:
            continue  # labels and the like beside the events
        for problem in _problems(_schema(shard)):
            if problem not in todo:
                todo.append(problem)
    missing = [name for name in _METADATA if not (path / name).is_file()]
    if missing:
        todo.append(f"add {' and '.join(missing)}")
    if todo:
        raise InputError(f"{path}: found no valid MEDS 0.4 dataset; to make it one, {'; '.join(todo)}")
    return [*shards, path / _METADATA[0], *([path / _SPLITS] if (path / _SPLITS).is_file() else [])]


def _schema(shard: Path) -> pa.Schema:
    with _sound(shard):
        return pq.read_schema(shard)


@contextmanager
def _sound(shard: Path) -> Iterator[None]:
    """Whatever a damaged file makes a library say, as a sentence."""
    try:
        yield
    except (pa.ArrowException, pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{shard}: this is no readable Parquet file ({error}); write it anew") from None


def _problems(schema: pa.Schema) -> Iterator[str]:
    """What must be done to the columns of a shard."""
    for name, types in _TYPES.items():
        if name not in schema.names:
            meant = next((other for other in _MEANT[name] if other in schema.names), None)
            if meant is not None:
                yield f"rename the column {meant} to {name}"
            elif name in _REQUIRED:
                yield f"add the column {name} ({types[0]})"
            continue
        found = schema.field(name).type
        if pa.types.is_dictionary(found):
            found = found.value_type
        if found not in types:
            yield f"cast the column {name} from {found} to {types[0]}"


def _batches(path: Path, name: str, options: Options) -> Iterator[pl.DataFrame]:
    if name == "dataset":
        yield pl.DataFrame({"name": [str(_told(path).get("dataset_name") or "")]})
    elif name == "people":
        yield _people(path, options.get("patient"))
    else:
        yield from _events(path)


def _told(path: Path) -> dict[str, Any]:
    try:
        told = json.loads((path / _METADATA[0]).read_text(encoding="utf-8"))
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise InputError(f"{path / _METADATA[0]}: found no JSON object, expected one; write it anew")
    return told


def _people(path: Path, patient: str | None) -> pl.DataFrame:
    """subject_id and patient_id of everyone; checks that a subject stands in one shard."""
    people = [pl.DataFrame(schema={"subject_id": pl.Int64, "patient_id": pl.Int64})]
    for shard in _shards(path):
        schema = _schema(shard)
        if patient is not None and not (patient in schema.names and pa.types.is_integer(schema.field(patient).type)):
            raise InputError(
                f"{shard}: found no whole-number column {patient}, expected it because of patient={patient}; "
                "name the column of the data that says who the person is"
            )
        column = pl.col("subject_id" if patient is None else patient).cast(pl.Int64).alias("patient_id")
        columns = list(dict.fromkeys(("subject_id", patient or "subject_id")))
        with _sound(shard), pq.ParquetFile(shard) as file:
            batches = [
                pl.DataFrame(batch).select("subject_id", column).unique()
                for batch in file.iter_batches(_BATCH_ROWS, columns=columns)
            ]
        people.append(pl.concat([people[0], *batches]).unique())
    everyone = pl.concat(people).sort("subject_id", "patient_id")
    twice = everyone.filter(pl.col("subject_id").is_duplicated())
    if len(twice):
        subject = twice["subject_id"][0]
        why = (
            f"more than one {patient}, expected one for each subject"
            if patient is not None and twice.filter(pl.col("subject_id") == subject)["patient_id"].n_unique() > 1
            else "rows in more than one shard, expected a subject in one shard"
        )
        raise InputError(f"{path / 'data'}: the subject {subject} has {why}; shard the dataset anew")
    if everyone.null_count().sum_horizontal()[0]:
        raise InputError(f"{path / 'data'}: found rows without subject or patient, expected none; remove them")
    if (path / _SPLITS).is_file():
        _check_splits(path / _SPLITS, everyone)
    return everyone


def _check_splits(file: Path, everyone: pl.DataFrame) -> None:
    """Raise if a patient stands in two of the data's own splits: whatever was made with them leaks.

    The splits themselves are not used: `sites.splits` draws them anew, the same way for every export.
    """
    with _sound(file):
        names = pq.read_schema(file).names
        if not {"subject_id", "split"} <= set(names):
            raise InputError(
                f"{file}: found the columns {', '.join(names)}, expected subject_id and split; rename them"
            )
        splits = pl.DataFrame(pq.read_table(file, columns=["subject_id", "split"]))
        of_patient = everyone.join(splits, on="subject_id").group_by("patient_id").agg(pl.col("split").unique().sort())
    twice = of_patient.filter(pl.col("split").list.len() > 1).sort("patient_id")
    if len(twice):
        patient, found = twice.row(0)
        raise InputError(
            f"{file}: found the patient {patient} in the splits {' and '.join(map(str, found))}, expected each patient "
            "in one; split the dataset anew by patient"
        )


def _events(path: Path) -> Iterator[pl.DataFrame]:
    """The events with their place (`shard`, `row`), so that equal events stay apart; checks their order."""
    for number, shard in enumerate(_shards(path)):
        columns = [name for name in _TYPES if name in _schema(shard).names]
        seen: set[int] = set()
        last: tuple[int, Any] | None = None
        row = 0
        with _sound(shard), pq.ParquetFile(shard) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
                frame = pl.from_arrow(batch)
                assert isinstance(frame, pl.DataFrame)
                last = _check_order(shard, frame.select("subject_id", "time"), row, last, seen)
                missing = [pl.lit(None, dtype=d).alias(n) for n, d in _OPTIONAL.items() if n not in columns]
                yield frame.with_columns(
                    *missing,
                    pl.col("code").cast(pl.String),
                    pl.lit(number).alias("shard"),
                    pl.int_range(row, row + pl.len()).alias("row"),
                )
                row += len(frame)


_OPTIONAL: dict[str, pl.DataType] = {"numeric_value": pl.Float32(), "text_value": pl.String()}


def _check_order(
    shard: Path, order: pl.DataFrame, row: int, last: tuple[int, Any] | None, seen: set[int]
) -> tuple[int, Any] | None:
    """Raise unless subjects are contiguous and sorted by time, null first; return the last row."""
    if order.is_empty():
        return last
    first = pl.DataFrame([last] if last else [], schema=order.schema, orient="row")
    joined = pl.concat([first, order])
    same = pl.col("subject_id") == pl.col("subject_id").shift(1)
    before = pl.col("time").shift(1)
    back = same & before.is_not_null() & (pl.col("time").is_null() | (pl.col("time") < before))
    wrong = joined.select(back.fill_null(value=False)).to_series()
    at = row - len(first)
    if wrong.any():
        index = wrong.arg_max() or 0
        time, previous = joined["time"][index], joined["time"][index - 1]
        raise InputError(
            f"{shard}, row {at + index + 1}: found the time {time} behind {previous}, expected a subject's rows sorted "
            "by time, those without time first; sort the shard"
        )
    new = joined.filter((~same).fill_null(value=not first.height))["subject_id"].to_list()
    for subject in new:
        if subject in seen:
            raise InputError(
                f"{shard}: found the rows of subject {subject} apart, expected them together; sort the shard"
            )
        seen.add(subject)
    return order.row(-1)


def _frames(tables: Tables) -> dict[str, pl.DataFrame]:
    name = tables.read("dataset")["name"][0]
    mimic = "mimic" in name.lower()
    source = BIDMC if mimic else ""
    if not source and "source" not in tables.options:
        tables.warn(
            "no patient source is named (source=...): whether these patients stand at other sites too cannot be seen"
        )
    return {
        "subjects": tables.read("people"),
        "source": pl.DataFrame({"source": [source], "concepts": ["mimic" if mimic else ""]}),
    }


def _static(rows: pl.LazyFrame, _frames: Frames) -> pl.LazyFrame:
    return rows.filter(pl.col("time").is_null())


def _timed(rows: pl.LazyFrame, _frames: Frames) -> pl.LazyFrame:
    return rows.filter(pl.col("time").is_not_null())


EXPORT = Export(
    kind="meds",
    title="the Medical Event Data Standard 0.4",
    tables=(
        Table("dataset", {"name": pl.String}, required=True),
        Table("people", {"subject_id": pl.Int64, "patient_id": pl.Int64}, required=True),
        Table(
            "events",
            {
                "subject_id": pl.Int64,
                "time": pl.Datetime("us"),
                "code": pl.String,
                "numeric_value": pl.Float32,
                "text_value": pl.String,
            },
            required=True,
        ),
    ),
    frames=_frames,
    events=(
        Events(
            "events",
            pl.col("code"),
            pl.lit(None),
            numeric=pl.col("numeric_value"),
            text=pl.col("text_value"),
            prepare=_static,
            static=True,
            name="static events",
        ),
        Events(
            "events",
            pl.col("code"),
            pl.col("time"),
            numeric=pl.col("numeric_value"),
            text=pl.col("text_value"),
            prepare=_timed,
        ),
    ),
    options={
        "concepts": "whose item ids the codes hold, a key of concepts.yaml, e.g. concepts=mimic",
        "source": "the patient source, e.g. source=bidmc for data made from MIMIC",
        "patient": "the whole-number column of the shards that names the person, where a subject is not one",
    },
    source=lambda options: options.get("source", ""),
    batches=_batches,
    files=_files,
    recognises=_recognises,
)
