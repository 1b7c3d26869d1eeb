"""Learners: fitted to convergence, by minibatches, by boosting."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from fedcore.learner import Learner, TrainingError, log_loss
from fedcore.learners.newton import NewtonLearner
from fedcore.learners.optimizers import SGD, Adam
from fedcore.models import model
from fedcore.streams import draw_seed, stream


def _problem(n: int = 300, d: int = 6, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)).astype(np.float32)
    return {"x": x}, rng.random(n) < 1 / (1 + np.exp(-(x @ np.linspace(-2, 2, d) - 1)))


def _series(n: int = 120, d: int = 3) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(n, 5, d)).astype(np.float32)
    mask = (rng.random(x.shape) < 0.5).astype(np.float32)
    return {"x": x * mask, "mask": mask, "delta": 1 - mask}, x[:, -1, 0] > 0


def _learner(name: str, recipe: str, d: int, **overrides: float) -> Learner:
    chosen = model.load(name).recipe(recipe)
    return chosen.learner({"x": d}, {**chosen.untuned, **overrides})


LEARNERS = [
    ("logistic", "alone"),
    ("logistic", "federated"),
    ("gru", "alone"),
    ("gru", "federated"),
    ("trees", "alone"),
]


@settings(deadline=None, max_examples=25)
@given(
    n=st.integers(30, 200),
    d=st.integers(1, 30),
    l2=st.sampled_from([1e-3, 1e-2, 0.1, 1.0]),
    seed=st.integers(0, 1000),
    scale=st.sampled_from([0.1, 1.0, 30.0]),
)
def test_newton_finds_scikit_learns_logistic_regression(n: int, d: int, l2: float, seed: int, scale: float) -> None:
    encoded, label = _problem(n, d, seed)
    if label.all() or not label.any():
        return
    encoded = {"x": encoded["x"] * np.float32(scale)}
    learner = NewtonLearner(d, {"l2": l2})
    ours = learner.fit(learner.initial(0), encoded, label, 0, {})
    theirs = LogisticRegression(C=1 / (n * l2), solver="newton-cholesky", tol=1e-10, max_iter=1000)
    theirs.fit(encoded["x"].astype(np.float64), label)
    np.testing.assert_allclose(ours.arrays["weight"], theirs.coef_, atol=1e-4)
    np.testing.assert_allclose(ours.arrays["bias"], theirs.intercept_, atol=1e-4)
    assert np.isclose(ours.loss, log_loss(label, learner.predict(ours.arrays, encoded)).mean())


def test_newton_is_at_the_optimum_wherever_it_starts() -> None:
    encoded, label = _problem()
    learner = NewtonLearner(6, {"l2": 0.01})
    far = {"weight": np.full((1, 6), 40.0), "bias": np.array([-70.0])}
    near = learner.fit(learner.initial(0), encoded, label, 0, {})
    np.testing.assert_allclose(
        learner.fit(far, encoded, label, 0, {}).arrays["weight"], near.arrays["weight"], atol=1e-8
    )


@pytest.mark.parametrize(("name", "recipe"), LEARNERS)
def test_one_class_trains_to_finite_predictions_of_it(name: str, recipe: str) -> None:
    encoded, label = _series() if name == "gru" else _problem()
    never = np.zeros_like(label)
    learner = _learner(name, recipe, encoded["x"].shape[-1])
    arrays = learner.initial(0)
    fit = learner.fit(arrays, encoded, never, 0, {})
    assert all(np.isfinite(value).all() for value in fit.arrays.values())
    assert learner.predict(fit.arrays, encoded).mean() < learner.predict(arrays, encoded).mean()


@pytest.mark.parametrize(("name", "recipe"), LEARNERS)
def test_same_seed_same_bits_and_nothing_else_moves(name: str, recipe: str) -> None:
    encoded, label = _series() if name == "gru" else _problem()
    learner = _learner(name, recipe, encoded["x"].shape[-1])
    before = torch.random.get_rng_state()
    arrays = learner.initial(3)
    kept = {key: value.copy() for key, value in arrays.items()}
    first, second = (learner.fit(arrays, encoded, label, 7, {}) for _ in range(2))
    for key, value in first.arrays.items():
        assert value.tobytes() == second.arrays[key].tobytes()
    assert first.loss == second.loss
    assert learner.predict(first.arrays, encoded).tobytes() == learner.predict(second.arrays, encoded).tobytes()
    assert all(np.array_equal(kept[key], value) for key, value in arrays.items())
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(("name", "recipe"), LEARNERS)
def test_training_lowers_the_loss_and_predictions_are_probabilities(name: str, recipe: str) -> None:
    encoded, label = _series() if name == "gru" else _problem()
    learner = _learner(name, recipe, encoded["x"].shape[-1])
    arrays = learner.initial(0)
    start = log_loss(label, learner.predict(arrays, encoded)).mean()
    for number in range(5):
        arrays = learner.fit(arrays, encoded, label, number, {}).arrays
    p = learner.predict(arrays, encoded)
    assert log_loss(label, p).mean() < start
    assert p.dtype == np.float64
    assert p.shape == label.shape
    assert ((p >= 0) & (p <= 1)).all()


def test_nobody_to_predict_for_gives_no_predictions() -> None:
    for name, recipe in LEARNERS:
        encoded, _ = _series() if name == "gru" else _problem()
        learner = _learner(name, recipe, encoded["x"].shape[-1])
        assert learner.predict(learner.initial(0), {key: value[:0] for key, value in encoded.items()}).shape == (0,)


@pytest.mark.parametrize("recipe", ["alone", "federated"])
def test_a_loss_that_is_no_number_is_a_sentence(recipe: str) -> None:
    encoded, label = _problem()
    encoded["x"][3, 2] = np.nan
    learner = _learner("logistic", recipe, 6)
    with pytest.raises(TrainingError, match="the training loss is not a number"):
        learner.fit(learner.initial(0), encoded, label, 0, {})


@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_our_adam_is_torchs(l2: float) -> None:
    def train(ours: bool) -> list[np.ndarray]:
        network = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
        generator = torch.Generator().manual_seed(5)
        for value in network.parameters():
            value.data.normal_(generator=generator)
        x = torch.randn(20, 4, generator=generator)
        groups = [
            {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": l2},
            {"params": [p for p in network.parameters() if p.ndim == 1]},
        ]
        adam = Adam(network.named_parameters(), step_size=0.05, l2=l2) if ours else torch.optim.Adam(groups, lr=0.05)
        for _ in range(30):
            if not ours:
                adam.zero_grad()  # type: ignore[union-attr]
            network(x).square().mean().backward()
            adam.step()
        return [value.detach().numpy().copy() for value in network.parameters()]

    for own, torchs in zip(train(True), train(False), strict=True):
        np.testing.assert_allclose(own, torchs, atol=1e-6)


def test_our_gradient_descent_is_torchs() -> None:
    def train(ours: bool) -> np.ndarray:
        network = torch.nn.Linear(4, 1)
        generator = torch.Generator().manual_seed(5)
        for value in network.parameters():
            value.data.normal_(generator=generator)
        x = torch.randn(20, 4, generator=generator)
        groups = [{"params": [network.weight], "weight_decay": 0.1}, {"params": [network.bias]}]
        sgd = SGD(network.named_parameters(), step_size=0.05, l2=0.1) if ours else torch.optim.SGD(groups, lr=0.05)
        for _ in range(30):
            if not ours:
                sgd.zero_grad()  # type: ignore[union-attr]
            (network(x) - 3).square().mean().backward()
            sgd.step()
        return np.concatenate([value.detach().numpy().ravel() for value in network.parameters()])

    np.testing.assert_allclose(train(True), train(False), atol=1e-5)


def test_adam_goes_on_where_its_moments_were_taken() -> None:
    encoded, label = _problem()
    x, y = torch.from_numpy(encoded["x"]), torch.from_numpy(label.astype(np.float32))
    network = torch.nn.Linear(6, 1)
    generator = torch.Generator().manual_seed(0)
    for value in network.parameters():
        value.data.normal_(generator=generator)

    def step(adam: Adam) -> bytes:
        torch.nn.functional.binary_cross_entropy_with_logits(network(x)[:, 0], y).backward()
        adam.step()
        return network.weight.detach().numpy().tobytes() + network.bias.detach().numpy().tobytes()

    adam = Adam(network.named_parameters(), step_size=0.1, l2=0.01)
    for _ in range(3):
        step(adam)
    halfway, moments = {k: v.clone() for k, v in network.state_dict().items()}, adam.moments()
    straight = step(adam)
    network.load_state_dict(halfway)
    resumed = Adam(network.named_parameters(), step_size=0.1, l2=0.01)
    resumed.restore(moments)
    assert step(resumed) == straight
    network.load_state_dict(halfway)
    assert step(Adam(network.named_parameters(), step_size=0.1, l2=0.01)) != straight


def test_a_lone_gru_remembers_its_moments_and_a_federated_one_forgets() -> None:
    encoded, label = _series()
    for recipe, remembers in (("alone", True), ("federated", False)):
        learner = _learner("gru", recipe, 3)
        assert bool(learner.fit(learner.initial(0), encoded, label, 0, {}).memory) is remembers


def test_blocks_of_trees_add_up() -> None:
    encoded, label = _problem()
    learner = _learner("trees", "alone", 6)
    one = learner.fit(learner.initial(0), encoded, label, 1, {})
    two = learner.fit(one.arrays, encoded, label, 2, {})
    assert two.loss < one.loss
    assert len(two.arrays["booster"]) > len(one.arrays["booster"])
    assert learner.predict(learner.initial(0), encoded).tolist() == [0.5] * len(label)


def test_trees_without_xgboost_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xgboost", None)
    with pytest.raises(TrainingError, match=r"install fedward\[trees\]"):
        _learner("trees", "alone", 6)


def test_streams_differ_by_name_and_seed_and_never_by_who_else_draws() -> None:
    names = [("a",), ("a", 1), ("a", "1"), ("a", "b"), ("ab",), ("b",)]
    drawn = {draw_seed(seed, *name) for seed in (0, 1) for name in names}
    assert len(drawn) == 2 * len(names)
    stream(0, "x").random(100)
    assert draw_seed(0, "a") in drawn
