"""The patient bootstrap: whole patients are drawn, with replacement, within each site.

A replicate draws as many patients as the site has; a patient who is drawn twice brings all their samples twice. So a
replicate is a vector of counts, and counts are weights. Each site has a stream of its own, made of the seed and the
site's name: the order of the sites, and which others there are, change nothing, and two sets of predictions for the
same patients draw the same patients (which is what a paired comparison needs).

Reference: Field and Welsh 2007 (doi 10.1111/j.1467-9868.2007.00593.x) on resampling whole clusters.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from leaderboard.evaluators.registry import Floats, Outcomes, PredictionError, refuse_unusable


@dataclass(frozen=True, slots=True, eq=False)
class SitePredictions:
    """One site's held-out samples and the risks predicted for them.

    Attributes:
        site: the site's name.
        external: whether it took no part in training; external sites never enter the pooled scope.
        patient: int64 [n], the patient of each sample; names a patient within this site only.
        y: bool [n], whether the event happened.
        p: float64 [n], predicted risk in [0, 1].

    Raises:
        PredictionError: lengths differ, a risk is NaN or outside [0, 1], or a type is wrong.
    """

    site: str
    external: bool
    patient: NDArray[np.int64]
    y: Outcomes
    p: Floats

    def __post_init__(self) -> None:
        try:
            refuse_unusable(self.y, self.p, np.ones(len(self.y)))
            if self.patient.shape != self.y.shape or self.patient.dtype != np.int64:
                raise PredictionError(
                    f"patients are int64 and one a sample, found {self.patient.dtype} {self.patient.shape} for "
                    f"{len(self.y)} samples"
                )
        except PredictionError as error:
            raise PredictionError(f"site {self.site}: {error}") from None


@dataclass(slots=True)
class Resampler:
    """Draws one site's bootstrap weights, block after block, from the site's own stream."""

    patient: NDArray[np.int64]
    seed: int
    site: str
    n_patients: int = field(init=False)
    _row: NDArray[np.intp] = field(init=False)
    _stream: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        patients, self._row = np.unique(self.patient, return_inverse=True)
        self.n_patients = len(patients)
        self._stream = stream(self.seed, self.site)

    def draw(self, replicates: int) -> Floats:
        """The next replicates' weights: float64 [replicates, samples], each the count of the sample's patient."""
        m = self.n_patients
        if m == 0:
            return np.empty((replicates, 0))
        drawn = self._stream.integers(0, m, size=(replicates, m), dtype=np.int64)
        drawn += np.arange(0, replicates * m, m)[:, np.newaxis]
        counts = np.bincount(drawn.ravel(), minlength=replicates * m).reshape(replicates, m).astype(np.float64)
        return np.take(counts, self._row, axis=1)


def stream(seed: int, site: str) -> np.random.Generator:
    """The site's own random numbers for bootstrapping under this seed."""
    name = int.from_bytes(hashlib.sha256(f"bootstrap\0{site}".encode()).digest()[:16])
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, name])))
