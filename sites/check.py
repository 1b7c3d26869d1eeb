"""What `bench site check` says of an export before any large table is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sites.dataset import DataKind
from sites.exports.registry import load
from sites.source import data_kind, data_kind_of, patient_source, small_frames, subjects_of
from sites.spec import SiteSpec
from sites.tables import Reader


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


def check(spec: SiteSpec) -> CheckReport:
    """Look at an export: its files, patients, stays and groups. Nothing is written.

    Raises:
        InputError: As `ingest` would, as far as the small tables show it.
    """
    export = load(spec.kind)
    spec.check_options(export)
    reader = Reader(spec.path, export, spec.reading_options())
    files = reader.files()
    frames = small_frames(export, reader)
    subjects = subjects_of(export, reader, frames)
    declared = frames.get("declared")
    first = subjects.group_by("patient_id", maintain_order=True).first()
    return CheckReport(
        kind=spec.kind,
        title=export.title,
        files={name: (path, path.stat().st_size) for name, path in files.items()},
        absent={table.name: table.loses or "its events" for table in reader.absent()},
        counts={name: frame.height for name, frame in frames.items() if name not in ("declared", "source")},
        n_subjects=len(subjects),
        n_patients=len(first),
        source=patient_source(export, spec, frames),
        part=export.part(spec.reading_options(), frames),
        data_kind=data_kind(data_kind_of(spec)[0], frames),
        groups={
            name: dict(first.group_by(name).len().sort(name, nulls_last=True).iter_rows()) for name in export.groups
        },
        declared=() if declared is None else tuple(declared.select("what", "value", "n").iter_rows()),
        warnings=tuple(reader.warnings),
    )
