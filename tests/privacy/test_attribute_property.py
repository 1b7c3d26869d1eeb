"""Attributes and properties of which the truth is known."""

import numpy as np
import pytest
from scipy import stats

from privacy.attacks import attribute, property
from privacy.attacks.outcome import auroc


def people(effect: float, n: int = 6000, seed: int = 0):
    """An attribute that others tell a little of, and an outcome that it moves by `effect` on the log odds."""
    rng = np.random.default_rng(seed)
    other = rng.standard_normal((n, 3))
    has = rng.random(n) < 1 / (1 + np.exp(-other[:, 0]))
    risk = 1 / (1 + np.exp(-(other[:, 1] + effect * has)))
    outcome = rng.random(n) < risk
    given = [1 / (1 + np.exp(-(other[:, 1] + effect * value))) for value in (1, 0)]
    likelihood = [np.where(outcome, p, 1 - p) for p in given]
    return other, has, likelihood


def test_a_model_adds_to_what_can_be_imputed_as_much_as_bayes_says() -> None:
    other, has, (yes, no) = people(3.0)
    prior = attribute.imputed(other[:3000], has[:3000], other[3000:])
    alone = auroc(attribute.score(prior, np.ones(3000), np.ones(3000)), has[3000:])
    added = auroc(attribute.score(prior, yes[3000:], no[3000:]), has[3000:])
    truth = 1 / (1 + np.exp(-other[3000:, 0]))
    best = auroc(attribute.score(truth, yes[3000:], no[3000:]), has[3000:])
    assert added.low > alone.high and added.value == pytest.approx(best.value, abs=0.01)


def test_a_model_that_does_not_look_at_the_attribute_adds_nothing() -> None:
    other, has, (yes, no) = people(0.0)
    prior = attribute.imputed(other[:3000], has[:3000], other[3000:])
    with_model = attribute.score(prior, yes[3000:], no[3000:])
    assert np.allclose(with_model, attribute.score(prior, np.ones(3000), np.ones(3000)))


@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_a_property_that_moves_updates_is_told_as_well_as_two_normals_are(shift: float) -> None:
    rng = np.random.default_rng(1)
    has = np.arange(400) % 2 == 0
    updates = rng.standard_normal((400, 40))
    updates[:, 0] += shift * has
    found = auroc(property.score(updates[:200], has[:200], updates[200:]), has[200:])
    best = stats.norm.cdf(shift / np.sqrt(2))
    assert found.low <= best + 0.02 and found.value > best - 0.12
    assert (found.low <= 0.5 <= found.high) == (shift == 0)


def test_a_few_weights_that_tell_are_found_among_many_that_do_not() -> None:
    rng = np.random.default_rng(2)
    has = np.arange(80) % 2 == 0
    updates = np.c_[np.zeros(80), rng.standard_normal((80, 800))]
    updates[:, 7] += 3 * has
    assert auroc(property.score(updates[:40], has[:40], updates[40:]), has[40:]).value > 0.85
