"""Events on their way to a MEDS dataset: spilled by subject, then sorted and written shard by shard.

Events come in any order and do not fit in memory. While the tables are read they are spilled to disk in buckets
(contiguous ranges of subjects, so that a range can be read back without the rest); then each shard is read, sorted and
written. The order within a shard is (subject, time with null first, rule, code, number, text): total, so that the
result depends on neither the number of cores nor the size of the batches. Of the events of exact duplicate rows of a
table one stays; equal events of different rows (60 ml at ten, 60 ml at eleven, both stored at noon) all stay.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

SHARD_EVENTS = 1_000_000
_FLUSH_EVENTS = 3_000_000
_SORT = ("position", "time", "rule", "code", "numeric_value", "text_value", "row")
_SCHEMA = pa.schema(
    [
        ("subject_id", pa.int64()),
        ("time", pa.timestamp("us")),
        ("code", pa.string()),
        ("numeric_value", pa.float32()),
        ("text_value", pa.large_string()),
    ]
)


@dataclass(frozen=True)
class Piece:
    """The events of one batch.

    Attributes:
        events: position UInt32 (of the subject among the sorted subjects), time, rule UInt16, code UInt32 (index into
            `codes`), numeric_value Float32, text_value String, row UInt64 (a hash of the row it was made from).
        codes: The codes of this batch.
        unknown_subject: By rule: rows left out whose subject is not known.
        null_time: By rule: rows left out that have no time.
    """

    events: pl.DataFrame
    codes: list[str]
    unknown_subject: Mapping[str, int]
    null_time: Mapping[str, int]


@dataclass
class Spill:
    """The events of one table, on disk in buckets; written once, then read many times.

    Attributes:
        folder: Where its files lie.
        n_subjects: How many subjects there are.
        n_buckets: Into how many ranges of subjects they are divided.
        counts: int64 [n_subjects], the events of each subject.
        codes: Every code, in the order of `code` in the files.
        warnings: What was found odd while the table was read.
    """

    folder: Path
    n_subjects: int
    n_buckets: int
    counts: npt.NDArray[np.int64] = field(init=False)
    codes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts = np.zeros(self.n_subjects, dtype=np.int64)
        self._unknown_subject: Counter[str] = Counter()
        self._null_time: Counter[str] = Counter()
        self._index: dict[str, int] = {}
        self._waiting: list[pl.DataFrame] = []
        self._n_waiting = 0
        self._n_files = 0

    def add(self, piece: Piece) -> None:
        """Take the events of one batch."""
        self._unknown_subject.update(piece.unknown_subject)
        self._null_time.update(piece.null_time)
        if piece.events.is_empty():
            return
        for code in piece.codes:
            if code not in self._index:
                self._index[code] = len(self.codes)
                self.codes.append(code)
        to_table = pl.Series([self._index[code] for code in piece.codes], dtype=pl.UInt32)
        self.counts += np.bincount(piece.events["position"].to_numpy(), minlength=self.n_subjects)
        self._waiting.append(piece.events.with_columns(code=to_table.gather(piece.events["code"])))
        self._n_waiting += piece.events.height
        if self._n_waiting >= _FLUSH_EVENTS:
            self._flush()

    def _flush(self) -> None:
        """Write what is waiting as one Arrow file with one record batch for each bucket."""
        if not self._waiting:
            return
        bucket = (pl.col("position").cast(pl.Int64) * self.n_buckets // max(self.n_subjects, 1)).alias("bucket")
        events = pl.concat(self._waiting).sort(bucket)
        sizes = events.group_by(bucket, maintain_order=True).len()
        size_of = dict(zip(sizes["bucket"].to_list(), sizes["len"].to_list(), strict=True))
        self._waiting, self._n_waiting = [], 0
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        start = 0
        with pa.ipc.new_file(self.folder / f"{self._n_files:06d}.arrow", _spill_schema(), options=options) as file:
            for index in range(self.n_buckets):
                size = size_of.get(index, 0)
                table = events.slice(start, size).to_arrow().cast(_spill_schema()).combine_chunks()
                file.write_batch(table.to_batches()[0] if size else _empty_batch())
                start += size
        self._n_files += 1

    def close(self) -> None:
        """Write the rest and the mark that this table is done."""
        self._flush()
        for what, n in sorted(self._unknown_subject.items()):
            self.warnings.append(f"{what}: {n} rows left out, whose patient or stay is not among those of the export")
        for what, n in sorted(self._null_time.items()):
            self.warnings.append(f"{what}: {n} rows left out, which have no time")
        np.save(self.folder / "counts.npy", self.counts)
        done = {"codes": self.codes, "warnings": self.warnings, "n_buckets": self.n_buckets}
        temporary = self.folder / "done.tmp"
        temporary.write_text(json.dumps(done), encoding="utf-8")
        temporary.replace(self.folder / "done.json")

    @classmethod
    def resume(cls, folder: Path, n_subjects: int, n_buckets: int) -> "Spill | None":
        """The spill of an interrupted ingest, if its table was done; None otherwise."""
        try:
            done = json.loads((folder / "done.json").read_text(encoding="utf-8"))
            counts = np.load(folder / "counts.npy")
        except (OSError, ValueError):
            return None
        if done["n_buckets"] != n_buckets or counts.shape != (n_subjects,):
            return None
        spill = cls(folder, n_subjects, n_buckets, codes=done["codes"], warnings=done["warnings"])
        spill.counts = counts
        return spill

    def events(self, first: int, last: int) -> Iterator[pl.DataFrame]:
        """The events of subjects first <= position < last."""
        buckets = range(first * self.n_buckets // self.n_subjects, (last - 1) * self.n_buckets // self.n_subjects + 1)
        for path in sorted(self.folder.glob("*.arrow")):
            with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as file:
                for index in buckets:
                    batch = file.get_batch(index)
                    if batch.num_rows:
                        frame = pl.from_arrow(pa.Table.from_batches([batch]))
                        assert isinstance(frame, pl.DataFrame)
                        yield frame.filter(pl.col("position").is_between(first, last, closed="left"))


def _spill_schema() -> pa.Schema:
    return pa.schema(
        [
            ("position", pa.uint32()),
            ("time", pa.timestamp("us")),
            ("rule", pa.uint16()),
            ("code", pa.uint32()),
            ("numeric_value", pa.float32()),
            ("text_value", pa.large_string()),
            ("row", pa.uint64()),
        ]
    )


def _empty_batch() -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], type=f.type) for f in _spill_schema()], schema=_spill_schema())


@dataclass(frozen=True)
class Range:
    """A shard: the subjects first <= position < last."""

    first: int
    last: int


def plan(counts: npt.NDArray[np.int64], limit: int) -> list[Range]:
    """Consecutive subjects to shards of at most `limit` events; a subject with more has a shard of its own.

    >>> plan(np.array([4, 4, 4, 20, 1]), limit=10)
    [Range(first=0, last=2), Range(first=2, last=3), Range(first=3, last=4), Range(first=4, last=5)]
    """
    shards: list[Range] = []
    first, total = 0, 0
    for position, count in enumerate(counts.tolist()):
        if total and total + count > limit:
            shards.append(Range(first, position))
            first, total = position, 0
        total += count
    if total:
        shards.append(Range(first, len(counts)))
    return shards


@dataclass(frozen=True)
class Codes:
    """Every code of a dataset.

    Attributes:
        names: Sorted.
        of_table: For each spill, uint32 [its codes] into `names`.
    """

    names: pl.Series
    of_table: tuple[pl.Series, ...]

    @classmethod
    def of(cls, spills: Sequence[Spill]) -> "Codes":
        """Unite the codes of all tables."""
        names = sorted({code for spill in spills for code in spill.codes})
        index = {name: i for i, name in enumerate(names)}
        of_table = tuple(pl.Series([index[c] for c in spill.codes], dtype=pl.UInt32) for spill in spills)
        return cls(pl.Series("code", names, dtype=pl.String), of_table)


@dataclass(frozen=True)
class Written:
    """What was written as one shard: how often each code stands there, and how many duplicates were left out."""

    code_counts: npt.NDArray[np.int64]
    n_duplicates: int


def write_shard(path: Path, shard: Range, spills: Sequence[Spill], codes: Codes, subject_ids: pl.Series) -> Written:
    """Read, sort, and write the events of one shard as MEDS Parquet, byte for byte the same for the same events."""
    parts = [
        part.with_columns(code=of_table.gather(part["code"]))
        for spill, of_table in zip(spills, codes.of_table, strict=True)
        for part in spill.events(shard.first, shard.last)
    ]
    events = pl.concat(parts).sort(_SORT)
    parts.clear()
    before = events.height
    events = events.filter(~pl.all_horizontal(pl.all().eq_missing(pl.all().shift(1))) | (pl.int_range(pl.len()) == 0))
    counts = np.bincount(events["code"].to_numpy(), minlength=len(codes.names))
    table = events.select(
        subject_ids.gather(events["position"]).alias("subject_id"),
        "time",
        codes.names.gather(events["code"]).alias("code"),
        "numeric_value",
        "text_value",
    ).to_arrow()
    pq.write_table(
        table.cast(_SCHEMA).combine_chunks(), path, compression="zstd", compression_level=1, row_group_size=1 << 18
    )
    return Written(counts, before - events.height)
