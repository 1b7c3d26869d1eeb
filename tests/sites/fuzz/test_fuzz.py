"""Damaged exports of every kind: refused in one sentence or read whole; never a traceback, never a silent wrong count.

Each seed damages one file of one small export in one way. `FEDWARD_FUZZ=5000` runs so many seeds instead of a few
hundred; `FEDWARD_FUZZ_SEED=17` runs that one alone.
"""

import csv
import gzip
import io
import json
import os
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Protocol

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sites.check import check
from sites.dataset import Manifest
from sites.errors import InputError
from sites.exports.registry import load
from sites.ingest import ingest
from sites.spec import SiteSpec
from sites.tables import Reader

SEEDS = int(os.environ.get("FEDWARD_FUZZ", "300"))
ONE_SEED = os.environ.get("FEDWARD_FUZZ_SEED")
BATCHES = 10
TEXT_KINDS = ("mimic3", "mimic4", "eicu", "omop")
"""Those whose tables are CSV or Parquet."""


class SmallExport(Protocol):
    """As `conftest.py` makes it."""

    name: str
    kind: str
    path: Path


class Effect(Enum):
    """What a mutation may lead to."""

    NONE = auto()
    """The same data, to the byte."""
    NONE_OR_REFUSED = auto()
    REFUSED = auto()
    FEWER_ROWS = auto()
    """If it is read: no event from nowhere, and every one that is gone is accounted for."""
    LOST_IDS = auto()
    """If it is read: every event that is gone is counted in a warning."""
    ANY = auto()
    """If it is read: as an independent CSV reader reads it."""


class NotApplicable(Exception):
    """The file that was drawn cannot be damaged like that."""


@dataclass(frozen=True)
class Target:
    """The file to be damaged.

    Attributes:
        path: The file.
        columns: Column to declared type; empty for a file that is no table.
        keys: As `Table.keys`.
        rng: The only source of chance.
    """

    path: Path
    columns: Mapping[str, object]
    keys: tuple[str, ...]
    rng: random.Random

    def records(self) -> list[list[str]]:
        with self.path.open(newline="", encoding="utf-8") as stream:
            return list(csv.reader(stream))

    def write(self, records: list[list[str]]) -> None:
        with self.path.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream, lineterminator="\n").writerows(records)

    def lines(self) -> list[bytes]:
        return self.path.read_bytes().splitlines(keepends=True)

    def edit(self, change: Callable[[bytes], bytes]) -> None:
        self.path.write_bytes(change(self.path.read_bytes()))

    def rename(self, name: str) -> Path:
        place = self.path.with_name(name)
        self.path.rename(place)
        return place

    def row(self, records: list[list[str]]) -> int:
        if len(records) < 2:
            raise NotApplicable
        return self.rng.randrange(1, len(records))

    def column(self, records: list[list[str]], *types: object) -> int:
        """The place of a declared column of one of these types (any type, if none is given)."""
        places = [
            i
            for i, name in enumerate(records[0])
            if name.lower() in self.columns and (not types or self.columns[name.lower()] in types)
        ]
        if not places:
            raise NotApplicable
        return self.rng.choice(places)

    def arrow(self) -> pa.Table:
        """As a Parquet file of text would hold it, or as it stands if it is one."""
        if self.path.suffix == ".parquet":
            return pq.read_table(self.path)
        records = self.records()
        return pa.table({n: pa.array(c, pa.string()) for n, *c in zip(*records, strict=True)}) if records[1:] else None

    def to_parquet(self, table: pa.Table | None) -> None:
        if table is None:
            raise NotApplicable
        self.path.unlink()
        pq.write_table(table, self.path.with_suffix(".parquet"))


Mutate = Callable[[Target], None]
MUTATIONS: dict[str, tuple[Effect, tuple[str, ...], Mutate]] = {}


def mutation(effect: Effect, *kinds: str) -> Callable[[Mutate], Mutate]:
    """Register a mutation for these kinds of export; for those of CSV tables, if none is named."""

    def register(mutate: Mutate) -> Mutate:
        MUTATIONS[mutate.__name__] = (effect, kinds or TEXT_KINDS, mutate)
        return mutate

    return register


LINES = (*TEXT_KINDS, "physionet2012", "uci_heart")
EVERY = (*LINES, "meds")


# --- harmless -----------------------------------------------------------------------------------------------------


@mutation(Effect.NONE)
def carriage_returns(t: Target) -> None:
    t.edit(lambda data: data.replace(b"\n", b"\r\n"))


@mutation(Effect.NONE)
def byte_order_mark(t: Target) -> None:
    t.edit(lambda data: b"\xef\xbb\xbf" + data)


@mutation(Effect.NONE)
def no_newline_at_the_end(t: Target) -> None:
    t.edit(lambda data: data.rstrip(b"\n"))


@mutation(Effect.NONE)
def empty_lines_at_the_end(t: Target) -> None:
    t.edit(lambda data: data + b"\n\r\n")


@mutation(Effect.NONE)
def columns_in_another_order(t: Target) -> None:
    records = t.records()
    order = list(range(len(records[0])))
    t.rng.shuffle(order)
    t.write([[record[i] for i in order] for record in records])


@mutation(Effect.NONE)
def another_column(t: Target) -> None:
    t.write([[*record, "note" if i == 0 else f"x, {i}"] for i, record in enumerate(t.records())])


@mutation(Effect.NONE)
def header_in_another_case(t: Target) -> None:
    head, *rest = t.records()
    t.write([[name.swapcase() for name in head], *rest])


@mutation(Effect.NONE)
def name_in_another_case(t: Target) -> None:
    t.rename(t.path.name.swapcase())


@mutation(Effect.NONE)
def everything_quoted(t: Target) -> None:
    records = t.records()
    with t.path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(records)


@mutation(Effect.NONE)
def compressed(t: Target) -> None:
    whole, cut = t.path.read_bytes(), t.rng.randrange(t.path.stat().st_size)
    t.rename(t.path.name + ".gz").write_bytes(gzip.compress(whole[:cut]) + gzip.compress(whole[cut:]))


@mutation(Effect.NONE)
def parquet_of_text(t: Target) -> None:
    t.to_parquet(t.arrow())


@mutation(Effect.NONE)
def rows_in_another_order(t: Target) -> None:
    head, *rest = t.records()
    t.rng.shuffle(rest)
    t.write([head, *rest])


@mutation(Effect.NONE_OR_REFUSED, *LINES)
def lines_twice(t: Target) -> None:
    if t.path.suffix == ".data":
        raise NotApplicable  # two patients may be alike
    lines = t.lines()
    if len(lines) < 2:
        raise NotApplicable
    for line in t.rng.sample(lines[1:], min(2, len(lines) - 1)):
        lines.insert(t.rng.randrange(1, len(lines)), line)
    t.path.write_bytes(b"".join(lines))


# --- bytes and lines ----------------------------------------------------------------------------------------------


@mutation(Effect.ANY, *EVERY)
def truncated(t: Target) -> None:
    t.edit(lambda data: data[: t.rng.randrange(len(data))])


@mutation(Effect.ANY, *EVERY)
def bytes_changed(t: Target) -> None:
    data = bytearray(t.path.read_bytes())
    for _ in range(t.rng.choice((1, 1, 3, 8))):
        data[t.rng.randrange(len(data))] = t.rng.choice((*b'0129-:."\n\r, ;', 0, 0xFF, t.rng.randrange(256)))
    t.path.write_bytes(data)


@mutation(Effect.ANY, *EVERY)
def bytes_cut_out(t: Target) -> None:
    start = t.rng.randrange(t.path.stat().st_size)
    t.edit(lambda data: data[:start] + data[start + t.rng.choice((1, 2, 7, 64)) :])


@mutation(Effect.ANY, *LINES)
def a_stray_byte(t: Target) -> None:
    at = t.rng.randrange(t.path.stat().st_size)
    stray = t.rng.choice((b"\0", b"\xe9", b'"', b"\r", b"\n", b",", b"'", b"\x1f\x8b", "\u2028".encode(), b"\\"))
    t.edit(lambda data: data[:at] + stray + data[at:])


@mutation(Effect.REFUSED)
def a_zero_byte_in_a_row(t: Target) -> None:
    lines = t.lines()
    row = t.row([[]] * len(lines))
    lines[row] = b"\0" + lines[row]
    t.path.write_bytes(b"".join(lines))


@mutation(Effect.REFUSED)
def truncated_gzip(t: Target) -> None:
    whole = gzip.compress(t.path.read_bytes())
    t.rename(t.path.name + ".gz").write_bytes(whole[: t.rng.randrange(1, len(whole))])


@mutation(Effect.ANY)
def damaged_gzip(t: Target) -> None:
    whole = bytearray(gzip.compress(t.path.read_bytes()))
    whole[t.rng.randrange(len(whole))] ^= 1 << t.rng.randrange(8)
    t.rename(t.path.name + ".gz").write_bytes(whole)


@mutation(Effect.REFUSED)
def not_compressed_but_named_so(t: Target) -> None:
    t.rename(t.path.name + ".gz")


@mutation(Effect.FEWER_ROWS, *LINES)
def lines_gone(t: Target) -> None:
    lines = t.lines()
    for _ in range(t.rng.choice((1, 1, 3))):
        if len(lines) < 3:
            raise NotApplicable
        del lines[t.rng.randrange(1, len(lines))]
    t.path.write_bytes(b"".join(lines))


@mutation(Effect.ANY, *LINES)
def lines_swapped(t: Target) -> None:
    lines = t.lines()
    a, b = t.rng.randrange(len(lines)), t.rng.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]
    t.path.write_bytes(b"".join(lines))


@mutation(Effect.REFUSED)
def a_ragged_row(t: Target) -> None:
    lines = t.lines()
    row = t.row([[]] * len(lines))
    lines[row] = t.rng.choice((lines[row].rstrip(b"\n") + b",\n", b"1\n", b"\n" + lines[row]))
    if len(t.records()[0]) < 2:
        raise NotApplicable
    t.path.write_bytes(b"".join(lines))


@mutation(Effect.REFUSED)
def a_quote_left_open(t: Target) -> None:
    records = t.records()
    if len(records) < 2 or any('"' in field for record in records for field in record):
        raise NotApplicable
    row = t.row(records)
    records[row][0] = "\x1e"
    t.write(records)
    t.edit(lambda data: data.replace(b"\x1e", b'"'))


@mutation(Effect.REFUSED)
def another_delimiter(t: Target) -> None:
    records = t.records()
    if len(records[0]) < 2:
        raise NotApplicable
    with t.path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter=t.rng.choice(";\t|^ :"), lineterminator="\n").writerows(records)


@mutation(Effect.REFUSED, *EVERY)
def nothing_in_it(t: Target) -> None:
    t.path.write_bytes(b"")


@mutation(Effect.FEWER_ROWS, *TEXT_KINDS)
def header_only(t: Target) -> None:
    t.path.write_bytes(t.lines()[0])


# --- columns and values -------------------------------------------------------------------------------------------


@mutation(Effect.ANY)
def a_column_gone(t: Target) -> None:
    records = t.records()
    column = t.column(records)
    t.write([[field for i, field in enumerate(record) if i != column] for record in records])


@mutation(Effect.ANY)
def a_column_renamed(t: Target) -> None:
    records = t.records()
    column = t.column(records)
    records[0][column] = t.rng.choice((records[0][column][:-1], "", "value", records[0][column] + "_id"))
    t.write(records)


@mutation(Effect.REFUSED)
def a_column_twice(t: Target) -> None:
    records = t.records()
    column = t.column(records)
    t.write([[*record, record[column]] for record in records])


BAD_NUMBERS = ("heavy", "1e400", "-1e999", "nan", "inf", "1,5", "0x10", "1_0", "--5", "NULL", "12 3", "\u0663")
BAD_WHOLE = ("9223372036854775808", "123456789012345678901234567890", "1.5", "1e3", "-9223372036854775809")
BAD_TIMES = (
    *("2150-02-30", "2150-13-01", "2150-01-01 25:61:00", "01/02/2150", "soon", "0", "2150-01-01 24:00:00"),
    *("2150-01-01 10:00:00+02:00", "2150-01-01 10:00:00Z", "0000-00-00", "21500101", "2150-01-01 10:60:00", "NaT"),
    "2150-01-01 10:00:60",
)


def _replace(t: Target, value: str, *types: object) -> None:
    records = t.records()
    row, column = t.row(records), t.column(records, *types)
    records[row][column] = value
    t.write(records)


@mutation(Effect.REFUSED)
def text_in_a_number_column(t: Target) -> None:
    _replace(t, t.rng.choice(BAD_NUMBERS), pl.Float64, pl.Int64)


@mutation(Effect.REFUSED)
def too_much_for_a_whole_number(t: Target) -> None:
    _replace(t, t.rng.choice(BAD_WHOLE), pl.Int64)


@mutation(Effect.REFUSED)
def an_impossible_time(t: Target) -> None:
    _replace(t, t.rng.choice(BAD_TIMES), pl.Date, pl.Datetime("us"))


@mutation(Effect.ANY)
def an_unlikely_value(t: Target) -> None:
    times = ("0001-01-01", "9999-12-31", "1677-09-21", "2262-04-12", "1970-01-01", "2150-01-01")
    numbers = ("-1", "0", "-0", "1e38", "-1e300", "9223372036854775807", "-9223372036854775808", "1e-320", "300", "4e4")
    try:
        _replace(t, t.rng.choice(times), pl.Date, pl.Datetime("us"))
    except NotApplicable:
        _replace(t, t.rng.choice(numbers), pl.Float64, pl.Int64)


@mutation(Effect.ANY)
def an_odd_number(t: Target) -> None:
    whole = ("-1", "0", "9223372036854775807", "-9223372036854775808", "2147483648", "99999")
    _replace(t, t.rng.choice((*whole, "1e38", "-1e300", "1e-320")), t.rng.choice((pl.Float64, pl.Int64)))


@mutation(Effect.ANY)
def odd_text(t: Target) -> None:
    odd = ("", " ", "NULL", "NA", "//", "a//b", "\u00e9" * 300, 'say "hi"', "a\nb", "-", "0", "\u202e", "[red]x[/red]")
    _replace(t, t.rng.choice(odd), pl.String)


@mutation(Effect.ANY)
def an_empty_field(t: Target) -> None:
    _replace(t, "")


@mutation(Effect.LOST_IDS)
def an_id_of_nobody(t: Target) -> None:
    records = t.records()
    ids = [i for i, name in enumerate(records[0]) if name.lower() in ("subject_id", "patientunitstayid", "person_id")]
    if not ids:
        raise NotApplicable
    for _ in range(2):
        records[t.row(records)][ids[0]] = str(t.rng.randrange(2**62, 2**63))
    t.write(records)


@mutation(Effect.REFUSED)
def a_stay_twice(t: Target) -> None:
    records = t.records()
    if not t.keys:
        raise NotApplicable
    again = list(records[t.row(records)])
    other = t.column(records, pl.String)
    again[other] = "other"
    t.write([*records, again])


# --- files --------------------------------------------------------------------------------------------------------


@mutation(Effect.ANY, *EVERY)
def a_file_gone(t: Target) -> None:
    t.path.unlink()


@mutation(Effect.ANY, *EVERY)
def a_folder_in_its_place(t: Target) -> None:
    t.path.unlink()
    t.path.mkdir()


@mutation(Effect.REFUSED, *EVERY)
def a_link_to_nothing(t: Target) -> None:
    t.path.unlink()
    t.path.symlink_to(t.path.with_name("nowhere"))


@mutation(Effect.REFUSED)
def a_table_twice(t: Target) -> None:
    t.path.with_name(t.path.name + ".gz").write_bytes(gzip.compress(t.path.read_bytes()))


@mutation(Effect.REFUSED, *EVERY)
def no_permission(t: Target) -> None:
    if os.geteuid() == 0:
        raise NotApplicable
    t.path.chmod(0)


# --- Parquet ------------------------------------------------------------------------------------------------------

PARQUET = (*TEXT_KINDS, "meds")


@mutation(Effect.ANY, *PARQUET)
def parquet_of_another_type(t: Target) -> None:
    table = t.arrow()
    if table is None:
        raise NotApplicable
    n = table.num_rows
    odd: tuple[pa.Array, ...] = (
        pa.array([True] * n),
        pa.array([[1]] * n),
        pa.array([b"x"] * n),
        pa.array([5] * n, pa.duration("us")),
        pa.array([2**63] * n, pa.uint64()),
        pa.array([1.5] * n),
        pa.array([{"a": 1}] * n),
        pa.nulls(n),
        pa.array([0] * n, pa.timestamp("us", "UTC")),
        pa.array([2**62] * n, pa.timestamp("s")),
        pa.array([2**62] * n, pa.timestamp("ms")),
        pa.array(["x"] * n).dictionary_encode(),
        pa.array([1] * n, pa.decimal128(9, 2)),
        pa.array([1] * n, pa.time64("us")),
        pa.array([7] * n, pa.int8()),
        pa.array([float("nan")] * n),
    )
    column = t.rng.randrange(table.num_columns)
    t.to_parquet(table.set_column(column, table.column_names[column], t.rng.choice(odd)))


@mutation(Effect.ANY, *PARQUET)
def parquet_without_a_column(t: Target) -> None:
    table = t.arrow()
    if table is None:
        raise NotApplicable
    t.to_parquet(table.drop_columns([t.rng.choice(table.column_names)]))


@mutation(Effect.ANY, *PARQUET)
def parquet_damaged(t: Target) -> None:
    t.to_parquet(t.arrow())
    path = t.path.with_suffix(".parquet")
    data = bytearray(path.read_bytes())
    start = t.rng.choice((0, len(data) // 2, len(data) - 40))
    for _ in range(t.rng.choice((1, 4, 16))):
        data[t.rng.randrange(start, len(data))] = t.rng.randrange(256)
    path.write_bytes(data)


@mutation(Effect.REFUSED, *PARQUET)
def parquet_truncated(t: Target) -> None:
    t.to_parquet(t.arrow())
    path = t.path.with_suffix(".parquet")
    path.write_bytes(path.read_bytes()[: t.rng.randrange(path.stat().st_size)])


@mutation(Effect.ANY, "meds")
def rows_gone_from_a_shard_or_moved(t: Target) -> None:
    table = t.arrow()
    order = list(range(table.num_rows))
    a, b = t.rng.randrange(len(order)), t.rng.randrange(len(order))
    order[a], order[b] = order[b], order[a]
    t.to_parquet(table.take(order[: t.rng.choice((len(order), len(order) - 3))]))


# --- the property -------------------------------------------------------------------------------------------------


def _warned(manifest: Manifest) -> Counter[str]:
    """The number that each warning begins with or names first, by the rest of its words."""
    found: Counter[str] = Counter()
    for warning in manifest.warnings:
        number = re.search(r"(?<![\w//])\d+", warning)
        found[re.sub(r"\d+", "N", warning)] += int(number[0]) if number else 0
    return found


@dataclass(frozen=True)
class Read:
    """What an ingest gave; the dataset itself is deleted, so that the next ingest of equal files reads them again."""

    manifest: Manifest
    events: Counter[tuple[object, ...]]


class Fuzz:
    """One home, and what each export gives undamaged."""

    def __init__(self, exports: Mapping[str, SmallExport], work: Path) -> None:
        self.exports = exports
        self.work = work
        self.home = work / "home"
        self.whole = {name: self.read(export.kind, export.path) for name, export in exports.items()}

    def stands(self) -> set[str]:
        """What lies among the datasets."""
        return {path.name for path in (self.home / "datasets").iterdir() if path.suffix != ".lock"}

    def read(self, kind: str, path: Path) -> Read:
        dataset = ingest(SiteSpec("fuzz", kind, path), self.home, jobs=1)
        found = Read(dataset.manifest, Counter(dataset.scan().collect().rows()))
        shutil.rmtree(dataset.root)
        return found

    def files(self, export: SmallExport, folder: Path) -> dict[str, Path]:
        return Reader(folder, load(export.kind)).files()

    def run(self, seed: int) -> str:
        """Damage, read, judge; return which mutation it was and what became of it."""
        rng = random.Random(seed)
        export = self.exports[rng.choice(sorted(self.exports))]
        folder = self.work / "damaged"
        while True:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(export.path, folder)
            name = rng.choice(sorted(name for name, (_, kinds, _) in MUTATIONS.items() if export.kind in kinds))
            table, path = rng.choice(sorted(self.files(export, folder).items()))
            if name.startswith(("parquet", "rows_gone")) and path.suffix == ".json":
                continue
            declared = next((t for t in load(export.kind).tables if t.name == table), None)
            columns = {} if declared is None else declared.columns
            target = Target(path, columns, () if declared is None else declared.keys, rng)
            effect, _, mutate = MUTATIONS[name]
            try:
                mutate(target)
            except NotApplicable:
                continue
            break
        case = f"seed {seed}: {export.name}, {path.name}, {name}"
        outcome = self._judge(export, folder, path, effect, rng, case)
        return f"{name}: {outcome}"

    def _judge(
        self, export: SmallExport, folder: Path, path: Path, effect: Effect, rng: random.Random, case: str
    ) -> str:
        try:
            if rng.random() < 0.1:
                check(SiteSpec("fuzz", export.kind, folder), self.home)
            dataset = self.read(export.kind, folder)
        except InputError as error:
            self._check_sentence(str(error), path, folder, case)
            assert not self.stands(), f"{case}: left {self.stands()}"
            assert effect is not Effect.NONE, f"{case}: {error}"
            return "refused"
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            raise AssertionError(f"{case}: {type(error).__name__} {error}") from error
        assert effect is not Effect.REFUSED, case
        if effect in (Effect.NONE, Effect.NONE_OR_REFUSED):
            same = dataset.manifest.content_sha256 == self.whole[export.name].manifest.content_sha256
            assert same, f"{case}: {self._difference(export, dataset)}"
        elif effect is Effect.FEWER_ROWS:
            self._check_fewer(export, dataset, path, folder, case)
        elif effect is Effect.LOST_IDS:
            self._check_counted(export, dataset, path, case)
        else:
            self._check_twin(export, dataset, path, folder, case)
        return "read"

    def _check_sentence(self, sentence: str, path: Path, folder: Path, case: str) -> None:
        case = f"{case}: {sentence}"
        assert "\n" not in sentence and "\r" not in sentence, case
        assert 40 < len(sentence) < 800, case
        assert str(folder) in sentence or path.stem.lower() in sentence.lower(), case
        assert not re.search(r"Traceback|\w+Error\(|<class|0x[0-9a-f]{6,}", sentence), case

    def _difference(self, export: SmallExport, dataset: Read) -> str:
        before, after = self.whole[export.name].events, dataset.events
        return f"gone {list(before - after)[:3]}, new {list(after - before)[:3]}; {dataset.manifest.warnings}"

    def _accounted(self, export: SmallExport, dataset: Read, each: int) -> int:
        """How many events the new warnings account for; one that is not counted in rows, for so many each."""
        tables = {table.name for table in load(export.kind).tables}
        rules = {rule.name or rule.table for rule in load(export.kind).events if rule.table in tables}
        total = 0
        for words, number in (_warned(dataset.manifest) - _warned(self.whole[export.name].manifest)).items():
            of_events = words.partition(":")[0] in rules and "rows left out" in words
            total += number * (1 if of_events or "events were left out" in words else each)
        return total

    def _rules(self, export: SmallExport, path: Path) -> int:
        """At most how many events a row of this file gives by itself."""
        declared = load(export.kind)
        if export.kind == "uci_heart":
            return 21
        stem = path.name.partition(".")[0].lower()
        tables = {table.name for table in declared.tables}
        return max(sum(r.table == stem for r in declared.events), sum(r.table not in tables for r in declared.events))

    def _check_fewer(self, export: SmallExport, dataset: Read, path: Path, folder: Path, case: str) -> None:
        original = export.path / path.relative_to(folder)
        gone = sum((Counter(original.read_bytes().splitlines()) - Counter(path.read_bytes().splitlines())).values())
        rules = self._rules(export, path)
        lost = (self.whole[export.name].events - dataset.events).total()
        if export.kind == "uci_heart":  # the line is the subject: whoever stands behind it is someone else now
            lost = self.whole[export.name].manifest.n_events - dataset.manifest.n_events
        allowed = gone * rules + self._accounted(export, dataset, rules)
        assert lost <= allowed, f"{case}: lost {lost}, accounted for {allowed}; {self._difference(export, dataset)}"

    def _check_counted(self, export: SmallExport, dataset: Read, path: Path, case: str) -> None:
        rules = self._rules(export, path)
        lost = self.whole[export.name].manifest.n_events - dataset.manifest.n_events
        allowed = self._accounted(export, dataset, rules)
        assert lost <= allowed, f"{case}: lost {lost}, accounted for {allowed}; {self._difference(export, dataset)}"

    def _check_twin(self, export: SmallExport, dataset: Read, path: Path, folder: Path, case: str) -> None:
        """What Python's own CSV reader finds in the file, stored as Parquet, gives the same data."""
        if export.kind == "uci_heart":
            texts = [p.read_text() for p in self.files(export, folder).values()]
            assert dataset.manifest.n_patients == sum(bool(line.strip()) for t in texts for line in t.split("\n")), case
        found = next((p for p in (path, path.with_name(path.name + ".gz")) if p.is_file()), None)
        if export.kind not in TEXT_KINDS or found is None:
            return
        data = found.read_bytes()
        text = (gzip.decompress(data) if found.suffix == ".gz" else data).decode("utf-8-sig").rstrip("\r\n")
        head, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        columns = {name: [row[i] for row in rows] for i, name in enumerate(head)}
        if len(columns) < len(head) or not rows:
            return
        found.unlink()
        pq.write_table(
            pa.table({n: pa.array(c, pa.string()) for n, c in columns.items()}), path.with_suffix(".parquet")
        )
        twin = self.read(export.kind, folder)
        assert twin.manifest.content_sha256 == dataset.manifest.content_sha256, case
        assert twin.manifest.warnings == dataset.manifest.warnings, case


@pytest.fixture(scope="module")
def fuzz(small_exports: dict[str, SmallExport], tmp_path_factory: pytest.TempPathFactory) -> Fuzz:
    return Fuzz(small_exports, tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("batch", range(BATCHES))
def test_damaged_exports_are_refused_in_a_sentence_or_read_whole(fuzz: Fuzz, batch: int) -> None:
    seeds = [int(ONE_SEED)] if ONE_SEED else range(batch, SEEDS, BATCHES)
    outcomes: Counter[str] = Counter()
    failures = []
    for seed in seeds:
        try:
            outcomes[fuzz.run(seed)] += 1
        except AssertionError as error:
            failures.append(str(error).partition("\nassert")[0])
    if told := os.environ.get("FEDWARD_FUZZ_TOLD"):
        Path(f"{told}.{batch}.json").write_text(json.dumps({"outcomes": outcomes, "failures": failures}, indent=1))
    assert not failures, "\n".join(failures[:20])
    assert len({outcome.rpartition(": ")[2] for outcome in outcomes}) == 2 or len(seeds) < 20
