"""The torch models: each against an independent computation of its formula, and what strategies rely on."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedcore.learner import Arrays, Encoded, Objective
from fedcore.learners.minibatch import MinibatchLearner
from fedcore.models import model

Floats = NDArray[np.float64]

NETWORKS = ("gru", "mlp", "retain", "transformer")
SIZES = {
    "gru": {"x": 3},
    "mlp": {"x": 6},
    "retain": {"x": 3},
    "transformer": {"vocabulary": 9, "length": 256},
}


def _encoded(name: str, n: int = 70) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Samples as the model's representation encodes them, and labels that depend on them."""
    rng = np.random.default_rng(4)
    if name == "mlp":
        x = rng.normal(size=(n, 6)).astype(np.float32)
        return {"x": x}, x[:, 0] > 0
    if name == "transformer":
        length = rng.integers(1, 20, n).astype(np.int32)
        there = np.arange(256) < length[:, None]
        code = np.where(there, rng.integers(1, 9, there.shape), 0).astype(np.int32)
        gap = np.where(there & (np.arange(256) > 0), rng.exponential(2, there.shape), 0).astype(np.float32)
        value = np.where(there, rng.normal(size=there.shape), 0).astype(np.float32)
        return {"code": code, "gap_hours": gap, "value": value, "length": length}, (code == 3).any(axis=1)
    x = rng.normal(size=(n, 5, 3)).astype(np.float32)
    mask = (rng.random(x.shape) < 0.5).astype(np.float32)
    return {"x": x * mask, "mask": mask, "delta": rng.integers(0, 5, x.shape).astype(np.float32)}, x[:, -1, 0] > 0


def _learner(name: str, recipe: str = "federated", **overrides: float) -> MinibatchLearner:
    chosen = model.load(name).recipe(recipe)
    learner = chosen.learner(SIZES[name], {**chosen.untuned, **overrides})
    assert isinstance(learner, MinibatchLearner)
    return learner


def _trained(name: str, encoded: Encoded, label: np.ndarray) -> tuple[MinibatchLearner, Arrays]:
    learner = _learner(name)
    return learner, learner.fit(learner.initial(0), encoded, label, 1, {}).arrays


def _sigmoid(z: Floats) -> Floats:
    return 1 / (1 + np.exp(-z))


def _softmax(z: Floats) -> Floats:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def _gru(w: Arrays, name: str, x: Floats) -> Floats:
    """The states [n, steps, k] of torch's gated recurrent unit."""
    h = np.zeros((len(x), w[f"{name}.weight_hh_l0"].shape[1]))
    states = []
    for t in range(x.shape[1]):
        ours = np.split(x[:, t] @ w[f"{name}.weight_ih_l0"].T + w[f"{name}.bias_ih_l0"], 3, axis=1)
        past = np.split(h @ w[f"{name}.weight_hh_l0"].T + w[f"{name}.bias_hh_l0"], 3, axis=1)
        reset, update = _sigmoid(ours[0] + past[0]), _sigmoid(ours[1] + past[1])
        h = (1 - update) * np.tanh(ours[2] + reset * past[2]) + update * h
        states.append(h)
    return np.stack(states, axis=1)


def _linear(w: Arrays, name: str, x: Floats) -> Floats:
    return np.asarray(x @ w[f"{name}.weight"].T.astype(np.float64) + w[f"{name}.bias"])


def _hourly(encoded: Encoded) -> Floats:
    return np.concatenate([encoded["x"], encoded["mask"], 1 / (1 + encoded["delta"])], axis=2).astype(np.float64)


def test_gru_reads_its_last_state_and_the_mean_one() -> None:
    encoded, label = _encoded("gru")
    learner, w = _trained("gru", encoded, label)
    states = _gru(w, "recurrent", _hourly(encoded))
    seen = np.concatenate([states[:, -1], states.mean(axis=1)], axis=1)
    np.testing.assert_allclose(learner.predict(w, encoded), _sigmoid(_linear(w, "output", seen)[:, 0]), atol=1e-6)


def test_retain_is_the_papers_reverse_time_attention() -> None:
    encoded, label = _encoded("retain")
    learner, w = _trained("retain", encoded, label)
    v = _hourly(encoded) @ w["embedding.weight"].T.astype(np.float64)
    g, h = (_gru(w, name, v[:, ::-1])[:, ::-1] for name in ("recurrent_alpha", "recurrent_beta"))
    alpha = _softmax(_linear(w, "alpha", g)[:, :, 0])
    beta = np.tanh(_linear(w, "beta", h))
    context = np.einsum("nt,ntk,ntk->nk", alpha, beta, v)
    expected = _sigmoid(_linear(w, "output", context)[:, 0])
    np.testing.assert_allclose(learner.predict(w, encoded), expected, atol=1e-6)


def _layer_norm(w: Arrays, name: str, x: Floats) -> Floats:
    spread = np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
    return np.asarray((x - x.mean(axis=-1, keepdims=True)) / spread * w[f"{name}.weight"] + w[f"{name}.bias"])


def _transformer(w: Arrays, code: np.ndarray, gap: Floats, value: Floats) -> float:
    """The logit of one sample of these events, none of them padding, with two heads and one block."""
    width = w["code.weight"].shape[1]
    hours = np.array([gap[i + 1 :].sum() for i in range(len(gap))])
    angle = 2 * np.pi * hours[:, None] / np.logspace(0, 5, width // 2)
    x = w["code.weight"][code] + value[:, None] * w["value.weight"][code]
    x = x + np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    q, k, v = np.split(_linear(w, "blocks.0.attend", _layer_norm(w, "blocks.0.norm1", x)), 3, axis=1)
    heads = []
    for part in np.split(np.arange(width), 2):
        attention = _softmax(q[:, part] @ k[:, part].T / np.sqrt(width // 2))
        heads.append(attention @ v[:, part])
    x = x + _linear(w, "blocks.0.merge", np.concatenate(heads, axis=1))
    wide = np.maximum(_linear(w, "blocks.0.widen", _layer_norm(w, "blocks.0.norm2", x)), 0)
    x = _layer_norm(w, "norm", x + _linear(w, "blocks.0.narrow", wide))
    pooled = _softmax(_linear(w, "score", x)[:, 0]) @ x
    return float(_linear(w, "output", pooled[None])[0, 0])


def test_transformer_is_its_formula_on_each_samples_own_events() -> None:
    encoded, label = _encoded("transformer", 12)
    learner, w = _trained("transformer", encoded, label)
    wide = {name: value.astype(np.float64) for name, value in w.items()}
    logits = np.array(
        [
            _transformer(wide, *(encoded[name][i, :length] for name in ("code", "gap_hours", "value")))
            for i, length in enumerate(encoded["length"])
        ]
    )
    np.testing.assert_allclose(learner.predict(w, encoded), _sigmoid(logits), atol=1e-5)


def test_what_stands_in_the_padding_changes_no_answer_of_the_transformer() -> None:
    encoded, label = _encoded("transformer")
    learner, w = _trained("transformer", encoded, label)
    padding = np.arange(256) >= encoded["length"][:, None]
    filled = {
        "code": np.where(padding, 5, encoded["code"]).astype(np.int32),
        "gap_hours": encoded["gap_hours"],
        "value": np.where(padding, 4, encoded["value"]).astype(np.float32),
        "length": encoded["length"],
    }
    np.testing.assert_array_equal(learner.predict(w, filled), learner.predict(w, encoded))


def test_a_longer_neighbour_changes_no_answer_of_the_transformer() -> None:
    encoded, label = _encoded("transformer")
    learner, w = _trained("transformer", encoded, label)
    alone = [learner.predict(w, {name: value[i : i + 1] for name, value in encoded.items()})[0] for i in range(10)]
    np.testing.assert_allclose(learner.predict(w, encoded)[:10], alone, atol=1e-6)


def test_the_transformer_reads_the_last_128_events() -> None:
    encoded, label = _encoded("transformer")
    learner, w = _trained("transformer", encoded, label)
    rng = np.random.default_rng(0)
    one: dict[str, np.ndarray] = {
        "code": rng.integers(1, 9, (1, 256)).astype(np.int32),
        "gap_hours": rng.exponential(1, (1, 256)).astype(np.float32),
        "value": rng.normal(size=(1, 256)).astype(np.float32),
        "length": np.array([200], np.int32),
    }
    answer = learner.predict(w, one)
    for place, matters in ((71, False), (72, True), (199, True), (200, False)):
        changed = {**one, "code": one["code"].copy()}
        changed["code"][0, place] = changed["code"][0, place] % 8 + 1
        assert (learner.predict(w, changed) != answer).any() == matters, place


def test_a_sample_without_events_is_answered_and_trained_on() -> None:
    encoded, label = _encoded("transformer")
    nothing = {name: np.zeros_like(value[:1]) for name, value in encoded.items()}
    joined = {name: np.concatenate([value, nothing[name]]) for name, value in encoded.items()}
    learner, w = _trained("transformer", joined, np.append(label, True))
    np.testing.assert_allclose(learner.predict(w, nothing), _sigmoid(w["output.bias"].astype(np.float64)), rtol=1e-6)


def _batch_norm(w: Arrays, name: str, x: Floats) -> Floats:
    spread = np.sqrt(w[f"{name}.running_var"].astype(np.float64) + 1e-5)
    return np.asarray((x - w[f"{name}.running_mean"]) / spread * w[f"{name}.weight"] + w[f"{name}.bias"])


def test_mlp_predicts_by_the_running_statistics() -> None:
    encoded, label = _encoded("mlp")
    learner, w = _trained("mlp", encoded, label)
    x = encoded["x"].astype(np.float64)
    for layer in ("1", "2"):
        x = np.maximum(_batch_norm(w, f"norm{layer}", x @ w[f"hidden{layer}.weight"].T), 0)
    np.testing.assert_allclose(learner.predict(w, encoded), _sigmoid(_linear(w, "output", x)[:, 0]), atol=1e-6)


def test_running_statistics_follow_a_batch_as_torchs_do() -> None:
    encoded, label = _encoded("mlp", 30)
    learner = _learner("mlp", batch_size=30)
    before = learner.initial(0)
    after = learner.fit(before, encoded, label, 1, {}).arrays
    hidden = encoded["x"] @ before["hidden1.weight"].T
    np.testing.assert_allclose(after["norm1.running_mean"], 0.1 * hidden.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(after["norm1.running_var"], 0.9 + 0.1 * hidden.var(axis=0, ddof=1), atol=1e-6)


def test_a_batch_of_one_trains_and_leaves_the_running_statistics_alone() -> None:
    encoded, label = _encoded("mlp", 1)
    learner = _learner("mlp")
    before = learner.initial(0)
    after = learner.fit(before, encoded, label, 1, {}).arrays
    for name in ("norm1.running_mean", "norm1.running_var", "norm2.running_mean", "norm2.running_var"):
        np.testing.assert_array_equal(after[name], before[name])
    assert not np.array_equal(after["hidden1.weight"], before["hidden1.weight"])


@pytest.mark.parametrize("name", NETWORKS)
def test_an_epoch_whose_last_batch_is_one_sample_trains(name: str) -> None:
    encoded, label = _encoded(name, 65)
    learner, w = _trained(name, encoded, label)
    assert np.isfinite(learner.predict(w, encoded)).all()
    assert learner.fit(w, encoded, label, 2, {}).steps == 2


@pytest.mark.parametrize("name", NETWORKS)
def test_forward_is_the_last_layer_of_what_it_embeds(name: str) -> None:
    encoded, label = _encoded(name)
    learner, w = _trained(name, encoded, label)
    assert model.load(name).embeds
    network: Any = learner._network(w, torch.device("cpu")).eval()
    batch = {key: torch.from_numpy(value) for key, value in encoded.items()}
    with torch.no_grad():
        z = network.embed(**batch)
        assert z.shape[0] == 70
        assert z.ndim == 2
        assert torch.equal(network.output(z)[:, 0], network(**batch))


@pytest.mark.parametrize("name", NETWORKS)
def test_head_and_norms_name_arrays_of_the_model_and_all_arrays_are_float32(name: str) -> None:
    spec, arrays = model.load(name), _learner(name).initial(0)
    assert spec.kind == "network"
    assert {key for key in arrays if key.startswith(spec.head)} == {"output.weight", "output.bias"}
    for prefix in spec.norms:
        kept = {key.removeprefix(prefix) for key in arrays if key.startswith(prefix)}
        assert kept == {"weight", "bias", "running_mean", "running_var"}
    assert {value.dtype.name for value in arrays.values()} == {"float32"}


def test_only_the_mlp_normalises_batches() -> None:
    for name in NETWORKS:
        assert any("running" in key for key in _learner(name).initial(0)) == (name == "mlp")
        assert bool(model.load(name).norms) == (name == "mlp")


@pytest.mark.parametrize("name", NETWORKS)
def test_training_only_the_head_leaves_all_other_weights(name: str) -> None:
    encoded, label = _encoded(name)
    learner = _learner(name)
    before = learner.initial(0)
    only = frozenset({"output.weight", "output.bias"})
    after = learner.fit(before, encoded, label, 1, {}, Objective(only=only)).arrays
    moved = {key for key in before if not np.array_equal(before[key], after[key]) and "running" not in key}
    assert moved == only


@pytest.mark.parametrize("recipe", ["alone", "federated"])
@pytest.mark.parametrize("name", NETWORKS)
def test_same_seed_same_bits_and_the_loss_falls(name: str, recipe: str) -> None:
    encoded, label = _encoded(name)
    learner = _learner(name, recipe, epochs=8, step_size=0.01)
    fits = [learner.fit(learner.initial(3), encoded, label, 7, {}) for _ in range(2)]
    for key, value in fits[0].arrays.items():
        assert value.tobytes() == fits[1].arrays[key].tobytes()
    assert learner.predict(fits[0].arrays, encoded).tobytes() == learner.predict(fits[1].arrays, encoded).tobytes()
    other = learner.fit(learner.initial(3), encoded, label, 8, {})
    assert any(value.tobytes() != other.arrays[key].tobytes() for key, value in fits[0].arrays.items())
    assert fits[0].loss < _learner(name, recipe).fit(learner.initial(3), encoded, label, 7, {}).loss
    assert bool(fits[0].memory) == (recipe == "alone")
