"""Damaged exports of every kind: refused in one sentence or read whole; never a traceback, never a silent wrong count.

Each seed damages one file of one small export in one way. `FEDWARD_FUZZ=5000` runs so many seeds instead of a few
hundred, `FEDWARD_FUZZ_FIRST=17 FEDWARD_FUZZ=1` seed 17 alone, `FEDWARD_FUZZ_ONLY=truncated` that one mutation.
"""

import csv
import gzip
import io
import os
import random
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

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

from . import damaged_bytes, damaged_files, damaged_values, harmless
from .damage import MUTATIONS, TEXT_KINDS, Effect, NotApplicable, Target

SEEDS = int(os.environ.get("FEDWARD_FUZZ", "300"))
FIRST = int(os.environ.get("FEDWARD_FUZZ_FIRST", "0"))
ONLY = os.environ.get("FEDWARD_FUZZ_ONLY", "")
BATCHES = 10
MODULES = (harmless, damaged_bytes, damaged_values, damaged_files)
"""Those that fill `MUTATIONS`."""


class SmallExport(Protocol):
    """As `conftest.py` makes it."""

    name: str
    kind: str
    path: Path


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
        """Damage, read, judge; return what became of it."""
        rng = random.Random(seed)
        able = [n for n, e in sorted(self.exports.items()) if not ONLY or e.kind in MUTATIONS[ONLY][1]]
        folder = self.work / "damaged"
        while True:
            export = self.exports[rng.choice(able)]
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(export.path, folder)
            name = rng.choice(
                sorted(
                    name
                    for name, (_, kinds, _) in MUTATIONS.items()
                    if export.kind in kinds and name in (ONLY or name,)
                )
            )
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
        return self._judge(export, folder, path, effect, rng, case)

    def _judge(
        self, export: SmallExport, folder: Path, path: Path, effect: Effect, rng: random.Random, case: str
    ) -> str:
        try:
            if rng.random() < 0.1:
                check(SiteSpec("fuzz", export.kind, folder))
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
        elif effect is Effect.COUNTED:
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
        warned = sorted(_warned(dataset.manifest) - _warned(self.whole[export.name].manifest))
        return f"gone {list(before - after)[:3]}, new {list(after - before)[:3]}; {warned}"

    def _accounted(self, export: SmallExport, dataset: Read, each: int) -> int:
        """How many events the new warnings account for: a row that is left out may have given so many."""
        new = _warned(dataset.manifest) - _warned(self.whole[export.name].manifest)
        return sum(number * (1 if "events were left out" in words else each) for words, number in new.items())

    def _rules(self, export: SmallExport, path: Path) -> int:
        """At most how many events a row of this file gives by itself."""
        declared = load(export.kind)
        if export.kind == "uci_heart":
            return 21
        stem = path.name.partition(".")[0].lower()
        if export.kind == "eicu":  # every column of a wide table is an event
            return max([20, *(len(table.columns) for table in declared.tables if table.name == stem)])
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
    outcomes: Counter[str] = Counter()
    failures = []
    seeds = range(FIRST + batch, FIRST + SEEDS, BATCHES)
    for seed in seeds:
        try:
            outcomes[fuzz.run(seed)] += 1
        except AssertionError as error:
            failures.append(str(error).partition("\nassert")[0])
    assert not failures, f"{len(failures)} failures\n" + "\n".join(failures[:20])
    assert len(outcomes) == 2 or len(seeds) < 20, "some are refused and some are read"
