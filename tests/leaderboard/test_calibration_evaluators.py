"""Calibration slope, intercept and O:E against scikit-learn, closed forms and known truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from leaderboard.evaluators import calibration, registry
from leaderboard.evaluators.registry import Undefined

slope = registry.load("calibration_slope").function
intercept = registry.load("calibration_intercept").function
o_e = registry.load("o_e").function


def sigmoid(eta):
    return 1 / (1 + np.exp(-eta))


def population(seed, n=3_000, a=0.0, b=1.0):
    """Risks p and outcomes whose true model is logit P(y) = a + b logit(p)."""
    rng = np.random.default_rng(seed)
    z = rng.normal(-2, 1.2, n)
    return rng.random(n) < sigmoid(a + b * z), sigmoid(z), rng.exponential(size=n)


@pytest.mark.parametrize("seed", range(5))
def test_slope_is_that_of_scikit_learns_unpenalised_logistic_regression(seed):
    y, p, w = population(seed, n=400, a=0.5, b=0.7)
    z = np.log(p / (1 - p))
    oracle = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(z[:, None], y, sample_weight=w)
    assert slope(y, p, w) == pytest.approx(oracle.coef_[0, 0], rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_at_the_intercept_the_shifted_risks_sum_to_the_events(seed):
    y, p, w = population(seed, n=400, a=-0.8)
    shifted = sigmoid(np.log(p / (1 - p)) + intercept(y, p, w))
    assert np.sum(w * shifted) == pytest.approx(np.sum(w * y), rel=1e-10)


def test_two_risks_have_slope_and_intercept_in_closed_form():
    # Risk 0.2: 30 events of 100; risk 0.6: 50 of 100. Slope = difference of observed over that of predicted logits.
    p = np.repeat([0.2, 0.6], 100)
    y = np.concatenate([np.arange(100) < 30, np.arange(100) < 50])
    expected = (np.log(50 / 50) - np.log(30 / 70)) / (np.log(0.6 / 0.4) - np.log(0.2 / 0.8))
    assert slope(y, p, np.ones(200)) == pytest.approx(expected, rel=1e-10)
    one = np.full(100, 0.2)
    assert intercept(y[:100], one, np.ones(100)) == pytest.approx(np.log(30 / 70) - np.log(0.2 / 0.8), rel=1e-10)
    assert o_e(y, p, np.ones(200)) == pytest.approx(80 / 80)
    assert o_e(y[:100], one, np.ones(100)) == pytest.approx(1.5)


def test_true_slope_and_intercept_are_found_in_a_large_population():
    y, p, w = population(7, n=400_000, a=0.0, b=0.6)
    assert slope(y, p, np.ones_like(w)) == pytest.approx(0.6, abs=0.02)
    y, p, w = population(8, n=400_000, a=0.4)
    assert intercept(y, p, np.ones_like(w)) == pytest.approx(0.4, abs=0.03)


def test_shifting_all_logits_shifts_the_intercept_and_leaves_the_slope():
    y, p, w = population(3)
    z = np.log(p / (1 - p))
    shifted = sigmoid(z + 0.3)
    assert intercept(y, shifted, w) == pytest.approx(intercept(y, p, w) - 0.3, abs=1e-9)
    assert slope(y, shifted, w) == pytest.approx(slope(y, p, w), rel=1e-9)
    assert slope(y, sigmoid(2 * z), w) == pytest.approx(slope(y, p, w) / 2, rel=1e-9)


@pytest.mark.parametrize(
    ("y", "p"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4]),
        ([1, 1, 0, 0], [0.1, 0.2, 0.3, 0.4]),
        ([0, 0, 1, 1], [0.1, 0.3, 0.3, 0.4]),
        ([0, 1, 0, 1], [0.3, 0.3, 0.3, 0.3]),
        ([0, 1, 0, 1], [1.0, 1.0, 1.0, 1.0]),
    ],
    ids=["separated", "separated the wrong way", "touching", "one risk", "all certain"],
)
def test_a_slope_that_does_not_exist_is_refused(y, p):
    with pytest.raises(Undefined, match="separate events from non-events or are all the same"):
        slope(np.array(y, dtype=bool), np.array(p), np.ones(4))


def test_separation_is_of_the_samples_that_have_weight():
    y, p = np.array([False, True, False, True]), np.array([0.1, 0.2, 0.3, 0.4])
    assert np.isfinite(slope(y, p, np.ones(4)))
    with pytest.raises(Undefined):
        slope(y, p, np.array([1.0, 0.0, 1.0, 1.0]))


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_the_batched_fit_ends_where_its_gradient_is_zero(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(6, 60))
    p, y = sigmoid(rng.normal(0, rng.choice([0.5, 3, 12]), n)), rng.random(n) < rng.choice([0.15, 0.5])
    w = rng.multinomial(n, np.full(n, 1 / n), size=20).astype(float)
    found = calibration.prepare_slope(y, p)(w)
    z = np.log(np.clip(p, 1e-8, 1 - 1e-8)) - np.log1p(-np.clip(p, 1e-8, 1 - 1e-8))
    for row, b in zip(w, found, strict=True):
        events, others = z[y & (row > 0)], z[~y & (row > 0)]
        exists = (
            len(events)
            and len(others)
            and min(others.max() - events.min(), events.max() - others.min()) > 1e-6 * z.std()
        )
        assert np.isfinite(b) == bool(exists)
        if exists:
            # Given b, the intercept is a root of one increasing function; at the optimum both gradients vanish.
            low, high = -500.0, 500.0
            for _ in range(200):
                a = (low + high) / 2
                low, high = (a, high) if np.sum(row * (y - sigmoid(a + b * z))) > 0 else (low, a)
            assert abs(np.sum(row * (y - sigmoid(a + b * z)) * z)) < 1e-5 * np.sum(row) * max(1, np.abs(z).max())


def test_a_perfectly_certain_and_wrong_risk_gives_finite_numbers():
    y, p, w = population(1, n=200)
    p[:2], y[:2] = [0.0, 1.0], [True, False]
    assert np.isfinite([slope(y, p, w), intercept(y, p, w), o_e(y, p, w)]).all()


def test_no_expected_event_leaves_o_e_undefined():
    with pytest.raises(Undefined, match="no event is expected"):
        o_e(np.array([True, False]), np.zeros(2), np.ones(2))
