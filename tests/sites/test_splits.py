"""Splits belong to the patient alone."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sites.splits import FRACTIONS, assign, dirichlet_parts, meds_split, uniform

IDS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=50)


@given(IDS, IDS, st.integers(0, 1000))
def test_adding_patients_moves_nobody(some: list[int], more: list[int], seed: int) -> None:
    ids = np.array(some, dtype=np.int64)
    both = np.array(some + more, dtype=np.int64)
    assert assign(both, seed)[: len(some)].tolist() == assign(ids, seed).tolist()


def test_a_patient_with_five_stays_has_one_split() -> None:
    assert len(set(assign(np.full(5, 42, dtype=np.int64), 3).tolist())) == 1


def test_fractions_are_as_declared() -> None:
    split = assign(np.arange(200_000, dtype=np.int64), 0)
    for name, fraction in FRACTIONS.items():
        assert np.mean(split == name) == pytest.approx(fraction, abs=0.005)
    assert sum(FRACTIONS.values()) == pytest.approx(1)


def test_splits_are_the_same_on_every_machine() -> None:
    """Golden values: a change of these changes every published result."""
    ids = np.array([10000032, 10001217, 10001725, 10002428, 10002495, -1, 2**62], dtype=np.int64)
    assert uniform(ids, 0, "split").round(9).tolist() == GOLDEN
    assert assign(pl.Series(ids.tolist()), 0).tolist() == assign(ids, 0).tolist()


GOLDEN = [0.233072194, 0.921797272, 0.463817478, 0.312369972, 0.939124114, 0.979356651, 0.428720536]


def test_seeds_are_independent() -> None:
    ids = np.arange(20_000, dtype=np.int64)
    first, second = uniform(ids, 0, "split"), uniform(ids, 1, "split")
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert abs(np.corrcoef(first, uniform(ids, 0, "other"))[0, 1]) < 0.03
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.03


def test_meds_names_the_calibration_halves_one() -> None:
    ids = np.arange(1000, dtype=np.int64)
    fine, coarse = assign(ids, 0), meds_split(ids)
    assert set(coarse) == {"train", "tuning", "calibration", "held_out"}
    assert (np.isin(fine, ["recalibration", "conformal"]) == (coarse == "calibration")).all()
    kept = coarse != "calibration"
    assert (fine[kept] == coarse[kept]).all()


@given(st.integers(1, 8), st.floats(0.05, 100), st.integers(0, 5))
def test_dirichlet_parts_place_a_patient_by_id_and_label(parts: int, alpha: float, seed: int) -> None:
    ids = np.arange(60, dtype=np.int64)
    label = ids % 3
    part = dirichlet_parts(ids, label, alpha, parts, seed)
    assert part.min() >= 0
    assert part.max() < parts
    keep = ids % 2 == 0
    assert (dirichlet_parts(ids[keep], label[keep], alpha, parts, seed) == part[keep]).all()


def test_small_alpha_skews_and_large_alpha_does_not() -> None:
    ids = np.arange(20_000, dtype=np.int64)

    def largest(alpha: float) -> float:
        return (
            max(np.bincount(dirichlet_parts(ids, None, alpha, 4, seed), minlength=4).max() for seed in range(5))
            / 20_000
        )

    assert largest(1e6) < 0.27
    assert largest(0.1) > 0.6


def test_impossible_skew_is_refused() -> None:
    with pytest.raises(ValueError, match="alpha > 0"):
        dirichlet_parts(np.arange(3), None, 0, 2, 0)
