"""Membership by the loss: whom the model fits better than others was in its training data.

Yeom, Giacomelli, Fredrikson and Jha, Privacy Risk in Machine Learning: Analyzing the Connection to Overfitting, 2018,
experiment 1 and adversary 2, which knows the loss's threshold. Here no threshold is fixed: the negative loss is the
score. The attacker knows the model and the candidate with the outcome, and nothing else.
"""

import numpy as np

from privacy.attacks.outcome import Floats


def score(loss: Floats) -> Floats:
    """Float64 [n]: the score of each candidate.

    Args:
        loss: float [n], the model's loss on each.
    """
    return -np.asarray(loss, dtype=np.float64)
