"""LiRA: how much likelier the model's confidence in a candidate is if models like it were trained on the candidate.

Carlini, Chien, Nasr, Song, Terzis and Tramer, Membership Inference Attacks From First Principles, 2022. `online` is
their algorithm 1, `offline` its variant of section V that has no model trained on the candidate. The attacker trains
shadow models as the target was trained, each on a part of the candidates drawn at random; the logit of the probability
that a model gives the true outcome is near to normal over models (section IV-C), so that its two means and a variance
are all that is to be estimated. What is observed may be any such statistic, one from a site's updates as well.

With few shadow models (fewer than `OWN_VARIANCE`) all candidates share a variance, as section VI-C advises: here the
one around each candidate's own mean.
"""

import numpy as np
from scipy import stats

from privacy.attacks.outcome import Bools, Floats

OWN_VARIANCE = 64
"""From so many shadow models on each candidate has variances of its own."""

SMALLEST = 1e-12
LEAST_SPREAD = 1e-6


def confidence(probability: Floats, label: Bools) -> Floats:
    """Float64: log(p / (1 - p)) of the probability p of the true outcome, kept `SMALLEST` away from 0 and 1.

    Args:
        probability: float [..., n], of the positive outcome.
        label: bool [n].

    >>> confidence(np.array([0.5, 0.25]), np.array([True, False])).round(3).tolist()
    [0.0, 1.099]
    """
    p = np.clip(np.where(label, probability, 1 - probability), SMALLEST, 1 - SMALLEST)
    return np.asarray(np.log(p) - np.log1p(-p))


def online(observed: Floats, shadow: Floats, inside: Bools) -> Floats:
    """Float64 [n]: log likelihood ratios, in against out.

    Args:
        observed: float [n], the target's statistic of each candidate.
        shadow: float [k, n], the shadow models' statistics.
        inside: bool [k, n], whether a shadow model was trained on a candidate; each candidate both, once at least.

    Raises:
        ValueError: a candidate is in all shadow models, or in none.
    """
    if inside.all(0).any() or not inside.any(0).all():
        raise ValueError("a candidate is in all shadow models or in none; expected some of each; train more of them")
    log = [
        stats.norm.logpdf(observed, *_normal(shadow, chosen, own=len(shadow) >= OWN_VARIANCE))
        for chosen in (inside, ~inside)
    ]
    return np.asarray(log[0] - log[1], dtype=np.float64)


def offline(observed: Floats, shadow: Floats, inside: Bools) -> Floats:
    """Float64 [n]: how improbably high the statistic is for a model that was not trained on the candidate.

    The score is the z value of which the paper's 1 - Pr[Z > observed] is the distribution function: of the same order,
    and not rounded to 1 where it is large.

    Args:
        observed: float [n].
        shadow: float [k, n].
        inside: bool [k, n]; only shadow models without a candidate are looked at, and each candidate needs one.

    Raises:
        ValueError: a candidate is in all shadow models.
    """
    if inside.all(0).any():
        raise ValueError("a candidate is in all shadow models; expected one without at least; train more of them")
    mean, spread = _normal(shadow, ~inside, own=len(shadow) >= OWN_VARIANCE)
    return np.asarray((observed - mean) / spread, dtype=np.float64)


def _normal(shadow: Floats, chosen: Bools, *, own: bool) -> tuple[Floats, Floats]:
    """Mean [n] and standard deviation, [n] or of all alike, over the chosen shadow models of each candidate."""
    count = chosen.sum(0)
    mean = np.where(chosen, shadow, 0.0).sum(0) / count
    squared = np.where(chosen, (shadow - mean) ** 2, 0.0).sum(0)
    freedom = count - 1
    if own and freedom.min() > 0:
        spread = np.sqrt(squared / freedom)
    else:
        spread = np.full(len(mean), np.sqrt(squared.sum() / max(int(freedom.sum()), 1)))
    return mean, np.maximum(spread, LEAST_SPREAD)
