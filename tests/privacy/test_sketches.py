"""Sketches: they merge, they hide the few, and they survive the wire."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.releases.sketches import Counts, Histogram, Moments, NoisyHistogram, ReleaseError, merge, pack, unpack

NAMES = ("a", "b", "c", "d")
EDGES = np.tile(np.linspace(0.0, 1.0, 9), (4, 1))

rows = st.lists(st.tuples(st.integers(0, 3), st.floats(-1e3, 1e3), st.integers(0, 6)), min_size=0, max_size=30)


def counts(data, minimum=1):
    return Counts.release(NAMES, [i for i, _, _ in data], [p for _, _, p in data], minimum)


def moments(data, minimum=1):
    return Moments.release(NAMES, [i for i, _, _ in data], [v for _, v, _ in data], [p for _, _, p in data], minimum)


def histogram(data, minimum=1):
    values = np.full((len(data), 4), np.nan)
    for row, (i, v, _) in enumerate(data):
        values[row, i] = v / 1e3
    return Histogram.release(NAMES, EDGES, values, minimum)


def same(a, b):
    left, right = a.to_arrays(), b.to_arrays()
    return set(left) == set(right) and all(
        np.allclose(left[k], right[k], rtol=1e-9, atol=1e-6)
        if left[k].dtype.kind == "f"
        else np.array_equal(left[k], right[k])
        for k in left
    )


@pytest.mark.parametrize("make", [counts, moments, histogram])
@given(a=rows, b=rows, c=rows, minimum=st.integers(1, 4))
def test_merge_is_associative_and_commutative(make, a, b, c, minimum):
    x, y, z = make(a, minimum), make(b, minimum), make(c, minimum)
    assert same(x.merge(y), y.merge(x))
    assert same(x.merge(y).merge(z), x.merge(y.merge(z)))


@pytest.mark.parametrize("make", [counts, moments, histogram])
@given(a=rows, b=rows)
def test_the_merge_of_two_sites_is_the_sketch_of_their_rows_together(make, a, b):
    other = [(i, v, p + 100) for i, v, p in b]  # another hospital's patients are other people
    assert same(make(a).merge(make(other)), make(a + other))


@given(
    shared=st.integers(0, 40),
    others=st.lists(st.integers(1, 5), max_size=14),
    again=st.integers(1, 3),
    seed=st.integers(0),
)
def test_sums_leave_if_ten_patients_or_none_differ_from_what_the_others_share(shared, others, again, seed):
    values = np.repeat([0.0] * shared + [float(v) for v in others], again)
    patients = np.repeat(np.arange(shared + len(others)), again)
    mixed = np.random.default_rng(seed).permutation(len(values))
    sketch = Moments.release(["n"], np.zeros(len(values), int), values[mixed], patients[mixed])
    if shared > len(others):
        assert (sketch.names == ("n",)) == (shared + len(others) >= 10 and len(others) not in range(1, 10))
    if sketch.names and shared >= 10:
        assert len(others) == 0 or len(others) >= 10


def test_one_stay_of_one_patient_that_differs_from_all_others_stays_at_the_site():
    values, patients = np.zeros(9000), np.repeat(np.arange(1000), 9)
    values[8999] = 7.0
    assert Moments.release(["lactate.count"], np.zeros(9000, int), values, patients).names == ()
    values[::90] = 7.0
    assert Moments.release(["lactate.count"], np.zeros(9000, int), values, patients).names == ("lactate.count",)


@pytest.mark.parametrize("make", [counts, moments, histogram])
@given(data=rows, minimum=st.integers(2, 5))
def test_nothing_that_fewer_patients_than_the_minimum_have_leaves(make, data, minimum):
    sketch = make(data, minimum)
    for i, name in enumerate(NAMES):
        patients = len({p for j, _, p in data if j == i})
        if make is histogram:
            patients = sum(j == i for j, _, _ in data)  # one row a patient there
        assert name not in sketch.names or patients >= minimum
        if make is not moments:  # which withhold more
            assert (name in sketch.names) == (patients >= minimum)
    if make is histogram:
        assert np.all((sketch.counts == 0) | (sketch.counts >= minimum))


@given(data=rows)
def test_joining_small_cells_loses_nobody(data):
    for minimum in (1, 3):
        sketch = histogram(data, minimum)
        for name, cells in zip(sketch.names, sketch.counts, strict=True):
            assert cells.sum() == sum(NAMES[i] == name for i, _, _ in data)


def test_a_patient_with_five_stays_counts_once():
    sketch = Counts.release(["I10"], [0] * 5 + [0], [1] * 5 + [2], minimum=1)
    assert sketch.counts.tolist() == [2]
    assert Counts.release(["I10"], [0] * 5, [1] * 5, minimum=2).names == ()


def test_moments_are_mean_and_deviation():
    values = np.array([36.5, 37.0, 38.5])
    sketch = Moments.release(["t"], [0, 0, 0], values, [1, 2, 3], minimum=1)
    assert sketch.mean() == pytest.approx(values.mean())
    assert sketch.deviation() == pytest.approx(values.std())
    assert Moments.release(["t"], [0] * 3, [0.1] * 3, [1, 2, 3], minimum=1).deviation()[0] == 0


def test_quantiles_are_edges_of_the_public_grid():
    values = np.random.default_rng(0).uniform(0, 1, (1000, 1))
    sketch = Histogram.release(["u"], EDGES[:1], values, minimum=10)
    low, high = sketch.quantile(0.01)[0], sketch.quantile(0.99)[0]
    assert {low, high} <= set(EDGES[0])
    assert (low, high) == (0.0, 1.0)
    assert sketch.quantile(0.5)[0] == pytest.approx(0.5, abs=0.125)


@given(a=rows)
def test_what_is_packed_is_what_is_unpacked(a):
    sketches = {"codes": counts(a), "moments": moments(a), "grid": histogram(a)}
    again = unpack(pack(sketches))
    assert set(again) == set(sketches)
    assert all(same(sketches[k], again[k]) for k in sketches)
    assert all(array.dtype.kind in "uif" for array in pack(sketches).values())


def test_what_does_not_fit_the_schema_is_refused():
    good = Counts(("a",), np.array([12]), 10).to_arrays()
    with pytest.raises(ReleaseError, match="expected arrays"):
        Counts.from_arrays({**good, "patient_id": np.array([1])})
    with pytest.raises(ReleaseError, match="below the minimum"):
        Counts.from_arrays({**good, "counts": np.array([3])})
    with pytest.raises(ReleaseError, match="int64"):
        Counts.from_arrays({**good, "counts": np.array([12.0])})
    with pytest.raises(ReleaseError, match="no array of a sketch"):
        unpack({"rows": np.zeros(3)})
    with pytest.raises(ReleaseError, match="finite"):
        Moments(("a",), np.array([12]), np.array([np.nan]), np.array([1.0]))
    with pytest.raises(ReleaseError, match="grid"):
        Histogram(("a",), np.array([[0.0, 1]]), np.array([[10]])).merge(
            Histogram(("a",), np.array([[0.0, 2]]), np.array([[10]]))
        )
    with pytest.raises(ReleaseError, match="nothing can be agreed"):
        merge([])


def test_quantiles_of_a_noisy_histogram_are_near_those_of_the_patients_and_noise_alone_has_none():
    """300 patients in the middle of a wide grid, beside 40 columns that nobody has."""
    rng = np.random.default_rng(0)
    edges = np.tile(np.linspace(0, 100, 17), (41, 1))
    values = np.full((300, 41), np.nan)
    values[:, 0] = rng.normal(40, 10, 300)
    names = [f"c{i:02}" for i in range(41)]
    sketch = NoisyHistogram.release(names, edges, values, 2.0, rng.standard_normal((41, 16)))
    low, middle, high = sketch.quantiles(0.16, 0.5, 0.84)
    assert middle[0] == pytest.approx(40, abs=4)
    assert (high - low)[0] / 2 == pytest.approx(10, abs=4)
    assert np.isnan(middle[1:]).all()


def noisy(values: np.ndarray, noise_multiplier: float, seed: int = 0) -> NoisyHistogram:
    noise = np.random.default_rng(seed).standard_normal((4, 8))
    return NoisyHistogram.release(NAMES, EDGES, values, noise_multiplier, noise)


def test_a_noisy_histogram_has_the_noise_it_says_on_every_cell():
    """Of as many columns as four, in each of which a patient is in one cell: twice the noise multiplier."""
    nobody = np.full((50, 4), np.nan)
    drawn = np.stack([noisy(nobody, 3.0, seed).counts for seed in range(200)])
    assert (drawn.std(axis=0) > 0).all()
    assert drawn.std() == pytest.approx(3.0 * 2, rel=0.05)
    assert noisy(nobody, 3.0).variance == pytest.approx([36.0] * 4)


def test_noise_adds_up_when_histograms_merge():
    here, there = noisy(np.full((9, 4), 0.3), 3.0), noisy(np.full((7, 4), 0.3), 1.0, seed=1)
    both = here.merge(there)
    assert both.variance == pytest.approx([40.0] * 4)
    assert np.array_equal(both.counts, here.counts + there.counts)


def test_of_columns_that_are_all_noise_no_quantile_is_told():
    values = np.full((2000, 4), np.nan)
    values[:, 1] = 0.3
    (middle,) = noisy(values, 5.0).quantiles(0.5)
    assert np.isnan(middle[[0, 2, 3]]).all()
    assert 0.25 <= middle[1] <= 0.375
