"""Records on disk: append-only, each written whole or not at all, every one verifiable.

A record lies at `<root>/<suite>/<cell_id[:2]>/<cell_id>/<run_id>.json`. It is written to a hidden file beside its
place, forced to disk and then linked to its name: a killed run leaves no half record under a record's name, and a name
that is taken is never taken again. Several processes may write at once; none needs a lock.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from leaderboard.record import (
    Head,
    OlderRecordError,
    Record,
    RecordError,
    Status,
    canonical_json,
    head,
    parse,
    result_sha256,
)


@dataclass(frozen=True, slots=True)
class Broken:
    """A file under the root that is no trustworthy record, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """Where a record lies, how its run ended, and what names its result."""

    path: Path
    status: Status
    result_sha256: str


@dataclass(frozen=True, slots=True)
class Store:
    """The records under `root`; the folder need not exist before the first write."""

    root: Path

    def path(self, record: Record) -> Path:
        """Where this record lies or would lie."""
        return self.root / record.spec.suite.name / record.cell_id[:2] / record.cell_id / f"{record.run_id}.json"

    def write(self, record: Record) -> Path:
        """Add a record.

        Returns:
            The path it was written to.

        Raises:
            RecordError: a record of this run is there already, or the disk refuses.
        """
        path = self.path(record)
        hidden = path.parent / f".{path.stem}.{os.getpid()}.partial"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecordError(f"{path.parent}: this folder could not be made ({error.strerror}).") from error
        try:
            try:
                with hidden.open("wb") as file:
                    file.write(canonical_json(record))
                    file.flush()
                    os.fsync(file.fileno())
                _link(hidden, path)
            finally:
                hidden.unlink(missing_ok=True)
            _fsync_folder(path.parent)
        except FileExistsError:
            raise RecordError(
                f"{path}: a record of this run is there already, and records are never changed."
            ) from None
        except OSError as error:
            raise RecordError(f"{path}: the record could not be written ({error.strerror}).") from error
        return path

    def read(self, path: Path) -> Record:
        """Read one record and check its hashes.

        Raises:
            RecordError: unreadable, broken or changed; the sentence names the file and the field.
        """
        return parse(_bytes(path), path)

    def latest(self, cell_id: str, code_fingerprint: str | None = None, status: Status | None = "ok") -> Record | None:
        """The newest record of a cell, or None.

        Args:
            cell_id: the cell.
            code_fingerprint: only runs of this code; None takes any.
            status: only runs that ended so; None takes any.

        Raises:
            RecordError: a record that had to be looked at is broken.
        """
        paths = [path for folder in self._suites() for path in _records_in(folder / cell_id[:2] / cell_id)]
        found = self.newest(paths, code_fingerprint, status)
        return None if found is None else self.read(found.path)

    def newest(
        self, paths: Iterable[Path], code_fingerprint: str | None = None, status: Status | None = None
    ) -> Found | None:
        """The newest of these records of one cell, or None; see `latest`."""
        for path in sorted(paths, key=lambda path: path.name, reverse=True):
            found = self.head(path)
            if (status is None or found.status == status) and (
                code_fingerprint is None or found.code_fingerprint == code_fingerprint
            ):
                return Found(path, found.status, found.result_sha256)
        return None

    def head(self, path: Path) -> Head:
        """What a plan wants to know of a record, its hash checked.

        Raises:
            RecordError: as `read`.
        """
        data = _bytes(path)
        quick = head(data)
        if quick is not None:
            return quick
        record = parse(data, path)
        return Head(record.cell_id, record.code_fingerprint, record.status, result_sha256(record))

    def starting_with(self, prefix: str, suite: str | None = None, status: Status | None = None) -> dict[str, Record]:
        """The newest record of each cell whose id starts so, by cell; those of an older schema are passed over.

        Args:
            prefix: the id's first characters; empty: all cells.
            suite: only cells of this suite; None takes any.
            status: only runs that ended so; None takes any.

        Raises:
            RecordError: a record that had to be looked at is broken.
        """
        found: dict[str, Record] = {}
        for cell, paths in self.by_cell(suite).items():
            for path in reversed(paths) if cell.startswith(prefix) else ():
                with suppress(OlderRecordError):
                    record = self.read(path)
                    if status is None or record.status == status:
                        found[cell] = record
                        break
        return found

    def by_cell(self, suite: str | None = None) -> dict[str, list[Path]]:
        """The sorted paths of all records by cell: one look at the folders serves a whole plan."""
        found: dict[str, list[Path]] = {}
        for path in self.paths(suite):
            found.setdefault(path.parent.name, []).append(path)
        return found

    def records(self, suite: str | None = None) -> Iterator[Record]:
        """All records, by suite, cell and run; those of an older schema are passed over.

        Raises:
            RecordError: at the first broken one; `verify` lists them all.
        """
        for path in self.paths(suite):
            with suppress(OlderRecordError):
                yield self.read(path)

    def paths(self, suite: str | None = None) -> list[Path]:
        """The paths of all records, sorted."""
        folders = self._suites() if suite is None else [self.root / suite]
        return sorted(path for folder in folders for path in folder.glob("[0-9a-f][0-9a-f]/*/*.json") if _named(path))

    def verify(self) -> list[Broken]:
        """Read every record again and recompute its hashes, its spelling and its place.

        Returns:
            What is wrong, file by file; empty if all is well.
        """
        broken = []
        for path in self.paths():
            try:
                record = self.read(path)
            except RecordError as error:
                broken.append(Broken(path, str(error)))
                continue
            if self.path(record) != path:
                broken.append(Broken(path, f"{path}: by its content this record belongs at {self.path(record)}."))
            elif path.read_bytes() != canonical_json(record):
                broken.append(
                    Broken(path, f"{path}: the values are intact but not spelled canonically; write it again.")
                )
        return broken

    def _suites(self) -> list[Path]:
        return sorted(path for path in self.root.glob("*") if path.is_dir()) if self.root.is_dir() else []


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path}: the record could not be read ({error.strerror}).") from error


def _named(path: Path) -> bool:
    return not path.name.startswith(".")


def _records_in(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.json") if _named(path)] if folder.is_dir() else []


def _link(hidden: Path, path: Path) -> None:
    """Give the finished file its name, which must be free."""
    try:
        path.hardlink_to(hidden)
    except FileExistsError:
        raise
    except OSError:
        # exFAT, some network and container file systems know no hard links.
        if path.exists():
            raise FileExistsError(path) from None
        hidden.rename(path)


def _fsync_folder(folder: Path) -> None:
    """Make the new name itself survive a power cut, where the system can (Windows cannot)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
