"""An attack that fails where the mechanism is whole, and finds it broken where it is broken.

A white-box audit of the transcript: the attacker knows the model, every other patient and all noised gradients of a
visit, and asks whether one patient, the canary, was among the patients. It adds up what each noised gradient has in the
canary's direction. How far its sums lie apart with and without the canary, in standard deviations of the noise, is a
lower bound on Gaussian differential privacy (Dong, Roth and Su, 2022) with 95 % confidence, and so on epsilon: a
parametric bound, which takes the sums for normal. This is a reduced audit: one honest bound in twenty may be above the
claim.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from privacy.accounting import Mechanism, epsilon, gaussian_delta, noise_multiplier
from privacy.dpsgd import DPSGD
from privacy.noise import Seeded

DELTA, CLAIM, RATE, STEPS, CLIP = 1e-2, 1.0, 0.5, 8, 1.0
OTHERS, STAYS, RUNS = 3, 6, 320
QUANTILE = 1.96  # two estimates, of the distance and of the spread, are both on the safe side


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1, bias=False)
        nn.init.zeros_(self.layer.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)[:, 0]


@dataclass(frozen=True)
class Audited:
    """A mechanism as it is run, which may not be the one that is claimed."""

    noise: float
    steps: int = STEPS
    clip: float = CLIP
    by_row: bool = False


def transcript(audited: Audited, present: bool, seed: int) -> float:
    """What the noised gradients of one visit have in the canary's direction, in units of the claimed C."""
    x = torch.zeros(OTHERS + STAYS, 2)
    x[:OTHERS, 1] = 3.0  # the others' gradients point elsewhere
    x[OTHERS:, 0] = 30.0 if present else 0.0  # zero-out: the canary's rows as if they were not there
    whose = np.arange(OTHERS + STAYS) if audited.by_row else np.array([*range(OTHERS), *[OTHERS] * STAYS])
    patients = int(whose.max()) + 1
    source = Seeded(np.random.default_rng([seed, int(present)]))
    how = DPSGD(audited.noise, RATE, audited.steps, audited.clip, whose, patients, source)
    rows = how.gradients(Model(), {"x": x}, torch.zeros(OTHERS + STAYS))
    return sum(float(row["layer.weight"][0, 0]) for row in rows) * RATE * patients / CLIP


def lower_bound(audited: Audited, seed: int) -> float:
    """Epsilon at DELTA is at least this, with 95 % confidence."""
    present, absent = (
        np.array([transcript(audited, canary, seed * RUNS + run) for run in range(RUNS)]) for canary in (True, False)
    )
    spread = absent.std(ddof=1) * (1 + QUANTILE / math.sqrt(2 * RUNS))
    apart = present.mean() - absent.mean() - QUANTILE * math.sqrt((present.var() + absent.var()) / RUNS)
    if apart <= 0:
        return 0.0
    low, high = 0.0, 500.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_delta(spread / apart, middle) > DELTA else (low, middle)
    return low


@pytest.fixture(scope="module")
def honest() -> Audited:
    noise = noise_multiplier(CLAIM, DELTA, RATE, STEPS)
    assert epsilon([Mechanism(noise, RATE, STEPS)], DELTA) <= CLAIM
    return Audited(noise)


def test_an_honest_mechanism_is_not_found_out(honest: Audited) -> None:
    """One bound in twenty may pass the claim; of five, two or more do so once in 44 times."""
    bounds = [lower_bound(honest, seed) for seed in range(5)]
    assert sum(bound > CLAIM for bound in bounds) <= 1, bounds
    assert max(bounds) > 0, "the attack learns something: it is no attack that cannot succeed"


BROKEN: dict[str, Callable[[Audited], Audited]] = {
    "hardly any noise": lambda a: Audited(a.noise / 50),
    "half of the noise": lambda a: Audited(a.noise / 2),
    "no clipping": lambda a: Audited(a.noise / 30, clip=a.clip * 30),
    "each stay clipped by itself": lambda a: Audited(a.noise, by_row=True),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_mechanism_is_found_out(how: str, honest: Audited) -> None:
    """In each of three audits."""
    bounds = [lower_bound(BROKEN[how](honest), seed) for seed in range(3)]
    assert min(bounds) > CLAIM, bounds


def test_steps_that_are_not_counted_are_found_out_by_the_accountant(honest: Audited) -> None:
    """An audit would need many runs for it; the sum does not."""
    assert epsilon([Mechanism(honest.noise, RATE, 4 * STEPS)], DELTA) > 1.5 * CLAIM


def test_the_noise_of_two_visits_is_never_the_same() -> None:
    from fedcore.protection import Protection
    from privacy.terms import Terms

    one = Protection(Terms(epsilon=4, noise="seeded"), "amman", 100, 0)
    drawn = [one._source("training", 0, number, "train").normal((3,)).tolist() for number in (1, 2)]
    drawn += [one._source(*names).normal((3,)).tolist() for names in (("training", 1, 1, "train"), ("statistics",))]
    other = Protection(Terms(epsilon=4, noise="seeded"), "bern", 100, 0)
    drawn.append(other._source("training", 0, 1, "train").normal((3,)).tolist())
    assert len({tuple(values) for values in drawn}) == len(drawn)
