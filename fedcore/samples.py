"""Cohorts and samples: who is predicted for, when, with which label, and what is known about them by then."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

Array = npt.NDArray[Any]

SPLITS = ("train", "tuning", "recalibration", "conformal", "held_out")

SAMPLE_SCHEMA: Mapping[str, pl.DataType] = {
    "subject_id": pl.Int64(),
    "patient_id": pl.Int64(),
    "prediction_time": pl.Datetime("us"),
    "label": pl.Boolean(),
}


@dataclass(frozen=True)
class Attrition:
    """What one step of a task's definition left.

    Attributes:
        step: What was demanded, as a sentence.
        samples: Samples left after it.
        patients: Patients left after it.
        positives: Samples with the outcome; known only at the last step.
    """

    step: str
    samples: int
    patients: int
    positives: int | None = None


@dataclass(frozen=True)
class Cohort:
    """A site's samples of one task.

    Attributes:
        site: The site's name.
        task: The task's name.
        samples: One row a sample (`SAMPLE_SCHEMA`), sorted by subject and prediction time.
        attrition: From all triggers to the samples, step by step.
    """

    site: str
    task: str
    samples: pl.DataFrame
    attrition: tuple[Attrition, ...]


@dataclass(frozen=True)
class SiteSamples:
    """A site's samples with what a representation extracted for them. It never leaves the site.

    `raw` holds two kinds of arrays, told apart by name:

    - aligned: first axis n. If `names` has the same key, the last axis is one entry a name.
    - ragged, a group `<group>.<field>`: `<group>.offsets` int64 [n + 1] says where each sample's entries begin and
      end in the group's other fields; `<group>.index` points into `names[<group>]`.

    Attributes:
        site: The site's name.
        external: Only scored: it takes no part in training, and every sample is held out.
        subject_id: int64 [n], the MEDS subject.
        patient_id: int64 [n], the person; unique within the site only.
        prediction_time: datetime64[us] [n].
        label: bool [n].
        split: str [n], one of `SPLITS`.
        raw: What the representation extracted, memory-mapped where big.
        names: What columns and indices of `raw` mean.
        window_hours: How far before prediction time measurements are looked at.
    """

    site: str
    external: bool
    subject_id: npt.NDArray[np.int64]
    patient_id: npt.NDArray[np.int64]
    prediction_time: npt.NDArray[np.datetime64]
    label: npt.NDArray[np.bool_]
    split: npt.NDArray[np.str_]
    raw: Mapping[str, Array] = field(default_factory=dict)
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    window_hours: float = 24.0

    def __post_init__(self) -> None:
        n = len(self.subject_id)
        for name in ("patient_id", "prediction_time", "label", "split"):
            if len(getattr(self, name)) != n:
                raise ValueError(f"SiteSamples.{name}: {len(getattr(self, name))} entries for {n} samples.")
        unknown = sorted(set(np.unique(self.split).tolist()) - set(SPLITS))
        if unknown:
            raise ValueError(f"SiteSamples.split: unknown split {unknown[0]!r}; expected one of {', '.join(SPLITS)}.")
        for key, array in self.raw.items():
            group, dot, part = key.partition(".")
            expected = n if not dot else n + 1 if part == "offsets" else int(self.raw[f"{group}.offsets"][-1])
            if len(array) != expected:
                raise ValueError(f"SiteSamples.raw[{key!r}]: {len(array)} entries, expected {expected}.")

    def __len__(self) -> int:
        return len(self.subject_id)

    def take(self, mask: npt.ArrayLike) -> "SiteSamples":
        """The samples where `mask` (bool [n]) holds, or at these positions (int), in that order."""
        m = np.asarray(mask)
        at = np.flatnonzero(m) if m.dtype == np.bool_ else m.astype(np.int64)
        raw: dict[str, Array] = {}
        for group in {k.partition(".")[0] for k in self.raw if k.endswith(".offsets")}:
            offsets = np.asarray(self.raw[f"{group}.offsets"])
            length = offsets[at + 1] - offsets[at]
            new = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
            entries = np.repeat(offsets[at] - new[:-1], length) + np.arange(new[-1])
            for key, array in self.raw.items():
                if key.startswith(f"{group}."):
                    raw[key] = new if key.endswith(".offsets") else array[entries]
        raw |= {key: array[at] for key, array in self.raw.items() if "." not in key}
        return replace(
            self,
            subject_id=self.subject_id[at],
            patient_id=self.patient_id[at],
            prediction_time=self.prediction_time[at],
            label=self.label[at],
            split=self.split[at],
            raw={key: raw[key] for key in self.raw},
        )

    def in_split(self, *splits: str) -> "SiteSamples":
        """The samples of these splits."""
        return self.take(np.isin(self.split, splits))

    @staticmethod
    def concatenate(parts: "Sequence[SiteSamples]", site: str = "pooled") -> "SiteSamples":
        """Bring samples together as one virtual site: the pooled anchor and the twins that tests compare with.

        Names are united; a column that a part lacks is NaN there. Patients are numbered anew, since ids of two sites
        may be equal and mean two people.

        Raises:
            ValueError: No part, or parts of different representations or windows.
        """
        if not parts:
            raise ValueError("SiteSamples.concatenate: no samples to bring together.")
        first = parts[0]
        for part in parts:
            if set(part.raw) != set(first.raw) or part.window_hours != first.window_hours:
                raise ValueError(
                    f"SiteSamples.concatenate: {first.site} and {part.site} have different representations or windows."
                )
        names = {key: _united([part.names.get(key, ()) for part in parts]) for key in first.names}
        return SiteSamples(
            site=site,
            external=all(part.external for part in parts),
            subject_id=np.concatenate([part.subject_id for part in parts]),
            patient_id=_renumbered(parts),
            prediction_time=np.concatenate([part.prediction_time for part in parts]),
            label=np.concatenate([part.label for part in parts]),
            split=np.concatenate([part.split for part in parts]),
            raw={key: _joined(key, parts, names) for key in first.raw},
            names=names,
            window_hours=first.window_hours,
        )


def _united(names: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for part in names for name in part))


def _renumbered(parts: Sequence[SiteSamples]) -> npt.NDArray[np.int64]:
    out: list[npt.NDArray[np.int64]] = []
    start = 0
    for part in parts:
        ids, dense = np.unique(part.patient_id, return_inverse=True)
        out.append(dense.astype(np.int64) + start)
        start += len(ids)
    return np.concatenate(out)


def _joined(key: str, parts: Sequence[SiteSamples], names: Mapping[str, tuple[str, ...]]) -> Array:
    """One array of `raw` over all parts, its columns or indices moved to the united names."""
    group, dot, part_name = key.partition(".")
    arrays = [np.asarray(part.raw[key]) for part in parts]
    if part_name == "offsets":
        starts = np.cumsum([0, *(a[-1] for a in arrays)])
        return np.concatenate([[0], *(a[1:] + s for a, s in zip(arrays, starts, strict=False))]).astype(np.int64)
    if group not in names or all(part.names[group] == names[group] for part in parts):
        return np.concatenate(arrays)
    place = {name: i for i, name in enumerate(names[group])}
    moves = [np.array([place[name] for name in part.names[group]], np.int64) for part in parts]
    if part_name == "index":
        return np.concatenate([move[a].astype(a.dtype) for move, a in zip(moves, arrays, strict=True)])
    if dot:
        return np.concatenate(arrays)
    wide = []
    for move, array in zip(moves, arrays, strict=True):
        out = np.full((*array.shape[:-1], len(place)), np.nan, array.dtype)
        out[..., move] = array
        wide.append(out)
    return np.concatenate(wide)
