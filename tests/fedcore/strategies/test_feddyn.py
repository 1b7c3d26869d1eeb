"""FedDyn against the paper's algorithm 1."""

from typing import Any

import numpy as np
import pytest

from fedcore.strategies.feddyn import STRATEGY


def _algorithm_1(sites: Any, rounds: list[list[int]], step: float, epochs: int, alpha: float) -> np.ndarray:
    """The paper's pseudo-code, each site taken as as many alike devices as it has samples."""
    devices = [site for site in sites for _ in range(site.samples)]
    number = [i for i, site in enumerate(sites) for _ in range(site.samples)]
    gradients = [np.zeros(5) for _ in devices]
    theta, h, m = np.zeros(5), np.zeros(5), len(devices)
    for present in rounds:
        active = [k for k in range(m) if number[k] in present]
        thetas = {}
        for k in active:
            y = theta.copy()
            for _ in range(epochs * -(-devices[k].samples // 10)):
                y = y - step * (devices[k].gradient(y) - gradients[k] + alpha * (y - theta))
            thetas[k] = y
            gradients[k] = gradients[k] - alpha * (y - theta)
        h = h - alpha / m * sum(thetas[k] - theta for k in active)
        theta = sum(thetas.values()) / len(active) - h / alpha
    return theta


@pytest.mark.parametrize("rounds", [[[0, 1, 2, 3]] * 6, [[0, 1], [2, 3], [0, 3], [1], [0, 1, 2, 3], [2]]])
def test_it_is_the_papers_algorithm_in_full_and_in_part(
    sites: Any, make_federation: Any, rounds: list[list[int]]
) -> None:
    federation = make_federation(STRATEGY, sites, alpha=0.5)
    for present in rounds:
        federation.play(present)
    np.testing.assert_allclose(federation.w, _algorithm_1(sites, rounds, 0.1, 2, 0.5), rtol=0, atol=1e-12)


@pytest.mark.parametrize("present", [4, 2])
def test_it_reaches_the_optimum_of_all_samples(
    sites: Any, make_federation: Any, find_optimum: Any, present: int
) -> None:
    federation = make_federation(STRATEGY, sites, alpha=1.0, epochs=50, step_size=0.3)
    rng = np.random.default_rng(0)
    for _ in range(400):
        federation.play(sorted(rng.choice(4, present, replace=False)))
    np.testing.assert_allclose(federation.w, find_optimum(sites), rtol=0, atol=1e-9)


def test_what_a_site_remembers_is_its_gradient_where_it_ended(sites: Any, make_federation: Any) -> None:
    federation = make_federation(STRATEGY, sites, alpha=1.0, epochs=100, step_size=0.3)
    for _ in range(3):
        before = federation.w
        federation.play([0])
    assert before is not None
    remembered = np.concatenate([np.ravel(value) for value in sites[0].memory["gradient"].values()])
    sent = federation.visit(sites[0])
    ended = federation.local.train(sent).arrays
    again = np.concatenate([np.ravel(value) for value in sites[0].memory["gradient"].values()])
    np.testing.assert_allclose(
        again, sites[0].gradient(np.concatenate([np.ravel(v) for v in ended.values()])), atol=1e-9
    )
    assert not np.allclose(again, remembered)


def test_a_lost_answer_moves_where_it_comes_to_rest(sites: Any, make_federation: Any, find_optimum: Any) -> None:
    federation = make_federation(STRATEGY, sites, alpha=1.0, epochs=50, step_size=0.3)
    for number in range(400):
        federation.play(lost=[2] if number == 3 else [])
    assert 0.01 < np.abs(federation.w - find_optimum(sites)).max() < 1.0
