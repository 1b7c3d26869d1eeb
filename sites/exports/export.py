"""How an export module says what its tables mean.

An export module declares; it does not read. `sites.tables` reads and types a table, `sites.ingest` applies the
declaration batch by batch and writes MEDS. Adding an export is adding one file with a module-level `EXPORT`.

Time is honest: `Events.time` is when a fact became known to those who treat the patient, not when it came to be. A
result is known when it was stored, a discharge diagnosis at discharge. Nothing else in the project repairs this later.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import polars as pl

Frames = Mapping[str, pl.DataFrame]
"""The export's small tables after cleaning (patients, stays, ...), by name: what large tables are joined with."""

DTypes = Mapping[str, type[pl.DataType] | pl.DataType]

Options = Mapping[str, str]
"""What a user wrote after the kind (`mimic3,carevue`); flags map to ''."""

BIDMC = "bidmc"
"""The patient source of MIMIC-II (PhysioNet 2012), MIMIC-III and MIMIC-IV, in whatever format."""

LAB_TURNAROUND = pl.duration(hours=2)
"""The stated rule for a laboratory result without `storetime`: known two hours after the blood was drawn."""


@dataclass(frozen=True)
class Table:
    """One table of an export.

    Attributes:
        name: The official name in lower case and without ending, e.g. `chartevents`.
        columns: The columns that are read and their types; names in lower case. `pl.Datetime("us")` and `pl.Date` are
            parsed from ISO text; `pl.String` keeps leading zeros; ids are `pl.Int64`, never through float.
        optional: Those of `columns` that an export may lack; they read as null.
        folder: Where the official layout nests the table (`hosp`, `icu`); a flat layout is read too.
        required: Absent, it is an error that names the file; otherwise a warning that names what is lost.
        loses: What is lost without it, for the warning: "vital signs and bedside charting".
        keys: Columns that together identify a row; a second row with the same keys is an error (empty: no check).
    """

    name: str
    columns: DTypes
    optional: frozenset[str] = frozenset()
    folder: str = ""
    required: bool = False
    loses: str = ""
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Events:
    """One kind of event, made from one table.

    Rows pass through `prepare` (filters, joins with the small frames) and then become one event each. A row whose code
    or subject is null makes no event. `time` may be null only where `static` is set.

    Attributes:
        table: The `Table.name` whose rows are the input; or else the name of a small frame, whose rows they are.
        code: The MEDS code, as a String expression. `sites.exports.export.code` joins parts with `//`.
        time: When it was known, as a Datetime("us") expression.
        numeric: Its number, or None.
        text: Its text, or None.
        prepare: Rows to rows, given the small frames; must add `subject_id` (Int64) where the table has none. Must
            work row by row or by join: it sees one batch at a time, never the whole table.
        static: The event has no time (MEDS: null time, sorted first).
        once: Equal events of different rows are one event (a specimen is listed once for each test of it). Otherwise
            only the events of exact duplicate rows are one: 60 ml at ten and 60 ml at eleven are two outputs.
        name: For reports; defaults to the table's name.
    """

    table: str
    code: pl.Expr
    time: pl.Expr
    numeric: pl.Expr | None = None
    text: pl.Expr | None = None
    prepare: Callable[[pl.LazyFrame, Frames], pl.LazyFrame] | None = None
    static: bool = False
    once: bool = False
    name: str = ""


class Tables(Protocol):
    """What `Export.frames` reads from: the whole of a small table, typed as declared."""

    def read(self, name: str) -> pl.DataFrame:
        """Return a table with its declared columns, or an empty one with these columns if it is absent."""
        ...

    def warn(self, sentence: str) -> None:
        """Add a warning to the report of this ingest, e.g. a count of what was excluded and why."""
        ...

    @property
    def options(self) -> Mapping[str, str]:
        """The options of the site that are not of general use (`carevue`), as given; flags map to ''."""
        ...


@dataclass(frozen=True)
class Export:
    """What one kind of hospital export means.

    Attributes:
        kind: What a user writes: `mimic4`.
        title: For people: "MIMIC-IV v2.2 and v3.x".
        tables: Every table that is read.
        frames: The small tables, cleaned. Must hold `subjects`: subject_id Int64 (unique), patient_id Int64 (the
            person: the unit of splits, privacy and bootstrap; equal to subject_id where a subject is a person), and one
            String column for each of `groups`.
            Patient-level group columns are those of the patient's first stay.
        events: Every kind of event.
        groups: What `by=` can split this export by, e.g. ("hospital", "region"); columns of `frames["subjects"]`.
        options: Other options that the kind understands, with what each does.
        source: The patient source: exports with the same source hold overlapping patients and refuse to stand in one
            federation. A function of the options, since `mimic3,carevue` has a source of its own; "" = this data alone.
        part: A declared disjoint part of the source (PhysioNet's set a, b, c), or "" for the whole. A function of the
            options and the frames, since a folder that holds set a alone needs no option to say so.
        concepts: The key of this export's item ids in concepts.yaml (`mimic`, `eicu`, `omop`, `physionet2012`).
        batches: For exports that are not tables (text files in a tar.gz): yields the typed rows of a declared table,
            given the path, the table's name and the options. None: the tables are CSV, CSV.gz or Parquet.
        files: With `batches`, which files it reads, given the path and the options: they are what is hashed and what
            `bench site check` prints. Raises InputError where the export is not what it should be.
        recognises: With `batches`, whether a path looks like this kind, so that a user who named another is told.

    `frames` may also hold `declared` (what String, value String, n Int64): choices that the module made for this very
    data (which visit concepts are admissions, which units are ICU), printed by `bench site check`; and `source`, one
    row that the data says of itself: `source`, the patient source where `Export.source` is "" (OMOP's `cdm_source`);
    `concepts`, its key in concepts.yaml; `data_kind`, "simulated" for patients whom a generator made.
    """

    kind: str
    title: str
    tables: tuple[Table, ...]
    frames: Callable[[Tables], dict[str, pl.DataFrame]]
    events: tuple[Events, ...]
    groups: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    source: Callable[[Options], str] = lambda _options: ""
    part: Callable[[Options, Frames], str] = lambda _options, _frames: ""
    concepts: str = ""
    batches: Callable[[Path, str, Options], Iterator[pl.DataFrame]] | None = None
    files: Callable[[Path, Options], Sequence[Path]] | None = None
    recognises: Callable[[Path], bool] | None = None


def code(prefix: str, *parts: pl.Expr | str) -> pl.Expr:
    """Join a MEDS code with `//`; a null part reads UNK, as in the published MIMIC-IV demo MEDS.

    A string names a column.

    >>> df = pl.DataFrame({"itemid": [220045, 51087], "valueuom": ["bpm", None]})
    >>> df.select(c=code("LAB", "itemid", "valueuom"))["c"].to_list()
    ['LAB//220045//bpm', 'LAB//51087//UNK']
    """
    columns = [pl.col(p) if isinstance(p, str) else p for p in parts]
    return pl.concat_str([pl.lit(prefix), *(c.cast(pl.String).fill_null("UNK") for c in columns)], separator="//")


def known(*times: str) -> pl.Expr:
    """When a fact was known: the first of these times that is present (`storetime`, else `charttime`)."""
    return pl.coalesce([pl.col(t) for t in times])


def end_of_day(date: str) -> pl.Expr:
    """A date without time counts as the end of that day: nobody can say that it was known earlier."""
    return pl.col(date).cast(pl.Date).cast(pl.Datetime("us")) + pl.duration(hours=23, minutes=59, seconds=59)


def single_column(frames: Frames, name: str, columns: Sequence[str]) -> pl.LazyFrame:
    """The named columns of one small frame, lazily, for a join in `Events.prepare`."""
    return frames[name].lazy().select(columns)
