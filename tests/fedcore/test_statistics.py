"""What sites agree on: vocabulary, centre, scale, limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcore.features.tabular import columns
from fedcore.statistics import CELLS, CLIP_DEVIATIONS, Column, standard, standardise, vocabulary
from privacy.releases.sketches import Counts, Histogram, Moments


def test_the_vocabulary_is_the_most_frequent_names_and_ties_go_by_name():
    counts = Counts(("a", "b", "c", "d"), np.array([10, 30, 10, 20]), 10)
    assert vocabulary(counts, 3) == ("b", "d", "a")


def test_every_columns_grid_is_increasing_and_holds_its_plausible_range():
    for column in columns():
        edges = column.edges()
        assert len(edges) == CELLS + 1
        assert np.all(np.diff(edges) > 0), column
        if column.kind != "slope":
            low, high = column.seen(np.array([column.low, column.high]))
            assert (edges[0], edges[-1]) == pytest.approx((low, high))


@given(st.lists(st.floats(0, 40), min_size=2, max_size=20))
def test_seeing_values_on_their_scale_keeps_their_order(values):
    for kind in ("linear", "log", "count", "slope"):
        seen = Column("x", 0.05, 40, kind).seen(np.array(sorted(values)))
        assert np.all(np.diff(seen) >= 0)
    assert np.isnan(Column("x", 0.05, 40, "log").seen(np.array([np.nan]))[0])


def test_a_column_that_does_not_vary_or_that_nobody_sent_is_dropped():
    moments = Moments.release(["same", "varies"], [0, 0, 1, 1], [2.0, 2, 1, 3], [1, 2, 1, 2], minimum=1)
    agreed = standard(["absent", "varies", "same"], moments)
    assert (agreed.columns, agreed.center, agreed.scale) == (("varies",), (2.0,), (1.0,))


def test_values_are_clipped_at_the_agreed_quantiles():
    rng = np.random.default_rng(0)
    values = np.append(rng.uniform(40, 60, 999), 1000.0)
    column = Column("x", 0, 2000)
    grid = Histogram.release(["x"], column.edges()[None], values[:, None], minimum=10)
    moments = Moments.release(["x"], np.zeros(1000, int), values, np.arange(1000), minimum=10)
    agreed = standard(["x"], moments, grid)
    assert agreed.high[0] < 100
    limits = (np.array(v) for v in (agreed.center, agreed.scale, agreed.low, agreed.high))
    assert standardise(np.array([[1000.0]]), *limits)[0, 0] == pytest.approx(
        (agreed.high[0] - agreed.center[0]) / agreed.scale[0]
    )


def test_what_is_missing_becomes_the_mean_and_nothing_is_far_out():
    one = np.ones(1)
    out = standardise(np.array([[np.nan], [1e9], [-1e9], [1.0]]), 0 * one, one, -1e9 * one, 1e9 * one)
    assert out[:, 0].tolist() == [0, CLIP_DEVIATIONS, -CLIP_DEVIATIONS, 1]
    assert out.dtype == np.float32
