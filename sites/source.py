"""An export that is about to be read: where it is, what it is, and the hash of all that its dataset depends on."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from sites.dataset import DataKind
from sites.errors import InputError
from sites.exports.export import Export, Frames
from sites.exports.registry import load
from sites.hashes import file_hashes, source_sha256
from sites.spec import SiteSpec
from sites.tables import Reader

Progress = Callable[[str, float], None]
"""Told what is being done and the share of the work that is done, in [0, 1]."""


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
    """Find an export's files and hash them; a file that was hashed before is only looked at.

    Raises:
        InputError: No such path, an unknown kind or option, or a file that cannot be read.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    export = load(spec.kind)
    spec.check_options(export)
    reader = Reader(spec.path, export, spec.reading_options())
    data_kind, truth = data_kind_of(spec)
    files = reader.files() | ({} if truth is None else {"truth": truth})

    def tell(share: float) -> None:
        if progress is not None:
            progress(f"{spec.name}: hashing", 0.1 * share)

    options = spec.reading_options() | {
        "data_kind": data_kind,
        "simulated": str(_simulation(spec)[1].get("source", "")),
    }
    sha256 = source_sha256(spec.kind, options, file_hashes(files, home, tell))
    return Source(spec, export, reader, sha256, data_kind, truth)


def data_kind_of(spec: SiteSpec) -> tuple[DataKind, Path | None]:
    """simulated, demo or real, and the file of true risks beside a simulated export."""
    place, told = _simulation(spec)
    if place is not None:
        path = place / str(told["truth"]) if told.get("truth") else None
        return "simulated", path if path is not None and path.is_file() else None
    folder = spec.path if spec.path.is_dir() else spec.path.parent
    named = any("demo" in name.lower() for name in (spec.path.resolve().name, spec.path.resolve().parent.name))
    demo = "demo" in spec.options or named or (folder / "demo_subject_id.csv").is_file()
    return ("demo" if demo else "real"), None


def _simulation(spec: SiteSpec) -> tuple[Path | None, dict[str, object]]:
    """The folder of the SIMULATED.json in or beside an export, and what it says; None: a genuine export."""
    folder = spec.path if spec.path.is_dir() else spec.path.parent
    for place in (folder, folder.parent):
        path = place / "SIMULATED.json"
        if path.is_file():
            try:
                told = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                told = None
            if not isinstance(told, dict):
                raise InputError(f"{path}: found no JSON object, expected one; simulate the hospital anew")
            return place, told
    return None, {}


def small_frames(export: Export, reader: Reader) -> dict[str, pl.DataFrame]:
    """The export's small tables, cleaned; every required table is there.

    Raises:
        InputError: A required table is absent or cannot be read, or its values make no sense to the export's module.
    """
    reader.require()
    try:
        return export.frames(reader)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OverflowError) as error:
        raise InputError(
            f"{reader.path}: the patients and stays make no sense as {export.title} ({_first_line(error)}); "
            "see whether the tables belong together and hold plausible values"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def subjects_of(export: Export, reader: Reader, frames: Frames) -> pl.DataFrame:
    """subject_id, patient_id and the group columns, checked and sorted.

    Raises:
        InputError: There is no patient, or the export's module breaks its contract.
    """
    frame = frames.get("subjects")
    wanted = {"subject_id": pl.Int64, "patient_id": pl.Int64} | dict.fromkeys(export.groups, pl.String)
    broken = f"the export module {export.kind} must give frames['subjects'] with"
    if frame is None or any(frame.schema.get(name) != dtype for name, dtype in wanted.items()):
        raise InputError(f"{broken} the columns {', '.join(f'{n} ({t})' for n, t in wanted.items())}")
    frame = frame.select(list(wanted)).sort("subject_id")
    ids = frame["subject_id"]
    if ids.null_count() or frame["patient_id"].null_count() or ids.is_duplicated().any():
        raise InputError(f"{broken} each subject once and without nulls")
    if frame.is_empty():
        raise InputError(f"{reader.path}: found no patient; expected {export.title} with rows")
    return frame


def concepts_key(export: Export, spec: SiteSpec, frames: Frames) -> str:
    """The key of the data's item ids in concepts.yaml: what the options say, the data says of itself, the kind says."""
    said = frames.get("source")
    if said is not None and "concepts" in said.columns and not said.is_empty():
        return spec.options.get("concepts") or str(said["concepts"][0])
    return export.concepts


def data_kind(found: DataKind, frames: Frames) -> DataKind:
    """What records call the data: as the spec and the folder say, but simulated if the data says so of itself."""
    said = frames.get("source")
    if said is None or "data_kind" not in said.columns or "simulated" not in said["data_kind"]:
        return found
    return "simulated"


def patient_source(export: Export, spec: SiteSpec, frames: Frames) -> str:
    """The patient source: what a simulation says, else the options, else what the data says of itself, else ""."""
    simulated = _simulation(spec)[1].get("source")
    if simulated:
        return str(simulated)
    said = frames.get("source")
    return export.source(spec.reading_options()) or ("" if said is None or said.is_empty() else str(said["source"][0]))
