"""How well an attack tells members from others: the area under its ROC, and what it finds at few false alarms.

A member is someone who was in the training data; an attack gives each candidate a score, the higher the more likely a
member. The unit is the patient: scores are one a patient, so intervals are by patient without more ado.

Rates at few false alarms are what counts (Carlini et al., Membership Inference Attacks From First Principles, 2022,
section III): an attack that names three patients with certainty has an area near a half. They can be told only where
enough non-members stand behind them: at least `MIN_FALSE_ALARMS` of them are to lie above the threshold.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MIN_FALSE_ALARMS = 10
"""False positive rate x distinct non-members, below which a rate of true positives is not given."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, or the reason why there is none.

    Attributes:
        value: None if and only if `reason` says why.
        low, high: the interval's ends, around `value`.
        method: how the interval was made.
        reason: why there is no number.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    method: str = ""
    reason: str | None = None


def auroc(score: Floats, member: Bools, level: float = 0.95) -> Estimate:
    """Area under the ROC curve, ties counting half; the interval of DeLong, DeLong and Clarke-Pearson (1988).

    The variance is that of the placement values (their equations 5 to 9); the interval is symmetric on the logit scale,
    so that it stays inside (0, 1). An area of 0 or 1 has no variance: its interval is a point's, and means nothing.

    Args:
        score: float [n], finite or infinite.
        member: bool [n].
        level: of the interval.
    """
    _refuse_nan(score)
    inside, outside = np.sort(score[member]), np.sort(score[~member])
    m, n = len(inside), len(outside)
    if min(m, n) < 2:
        return Estimate(None, reason=f"{m} members and {n} others; expected two of each")
    of_member = (np.searchsorted(outside, inside, "left") + np.searchsorted(outside, inside, "right")) / (2 * n)
    of_other = 1 - (np.searchsorted(inside, outside, "left") + np.searchsorted(inside, outside, "right")) / (2 * m)
    area = float(of_member.mean())
    spread = math.sqrt(of_member.var(ddof=1) / m + of_other.var(ddof=1) / n)
    if not 0 < area < 1:
        return Estimate(area, area, area, "delong-logit")
    middle, half = math.log(area / (1 - area)), float(stats.norm.ppf((1 + level) / 2)) * spread / (area * (1 - area))
    low, high = (1 / (1 + math.exp(-(middle + side))) for side in (-half, half))
    return Estimate(area, low, high, "delong-logit")


def tpr_at(score: Floats, member: Bools, fpr: float, level: float = 0.95) -> Estimate:
    """The share of members above the lowest threshold that at most a share `fpr` of the others is above.

    The interval is Clopper and Pearson's, for the threshold as it is; that the threshold was set on the same
    non-members is not in it.

    Args:
        score: float [n].
        member: bool [n].
        fpr: the false positive rate that is allowed.
        level: of the interval.
    """
    _refuse_nan(score)
    inside, outside = score[member], np.sort(score[~member])[::-1]
    allowed = fpr * len(outside)
    if len(inside) == 0 or allowed < MIN_FALSE_ALARMS:
        return Estimate(
            None,
            reason=f"a false positive rate of {fpr:g} of {len(outside)} non-members is {allowed:.1f} of them; "
            f"expected {MIN_FALSE_ALARMS} at least",
        )
    threshold = outside[math.floor(allowed + 1e-9)] if math.floor(allowed + 1e-9) < len(outside) else -np.inf
    found = int((inside > threshold).sum())
    low, high = clopper_pearson(found, len(inside), level)
    return Estimate(found / len(inside), low, high, "clopper-pearson")


def _refuse_nan(score: Floats) -> None:
    if np.isnan(score).any():
        raise ValueError(
            f"{int(np.isnan(score).sum())} of {len(score)} scores are NaN; expected numbers, mend the attack"
        )


def clopper_pearson(found: int, of: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share (Clopper and Pearson, 1934).

    >>> clopper_pearson(0, 100)[1] < 0.037
    True
    """
    tail = (1 - level) / 2
    low = float(stats.beta.ppf(tail, found, of - found + 1)) if found else 0.0
    high = float(stats.beta.ppf(1 - tail, found + 1, of - found)) if found < of else 1.0
    return low, high


def roc(score: Floats, member: Bools) -> tuple[Floats, Floats]:
    """False and true positive rates at every threshold, from (0, 0) to (1, 1); ties are taken together."""
    order = np.argsort(-score, kind="stable")
    ranked, hit = score[order], member[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    true, false = np.cumsum(hit)[ends], np.cumsum(~hit)[ends]
    return np.append(0.0, false / max((~member).sum(), 1)), np.append(0.0, true / max(member.sum(), 1))


def most_true(fpr: Floats, epsilon: float, delta: float) -> Floats:
    """The largest true positive rate that (epsilon, delta)-differential privacy leaves an attack, at each `fpr`.

    Kairouz, Oh and Viswanath, The Composition Theorem for Differential Privacy, 2015, theorem 2.1: TPR is at most
    e^epsilon FPR + delta, and at most 1 - e^-epsilon (1 - delta - FPR).
    """
    most = np.minimum(np.exp(epsilon) * fpr + delta, 1 - np.exp(-epsilon) * (1 - delta - fpr))
    return np.asarray(np.clip(most, 0.0, 1.0), dtype=np.float64)


def by_patient(value: Floats, patient: NDArray[np.int64], patients: int) -> Floats:
    """Float64 [patients]: each patient's mean over their rows, so that all stays of a patient make one score.

    Args:
        value: float [n] or [k, n], one a row.
        patient: int64 [n], from 0 to patients - 1, each at least once.
        patients: how many there are.
    """
    rows = np.bincount(patient, minlength=patients)
    summed = [np.bincount(patient, weights=one, minlength=patients) / rows for one in np.atleast_2d(value)]
    return np.asarray(summed[0] if value.ndim == 1 else summed, dtype=np.float64)
