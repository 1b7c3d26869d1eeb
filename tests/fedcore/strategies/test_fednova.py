"""FedNova against the paper's equation 6, and what it is for: sites that make unequal numbers of steps."""

from typing import Any

import numpy as np

from fedcore.strategies.fednova import STRATEGY
from fedcore.strategies.strategy import ALONE


def _equation_6(sites: Any, rounds: list[list[int]], step: float, epochs: int) -> np.ndarray:
    x = np.zeros(5)
    for present in rounds:
        total = sum(sites[i].samples for i in present)
        p = {i: sites[i].samples / total for i in present}
        tau, d = {}, {}
        for i in present:
            tau[i] = epochs * -(-sites[i].samples // 10)
            y, gradients = x.copy(), np.zeros(5)
            for _ in range(tau[i]):
                gradients += sites[i].gradient(y)
                y = y - step * sites[i].gradient(y)
            d[i] = gradients / tau[i]  # G_i a_i / |a_i|_1 with a_i = (1, ..., 1)
        effective = sum(p[i] * tau[i] for i in present)
        x = x - effective * sum(p[i] * step * d[i] for i in present)
    return x


def test_it_is_the_papers_update_in_full_and_in_part(sites: Any, make_federation: Any) -> None:
    for rounds in ([[0, 1, 2, 3]] * 6, [[0, 1], [2, 3], [0, 3], [1]]):
        federation = make_federation(STRATEGY, sites)
        for present in rounds:
            federation.play(present)
        np.testing.assert_allclose(federation.w, _equation_6(sites, rounds, 0.1, 2), rtol=0, atol=1e-12)


def test_it_rests_at_the_optimum_where_fedavg_rests_at_that_of_the_sites_that_step_most(
    sites: Any, make_federation: Any, find_optimum: Any
) -> None:
    # small steps: what is left is the inconsistency of the objective
    nova, average = (make_federation(spec, sites, step_size=1e-4, epochs=5) for spec in (STRATEGY, ALONE))
    for federation in (nova, average):
        federation.arrays = {name: value + 1 for name, value in federation.arrays.items()}
        for _ in range(6000):
            federation.play()
    steps = [5 * -(-site.samples // 10) for site in sites]
    inconsistent = find_optimum(sites, [site.samples * k for site, k in zip(sites, steps, strict=True)])
    assert np.abs(find_optimum(sites) - inconsistent).max() > 0.3
    np.testing.assert_allclose(nova.w, find_optimum(sites), rtol=0, atol=0.01)
    np.testing.assert_allclose(average.w, inconsistent, rtol=0, atol=0.01)


def test_with_equal_steps_it_is_fedavg(make_federation: Any, sites: Any) -> None:
    nova, average = (make_federation(spec, sites, batch_size=40) for spec in (STRATEGY, ALONE))
    for _ in range(5):
        nova.play()
        average.play()
    np.testing.assert_allclose(nova.w, average.w, rtol=0, atol=1e-12)
