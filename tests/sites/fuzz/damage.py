"""What a mutation is: which file it damages, how, and what may come of it."""

import csv
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

TEXT_KINDS = ("mimic3", "mimic4", "eicu", "omop")
"""Those whose tables are CSV or Parquet."""

LINES = (*TEXT_KINDS, "physionet2012", "uci_heart")
EVERY = (*LINES, "meds")
PARQUET = (*TEXT_KINDS, "meds")


class Effect(Enum):
    """What a mutation may lead to."""

    NONE = auto()
    """The same data, to the byte."""
    NONE_OR_REFUSED = auto()
    REFUSED = auto()
    FEWER_ROWS = auto()
    """If it is read: no event from nowhere, and every one that is gone is accounted for."""
    COUNTED = auto()
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
