"""Who trains and who is held out, decided by the patient alone; and skewed partitions for studies.

A patient's place is a keyed hash of the patient's id: it depends on no other patient, so that adding patients moves
nobody, and it is the same on every machine. The hash is splitmix64's finaliser (Steele, Lea, Flood 2014,
doi:10.1145/2660193.2660195), applied twice, with a key that BLAKE2b derives from the seed.
"""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import polars as pl

FRACTIONS = {"train": 0.6, "tuning": 0.1, "recalibration": 0.075, "conformal": 0.075, "held_out": 0.15}
"""The parts of a site's patients: learn, select, recalibrate, set conformal quantiles, score."""

CALIBRATION = ("recalibration", "conformal")
"""The halves of what `subject_splits.parquet` calls `calibration`."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))

Ids = npt.NDArray[np.int64] | pl.Series


def uniform(patient_id: Ids, seed: int, purpose: str) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each patient, a pure function of id, seed and purpose.

    Args:
        patient_id: int64 [n].
        seed: Any integer.
        purpose: What the numbers are for; different purposes are independent.

    >>> uniform(np.array([7, 8, 7]), 0, "split").round(3).tolist()
    [0.575, 0.79, 0.575]
    """
    ids = np.asarray(patient_id, dtype=np.int64).view(np.uint64)
    digest = blake2b(f"{purpose}:{seed}".encode(), digest_size=16, person=b"fedward").digest()
    first, second = np.frombuffer(digest, dtype="<u8").astype(np.uint64)
    mixed = _splitmix64(_splitmix64(ids ^ first) ^ second)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _splitmix64(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    z = z + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX[0]
    z = (z ^ (z >> np.uint64(27))) * _MIX[1]
    return z ^ (z >> np.uint64(31))


def assign(patient_id: Ids, seed: int) -> npt.NDArray[np.str_]:
    """The split of each patient: one of the names of `FRACTIONS`.

    Args:
        patient_id: int64 [n]; equal ids get equal splits.
        seed: The split seed of a study.

    Returns:
        str [n].

    >>> assign(np.array([7, 8, 9]), seed=0).tolist()
    ['train', 'conformal', 'tuning']
    """
    names = np.array(list(FRACTIONS), dtype="<U13")
    edges = np.cumsum(list(FRACTIONS.values()))[:-1]
    split: npt.NDArray[np.str_] = names[np.searchsorted(edges, uniform(patient_id, seed, "split"), side="right")]
    return split


def meds_split(patient_id: Ids, seed: int = 0) -> npt.NDArray[np.str_]:
    """The names for `subject_splits.parquet`: train, tuning, calibration, held_out."""
    split = assign(patient_id, seed)
    return np.where(np.isin(split, CALIBRATION), "calibration", split)


def dirichlet_parts(
    patient_id: Ids, label: Sequence[object] | npt.NDArray[np.generic] | None, alpha: float, parts: int, seed: int
) -> npt.NDArray[np.int64]:
    """Partition patients with Dirichlet skew (Hsu, Qi, Brown 2019, arXiv:1909.06335): a tool for studies.

    Each label value's patients are shared among the parts in proportions drawn from Dirichlet(alpha); without labels
    the sizes of the parts are skewed. Small alpha, strong skew. Proportions depend on the seed and the label value
    alone, a patient's place on the id: adding patients moves nobody.

    Args:
        patient_id: int64 [n]; a patient must have one label.
        label: n values (label skew), or None (quantity skew).
        alpha: The concentration, > 0.
        parts: How many, >= 1.
        seed: Of the partition.

    Returns:
        int64 [n], the part of each, in [0, parts).

    Raises:
        ValueError: alpha or parts out of range.
    """
    if not alpha > 0 or parts < 1:
        raise ValueError(f"found alpha={alpha} and parts={parts}, expected alpha > 0 and parts >= 1")
    labels = np.zeros(len(patient_id), dtype=np.int64) if label is None else np.asarray(label)
    draw = uniform(patient_id, seed, "dirichlet")
    result = np.zeros(len(draw), dtype=np.int64)
    for value in np.unique(labels):
        digest = blake2b(f"dirichlet:{seed}:{value}:{parts}:{alpha}".encode(), digest_size=16).digest()
        rng = np.random.default_rng(int.from_bytes(digest, "little"))
        edges = np.cumsum(rng.dirichlet(np.full(parts, alpha)))[:-1]
        here = labels == value
        result[here] = np.searchsorted(edges, draw[here], side="right")
    return result
