"""Training that is broken on purpose, in the ways in which private training breaks: what an audit has to find."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from privacy.accounting import Mechanism, epsilon, noise_multiplier
from privacy.audit.audits import OTHERS, Transcript, coins, small_training
from privacy.audit.canaries import Watched
from privacy.dpsgd import DPSGD
from privacy.noise import Seeded

HUGE = 1e6

ALL_DRAWN = "all patients drawn, a sample accounted"


@dataclass(frozen=True)
class Fault:
    """One way to break it.

    Attributes:
        alter: what is done to a visit.
        one_seed: whether all visits draw the same numbers.
    """

    alter: Callable[[Watched], Watched] = lambda visit: visit
    one_seed: bool = False


def _by_row(visit: Watched) -> Watched:
    rows = len(visit.patient)
    return replace(visit, patient=np.arange(rows), patients=rows)


FAULTS: Mapping[str, Fault] = {
    "no noise": Fault(lambda visit: replace(visit, noise_multiplier=0.0)),
    "half the noise": Fault(lambda visit: replace(visit, noise_multiplier=visit.noise_multiplier / 2)),
    "clipping off": Fault(
        lambda visit: replace(visit, clip=visit.clip * HUGE, noise_multiplier=visit.noise_multiplier / HUGE)
    ),
    "each stay clipped by itself": Fault(_by_row),
    "half of the steps counted": Fault(lambda visit: replace(visit, steps=2 * visit.steps)),
    "one seed for all rounds": Fault(one_seed=True),
    ALL_DRAWN: Fault(lambda visit: replace(visit, sampling_rate=1.0)),
}
"""By what is wrong."""

WHOLE = Fault()
"""Nothing is wrong."""


@dataclass(frozen=True)
class Trial:
    """A small private training, as it is claimed, and how it is audited.

    Attributes:
        claim: its epsilon at `delta`.
        sampling_rate: the probability with which a patient is drawn.
        steps: of a visit.
        visits: rounds.
        canaries: of a run.
        runs: how often it is run.
    """

    claim: float = 2.0
    sampling_rate: float = 0.5
    steps: int = 4
    visits: int = 2
    canaries: int = 128
    runs: int = 48

    @property
    def delta(self) -> float:
        """A tenth of a patient's share."""
        return 1 / (10 * (OTHERS + self.canaries))

    @cached_property
    def noise(self) -> float:
        """The noise multiplier with which the claim holds."""
        count = self.steps * self.visits
        noise = noise_multiplier(self.claim, self.delta, self.sampling_rate, count)
        if epsilon([Mechanism(noise, self.sampling_rate, count)], self.delta) > self.claim:
            raise ValueError(f"noise {noise} does not keep the claim of {self.claim}")
        return noise

    def transcript(self, fault: Fault, seed: int) -> Transcript:
        """Run it, with this fault in it."""
        noise = self.noise
        return Transcript.pooled(
            small_training(
                self._visits(noise, [seed, run], fault),
                coins(self.canaries, np.random.default_rng([seed, run, 10**6])),
                fault.alter,
            )
            for run in range(self.runs)
        )

    def _visits(self, noise: float, seed: Sequence[int], fault: Fault) -> list[DPSGD]:
        return [
            DPSGD(
                noise_multiplier=noise,
                sampling_rate=self.sampling_rate,
                steps=self.steps,
                clip=1.0,
                patient=np.arange(OTHERS),
                patients=OTHERS,
                source=Seeded(np.random.default_rng([*seed, 0 if fault.one_seed else number])),
            )
            for number in range(self.visits)
        ]
