"""SCAFFOLD against the paper's algorithm 1, option II."""

from typing import Any

import numpy as np
import pytest

from fedcore.strategies.scaffold import STRATEGY
from fedcore.strategies.strategy import ALONE


def _algorithm_1(sites: Any, rounds: list[list[int]], step: float, server_step: float, epochs: int) -> np.ndarray:
    """The paper's pseudo-code, each site taken as as many alike clients as it has samples."""
    x, c = np.zeros(5), np.zeros(5)
    own = [np.zeros(5) for _ in sites]
    n = sum(site.samples for site in sites)
    for present in rounds:
        dy, dc, count = np.zeros(5), np.zeros(5), 0
        for i in present:
            k = epochs * -(-sites[i].samples // 10)
            y = x.copy()
            for _ in range(k):
                y = y - step * (sites[i].gradient(y) - own[i] + c)
            renewed = own[i] - c + (x - y) / (k * step)
            dy, dc = dy + sites[i].samples * (y - x), dc + sites[i].samples * (renewed - own[i])
            own[i], count = renewed, count + sites[i].samples
        x = x + server_step * dy / count
        c = c + (count / n) * (dc / count)
    return x


@pytest.mark.parametrize("server_step", [1.0, 0.7])
@pytest.mark.parametrize("rounds", [[[0, 1, 2, 3]] * 8, [[0, 1], [2, 3], [0, 3], [1], [0, 1, 2, 3], [2]]])
def test_it_is_the_papers_algorithm_in_full_and_in_part(
    sites: Any, make_federation: Any, rounds: list[list[int]], server_step: float
) -> None:
    federation = make_federation(STRATEGY, sites, server_step_size=server_step)
    for present in rounds:
        federation.play(present)
    np.testing.assert_allclose(federation.w, _algorithm_1(sites, rounds, 0.1, server_step, 2), rtol=0, atol=1e-12)


def test_it_reaches_the_optimum_of_all_samples_that_fedavg_misses(
    sites: Any, make_federation: Any, find_optimum: Any
) -> None:
    scaffold, fedavg = (make_federation(spec, sites, epochs=5) for spec in (STRATEGY, ALONE))
    for _ in range(300):
        scaffold.play()
    np.testing.assert_allclose(scaffold.w, find_optimum(sites), rtol=0, atol=1e-10)
    for site in sites:
        site.memory.clear()
    for _ in range(300):
        fedavg.play()
    assert np.abs(fedavg.w - find_optimum(sites)).max() > 0.1


def test_it_reaches_the_optimum_though_half_the_sites_answer(
    sites: Any, make_federation: Any, find_optimum: Any
) -> None:
    federation = make_federation(STRATEGY, sites, epochs=1, step_size=0.05)
    rng = np.random.default_rng(0)
    for _ in range(3000):
        federation.play(sorted(rng.choice(4, 2, replace=False)))
    np.testing.assert_allclose(federation.w, find_optimum(sites), rtol=0, atol=1e-8)


def test_a_lost_answer_is_made_good_by_the_next(sites: Any, make_federation: Any, find_optimum: Any) -> None:
    federation = make_federation(STRATEGY, sites, epochs=5)
    for number in range(300):
        federation.play(lost=[2] if number in (3, 4, 9) else [])
    np.testing.assert_allclose(federation.w, find_optimum(sites), rtol=0, atol=1e-10)
