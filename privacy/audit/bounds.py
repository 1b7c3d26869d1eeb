"""How much privacy a mechanism must at least have given away, from how often an auditor was right.

Each bound holds with the confidence that is asked for, provided that thresholds and numbers of guesses were fixed
before anyone looked at a score. What each takes for granted stands at each. A bound far below the claim says that this
attack learnt little; it does not say that nothing more could be learnt.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from privacy.accounting import gaussian_delta

CONFIDENCE = 0.95

MOST = 100.0
"""No bound is looked for above: no number of runs that anyone makes could give one."""


@dataclass(frozen=True)
class Answers:
    """What a yes-or-no test answered, with the canary and without.

    Attributes:
        true_positives: with the canary, how often "it is in".
        present: how many trials had the canary.
        false_positives: without it, how often "it is in".
        absent: how many trials did not have it.
    """

    true_positives: int
    present: int
    false_positives: int
    absent: int

    def __post_init__(self) -> None:
        if not (0 <= self.true_positives <= self.present and 0 <= self.false_positives <= self.absent):
            raise ValueError(f"{self}: expected no more positives than trials, and none below 0")

    def rates(self, confidence: float) -> tuple[float, float]:
        """A lower bound on the true-positive rate and an upper one on the false-positive rate, both at once.

        Clopper and Pearson (1934), one-sided, each with half of the error: exact for independent trials.
        """
        from scipy.stats import beta

        error = (1 - confidence) / 2
        low, high = 0.0, 1.0
        if self.true_positives:
            low = float(beta.ppf(error, self.true_positives, self.present - self.true_positives + 1))
        if self.false_positives < self.absent:
            high = float(beta.ppf(1 - error, self.false_positives + 1, self.absent - self.false_positives))
        return low, high


def from_answers(answers: Answers, delta: float, confidence: float = CONFIDENCE) -> float:
    """Epsilon at `delta` is at least this, whatever the mechanism is: the bound of an audit of many runs.

    An (epsilon, delta) mechanism has TPR <= e^epsilon FPR + delta and 1 - FPR <= e^epsilon (1 - TPR) + delta (Kairouz,
    Oh and Viswanath, The Composition Theorem for Differential Privacy, 2015, theorem 2.1); both are solved for epsilon
    at the ends of the rates' intervals (Nasr et al., Adversary Instantiation, 2021).

    Assumes: trials are independent.

    >>> round(from_answers(Answers(90, 100, 10, 100), 0.0), 3)
    1.523
    """
    tpr, fpr = answers.rates(confidence)
    found = 0.0
    for more, less in ((tpr, fpr), (1 - fpr, 1 - tpr)):
        if more > delta and less > 0:
            found = max(found, math.log((more - delta) / less))
    return found


def gaussian(answers: Answers, delta: float, confidence: float = CONFIDENCE) -> float:
    """Epsilon at `delta` is at least this if the mechanism is Gaussian: a parametric bound.

    A mu-GDP mechanism has mu >= Phi^-1(TPR) - Phi^-1(FPR) (Dong, Roth and Su, Gaussian Differential Privacy, 2022; Nasr
    et al., Tight Auditing of Differentially Private Machine Learning, 2023). Here mu is taken at the ends of the rates'
    intervals, and its epsilon by the closed form of one Gaussian release with noise 1/mu.

    Assumes: trials are independent, and whoever tells two neighbours apart best does it as between N(0, 1) and
    N(mu, 1). That is exact where all patients are in every step, and an approximation under sampling.

    >>> round(gaussian(Answers(90, 100, 10, 100), 1e-5), 3)
    9.203
    """
    from scipy.stats import norm

    tpr, fpr = answers.rates(confidence)
    if tpr <= fpr:
        return 0.0
    mu = float(norm.ppf(tpr) - norm.ppf(fpr))
    return _greatest(lambda epsilon: gaussian_delta(1 / mu, epsilon) > delta)


def one_run(canaries: int, guesses: int, right: int, delta: float, confidence: float = CONFIDENCE) -> float:
    """Epsilon at `delta` is at least this, whatever the mechanism is, from one run with many canaries.

    Steinke, Nasr and Jagielski, Privacy Auditing with One (1) Training Run, 2023: the greatest epsilon at which so many
    right guesses have a probability below 1 - confidence (`one_run_p_value`).

    Assumes: each canary is in by a fair coin of its own, tossed before the run, and guesses depend on the coins only
    through the run's output. Nothing about the mechanism, and no independence of the guesses.
    """
    error = 1 - confidence
    return _greatest(lambda epsilon: one_run_p_value(canaries, guesses, right, epsilon, delta) < error)


def one_run_p_value(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """The most probable that so many guesses can be right under (epsilon, delta)-DP.

    Theorem 5.2 of Steinke, Nasr and Jagielski (2023): with m canaries, r guesses, v of them right, and
    B ~ Binomial(r, e^epsilon / (1 + e^epsilon)),

        P[right >= v] <= P[B >= v] + 2 m delta max over i = 1..m of P[v > B >= v - i] / i.

    Without delta that is what randomised response does, the best of all. (For i > v the numerator stays as it is.)

    >>> round(one_run_p_value(10, 4, 4, 0.0, 0.0), 4)
    0.0625
    """
    from scipy.stats import binom

    if not 0 <= right <= guesses <= canaries:
        raise ValueError(f"found {right} of {guesses} guesses on {canaries} canaries right; expected no more each time")
    share = 1 / (1 + math.exp(-epsilon))
    whole = float(binom.sf(right - 1, guesses, share))
    if delta == 0 or right == 0:
        return min(1.0, whole)
    below = np.cumsum(binom.pmf(right - np.arange(1, right + 1), guesses, share))  # P[v > B >= v - i], i = 1..v
    return min(1.0, whole + 2 * canaries * delta * float((below / np.arange(1, right + 1)).max()))


def _greatest(refuted: Callable[[float], bool]) -> float:
    """The greatest epsilon that is refuted, to a thousandth and from below; 0 if none is."""
    if not refuted(0.0):
        return 0.0
    low, high = 0.0, MOST
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low
