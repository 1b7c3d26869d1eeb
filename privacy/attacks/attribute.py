"""Attribute inference: a binary attribute of a patient, from all else that is known of them and a model.

Fredrikson et al., Privacy in Pharmacogenetics, 2014; Yeom et al., Privacy Risk in Machine Learning, 2018, experiment 2
and adversary 4: the attacker takes the value that makes the known outcome likeliest under the model, weighed by how
likely it is before. What counts is what the model adds: who has no access to it imputes the attribute from the rest,
and of people whom the model never met it tells as much of the population as of them.
"""

import numpy as np

from privacy.attacks.outcome import Floats

LEAST = 1e-12


def score(prior: Floats, likelihood: Floats, otherwise: Floats) -> Floats:
    """Float64 [n]: log odds that a patient has the attribute, by Bayes.

    Args:
        prior: float [n], the probability of the attribute given all else, without the model.
        likelihood: float [n], what the model gives the true outcome if the patient had the attribute.
        otherwise: float [n], and if not.

    >>> score(np.array([0.5]), np.array([0.9]), np.array([0.3])).round(4).tolist()
    [1.0986]
    """
    p = np.clip(prior, LEAST, 1 - LEAST)
    ratio = np.log(np.maximum(likelihood, LEAST)) - np.log(np.maximum(otherwise, LEAST))
    return np.asarray(np.log(p) - np.log1p(-p) + ratio, dtype=np.float64)


def imputed(known: Floats, attribute: "np.ndarray[tuple[int], np.dtype[np.bool_]]", asked: Floats) -> Floats:
    """Float64 [m]: the probability of the attribute by logistic regression on who is known, without any model.

    Args:
        known: float [n, d], all else of people whose attribute is known.
        attribute: bool [n], both values among them.
        asked: float [m, d], all else of those it is asked of.
    """
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=0.01, max_iter=200).fit(known, attribute)
    return np.asarray(fitted.predict_proba(asked)[:, 1], dtype=np.float64)
