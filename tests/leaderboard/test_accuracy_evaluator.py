"""Accuracy at one half is scikit-learn's; that it keeps the registry's rules, the other evaluators' tests see to."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score

from leaderboard.evaluators import registry

ROWS = st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.5, 0.5 + 1e-12, 1.0]) | st.floats(0, 1)), min_size=1)


@given(rows=ROWS, seed=st.integers(0, 5))
def test_it_is_scikit_learns_with_weights(rows: list[tuple[bool, float]], seed: int) -> None:
    y, p = np.array([row[0] for row in rows]), np.array([row[1] for row in rows], float)
    w = np.random.default_rng(seed).integers(0, 3, len(y)).astype(float)
    w[0] = 1
    found = registry.load("accuracy").function(y, p, w)
    assert found == pytest.approx(accuracy_score(y, p > 0.5, sample_weight=w), abs=1e-12)


def test_a_risk_of_one_half_is_no_alarm() -> None:
    y, p = np.array([True, False]), np.array([0.5, 0.5])
    assert registry.load("accuracy").function(y, p, np.ones(2)) == 0.5
    assert registry.load("accuracy").function(y[:1], p[:1], np.ones(1)) == 0.0
