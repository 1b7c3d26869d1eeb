"""What a sequence of Gaussian releases costs in (epsilon, delta), composed as a whole.

**The neighbours.** Two hospitals' data are neighbours if one patient's rows, all of them, are taken as if they were
not there while how many patients there are stays as it is and is public ("zero-out"). A release is a sum over patients
of vectors whose length (L2 norm) is at most C, divided by a public number, with Gaussian noise of standard deviation
z C on each coordinate of the sum: z is its noise multiplier. Where each patient is drawn into the sum with probability
q, independently of all others (Poisson sampling), the pair that decides its privacy is the mixture
(1 - q) N(0, z^2) + q N(1, z^2) against N(0, z^2), both ways round: the pair of add-or-remove-one patient. What later
releases are computed from may depend on earlier ones (adaptive composition).

**Three accountants** compose it:

- `pld`: privacy loss distributions, rounded pessimistically (Google's `dp-accounting`): an upper bound. The claim.
- `prv`: privacy random variables (Gopi, Lee and Wutschitz, 2021) in Opacus, with its error bound added.
- `rdp`: Renyi differential privacy (Mironov, Talwar and Zhang, 2019) in Opacus: an upper bound, looser.

The claim is `pld`; the others are the second opinion that a record carries.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

NOISE_RANGE = (0.1, 1000.0)
"""Noise multipliers that are looked for; below, epsilon is in the hundreds and no claim worth making."""

GRID = 1e-3
"""The step of the grid on which privacy losses are rounded; a finer one changes epsilon by less than a hundredth."""


@dataclass(frozen=True, order=True)
class Mechanism:
    """A Gaussian release, made so many times.

    Attributes:
        noise_multiplier: z > 0, the noise's standard deviation over the most that one patient can move the sum.
        sampling_rate: q in (0, 1], the probability with which each patient is drawn; 1: all are in it.
        count: how often.
    """

    noise_multiplier: float
    sampling_rate: float = 1.0
    count: int = 1

    def __post_init__(self) -> None:
        if not (self.noise_multiplier > 0 and math.isfinite(self.noise_multiplier)):
            raise ValueError(f"noise_multiplier: found {self.noise_multiplier}, expected a finite number above 0")
        if not 0 < self.sampling_rate <= 1:
            raise ValueError(f"sampling_rate: found {self.sampling_rate}, expected a probability above 0")
        if self.count < 1:
            raise ValueError(f"count: found {self.count}, expected 1 or more")


def composed(mechanisms: Iterable[Mechanism]) -> tuple[Mechanism, ...]:
    """The same releases in canonical form: like ones are counted together; of those without sampling one remains.

    Gaussian releases of all patients compose exactly: their z^-2 add up.

    >>> composed([Mechanism(3.0), Mechanism(4.0)])
    (Mechanism(noise_multiplier=2.4, sampling_rate=1.0, count=1),)
    >>> composed([Mechanism(2.0, 0.1, 5), Mechanism(2.0, 0.1, 5)])
    (Mechanism(noise_multiplier=2.0, sampling_rate=0.1, count=10),)
    """
    sampled: dict[tuple[float, float], int] = {}
    precision: list[float] = []
    for one in mechanisms:
        if one.sampling_rate == 1:
            precision.append(one.count / one.noise_multiplier**2)
        else:
            key = (one.noise_multiplier, one.sampling_rate)
            sampled[key] = sampled.get(key, 0) + one.count
    found = [Mechanism(*key, count) for key, count in sorted(sampled.items())]
    whole = [Mechanism(1 / math.sqrt(math.fsum(precision)))] if precision else []
    return (*found, *whole)


def epsilon(mechanisms: Iterable[Mechanism], delta: float, accountant: str = "pld") -> float:
    """The epsilon of all releases together at this delta.

    Args:
        mechanisms: what was released; none: 0.
        delta: in (0, 1).
        accountant: `pld`, `prv` or `rdp`.

    Raises:
        ValueError: delta is no probability, or the accountant is unknown or cannot tell.
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta: found {delta}, expected a probability between 0 and 1")
    if accountant not in ACCOUNTANTS:
        raise ValueError(f"accountant: found {accountant!r}, expected one of {', '.join(ACCOUNTANTS)}")
    whole = composed(mechanisms)
    return _spent(whole, delta, accountant) if whole else 0.0


@lru_cache(maxsize=1024)
def _spent(mechanisms: tuple[Mechanism, ...], delta: float, accountant: str) -> float:
    """Sites of like size and budget ask the same."""
    return ACCOUNTANTS[accountant](mechanisms, delta)


def noise_multiplier(
    target: float,
    delta: float,
    sampling_rate: float,
    count: int,
    beside: Iterable[Mechanism] = (),
    accountant: str = "pld",
) -> float:
    """The smallest noise, to a thousandth, with which `count` releases stay within `target`.

    Args:
        target: epsilon of all together.
        delta: of all together.
        sampling_rate: of these releases.
        count: how many they are.
        beside: what is released as well.
        accountant: `pld`, `prv` or `rdp`.

    Raises:
        ValueError: what is released beside them leaves nothing to spend, or no noise within `NOISE_RANGE` suffices.
    """
    others = tuple(beside)
    spent = epsilon(others, delta, accountant)
    if spent >= target:
        raise ValueError(
            f"epsilon {target}: {spent:.3f} of it is spent on the other releases; expected some to be left"
        )

    def enough(noise: float, accountant: str) -> bool:
        return epsilon([*others, Mechanism(noise, sampling_rate, count)], delta, accountant) <= target

    lowest, highest = NOISE_RANGE
    if not enough(highest, accountant):
        raise ValueError(f"epsilon {target}: no noise multiplier up to {highest:g} keeps {count} releases within it")
    # rdp is quick and never below the others by much: where it ends, they begin
    guess = _bisected(lambda noise: enough(noise, "rdp"), lowest, highest) if enough(highest, "rdp") else highest
    low = max(lowest, 0.8 * guess)
    while low > lowest and enough(low, accountant):
        guess, low = low, max(lowest, 0.8 * low)
    while not enough(guess, accountant):
        low, guess = guess, min(highest, 1.25 * guess)
    return _bisected(lambda noise: enough(noise, accountant), low, guess)


def _bisected(enough: Callable[[float], bool], low: float, high: float) -> float:
    """The smallest noise that is enough, to a thousandth and from above; `high` is enough."""
    if enough(low):
        return low
    while high - low > 1e-3 * low:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def gaussian_delta(noise: float, target: float) -> float:
    """The exact delta of one Gaussian release of all patients at an epsilon (Balle and Wang, 2018, theorem 8).

    >>> round(gaussian_delta(1.0, 1.0), 6)
    0.126937
    """
    from scipy.stats import norm

    a, b = 1 / (2 * noise), target * noise
    return float(norm.cdf(a - b) - math.exp(target + norm.logcdf(-a - b)))


def _pld(mechanisms: tuple[Mechanism, ...], delta: float) -> float:
    whole = _one_pld(mechanisms[0])
    for one in mechanisms[1:]:
        whole = whole.compose(_one_pld(one))
    return float(whole.get_epsilon_for_delta(delta))


@lru_cache(maxsize=256)
def _one_pld(one: Mechanism) -> Any:
    """The loss distribution of one mechanism, rounded so that what is composed of it is an upper bound."""
    from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism

    single = from_gaussian_mechanism(
        one.noise_multiplier,
        value_discretization_interval=GRID,
        sampling_prob=one.sampling_rate,
        use_connect_dots=True,
    )
    return single.self_compose(one.count) if one.count > 1 else single


def _opacus(make: Callable[[], Any]) -> Callable[[tuple[Mechanism, ...], float], float]:
    def spent(mechanisms: tuple[Mechanism, ...], delta: float) -> float:
        accountant = make()
        accountant.history = [(one.noise_multiplier, one.sampling_rate, one.count) for one in mechanisms]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return float(accountant.get_epsilon(delta))
            except RuntimeError as error:
                raise ValueError(f"{accountant.mechanism()} cannot tell: {error}") from error

    return spent


def _prv() -> Any:
    from opacus.accountants import PRVAccountant

    return PRVAccountant()


def _rdp() -> Any:
    from opacus.accountants import RDPAccountant

    return RDPAccountant()


ACCOUNTANTS: Mapping[str, Callable[[tuple[Mechanism, ...], float], float]] = {
    "pld": _pld,
    "prv": _opacus(_prv),
    "rdp": _opacus(_rdp),
}
