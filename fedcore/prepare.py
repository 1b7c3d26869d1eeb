"""A site's samples for one task and representation, made once and found on disk from then on.

Everything lies under FEDWARD_HOME: `cohorts/<key>/` holds a cohort (or the reason why there is none), and
`features/<key>/` the arrays of a representation, as .npy files that are read memory-mapped. A key covers all that the
content depends on: the dataset's content, who belongs to the site, the task and predicates files, the window, and the
sources that do the work. Splits are no part of it: they are recomputed, and cost nothing.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from fedcore.cohort import CannotServe, Hospital, NoSamples, Task, build_cohort
from fedcore.features import representation as representations
from fedcore.fingerprint import fingerprint
from fedcore.samples import Attrition, Cohort, SiteSamples
from sites import home as sites_home
from sites.splits import assign


class Prepared(NamedTuple):
    """A site, ready to train.

    Attributes:
        samples: With the raw arrays of the representation and the splits.
        cohort: Where the samples came from, with the attrition.
        cohort_sha256: Of who is predicted for, when, and with which label.
        splits_sha256: Of who is in which split.
    """

    samples: SiteSamples
    cohort: Cohort
    cohort_sha256: str
    splits_sha256: str


def prepare(site: Hospital, task: Task, representation: str, split_seed: int, home: Path | None = None) -> Prepared:
    """Make or find a site's samples.

    Args:
        site: A `sites.site.Site`.
        task: From `load_task`.
        representation: `tabular`, `series` or `sequence`.
        split_seed: Which of the possible splits by patient.
        home: FEDWARD_HOME; by default from the environment.

    Raises:
        CannotServe: The site cannot serve the task.
        InputError: There is no such representation.
    """
    home = home or sites_home.home()
    shown = representations.load(representation)
    cohort, key = _cohort(site, task, home)
    window = task.window_hours
    key = _digest(key, representation, window, fingerprint(representations.module(representation)))
    folder = home / "features" / key

    def extract(target: Path) -> None:
        raw = shown.extract(site.dataset, cohort.samples, window)
        for name, array in raw.arrays.items():
            np.save(target / f"{name}.npy", array, allow_pickle=False)
        described = {"arrays": list(raw.arrays), "names": {k: list(v) for k, v in raw.names.items()}}
        (target / "names.json").write_text(json.dumps(described), encoding="utf-8")

    _once(folder, extract)
    described = json.loads((folder / "names.json").read_text(encoding="utf-8"))
    samples = cohort.samples
    patient = samples["patient_id"].to_numpy()
    split = np.full(len(patient), "held_out", "<U13") if site.external else assign(patient, split_seed)
    columns = {c: samples[c].to_numpy() for c in ("subject_id", "patient_id", "prediction_time", "label")}
    return Prepared(
        SiteSamples(
            site=site.name,
            external=site.external,
            **columns,
            split=split,
            raw={name: _load(folder / f"{name}.npy") for name in described["arrays"]},
            names={k: tuple(v) for k, v in described["names"].items()},
            window_hours=window,
        ),
        cohort,
        hashed(columns),
        hashed({"patient_id": columns["patient_id"], "split": split.astype("S13")}),
    )


def prepared_cohort(site: Hospital, task: Task, home: Path | None = None) -> Cohort:
    """`build_cohort`, made once and found on disk from then on.

    Raises:
        CannotServe: The site cannot serve the task.
    """
    return _cohort(site, task, home or sites_home.home())[0]


def _cohort(site: Hospital, task: Task, home: Path) -> tuple[Cohort, str]:
    manifest = site.dataset.manifest
    subjects = site.subjects.select("subject_id", "patient_id").sort("subject_id")
    own = hashed({c: subjects[c].to_numpy() for c in subjects.columns})
    key = _digest(manifest.content_sha256, manifest.kind, own, task.sha256, fingerprint("fedcore.cohort"))
    folder = home / "cohorts" / key

    def build(target: Path) -> None:
        found: dict[str, Any] = {}
        try:
            cohort = build_cohort(site, task)
            cohort.samples.write_parquet(target / "samples.parquet")
            found["attrition"] = [asdict(a) for a in cohort.attrition]
        except CannotServe as reason:
            # A refusal costs as much as a cohort, and is as lasting.
            found["reason"] = str(reason).replace(f"Site {site.name} ", "Site {site} ")
            found["attrition"] = [asdict(a) for a in reason.attrition] if isinstance(reason, NoSamples) else None
        (target / "cohort.json").write_text(json.dumps(found), encoding="utf-8")

    _once(folder, build)
    found = json.loads((folder / "cohort.json").read_text(encoding="utf-8"))
    attrition = tuple(Attrition(**a) for a in found["attrition"] or ())
    if "reason" in found:
        reason = found["reason"].replace("Site {site} ", f"Site {site.name} ")
        raise NoSamples(reason, attrition) if attrition else CannotServe(reason)
    return Cohort(site.name, task.name, pl.read_parquet(folder / "samples.parquet"), attrition), key


def _once(folder: Path, make: Callable[[Path], None]) -> None:
    """Fill a folder that is not there yet; it appears whole or not at all, also when two processes make it."""
    if folder.is_dir():
        return
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".making-"))
    try:
        make(target)
        target.replace(folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster, with the same content
            raise
    finally:
        shutil.rmtree(target, ignore_errors=True)


def _load(path: Path) -> np.ndarray[Any, Any]:
    """Memory-mapped; an empty array cannot be."""
    empty = path.stat().st_size < 256
    array: np.ndarray[Any, Any] = np.load(path, mmap_mode=None if empty else "r", allow_pickle=False)
    return array


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps([str(p) for p in parts]).encode()).hexdigest()


def hashed(columns: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """The sha256 of the columns' values, the same on every machine."""
    digest = hashlib.sha256()
    for name, values in columns.items():
        fixed = values.astype("<i8") if values.dtype.kind in "iM" else values
        digest.update(name.encode() + b"\0" + np.ascontiguousarray(fixed).tobytes())
    return digest.hexdigest()
