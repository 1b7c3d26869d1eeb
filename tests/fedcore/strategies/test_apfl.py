"""APFL against the paper's algorithm 1, and the learner's mixture against autograd."""

from typing import Any

import numpy as np
import pytest
import torch

from fedcore.learner import Mixture, Objective
from fedcore.models import model
from fedcore.strategies.apfl import STRATEGY
from fedcore.strategies.strategy import ALONE


@pytest.mark.parametrize("adaptive", [0, 1])
@pytest.mark.parametrize("rounds", [[[0, 1, 2, 3]] * 6, [[0, 1], [2, 3], [0, 3], [1], [0], [2]]])
def test_it_is_the_papers_algorithm(sites: Any, make_federation: Any, rounds: list[list[int]], adaptive: int) -> None:
    federation = make_federation(STRATEGY, sites, alpha=0.3, adaptive=adaptive, step_size=0.05)
    average = make_federation(ALONE, sites, step_size=0.05)
    own: list[Any] = [None] * 4
    alpha = [0.3] * 4
    for present in rounds:
        w_server = federation.w
        federation.play(present)
        average.play(present)
        np.testing.assert_array_equal(federation.w, average.w)
        for i in present:
            w, v = w_server, w_server if own[i] is None else own[i]
            for step in range(2 * -(-sites[i].samples // 10)):
                mixed = sites[i].gradient(alpha[i] * v + (1 - alpha[i]) * w)
                moved = float((v - w) @ mixed)
                w, v = w - 0.05 * sites[i].gradient(w), v - 0.05 * alpha[i] * mixed
                if step == 0 and adaptive:
                    alpha[i] = float(np.clip(alpha[i] - 0.05 * moved, 0, 1))
            own[i] = v
        for i in range(4):
            expected = federation.w if own[i] is None else alpha[i] * own[i] + (1 - alpha[i]) * federation.w
            np.testing.assert_allclose(federation.personal(i), expected, rtol=0, atol=1e-12)
    assert (len(set(alpha)) > 1) == bool(adaptive)


def test_with_one_step_a_round_each_site_comes_to_rest_at_its_own_optimum_and_the_federation_at_that_of_all(
    sites: Any, make_federation: Any, find_optimum: Any
) -> None:
    federation = make_federation(STRATEGY, sites, alpha=0.6, adaptive=0, epochs=1, batch_size=40, step_size=0.4)
    for _ in range(600):
        federation.play()
    np.testing.assert_allclose(federation.w, find_optimum(sites), rtol=0, atol=1e-9)
    for i, site in enumerate(sites):
        np.testing.assert_allclose(federation.personal(i), site.b, rtol=0, atol=1e-9)


def _problem(n: int = 50, d: int = 4) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, d)).astype(np.float32)
    return {"x": x}, rng.random(n) < 0.4


@pytest.mark.parametrize("adapts", [False, True])
def test_the_learners_mixture_takes_the_gradient_that_autograd_finds(adapts: bool) -> None:
    encoded, label = _problem()
    learner = (
        model.load("logistic")
        .recipe("federated")
        .learner({"x": 4}, {"step_size": 0.3, "epochs": 3, "batch_size": 50, "l2": 0.0})
    )
    rng = np.random.default_rng(1)
    start, own = (
        {"weight": rng.normal(size=(1, 4)).astype(np.float32), "bias": rng.normal(size=1).astype(np.float32)}
        for _ in range(2)
    )
    fit = learner.fit(start, encoded, label, 0, {}, Objective(mixture=Mixture(own, 0.4, adapts)))
    plain = learner.fit(start, encoded, label, 0, {})
    for name, value in plain.arrays.items():
        assert value.tobytes() == fit.arrays[name].tobytes()
    x, y = torch.from_numpy(encoded["x"]), torch.from_numpy(label.astype(np.float32))
    w, v = ({name: torch.from_numpy(value.copy()).requires_grad_() for name, value in a.items()} for a in (start, own))
    share = torch.tensor(0.4, requires_grad=True)
    for step in range(3):
        mixed = {name: share * v[name] + (1 - share) * w[name].detach() for name in w}
        loss = torch.nn.functional.binary_cross_entropy_with_logits
        at_v = torch.autograd.grad(loss((x @ mixed["weight"].T + mixed["bias"])[:, 0], y), [*v.values(), share])
        at_w = torch.autograd.grad(loss((x @ w["weight"].T + w["bias"])[:, 0], y), list(w.values()))
        w, v = (
            {
                name: (old - 0.3 * slope).detach().requires_grad_()
                for (name, old), slope in zip(a.items(), g, strict=False)
            }
            for a, g in ((w, at_w), (v, at_v))
        )
        if adapts and step == 0:
            share = (share - 0.3 * at_v[-1]).detach().clamp(0, 1).requires_grad_()
    assert fit.mixture is not None
    assert np.isclose(fit.mixture.share, share.item(), atol=1e-6)
    for name, value in v.items():
        np.testing.assert_allclose(fit.mixture.own[name], value.detach().numpy(), atol=1e-6)


def test_the_traced_gradient_is_what_gradient_descent_went_by() -> None:
    encoded, label = _problem()
    learner = (
        model.load("logistic")
        .recipe("federated")
        .learner({"x": 4}, {"step_size": 0.3, "epochs": 3, "batch_size": 8, "l2": 0.0})
    )
    start = learner.initial(0)
    slope = {"weight": np.full((1, 4), 0.1, np.float32), "bias": np.full(1, -0.2, np.float32)}
    fit = learner.fit(start, encoded, label, 0, {}, Objective(slope=slope, traced=True))
    for name, gradient in fit.gradient.items():
        moved = (start[name] - fit.arrays[name]) / (fit.steps * 0.3) - slope[name]
        np.testing.assert_allclose(gradient, moved, atol=1e-6)
