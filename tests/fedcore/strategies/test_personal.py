"""The personalised strategies: what stays at a site, what it sends, what it predicts with."""

from typing import Any

import numpy as np
import pytest

from fedcore.strategies import ditto, fedbn, fedper, fedrep, finetuning
from fedcore.strategies.strategy import ALONE

HEAD = np.array([False, False, True, True, True])
"""Which of the five numbers are the last layer's."""
NORM = np.array([False, False, False, False, True])
"""Which are, for these tests, a normalisation's."""


def _steps(site: Any, epochs: int) -> int:
    return epochs * -(-site.samples // 10)


@pytest.mark.parametrize(("module", "kept"), [(fedper, HEAD), (fedbn, NORM)])
@pytest.mark.parametrize("rounds", [[[0, 1, 2, 3]] * 5, [[0, 1], [2, 3], [0, 3], [1], [2]]])
def test_fedper_and_fedbn_average_all_but_the_part_that_stays(
    module: Any, kept: np.ndarray, sites: Any, make_federation: Any, rounds: list[list[int]]
) -> None:
    federation = make_federation(module.STRATEGY, sites)
    shared, own = np.zeros(5), [np.zeros(5) for _ in sites]
    for present in rounds:
        federation.play(present)
        total, sums = 0, np.zeros(5)
        for i in present:
            w = np.where(kept, own[i], shared)
            for _ in range(_steps(sites[i], 2)):
                w = w - 0.1 * sites[i].gradient(w)
            own[i] = w
            total, sums = total + sites[i].samples, sums + sites[i].samples * w
        shared = np.where(kept, 0.0, sums / total)
        np.testing.assert_allclose(federation.w, shared, rtol=0, atol=1e-12)
        for i in range(4):
            np.testing.assert_allclose(federation.personal(i), np.where(kept, own[i], shared), rtol=0, atol=1e-12)


@pytest.mark.parametrize("module", [fedper, fedbn, fedrep])
def test_what_stays_is_never_sent(module: Any, sites: Any, make_federation: Any) -> None:
    federation = make_federation(module.STRATEGY, sites)
    kept = "output.bias" if module is fedbn else "output."
    for _ in range(3):
        federation.arrays = {name: value + 1.0 for name, value in federation.arrays.items()}
        visit = federation.visit(sites[0])
        sent = federation.local.train(visit).arrays
        for name in sent:
            assert np.array_equal(sent[name], visit.arrays[name]) == name.startswith(kept)


@pytest.mark.parametrize("rounds", [[[0, 1, 2, 3]] * 5, [[0, 1], [2, 3], [0, 3], [1], [2]]])
def test_fedrep_is_the_papers_algorithm(sites: Any, make_federation: Any, rounds: list[list[int]]) -> None:
    federation = make_federation(fedrep.STRATEGY, sites, head_epochs=3)
    phi, heads = np.zeros(5), [np.zeros(5) for _ in sites]
    for present in rounds:
        federation.play(present)
        total, sums = 0, np.zeros(5)
        for i in present:
            w = np.where(HEAD, heads[i], phi)
            for _ in range(_steps(sites[i], 3)):
                w = w - 0.1 * HEAD * sites[i].gradient(w)
            heads[i] = w
            for _ in range(_steps(sites[i], 2)):
                w = w - 0.1 * ~HEAD * sites[i].gradient(w)
            total, sums = total + sites[i].samples, sums + sites[i].samples * w
        phi = np.where(HEAD, 0.0, sums / total)
        np.testing.assert_allclose(federation.w, phi, rtol=0, atol=1e-12)
        for i in range(4):
            np.testing.assert_allclose(federation.personal(i), np.where(HEAD, heads[i], phi), rtol=0, atol=1e-12)


@pytest.mark.parametrize("rounds", [[[0, 1, 2, 3]] * 5, [[0, 1], [2, 3], [0, 3], [1], [2]]])
def test_ditto_is_the_papers_algorithm(sites: Any, make_federation: Any, rounds: list[list[int]]) -> None:
    federation = make_federation(ditto.STRATEGY, sites, **{"lambda": 0.7})
    average = make_federation(ALONE, sites)
    own: list[Any] = [None] * 4
    for present in rounds:
        w = federation.w
        federation.play(present)
        average.play(present)
        np.testing.assert_array_equal(federation.w, average.w)
        for i in present:
            v = w if own[i] is None else own[i]
            for _ in range(_steps(sites[i], 2)):
                v = v - 0.1 * (sites[i].gradient(v) + 0.7 * (v - w))
            own[i] = v
        for i in range(4):
            expected = federation.w if own[i] is None else own[i]
            np.testing.assert_allclose(federation.personal(i), expected, rtol=0, atol=1e-12)


def test_ditto_comes_to_rest_between_a_sites_own_optimum_and_the_federations(sites: Any, make_federation: Any) -> None:
    federation = make_federation(ditto.STRATEGY, sites, **{"lambda": 0.7})
    for _ in range(300):
        federation.play()
    for i, site in enumerate(sites):
        rest = np.linalg.solve(site.a + 0.7 * np.eye(5), site.a @ site.b + 0.7 * federation.w)
        np.testing.assert_allclose(federation.personal(i), rest, rtol=0, atol=1e-9)


def test_fine_tuning_is_fedavg_and_then_so_many_epochs_at_home(sites: Any, make_federation: Any) -> None:
    tuned = make_federation(finetuning.STRATEGY, sites, finetune_epochs=3)
    average = make_federation(ALONE, sites)
    for _ in range(4):
        tuned.play()
        average.play()
    np.testing.assert_array_equal(tuned.w, average.w)
    for i, site in enumerate(sites):
        w = tuned.w
        for _ in range(_steps(site, 3)):
            w = w - 0.1 * site.gradient(w)
        np.testing.assert_allclose(tuned.personal(i), w, rtol=0, atol=1e-12)
        assert site.memory == {}


def test_no_epochs_of_fine_tuning_are_fedavg(sites: Any, make_federation: Any) -> None:
    federation = make_federation(finetuning.STRATEGY, sites, finetune_epochs=0)
    federation.play()
    np.testing.assert_array_equal(federation.personal(0), federation.w)


@pytest.mark.parametrize("module", [ditto, fedbn, fedper, fedrep])
def test_a_site_that_never_trained_predicts_with_what_the_server_has(
    module: Any, sites: Any, make_federation: Any
) -> None:
    federation = make_federation(module.STRATEGY, sites)
    federation.play([0, 1])
    np.testing.assert_array_equal(federation.personal(3), federation.w)
