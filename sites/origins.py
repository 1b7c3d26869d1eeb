"""Which export each dataset was made from, so that a user who forgets a site leaves nothing of it behind.

A dataset is named after its content. `origins.json` beside it says from which kinds, paths and options it was made: an
export that has moved, changed or gone since can still be forgotten.
"""

import fcntl
import json
import shutil
from pathlib import Path
from typing import Any

from sites.home import write_whole
from sites.source import Source
from sites.spec import SiteSpec

_NAME = "origins.json"


def _origin(spec: SiteSpec) -> dict[str, Any]:
    return {"kind": spec.kind, "path": str(spec.path.resolve()), "options": spec.reading_options()}


def _origins(dataset: Path) -> list[dict[str, Any]]:
    try:
        told: list[dict[str, Any]] = json.loads((dataset / _NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return told


def _write(dataset: Path, origins: list[dict[str, Any]]) -> None:
    write_whole(dataset / _NAME, json.dumps(origins, indent=1) + "\n")


def remember(source: Source, home: Path) -> None:
    """Note that a dataset was made, or could have been made, from this export."""
    dataset = source.target(home)
    origins = _origins(dataset)
    if (origin := _origin(source.spec)) not in origins:
        _write(dataset, [*origins, origin])


def begin(source: Source, work: Path) -> None:
    """Note what an ingest that begins is made from, and delete what interrupted ones left of the export as it was."""
    work.mkdir(exist_ok=True)
    _write(work, [_origin(source.spec)])
    _forget_unfinished(source.spec, work.parent, but=work)


def _forget_unfinished(spec: SiteSpec, datasets: Path, but: Path | None = None) -> list[Path]:
    """Delete what interrupted ingests of an export left; one that is at work holds its lock."""
    gone = []
    for work in sorted(datasets.glob(".*.partial")):
        if work == but or _origin(spec) not in _origins(work):
            continue
        with work.with_suffix(".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(work, ignore_errors=True)
        gone.append(work)
    return gone


def forget_datasets(spec: SiteSpec, home: Path) -> list[Path]:
    """Delete every dataset of an export, whole or begun, whatever it held then; one that another path shares stays.

    Returns:
        The deleted folders.
    """
    gone = _forget_unfinished(spec, home / "datasets")
    for dataset in sorted((home / "datasets").glob("[!.]*")):
        origins = _origins(dataset)
        if _origin(spec) not in origins:
            continue
        left = [origin for origin in origins if origin != _origin(spec)]
        if left:
            _write(dataset, left)
            continue
        shutil.rmtree(dataset)
        for rest in (f".{dataset.name}.partial", f".{dataset.name}.lock"):
            path = dataset.with_name(rest)
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        gone.append(dataset)
    return gone
