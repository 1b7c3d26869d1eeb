"""The files of the PhysioNet/CinC Challenge 2012: `set-a.tar.gz` or a folder `set-a`, and `Outcomes-a.txt` (or b, c).

A record is a small text file `<RecordID>.txt`: a header, then `HH:MM,Parameter,Value` lines, where the clock is the
time elapsed since admission to the ICU. Records are joined and parsed many at a time; only if that finds anything odd
are they looked through line by line, to say where.
"""

import gzip
import io
import math
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, NoReturn

import polars as pl

from sites.errors import InputError
from sites.exports.export import Options

ORIGIN: Final = datetime(2012, 1, 1)  # noqa: DTZ001 - MEDS times have no zone; this one has no date either
"""The moment 00:00 of every record."""

DESCRIPTORS: Final = ("RecordID", "Age", "Gender", "Height", "ICUType", "Weight")
"""What stands at 00:00 of every record; -1 is missing."""

SERIES: Final = (
    *("ALP", "ALT", "AST", "Albumin", "BUN", "Bilirubin", "Cholesterol", "Creatinine", "DiasABP", "FiO2", "GCS"),
    *("Glucose", "HCO3", "HCT", "HR", "K", "Lactate", "MAP", "MechVent", "Mg", "NIDiasABP", "NIMAP", "NISysABP", "Na"),
    *("PaCO2", "PaO2", "Platelets", "RespRate", "SaO2", "SysABP", "Temp", "TroponinI", "TroponinT", "Urine", "WBC"),
    *("Weight", "pH"),
)
"""What is measured over the 48 hours."""

_PARAMETERS: Final = frozenset((*DESCRIPTORS, *SERIES))
_HEADER: Final = b"Time,Parameter,Value"
_RECORDS_AT_ONCE: Final = 1000
_LAST_MINUTE: Final = 48 * 60
_TIME: Final = re.compile(r"[0-9]{2}:[0-5][0-9]")
_ID: Final = re.compile(r"[0-9]{1,18}")
_NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,2})?")


@dataclass(frozen=True)
class ChallengeSet:
    """One set.

    Attributes:
        letter: a, b or c.
        records: The archive or the folder of its records.
        outcomes: Its outcomes file.
    """

    letter: str
    records: Path
    outcomes: Path


@dataclass(frozen=True)
class Member:
    """One record as it is stored: its RecordID, the name to call it by in errors, and its bytes."""

    record_id: int
    name: str
    data: bytes


def find_sets(path: Path) -> tuple[ChallengeSet, ...]:
    """The sets that a folder holds (any letter case); an archive or a folder of one set may be named itself.

    Raises:
        InputError: A set's records are there without its outcomes.
    """
    one = _letter(path)
    home = path.parent if one else path
    if not home.is_dir():
        return ()
    entries = sorted(home.iterdir())
    records: dict[str, Path] = {}
    for entry in [path] if one else entries:
        letter = _letter(entry)
        if letter and (letter not in records or entry.is_file()):  # the archive is the official form
            records[letter] = entry
    found = []
    for letter, entry in sorted(records.items()):
        name = f"outcomes-{letter}.txt"
        beside = [e for e in entries if e.name.lower() == name]
        inside = [e for e in sorted(entry.iterdir()) if e.name.lower() == name] if entry.is_dir() else []
        if not beside and not inside:
            raise InputError(f"{home}: found {entry.name} without Outcomes-{letter}.txt, which says who died; add it")
        found.append(ChallengeSet(letter, entry, (beside or inside)[0]))
    return tuple(found)


def _letter(path: Path) -> str:
    match = re.fullmatch(r"set-([abc])(\.tar\.gz|\.tgz)?", path.name.lower())
    if match is None or (match[2] is None) != path.is_dir():
        return ""
    return match[1]


def chosen_set(path: Path, options: Options) -> ChallengeSet:
    """The set to read: the one that is there, or the one that the option `set` names.

    Raises:
        InputError: There is none, or several and no option, or not the one that is named.
    """
    sets = {one.letter: one for one in find_sets(path)}
    wanted = options.get("set")
    if not sets:
        raise InputError(
            f"{path}: found no set of the Challenge, expected set-a.tar.gz (or a folder set-a) and Outcomes-a.txt, or "
            "those of b or c; give the folder that holds them"
        )
    if wanted is not None and wanted not in sets:
        raise InputError(f"{path}: found set {', '.join(sets)}, expected set {wanted!r}; correct the option set")
    if wanted is None and len(sets) > 1:
        raise InputError(
            f"{path}: found the sets {', '.join(sets)}, expected one; write physionet2012,set={next(iter(sets))} or "
            "another of them"
        )
    return sets[wanted] if wanted is not None else next(iter(sets.values()))


def files(path: Path, options: Options) -> Sequence[Path]:
    """Every file of the chosen set that is read."""
    one = chosen_set(path, options)
    if one.records.is_file():
        return [one.records, one.outcomes]
    return [*_texts(one.records), one.outcomes]


def recognises(path: Path) -> bool:
    """Whether a path holds records of the Challenge."""
    return bool(_letter(path)) or (path.is_dir() and any(_letter(entry) for entry in path.iterdir()))


def read_outcomes(one: ChallengeSet) -> pl.DataFrame:
    """record_id, set and died (In-hospital_death; null where it is -1 or empty). No other outcome is ever read."""
    lines = [
        [field.strip() for field in line.split(",")]
        for line in _text(one.outcomes, one.outcomes.read_bytes()).split("\n")
    ]
    header = lines[0]
    for name in ("RecordID", "In-hospital_death"):
        if name not in header:
            _fail(one.outcomes, 1, name, ",".join(header), f"a header with the column {name}")
    rows: dict[int, bool | None] = {}
    for line, fields in enumerate(lines[1:], start=2):
        if fields == [""]:
            continue
        if len(fields) != len(header):
            _fail(one.outcomes, line, None, ",".join(fields), f"{len(header)} fields")
        row = dict(zip(header, fields, strict=True))
        if not _ID.fullmatch(row["RecordID"]):
            _fail(one.outcomes, line, "RecordID", row["RecordID"], "a whole number")
        if row["In-hospital_death"] not in ("0", "1", "-1", ""):
            _fail(one.outcomes, line, "In-hospital_death", row["In-hospital_death"], "0 or 1")
        if int(row["RecordID"]) in rows:
            _fail(one.outcomes, line, "RecordID", row["RecordID"], "every record once")
        rows[int(row["RecordID"])] = {"0": False, "1": True}.get(row["In-hospital_death"])
    return pl.DataFrame(
        {"record_id": list(rows), "set": one.letter, "died": list(rows.values())},
        schema={"record_id": pl.Int64, "set": pl.String, "died": pl.Boolean},
    )


def read_records(one: ChallengeSet) -> Iterator[pl.DataFrame]:
    """The lines of all records but for RecordID, some records at a time: record_id, time, parameter, value."""
    waiting: list[Member] = []
    for member in _members(one.records):
        waiting.append(member)
        if len(waiting) == _RECORDS_AT_ONCE:
            yield _parse(waiting, one.records)
            waiting = []
    if waiting:
        yield _parse(waiting, one.records)


def _members(records: Path) -> Iterator[Member]:
    """The records in the order of their ids."""
    found: dict[int, Member] = {}
    for name, data in _archived(records) if records.is_file() else ((p.name, p.read_bytes()) for p in _texts(records)):
        stem = name.removesuffix(".txt")
        if not _ID.fullmatch(stem):
            raise InputError(f"{records}: found the file {name}, expected only records named <RecordID>.txt; remove it")
        if int(stem) in found:
            raise InputError(f"{records}: found the record {name} twice, expected it once; remove one")
        found[int(stem)] = Member(int(stem), name, data)
    if not found:
        raise InputError(f"{records}: found no records, expected files named <RecordID>.txt; copy the set again")
    for record_id in sorted(found):
        yield found[record_id]


def _texts(folder: Path) -> list[Path]:
    return [
        entry
        for entry in sorted(folder.iterdir())
        if entry.suffix == ".txt" and not entry.name.startswith(".") and not entry.name.lower().startswith("outcomes")
    ]


def _archived(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each text file. The whole is unpacked in memory (20 MB a set): so no truncation goes unseen."""
    try:
        unpacked = gzip.decompress(archive.read_bytes())
        with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as tar:
            for entry in tar:
                name = Path(entry.name).name
                if entry.isfile() and name.endswith(".txt") and not name.startswith("."):
                    content = tar.extractfile(entry)
                    assert content is not None
                    yield name, content.read()
    except (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError) as error:
        raise InputError(
            f"{archive}: the archive is truncated or damaged ({error}), expected a whole tar.gz; copy it again"
        ) from None


def _parse(members: list[Member], records: Path) -> pl.DataFrame:
    bodies = []
    counts = []
    for member in members:
        if not member.data.startswith(_HEADER + b"\n") or b"\r" in member.data:
            return _parse_lines(members, records)
        body = member.data[len(_HEADER) + 1 :]
        body = body if body.endswith(b"\n") or not body else body + b"\n"
        bodies.append(body)
        counts.append(body.count(b"\n"))
    try:
        lines = pl.read_csv(
            b"".join(bodies),
            has_header=False,
            quote_char=None,
            schema={"clock": pl.String, "parameter": pl.String, "value": pl.Float64},
        )
    except pl.exceptions.PolarsError:
        return _parse_lines(members, records)
    if len(lines) != sum(counts):
        return _parse_lines(members, records)
    ids = pl.DataFrame({"record_id": [m.record_id for m in members], "n": counts}, schema_overrides={"n": pl.Int64})
    lines = lines.with_columns(ids.select(pl.col("record_id").repeat_by("n").explode())["record_id"].alias("record_id"))
    lines = lines.with_columns(minute=_minute(pl.col("clock")))
    is_id = pl.col("parameter") == "RecordID"
    sound = (
        pl.col("minute").is_between(0, _LAST_MINUTE)
        & pl.col("parameter").is_in(list(_PARAMETERS))
        & pl.col("value").is_finite()
        & (~is_id | (pl.col("value") == pl.col("record_id")))
    )
    named = lines.filter(is_id)["record_id"].n_unique() == len(members)
    if not (named and lines.select(sound.fill_null(value=False).all()).item()):
        return _parse_lines(members, records)
    return _finish(lines)


def _minute(clock: pl.Expr) -> pl.Expr:
    """Minutes since admission; null unless the text is HH:MM."""
    right = clock.str.contains(f"^(?:{_TIME.pattern})$")
    hours, minutes = clock.str.slice(0, 2), clock.str.slice(3, 2)
    return pl.when(right).then(hours.cast(pl.Int64, strict=False) * 60 + minutes.cast(pl.Int64, strict=False))


def _finish(lines: pl.DataFrame) -> pl.DataFrame:
    return lines.filter(pl.col("parameter") != "RecordID").select(
        "record_id",
        (pl.lit(ORIGIN, dtype=pl.Datetime("us")) + pl.duration(minutes="minute")).alias("time"),
        "parameter",
        "value",
    )


def _parse_lines(members: list[Member], records: Path) -> pl.DataFrame:
    """The same, line by line, with every error at its place. A line without a parameter says nothing and is skipped."""
    rows: list[tuple[int, int, str, float]] = []
    for member in members:
        where = records / member.name
        lines = [line.strip() for line in _text(where, member.data).split("\n")]
        if lines[0] != _HEADER.decode():
            _fail(where, 1, None, lines[0], f"the header {_HEADER.decode()}")
        found_id = False
        for number, line in enumerate(lines[1:], start=2):
            fields = [field.strip() for field in line.split(",")]
            if len(fields) != 3 and line:
                _fail(where, number, None, line, "three fields: time, parameter, value")
            if not line or not fields[1]:
                continue
            rows.append((member.record_id, *_line(where, number, fields)))
            if fields[1] == "RecordID":
                found_id = True
                if rows[-1][3] != member.record_id:
                    _fail(where, number, "Value", fields[2], f"the RecordID of the file's name, {member.record_id}")
        if not found_id:
            _fail(where, len(lines), None, "no line RecordID", "one at 00:00: the file may be cut off")
    schema = {"record_id": pl.Int64, "minute": pl.Int64, "parameter": pl.String, "value": pl.Float64}
    return _finish(pl.DataFrame(rows, schema=schema, orient="row"))


def _line(where: Path, number: int, fields: list[str]) -> tuple[int, str, float]:
    clock, parameter, text = fields
    minute = int(clock[:2]) * 60 + int(clock[3:]) if _TIME.fullmatch(clock) else -1
    if not 0 <= minute <= _LAST_MINUTE:
        _fail(where, number, "Time", clock, "the time elapsed, from 00:00 to 48:00")
    if parameter not in _PARAMETERS:
        _fail(where, number, "Parameter", parameter, "a parameter of the Challenge such as HR")
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        _fail(where, number, "Value", text, "a number")
    return minute, parameter, float(text)


def _text(where: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise InputError(
            f"{where}: found bytes that are not text, expected comma-separated text; copy it again"
        ) from None


def _fail(where: Path, line: int, column: str | None, found: str, expected: str) -> NoReturn:
    place = f"{where}, line {line}" + (f", column {column}" if column else "")
    raise InputError(f"{place}: found {found[:80]!r}, expected {expected}; correct the line or copy the file again")
