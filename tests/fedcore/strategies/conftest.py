"""Federations small enough to follow by hand: each site's loss is a quadratic, each step its exact gradient."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any

import numpy as np
import pytest

from fedcore.learner import PLAIN, Arrays, Fit, Objective, Setting
from fedcore.local import Local, Split, Visit
from fedcore.models.model import ModelSpec, Recipe
from fedcore.rule import Reply, Rule

SHAPES = {"body.weight": (2,), "output.weight": (2,), "output.bias": ()}
DIMENSION = 5


def model_of(vector: np.ndarray) -> dict[str, np.ndarray]:
    """The five numbers as arrays of three shapes."""
    parts = np.split(np.asarray(vector, np.float64), [2, 4])
    return {name: part.reshape(shape) for (name, shape), part in zip(SHAPES.items(), parts, strict=True)}


def vector_of(arrays: Arrays) -> np.ndarray:
    """Back again."""
    return np.concatenate([np.ravel(arrays[name]) for name in SHAPES])


class QuadraticLearner:
    """f(w) = 1/2 (w - b)' A (w - b), by epochs * ceil(n / batch_size) steps along its exact gradient."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def initial(self, seed: int) -> Arrays:
        return model_of(np.zeros(DIMENSION))

    def fit(
        self,
        arrays: Arrays,
        encoded: Mapping[str, np.ndarray],
        label: np.ndarray,
        seed: int,
        memory: Arrays,
        objective: Objective = PLAIN,
    ) -> Fit:
        a, b = encoded["a"][0], encoded["b"][0]
        w = vector_of(arrays)
        slope = vector_of({**model_of(np.zeros(DIMENSION)), **objective.slope})
        anchor = vector_of(objective.anchor) if objective.mu else w
        trained = vector_of(
            {n: np.full(s, float(objective.only is None or n in objective.only)) for n, s in SHAPES.items()}
        )
        steps = int(self.setting["epochs"]) * ceil(len(label) / int(self.setting["batch_size"]))
        step_size, mixture, total = float(self.setting["step_size"]), objective.mixture, np.zeros(DIMENSION)
        for number in range(steps):
            if mixture is not None:
                v = vector_of(mixture.own)
                at_mixture = a @ (mixture.share * v + (1 - mixture.share) * w - b)
                share = mixture.share - (step_size * (v - w) @ at_mixture if mixture.adapts and number == 0 else 0)
                v = v - step_size * mixture.share * at_mixture
                mixture = replace(mixture, own=model_of(v), share=float(np.clip(share, 0, 1)))
            total += a @ (w - b)
            gradient = a @ (w - b) + slope + objective.mu * (w - anchor)
            w = w - step_size * gradient * trained
        loss, mean = float((w - b) @ a @ (w - b)) / 2, model_of(total / steps) if objective.traced else {}
        return Fit(model_of(w), loss, {}, steps, mean, mixture)

    def predict(self, arrays: Arrays, encoded: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.full(len(encoded["a"]), 0.5)


@dataclass
class Site:
    """One site: its quadratic, its samples, what it remembers."""

    name: str
    a: np.ndarray
    b: np.ndarray
    samples: int
    memory: dict[str, Arrays] = field(default_factory=dict)

    def gradient(self, w: np.ndarray) -> np.ndarray:
        return self.a @ (w - self.b)


@dataclass
class Federation:
    """Plays a rule and a local over sites, without a message."""

    rule: Rule
    local: Local
    sites: Sequence[Site]
    setting: Setting
    arrays: Arrays = field(default_factory=lambda: model_of(np.zeros(DIMENSION)))
    round: int = 0

    @property
    def w(self) -> np.ndarray:
        """The server's model."""
        return vector_of(self.arrays)

    def visit(self, site: Site, beside: Mapping[str, Arrays] | None = None) -> Visit:
        encoded = {"a": np.repeat(site.a[None], site.samples, 0), "b": np.repeat(site.b[None], site.samples, 0)}
        recipe = Recipe(
            lambda _sizes, setting: QuadraticLearner(setting), (self.setting,), 1, None, self.setting, untuned_rounds=1
        )
        return Visit(
            site=site.name,
            round=self.round,
            cell_seed=0,
            arrays={name: value.copy() for name, value in self.arrays.items()},
            beside=beside or {},
            config={},
            setting=self.setting,
            model=ModelSpec("quadratic", "tabular", recipe, recipe, head=("output.",), norms=("output.bias",)),
            make=QuadraticLearner,
            open_split=lambda: Split(encoded, np.zeros(site.samples, bool), np.arange(site.samples)),
            memory=site.memory,
        )

    def play(self, present: Sequence[int] | None = None, lost: Sequence[int] = ()) -> None:
        """One round among the present sites, of whom the lost ones train in vain."""
        self.round += 1
        asked = self.rule.ask(self.round, list(range(len(self.sites))) if present is None else list(present))
        beside = self.rule.beside(self.arrays)
        replies = []
        for number in asked:
            site = self.sites[number]
            visit = self.visit(site, beside)
            update = self.local.train(visit)
            assert list(update.arrays) == list(visit.arrays)
            assert set(update.beside) == set(beside)
            for sent, answered in [(visit.arrays, update.arrays), *((beside[n], update.beside[n]) for n in beside)]:
                assert {n: (v.shape, v.dtype) for n, v in sent.items()} == {
                    n: (np.shape(v), v.dtype) for n, v in answered.items()
                }
            if number not in lost:
                replies.append(Reply(number, update.arrays, site.samples, update.steps, update.beside))
        self.arrays = self.rule.combine(self.arrays, replies)

    def personal(self, number: int) -> np.ndarray:
        """The model that a site predicts with."""
        return vector_of(self.local.personal(self.visit(self.sites[number])))


def draw_sites(seed: int = 0, samples: Sequence[int] = (10, 20, 30, 40)) -> list[Site]:
    """Sites whose curvatures and optima differ; eigenvalues of each A lie in [0.5, 2]."""
    rng = np.random.default_rng(seed)
    sites = []
    for number, n in enumerate(samples):
        q, _ = np.linalg.qr(rng.normal(size=(DIMENSION, DIMENSION)))
        a = q @ np.diag(rng.uniform(0.5, 2.0, DIMENSION)) @ q.T
        sites.append(Site(f"site{number}", a, rng.normal(size=DIMENSION) * 3, n))
    return sites


def optimum(sites: Sequence[Site], weights: Sequence[float] | None = None) -> np.ndarray:
    """Where sum_i weight_i f_i is least; weights are the numbers of samples."""
    chosen = [site.samples for site in sites] if weights is None else weights
    a = sum(weight * site.a for weight, site in zip(chosen, sites, strict=True))
    return np.linalg.solve(a, sum(weight * site.a @ site.b for weight, site in zip(chosen, sites, strict=True)))


@pytest.fixture
def sites() -> list[Site]:
    return draw_sites()


@pytest.fixture
def make_federation() -> Callable[..., Federation]:
    """Makes a federation of a strategy's own rule and local: `make(spec, sites, **setting)`."""
    return _federation


def _federation(spec: Any, sites: Sequence[Site], **setting: float) -> Federation:
    from fedcore.rule import Roster

    chosen = {"step_size": 0.1, "epochs": 2, "batch_size": 10, **spec.options, **setting}
    built = spec.build(Roster(sites=len(sites), samples=sum(site.samples for site in sites)), chosen)
    return Federation(built._rule, spec.local, sites, chosen)


@pytest.fixture
def find_optimum() -> Callable[..., np.ndarray]:
    return optimum
