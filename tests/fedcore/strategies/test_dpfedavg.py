"""DP-FedAvg: what one hospital can change, what the noise comes to, and what Flower's wrapper leaves to its user."""

from collections.abc import Sequence

import numpy as np
import pytest

from fedcore.learner import Arrays
from fedcore.rule import Reply
from fedcore.strategies.dpfedavg import DPFedAvg

START = {"w": np.zeros(40), "b": np.zeros(2)}


def _reply(site: int, scale: float, samples: int = 10) -> Reply:
    rng = np.random.default_rng(site)
    return Reply(site, {name: value + scale * rng.normal(size=value.shape) for name, value in START.items()}, samples)


def _moved(rule: DPFedAvg, replies: Sequence[Reply]) -> np.ndarray:
    made: Arrays = rule.combine(START, replies)
    return np.concatenate([made["w"], made["b"]])


def test_one_hospital_moves_the_sum_by_at_most_c_however_many_patients_it_has() -> None:
    """The same noise with and without it: what is left is what it changed, over K."""
    others = [_reply(1, 1.0), _reply(2, 0.01)]
    without = _moved(DPFedAvg(0.5, 2.0, 3, 7), others)
    for scale, samples in ((1e-3, 10), (1.0, 10), (1e6, 10**6)):
        moved = 3 * np.linalg.norm(_moved(DPFedAvg(0.5, 2.0, 3, 7), [*others, _reply(3, scale, samples)]) - without)
        assert moved <= 0.5 * (1 + 1e-9)
        assert moved == pytest.approx(0.5) or scale < 1


def test_a_change_of_nothing_and_one_that_is_no_number_count_for_nothing() -> None:
    """Flower's clipping divides by the length of the one and lets the other through."""
    nothing = Reply(3, START, 10)
    absurd = Reply(4, {name: np.full_like(value, np.nan) for name, value in START.items()}, 10)
    others = [_reply(1, 1.0)]
    expected = _moved(DPFedAvg(0.5, 2.0, 3, 7), others)
    for more in (nothing, absurd):
        np.testing.assert_array_equal(_moved(DPFedAvg(0.5, 2.0, 3, 7), [*others, more]), expected)


def test_the_noise_has_the_size_that_is_accounted_and_is_new_in_each_round() -> None:
    rule = DPFedAvg(0.5, 2.0, 4, 7)
    rounds = np.stack([_moved(rule, [Reply(1, START, 10)]) for _ in range(200)])
    assert rounds.std() == pytest.approx(2.0 * 0.5 / 4, rel=0.05)
    assert abs(np.corrcoef(rounds[0], rounds[1])[0, 1]) < 0.6
    np.testing.assert_array_equal(_moved(DPFedAvg(0.5, 2.0, 4, 7), [Reply(1, START, 10)]), rounds[0])


def test_without_noise_and_bound_it_is_the_plain_mean() -> None:
    replies = [_reply(1, 1.0), _reply(2, 1.0, samples=500)]
    found = _moved(DPFedAvg(1e9, 1e-15, 2, 7), replies)
    plain = np.mean([np.concatenate([one.arrays["w"], one.arrays["b"]]) for one in replies], axis=0)
    np.testing.assert_allclose(found, plain, atol=1e-5)
