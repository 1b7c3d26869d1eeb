"""Property inference: something true of a hospital's patients as a whole, from the update that it sends.

Ateniese et al., Hacking Smart Machines with Smarter Ones, 2015; Melis, Song, De Cristofaro and Shmatikov, Exploiting
Unintended Feature Leakage in Collaborative Learning, 2019, section 4.3 (the passive attack): the attacker makes
hospitals of its own, with and without the property, sees what updates they send, and fits a classifier to these: a
logistic regression on the few weights whose means differ most between the two, by Welch's t. There are more weights
than hospitals, and all of them together would drown what those few say.
"""

import numpy as np
from numpy.typing import NDArray

from privacy.attacks.outcome import Bools, Floats

LOOKED_AT = 10
"""Weights that the classifier looks at."""


def score(known: Floats, has: Bools, asked: Floats) -> Floats:
    """Float64 [m]: log odds that a hospital has the property.

    Args:
        known: float [k, d], the updates of the attacker's own hospitals.
        has: bool [k], which of them have the property; two at least of both kinds.
        asked: float [m, d], the updates of the hospitals attacked.
    """
    from sklearn.linear_model import LogisticRegression

    apart = np.abs(known[has].mean(0) - known[~has].mean(0))
    error = np.sqrt(known[has].var(0, ddof=1) / has.sum() + known[~has].var(0, ddof=1) / (~has).sum())
    t = np.divide(apart, error, out=np.zeros_like(apart), where=error > 0)
    kept: NDArray[np.intp] = np.argsort(-t, kind="stable")[:LOOKED_AT]
    middle, spread = known[:, kept].mean(0), np.maximum(known[:, kept].std(0), 1e-300)
    fitted = LogisticRegression(max_iter=500).fit((known[:, kept] - middle) / spread, has)
    return np.asarray(fitted.decision_function((asked[:, kept] - middle) / spread), dtype=np.float64)
