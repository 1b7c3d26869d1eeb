"""MOON: the contrastive term against the paper's formula, and what a site compares itself with."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from fedcore.learner import PLAIN, Arrays, Contrast, Fit, Objective
from fedcore.learners.minibatch import MinibatchLearner
from fedcore.learners.optimizers import SGD
from fedcore.strategies.moon import STRATEGY

SHAPES = {"hidden.weight": (3, 4), "hidden.bias": (3,), "output.weight": (1, 3), "output.bias": (1,)}


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = torch.nn.Linear(4, 3)
        self.output = torch.nn.Linear(3, 1)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.hidden(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.output(self.embed(x))
        return logits[:, 0]


def _model(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def _term(w: Arrays, x: np.ndarray, server: Arrays, before: Arrays, temperature: float) -> float:
    """Equation 3, sample by sample, in float64."""
    z, z_server, z_before = (
        np.tanh(x @ np.asarray(m["hidden.weight"], np.float64).T + m["hidden.bias"]) for m in (w, server, before)
    )

    def similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.sum(a * b, axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))

    near, far = (np.exp(similarity(z, other) / temperature) for other in (z_server, z_before))
    return float(np.mean(-np.log(near / (near + far))))


@pytest.mark.parametrize(("mu", "temperature"), [(1.0, 0.5), (5.0, 2.0)])
def test_the_learner_descends_along_the_papers_term(mu: float, temperature: float) -> None:
    rng = np.random.default_rng(7)
    x, label = rng.normal(size=(20, 4)).astype(np.float32), rng.random(20) < 0.5
    start, server, before = _model(0), _model(1), _model(2)
    learner = MinibatchLearner(Network, {"step_size": 0.01, "epochs": 1, "batch_size": 20, "l2": 0.0}, optimizer=SGD)
    contrast = Contrast(mu, temperature, before, server)
    with_it = learner.fit(start, {"x": x}, label, 0, {}, Objective(contrast=contrast))
    without = learner.fit(start, {"x": x}, label, 0, {})
    assert with_it.loss == without.loss
    for name, shape in SHAPES.items():
        slope = (np.asarray(without.arrays[name], np.float64) - with_it.arrays[name]) / 0.01
        for index in np.ndindex(shape):
            moved = [{key: np.asarray(value, np.float64) for key, value in start.items()} for _ in range(2)]
            moved[0][name][index] += 1e-5
            moved[1][name][index] -= 1e-5
            up, down = (_term(m, x.astype(np.float64), server, before, temperature) for m in moved)
            assert slope[index] == pytest.approx(mu * (up - down) / 2e-5, abs=2e-4)
    assert np.array_equal(without.arrays["output.weight"], with_it.arrays["output.weight"])


def test_the_term_moves_batch_statistics_and_draws_dropout_no_second_time() -> None:
    from fedcore.models.mlp import MODEL

    rng = np.random.default_rng(3)
    x, label = rng.normal(size=(40, 4)).astype(np.float32), rng.random(40) < 0.5
    recipe = MODEL.recipe("federated")
    learner = recipe.learner({"x": 4}, {**recipe.untuned, "dropout": 0.5})
    start, other = learner.initial(0), learner.initial(1)
    without = learner.fit(start, {"x": x}, label, 0, {})
    with_it = learner.fit(start, {"x": x}, label, 0, {}, Objective(contrast=Contrast(1e-12, 0.5, start, other)))
    assert with_it.loss == without.loss
    for name, value in without.arrays.items():
        assert np.allclose(value, with_it.arrays[name], atol=1e-6), name
    assert learner.fit(start, {"x": x}, label, 0, {}).loss == without.loss, "the network is as it was"


@dataclass
class Recording:
    """Adds one to the model, and keeps what it was asked for."""

    asked: list[Objective] = field(default_factory=list)

    def initial(self, seed: int) -> Arrays:
        raise NotImplementedError

    def predict(self, arrays: Arrays, encoded: Any) -> np.ndarray:
        raise NotImplementedError

    def fit(
        self, arrays: Arrays, encoded: Any, label: Any, seed: int, memory: Arrays, objective: Objective = PLAIN
    ) -> Fit:
        self.asked.append(objective)
        return Fit({name: value + 1 for name, value in arrays.items()}, 0.0)


def test_a_site_is_pushed_from_its_model_of_last_time_towards_the_servers_and_trains_plainly_at_first(
    sites: Any, make_federation: Any
) -> None:
    federation, learner = make_federation(STRATEGY, sites, mu=2.0, temperature=0.7), Recording()
    sent, trained = [], []
    for number in range(3):
        federation.arrays = {name: value + 10 * number for name, value in federation.arrays.items()}
        visit = federation.visit(sites[0])
        visit.make = lambda _setting: learner
        trained.append(federation.local.train(visit).arrays)
        sent.append(visit.arrays)
    assert learner.asked[0] is PLAIN
    for number in (1, 2):
        contrast = learner.asked[number].contrast
        assert contrast is not None
        assert (contrast.weight, contrast.temperature) == (2.0, 0.7)
        for name in sent[0]:
            assert np.array_equal(contrast.towards[name], sent[number][name])
            assert np.array_equal(contrast.previous[name], trained[number - 1][name])


def test_without_weight_it_is_fedavg(sites: Any, make_federation: Any) -> None:
    federation = make_federation(STRATEGY, sites, mu=0.0)
    for _ in range(2):
        federation.play()
    assert all(site.memory["before"] for site in sites)
