"""From a hospital's export to a MEDS 0.4 dataset: each table once, in bounded memory, all or nothing.

The tables are read batch by batch; every `Events` rule of a table is applied to each batch; the events are spilled by
subject (`sites.shards`) and at the end sorted and written shard by shard into a folder beside the target, which is
renamed when it is whole. Two ingests of one export wait for one another; an interrupted one leaves its finished tables'
spills and goes on from there.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl

from sites.check import CheckReport, check
from sites.dataset import Dataset
from sites.errors import InputError
from sites.events import events_of
from sites.exports.export import Events, Frames
from sites.metadata import write_metadata
from sites.origins import begin, remember
from sites.shards import SHARD_EVENTS, Codes, Piece, Range, Spill, Written, plan, write_shard
from sites.source import Progress, Source, open_source, small_frames, subjects_of
from sites.spec import SiteSpec

__all__ = ["CheckReport", "Progress", "check", "ingest", "open_source"]

_EVENT_BYTES = {".gz": 5, ".parquet": 8}
"""About how many bytes of a file, as stored, become one event; plain text: 40."""
_BUCKET_EVENTS = 400_000


def ingest(spec: SiteSpec, home: Path, *, progress: Progress | None = None, jobs: int | None = None) -> Dataset:
    """Return the MEDS dataset of an export; make it first if this very export has not been read before.

    Args:
        spec: The site.
        home: FEDWARD_HOME; the dataset lies at `datasets/<kind>-<source_sha256[:16]>` below it.
        progress: Told what is done and the share of the work, in [0, 1].
        jobs: Threads beside polars' own; default: one for each core, at most 4. The result does not depend on it.

    Raises:
        InputError: The export cannot be read as it is; nothing is left behind.
    """
    source = open_source(spec, home, progress)
    target = source.target(home)
    if (target / "metadata" / "fedward.json").is_file():
        remember(source, home)
        return Dataset(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    work = target.parent / f".{target.name}.partial"
    with _lock(target.parent / f".{target.name}.lock"):
        if not (target / "metadata" / "fedward.json").is_file():
            begin(source, work)
            try:
                _make(source, work, progress or (lambda _what, _share: None), jobs or min(os.cpu_count() or 1, 4))
            except InputError:
                shutil.rmtree(work, ignore_errors=True)
                raise
            shutil.rmtree(target, ignore_errors=True)
            (work / "dataset").rename(target)
            shutil.rmtree(work, ignore_errors=True)
        remember(source, home)
    return Dataset(target)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One ingest of a source at a time; the kernel lets go of the lock when a process dies."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(source: Source, work: Path, progress: Progress, jobs: int) -> None:
    """Write the whole dataset to `work`/dataset."""
    progress(f"{source.spec.name}: patients and stays", 0.1)
    frames = small_frames(source.export, source.reader)
    subjects = subjects_of(source.export, source.reader, frames)
    n_buckets = _n_buckets(source, len(subjects))
    spills = _spill_tables(source, work / "spill", frames, subjects, n_buckets=n_buckets, progress=progress, jobs=jobs)
    dataset = work / "dataset"
    shutil.rmtree(dataset, ignore_errors=True)
    (dataset / "data").mkdir(parents=True)
    (dataset / "metadata").mkdir()
    codes = Codes.of(spills)
    shards = plan(np.sum([spill.counts for spill in spills], axis=0), SHARD_EVENTS) if spills else []
    if not shards:
        raise InputError(f"{source.spec.path}: no table gave any event; expected {source.export.title} with rows")
    n_codes = np.zeros(len(codes.names), dtype=np.int64)
    n_duplicates = 0

    def write(numbered: tuple[int, Range]) -> Written:
        number, shard = numbered
        return write_shard(dataset / "data" / f"{number:05d}.parquet", shard, spills, codes, subjects["subject_id"])

    with ThreadPoolExecutor(min(jobs, 2)) as pool:
        for done, written in enumerate(pool.map(write, enumerate(shards)), start=1):
            n_codes += written.code_counts
            n_duplicates += written.n_duplicates
            progress(f"{source.spec.name}: sorting and writing", 0.7 + 0.3 * done / len(shards))
    warnings = [*source.reader.warnings, *(sentence for spill in spills for sentence in spill.warnings)]
    if n_duplicates:
        warnings.append(
            f"{n_duplicates} events were left out: their rows equal others in all columns read, or list one event again"
        )
    write_metadata(source, dataset, frames, subjects, codes=codes, n_codes=n_codes, warnings=warnings)


def _n_buckets(source: Source, n_subjects: int) -> int:
    """So many that a bucket holds a fraction of a shard; they change speed and memory, never the result."""
    events = 0
    for path in source.reader.files().values():
        events += path.stat().st_size // _EVENT_BYTES.get(path.suffix.lower(), 40)
    return int(np.clip(events // _BUCKET_EVENTS, 1, min(1024, n_subjects)))


def _spill_tables(
    source: Source,
    folder: Path,
    frames: Frames,
    subjects: pl.DataFrame,
    *,
    n_buckets: int,
    progress: Progress,
    jobs: int,
) -> list[Spill]:
    """Read every table that has events, in the order of the declaration."""
    reader, export = source.reader, source.export
    position = subjects.select("subject_id", pl.int_range(pl.len(), dtype=pl.UInt32).alias("position"))
    for table in reader.absent():
        reader.warn(f"{table.name} is absent: {table.loses or 'its events'} will be missing")
    names = list(dict.fromkeys(rule.table for rule in export.events))
    files = reader.files() if export.batches is None else {}
    sizes = {name: files[name].stat().st_size if name in files else 1 for name in names}
    total, before = max(sum(sizes.values()), 1), 0
    spills = []
    for name in names:
        rules = [(number, rule) for number, rule in enumerate(export.events) if rule.table == name]
        place = folder / name
        spill = Spill.resume(place, len(subjects), n_buckets)
        if spill is None:
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            spill = Spill(place, len(subjects), n_buckets)

            def tell(share: float, name: str = name, before: int = before) -> None:
                progress(f"{source.spec.name}: {name}", 0.1 + 0.6 * (before + share * sizes[name]) / total)

            _spill_table(source, name, rules, frames, position=position, spill=spill, tell=tell, jobs=jobs)
            spill.close()
        before += sizes[name]
        spills.append(spill)
    return spills


def _spill_table(
    source: Source,
    name: str,
    rules: list[tuple[int, Events]],
    frames: Frames,
    *,
    position: pl.DataFrame,
    spill: Spill,
    tell: Callable[[float], None],
    jobs: int,
) -> None:
    with ThreadPoolExecutor(jobs) as pool:
        running: list[Future[Piece]] = []
        n_rows = 0
        try:
            for rows, consumed in _rows(source, name, frames):
                n_rows += len(rows)
                running.append(pool.submit(events_of, rows, rules, frames, position))
                tell(consumed)
                if len(running) > jobs:
                    spill.add(running.pop(0).result())
            while running:
                spill.add(running.pop(0).result())
        except BaseException:
            for future in running:
                future.cancel()
            raise
    lost = next((t.loses or "its events" for t in source.export.tables if t.name == name), None)
    if n_rows == 0 and lost is not None and name in source.reader.files():
        spill.warnings.append(f"{name} holds no rows: {lost} will be missing")


def _rows(source: Source, name: str, frames: Frames) -> Iterator[tuple[pl.DataFrame, float]]:
    if name in frames and all(table.name != name for table in source.export.tables):
        yield frames[name], 1.0
        return
    for batch in source.reader.progress_batches(name):
        yield batch.rows, batch.consumed
