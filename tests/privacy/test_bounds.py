"""Lower bounds on epsilon: they hold as often as they say, by summing over everything that could have come out."""

import math
from itertools import product

import numpy as np
import pytest
from scipy.stats import binom, norm

from privacy.accounting import gaussian_delta
from privacy.audit.bounds import Answers, from_answers, gaussian, one_run, one_run_p_value

TRIALS = 25


def _wrong(tpr: float, fpr: float, exceeds) -> float:
    """How probable it is that a bound from 25 trials with and 25 without exceeds the truth."""
    there, absent = (binom.pmf(np.arange(TRIALS + 1), TRIALS, rate) for rate in (tpr, fpr))
    cases = product(range(TRIALS + 1), repeat=2)
    return sum(there[tp] * absent[fp] for tp, fp in cases if exceeds(Answers(tp, TRIALS, fp, TRIALS)))


@pytest.mark.parametrize("epsilon", [0.0, 1.0, 3.0])
def test_from_rates_it_exceeds_the_truth_one_time_in_twenty_at_most(epsilon: float) -> None:
    """Randomised response, which is as revealing as its epsilon allows; with a delta, one that reveals the more."""
    share = 1 / (1 + math.exp(-epsilon))
    assert _wrong(share, 1 - share, lambda found: from_answers(found, 0.0) > epsilon) <= 0.05
    delta = 0.1
    tpr, fpr = delta + (1 - delta) * share, (1 - delta) * (1 - share)
    assert _wrong(tpr, fpr, lambda found: from_answers(found, delta) > epsilon) <= 0.05


@pytest.mark.parametrize("mu", [0.5, 1.5])
@pytest.mark.parametrize("threshold", [0.2, 0.8])
def test_the_parametric_bound_holds_for_a_gaussian_and_is_the_tighter(mu: float, threshold: float) -> None:
    tpr, fpr = norm.sf(threshold - mu), norm.sf(threshold)
    delta = 1e-3
    # it exceeds the truth where its delta at the bound is below the mechanism's own
    wrong = _wrong(tpr, fpr, lambda found: (g := gaussian(found, delta)) > 0 and gaussian_delta(1 / mu, g) < delta)
    assert wrong <= 0.05
    many = Answers(round(tpr * 1e7), 10**7, round(fpr * 1e7), 10**7)
    truth = gaussian(many, delta)
    assert gaussian_delta(1 / mu, truth) == pytest.approx(delta, rel=0.1)
    assert from_answers(many, delta) < truth


def test_the_rates_intervals_are_clopper_and_pearsons() -> None:
    low, high = Answers(9, 10, 1, 10).rates(0.95)
    assert binom.sf(8, 10, low) == pytest.approx(0.025)
    assert binom.cdf(1, 10, high) == pytest.approx(0.025)
    assert Answers(0, 10, 10, 10).rates(0.95) == (0.0, 1.0)


def test_without_delta_one_run_is_the_tail_of_a_binomial() -> None:
    assert one_run_p_value(100, 20, 18, 1.0, 0.0) == pytest.approx(binom.sf(17, 20, math.e / (1 + math.e)))
    for right in (5, 50):  # all of them right: the share whose power is 1/20
        share = 0.05 ** (1 / right)
        assert one_run(1000, right, right, 0.0) == pytest.approx(math.log(share / (1 - share)), abs=2e-3)
    assert one_run(100, 60, 30, 0.0) == 0


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_one_run_of_randomised_response_exceeds_its_epsilon_one_time_in_twenty(epsilon: float) -> None:
    guesses, share = 200, 1 / (1 + math.exp(-epsilon))
    above = [right for right in range(guesses + 1) if one_run(400, guesses, right, 0.0) > epsilon]
    assert binom.pmf(above, guesses, share).sum() <= 0.05
    stream = np.random.default_rng(0)
    drawn = (stream.random((500, guesses)) < share).sum(axis=1)
    assert np.mean([one_run(400, guesses, int(right), 0.0) > epsilon for right in drawn]) <= 0.08
    assert np.median([one_run(400, guesses, int(right), 0.0) for right in drawn[:50]]) > epsilon / 3


@pytest.mark.parametrize(("canaries", "guesses", "right"), [(8, 8, 7), (100, 40, 31), (200, 60, 55)])
def test_delta_adds_the_worst_of_the_theorems_terms(canaries: int, guesses: int, right: int) -> None:
    epsilon, delta = 0.7, 1e-4
    share = 1 / (1 + math.exp(-epsilon))
    terms = [
        sum(binom.pmf(k, guesses, share) for k in range(max(0, right - i), right)) / i for i in range(1, canaries + 1)
    ]
    expected = binom.sf(right - 1, guesses, share) + 2 * canaries * delta * max(terms)
    assert one_run_p_value(canaries, guesses, right, epsilon, delta) == pytest.approx(min(1.0, expected))
    assert one_run(canaries, guesses, right, 1e-4) <= one_run(canaries, guesses, right, 0.0)


def test_a_mechanism_that_tells_all_with_probability_delta_is_within_its_p_values() -> None:
    """It is (0, delta)-DP, and all guesses are right at once."""
    canaries, delta = 20, 0.02
    for right in range(canaries + 1):
        truth = delta + (1 - delta) * binom.sf(right - 1, canaries, 0.5)
        assert truth <= one_run_p_value(canaries, canaries, right, 0.0, delta) + 1e-12


@pytest.mark.parametrize(
    "call", [lambda: Answers(11, 10, 0, 10), lambda: Answers(0, 10, -1, 10), lambda: one_run(10, 4, 5, 0.0)]
)
def test_more_right_than_asked_is_refused(call) -> None:
    with pytest.raises(ValueError, match="expected no more"):
        call()
