"""RMIA: against how many people of the population the candidate stands out, in a model relative to others.

Zarifzadeh, Liu and Shokri, Low-Cost High-Power Membership Inference Attacks, 2024, section 3. The likelihood ratio of a
candidate x against a z of the population is LR(x, z) = (Pr(x | model) / Pr(x)) / (Pr(z | model) / Pr(z)), and the score
Pr over z of [LR(x, z) >= gamma]. Pr(x | model) is the probability that the model gives x's true outcome, and Pr(x) its
mean over reference models, of those trained on x and of the others in equal parts: the paper's online attack.
"""

import numpy as np

from privacy.attacks.outcome import Bools, Floats

GAMMA = 1.0
"""How many times likelier than z a candidate has to be. Chosen after 2 was tried on the simulated hospitals: of a model
that fits nobody twice as well as expected, 2 leaves all candidates tied at 0."""

LEAST = 1e-12


def score(
    observed: Floats, reference: Floats, inside: Bools, population: Floats, population_reference: Floats
) -> Floats:
    """Float64 [n], in [0, 1]: the score of each candidate.

    Args:
        observed: float [n], what the target gives each candidate's true outcome, in (0, 1].
        reference: float [k, n], what reference models give it.
        inside: bool [k, n], whether a reference model was trained on a candidate.
        population: float [m], what the target gives people who are no candidates.
        population_reference: float [k, m], what reference models, trained on none of them, give these.
    """
    without = np.where(inside, 0.0, reference).sum(0) / np.maximum((~inside).sum(0), 1)
    before = (without + np.where(inside, reference, 0.0).sum(0) / np.maximum(inside.sum(0), 1)) / 2
    before_z = population_reference.mean(0)
    ratio = np.maximum(observed, LEAST) / np.maximum(before, LEAST)
    ratio_z = np.sort(np.maximum(population, LEAST) / np.maximum(before_z, LEAST))
    return np.asarray(np.searchsorted(ratio_z, ratio / GAMMA, side="right") / len(ratio_z), dtype=np.float64)
