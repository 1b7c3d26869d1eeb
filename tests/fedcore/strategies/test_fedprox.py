"""FedProx: what sites do with the number that Flower's strategy sends, on quadratics."""

from typing import Any

import numpy as np
import pytest

from fedcore.learner import TrainingError
from fedcore.local import Plain
from fedcore.strategies.strategy import ALONE


def _prox(federation: Any, mu: Any) -> None:
    """One round in which every site is sent `mu`, as Flower's FedProx sends it."""
    visit = federation.visit

    def with_mu(*arguments: Any) -> Any:
        made = visit(*arguments)
        made.config = {"server-round": 1, "proximal-mu": mu}
        return made

    federation.visit = with_mu
    try:
        federation.play()
    finally:
        federation.visit = visit


def test_a_site_takes_the_papers_steps(sites: Any, make_federation: Any) -> None:
    federation = make_federation(ALONE, sites)
    federation.arrays = {name: value + 0.5 for name, value in federation.arrays.items()}
    start, total = federation.w, np.zeros(5)
    for site in sites:
        w = start
        for _ in range(2 * -(-site.samples // 10)):
            w = w - 0.1 * (site.gradient(w) + 0.7 * (w - start))
        total += site.samples * w / 100
    _prox(federation, 0.7)
    np.testing.assert_allclose(federation.w, total, rtol=0, atol=1e-12)


def test_with_sites_that_train_to_the_end_it_rests_where_its_proximal_maps_balance(
    sites: Any, make_federation: Any
) -> None:
    federation = make_federation(ALONE, sites, epochs=60, step_size=0.3)
    for _ in range(200):
        _prox(federation, 0.7)
    # prox_i(x) = (A_i + mu)^-1 (A_i b_i + mu x), and x = sum_i p_i prox_i(x)
    inverses = [np.linalg.inv(site.a + 0.7 * np.eye(5)) for site in sites]
    left = np.eye(5) - sum(0.7 * site.samples / 100 * inverse for site, inverse in zip(sites, inverses, strict=True))
    right = sum(site.samples / 100 * inverse @ site.a @ site.b for site, inverse in zip(sites, inverses, strict=True))
    np.testing.assert_allclose(federation.w, np.linalg.solve(left, right), rtol=0, atol=1e-9)


@pytest.mark.parametrize("mu", [-0.1, "much"])
def test_a_mu_that_is_no_weight_is_a_sentence(sites: Any, make_federation: Any, mu: Any) -> None:
    federation = make_federation(ALONE, sites)
    assert isinstance(federation.local, Plain)
    with pytest.raises(TrainingError, match="'proximal-mu' is no number of 0 or more"):
        _prox(federation, mu)
