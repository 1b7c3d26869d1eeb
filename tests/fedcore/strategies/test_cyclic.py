"""Cyclic weight transfer: one model goes round."""

from typing import Any

import numpy as np

from fedcore.strategies.cyclic import STRATEGY, Cyclic


def test_the_model_goes_from_site_to_site(sites: Any, make_federation: Any) -> None:
    federation = make_federation(STRATEGY, sites)
    w = np.zeros(5)
    for site in [*sites, *sites[:2]]:
        for _ in range(2 * -(-site.samples // 10)):
            w = w - 0.1 * site.gradient(w)
        federation.play()
    np.testing.assert_allclose(federation.w, w, rtol=0, atol=1e-12)


def test_turns_go_by_the_order_of_sites_and_an_absent_one_is_next_when_it_is_back() -> None:
    rule, all_sites, without_b = Cyclic(), [7, 3, 9, 5], [7, 9, 5]  # numbers stand for sites in the order of names
    present = [all_sites, without_b, without_b, all_sites, all_sites, all_sites, all_sites]
    assert [list(rule.ask(number + 1, now)) for number, now in enumerate(present)] == [
        [7],
        [9],
        [5],
        [3],
        [7],
        [9],
        [5],
    ]


def test_any_share_of_sites_lets_all_have_their_turn(sites: Any) -> None:
    from fedcore.rule import Roster

    assert STRATEGY.build(Roster(sites=4, samples=100, fraction=0.25), {}).fraction_train == 1.0  # type: ignore[attr-defined]
