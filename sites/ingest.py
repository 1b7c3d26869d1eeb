"""From a hospital's export to a MEDS 0.4 dataset: each table once, in bounded memory, all or nothing.

The tables are read batch by batch; every `Events` rule of a table is applied to each batch; the events are spilled by
subject (`sites.shards`) and at the end sorted and written shard by shard into a folder beside the target, which is
renamed when it is whole. Two ingests of one export wait for one another; an interrupted one leaves its finished tables'
spills and goes on from there.
"""

import fcntl
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import polars as pl

from sites.dataset import DataKind, Dataset, Manifest
from sites.errors import InputError
from sites.exports.export import Events, Export, Frames
from sites.exports.registry import load
from sites.shards import Codes, Piece, Range, Spill, plan, write_shard
from sites.sources import file_hashes, source_sha256
from sites.spec import SiteSpec
from sites.splits import meds_split
from sites.tables import Reader

Progress = Callable[[str, float], None]

_EVENT_BYTES = {".gz": 5, ".parquet": 8}
"""About how many bytes of a file, as stored, become one event; plain text: 40."""
_BUCKET_EVENTS = 400_000
_ROW = "__row__"


@dataclass(frozen=True)
class Source:
    """An export that is about to be read.

    Attributes:
        spec: As the user wrote it.
        export: What its tables mean.
        reader: Its tables.
        sha256: The hash of all that the dataset will be made from.
        data_kind: simulated, demo or real.
        truth: The true risks beside a simulated export, if any.
    """

    spec: SiteSpec
    export: Export
    reader: Reader
    sha256: str
    data_kind: DataKind
    truth: Path | None

    def target(self, home: Path) -> Path:
        """Where its dataset lies or will lie."""
        return home / "datasets" / f"{self.spec.kind}-{self.sha256[:16]}"


def open_source(spec: SiteSpec, home: Path, progress: Progress | None = None) -> Source:
    """Find an export's files and hash them.

    Raises:
        InputError: No such path, an unknown kind or option, or a file that cannot be read.
    """
    export = load(spec.kind)
    spec.check_options(export)
    reader = Reader(spec.path, export, spec.reading_options())
    data_kind, truth = _data_kind(spec)
    files = reader.files() | ({} if truth is None else {"truth": truth})
    tell = None if progress is None else lambda share: progress(f"{spec.name}: hashing", 0.1 * share)
    options = spec.reading_options() | {"data_kind": data_kind}
    return Source(
        spec, export, reader, source_sha256(spec.kind, options, file_hashes(files, home, tell)), data_kind, truth
    )


def _data_kind(spec: SiteSpec) -> tuple[DataKind, Path | None]:
    folder = spec.path if spec.path.is_dir() else spec.path.parent
    for place in (folder, folder.parent):
        told = place / "SIMULATED.json"
        if told.is_file():
            try:
                truth = json.loads(told.read_text(encoding="utf-8")).get("truth")
            except (ValueError, AttributeError):
                raise InputError(f"{told}: found no JSON object, expected one; simulate the hospital anew") from None
            path = place / truth if truth else None
            return "simulated", path if path is not None and path.is_file() else None
    named = any("demo" in name.lower() for name in (spec.path.resolve().name, spec.path.resolve().parent.name))
    demo = "demo" in spec.options or named or (folder / "demo_subject_id.csv").is_file()
    return ("demo" if demo else "real"), None


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
        return Dataset(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    work = target.parent / f".{target.name}.partial"
    with _lock(target.parent / f".{target.name}.lock"):
        if not (target / "metadata" / "fedward.json").is_file():
            try:
                _make(source, work, progress or (lambda _what, _share: None), jobs or min(os.cpu_count() or 1, 4))
            except InputError:
                shutil.rmtree(work, ignore_errors=True)
                raise
            shutil.rmtree(target, ignore_errors=True)
            (work / "dataset").rename(target)
            shutil.rmtree(work, ignore_errors=True)
    return Dataset(target)


def forget_datasets(spec: SiteSpec, home: Path) -> list[Path]:
    """Delete the dataset of an export, older ones of the same path and options, and what an interruption left.

    Returns:
        The deleted folders.
    """
    gone = []
    wanted = (spec.kind, str(spec.path.resolve()), spec.reading_options())
    for folder in sorted((home / "datasets").glob("*")):
        try:
            told = json.loads((folder / "origin.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if (told["kind"], told["path"], told["options"]) == wanted:
            shutil.rmtree(folder)
            gone.append(folder)
    return gone


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One ingest of a source at a time; the kernel lets go of the lock when a process dies."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(source: Source, work: Path, progress: Progress, jobs: int) -> None:
    """Write the whole dataset to `work`/dataset."""
    source.reader.require()
    progress(f"{source.spec.name}: patients and stays", 0.1)
    frames = source.export.frames(source.reader)
    subjects = _subjects(source, frames)
    n_buckets = _n_buckets(source, len(subjects))
    spills = _spill_tables(source, work / "spill", frames, subjects, n_buckets, progress, jobs)
    dataset = work / "dataset"
    shutil.rmtree(dataset, ignore_errors=True)
    (dataset / "data").mkdir(parents=True)
    (dataset / "metadata").mkdir()
    codes = Codes.of(spills)
    shards = plan(np.sum([spill.counts for spill in spills], axis=0)) if spills else []
    if not shards:
        raise InputError(f"{source.spec.path}: no table gave any event; expected {source.export.title} with rows")
    n_codes = np.zeros(len(codes.names), dtype=np.int64)
    n_duplicates = 0

    def write(numbered: tuple[int, Range]) -> tuple[np.ndarray, int]:  # type: ignore[type-arg]
        number, shard = numbered
        path = dataset / "data" / f"{number:05d}.parquet"
        written = write_shard(path, shard, spills, codes, subjects["subject_id"])
        return written.code_counts, written.n_duplicates

    with ThreadPoolExecutor(min(jobs, 2)) as pool:
        for done, (counts, duplicates) in enumerate(pool.map(write, enumerate(shards)), start=1):
            n_codes += counts
            n_duplicates += duplicates
            progress(f"{source.spec.name}: sorting and writing", 0.7 + 0.3 * done / len(shards))
    warnings = [*source.reader.warnings, *(sentence for spill in spills for sentence in spill.warnings)]
    if n_duplicates:
        warnings.append(f"{n_duplicates} events of exact duplicate rows were left out")
    _write_metadata(source, dataset, frames, subjects, codes, n_codes, warnings)


def _subjects(source: Source, frames: Frames) -> pl.DataFrame:
    """subject_id, patient_id and the group columns, checked and sorted."""
    kind = source.spec.kind
    frame = frames.get("subjects")
    wanted = {"subject_id": pl.Int64, "patient_id": pl.Int64} | dict.fromkeys(source.export.groups, pl.String)
    if frame is None or any(frame.schema.get(name) != dtype for name, dtype in wanted.items()):
        raise TypeError(f"the export {kind} must give frames['subjects'] with the columns {wanted}")
    frame = frame.select(list(wanted)).sort("subject_id")
    if frame["subject_id"].null_count() or frame["patient_id"].null_count() or frame["subject_id"].is_duplicated().any():
        raise TypeError(f"the export {kind} must give each subject once in frames['subjects'], without nulls")
    if frame.is_empty():
        raise InputError(f"{source.spec.path}: found no patient; expected {source.export.title} with rows")
    return frame


def _patient_source(export: Export, options: Mapping[str, str], frames: Frames) -> str:
    """The patient source: what the options say, else what the data says of itself, else ""."""
    said = frames.get("source")
    return export.source(options) or ("" if said is None or said.is_empty() else str(said["source"][0]))


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

            _spill_table(source, name, rules, frames, position, spill, tell, jobs)
            spill.close()
        before += sizes[name]
        spills.append(spill)
    return spills


def _spill_table(
    source: Source,
    name: str,
    rules: list[tuple[int, Events]],
    frames: Frames,
    position: pl.DataFrame,
    spill: Spill,
    tell: Callable[[float], None],
    jobs: int,
) -> None:
    def take(done: "Future[Piece]") -> None:
        spill.add(done.result())

    with ThreadPoolExecutor(jobs) as pool:
        running: list[Future[Piece]] = []
        try:
            for rows, consumed in _rows(source, name, frames):
                running.append(pool.submit(events_of, rows, rules, frames, position))
                tell(consumed)
                if len(running) > jobs:
                    take(running.pop(0))
            while running:
                take(running.pop(0))
        except BaseException:
            for future in running:
                future.cancel()
            raise


def _rows(source: Source, name: str, frames: Frames) -> Iterator[tuple[pl.DataFrame, float]]:
    if name in frames and all(table.name != name for table in source.export.tables):
        yield frames[name], 1.0
        return
    for batch in source.reader.progress_batches(name):
        yield batch.rows, batch.consumed


def events_of(
    rows: pl.DataFrame,
    rules: list[tuple[int, Events]],
    frames: Frames,
    position: pl.DataFrame,
) -> Piece:
    """The events that some rows of one table give.

    Args:
        rows: A batch of one table.
        rules: The rules of this table, each with its number among all.
        frames: The export's small tables.
        position: subject_id and position, of every known subject.
    """
    rows = rows.with_columns(rows.hash_rows().alias(_ROW))
    plans = []
    for number, rule in rules:
        lazy = rows.lazy() if rule.prepare is None else rule.prepare(rows.lazy(), frames)
        null = pl.lit(None)
        row = pl.col(_ROW) if not rule.once and _ROW in lazy.collect_schema() else pl.lit(0, dtype=pl.UInt64)
        plans.append(
            lazy.select(
                pl.col("subject_id").cast(pl.Int64),
                (null if rule.static else rule.time).cast(pl.Datetime("us")).alias("time"),
                pl.lit(number, dtype=pl.UInt16).alias("rule"),
                rule.code.cast(pl.String).alias("code"),
                (null if rule.numeric is None else rule.numeric).cast(pl.Float32).alias("numeric_value"),
                (null if rule.text is None else rule.text).cast(pl.String).alias("text_value"),
                row.alias("row"),
            )
            .filter(pl.col("subject_id").is_not_null() & pl.col("code").is_not_null())
            .with_columns(pl.when(pl.col("numeric_value").is_finite()).then("numeric_value"))
            .join(position.lazy(), on="subject_id", how="left")
        )
    kept = []
    unknown_subject: Counter[str] = Counter()
    null_time: Counter[str] = Counter()
    for (_, rule), events in zip(rules, pl.collect_all(plans), strict=True):
        what = rule.name or rule.table
        known = pl.col("position").is_not_null()
        timed = pl.lit(value=True) if rule.static else pl.col("time").is_not_null()
        good = events.filter(known & timed)
        if good.height < events.height:
            unknown = events["position"].null_count()
            unknown_subject[what] += unknown
            null_time[what] += events.height - good.height - unknown
        kept.append(good.drop("subject_id"))
    events = pl.concat(kept)
    names = events["code"].unique().sort()
    code = events["code"].cast(pl.Enum(names)).to_physical().cast(pl.UInt32)
    columns = ["position", "time", "rule", "code", "numeric_value", "text_value", "row"]
    return Piece(
        events.with_columns(code=code).select(columns), names.to_list(), +unknown_subject, +null_time
    )


def _write_metadata(
    source: Source,
    dataset: Path,
    frames: Frames,
    subjects: pl.DataFrame,
    codes: Codes,
    n_codes: "np.ndarray[tuple[int], np.dtype[np.int64]]",
    warnings: list[str],
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from meds import CodeMetadataSchema, SubjectSplitSchema

    export, metadata = source.export, dataset / "metadata"
    options = source.spec.reading_options()
    used = pl.DataFrame({"code": codes.names, "n_events": n_codes}).filter(pl.col("n_events") > 0)
    nothing = pa.nulls(len(used), pa.string()), pa.nulls(len(used), pa.list_(pa.string()))
    code_table = pa.table(
        {
            "code": used["code"].to_arrow().cast(pa.string()),
            "description": nothing[0],
            "parent_codes": nothing[1],
            "n_events": used["n_events"].to_arrow(),
        }
    )
    CodeMetadataSchema.validate(code_table)
    pq.write_table(code_table, metadata / "codes.parquet")
    splits = pa.table(
        {
            "subject_id": subjects["subject_id"].to_arrow(),
            "split": pa.array(meds_split(subjects["patient_id"]).tolist(), pa.string()),
        }
    )
    SubjectSplitSchema.validate(splits)
    pq.write_table(splits, metadata / "subject_splits.parquet")
    pq.write_table(subjects.to_arrow(), metadata / "subjects.parquet")
    told = {
        "dataset_name": export.title,
        "dataset_version": source.sha256[:16],
        "etl_name": "fedward",
        "etl_version": version("fedward"),
        "meds_version": version("meds"),
    }
    (metadata / "dataset.json").write_text(json.dumps(told, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    if source.truth is not None:
        (dataset / "truth").mkdir()
        shutil.copyfile(source.truth, dataset / "truth" / source.truth.name)
    manifest = Manifest(
        kind=source.spec.kind,
        title=export.title,
        source=_patient_source(export, options, frames) or f"{source.spec.kind}:{source.sha256[:16]}",
        part=export.part(options, frames),
        options=options,
        data_kind=source.data_kind,
        source_sha256=source.sha256,
        content_sha256=_content_sha256(dataset),
        groups=export.groups,
        concepts=export.concepts,
        n_subjects=len(subjects),
        n_patients=subjects["patient_id"].n_unique(),
        n_events=int(n_codes.sum()),
        warnings=tuple(warnings),
        truth=None if source.truth is None else f"truth/{source.truth.name}",
    )
    (metadata / "fedward.json").write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _content_sha256(dataset: Path) -> str:
    import hashlib

    digest = hashlib.sha256()
    for path in [*sorted((dataset / "data").glob("*.parquet")), dataset / "metadata" / "subjects.parquet"]:
        with path.open("rb") as stream:
            digest.update(path.name.encode() + b"\0" + hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


@dataclass(frozen=True)
class CheckReport:
    """What `bench site check` says of an export, before any large table is read.

    Attributes:
        kind: The export kind.
        title: For people.
        files: Table to file, and its size in bytes.
        absent: Tables that are not there, and what is lost.
        counts: Rows of each small table after cleaning.
        n_subjects: MEDS subjects.
        n_patients: Persons.
        source: The patient source.
        part: The declared part of the source, or "".
        data_kind: simulated, demo or real.
        groups: For each group that `by=` can split by: value (None = unknown) to patients.
        declared: Choices made for this data: what, value, n.
        warnings: What was odd.
    """

    kind: str
    title: str
    files: Mapping[str, tuple[Path, int]]
    absent: Mapping[str, str]
    counts: Mapping[str, int]
    n_subjects: int
    n_patients: int
    source: str
    part: str
    data_kind: DataKind
    groups: Mapping[str, Mapping[str | None, int]]
    declared: tuple[tuple[str, str, int], ...]
    warnings: tuple[str, ...]


def check(spec: SiteSpec, home: Path | None = None) -> CheckReport:
    """Look at an export: its files, patients, stays and groups; nothing is written but remembered hashes.

    Raises:
        InputError: As `ingest` would, as far as the small tables show it.
    """
    export = load(spec.kind)
    spec.check_options(export)
    reader = Reader(spec.path, export, spec.reading_options())
    reader.require()
    frames = export.frames(reader)
    data_kind, truth = _data_kind(spec)
    source = Source(spec, export, reader, "", data_kind, truth)
    subjects = _subjects(source, frames)
    declared = frames.get("declared")
    first = subjects.group_by("patient_id", maintain_order=True).first()
    return CheckReport(
        kind=spec.kind,
        title=export.title,
        files={name: (path, path.stat().st_size) for name, path in reader.files().items()},
        absent={table.name: table.loses or "its events" for table in reader.absent()},
        counts={name: frame.height for name, frame in frames.items() if name != "declared"},
        n_subjects=len(subjects),
        n_patients=len(first),
        source=_patient_source(export, spec.reading_options(), frames),
        part=export.part(spec.reading_options(), frames),
        data_kind=data_kind,
        groups={
            name: dict(first.group_by(name).len().sort(name).iter_rows())  # type: ignore[arg-type]
            for name in export.groups
        },
        declared=() if declared is None else tuple(declared.select("what", "value", "n").iter_rows()),
        warnings=tuple(reader.warnings),
    )
