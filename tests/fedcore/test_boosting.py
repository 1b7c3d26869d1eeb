"""Boosted trees across sites: what a site sends, and what the server's appending makes of it."""

import json
from typing import Any

import numpy as np
import pytest
from flwr.serverapp.strategy.strategy_utils import aggregate_bagging

from fedcore.learner import Arrays, Objective, TrainingError, log_loss
from fedcore.learners.boosting import GRID, WITHHELD, BaggingLearner
from fedcore.models import model


def _site(seed: int, n: int = 400) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 5)).astype(np.float32)
    return {"x": x}, rng.random(n) < 1 / (1 + np.exp(-(2 * x[:, 0] - x[:, 1] - 1)))


def _learner(**overrides: float) -> BaggingLearner:
    recipe = model.load("trees").recipe("federated")
    learner = recipe.learner({"x": 5}, {**recipe.untuned, "colsample": 1.0, **overrides})
    assert isinstance(learner, BaggingLearner)
    return learner


def _appended(arrays: Arrays, *replies: Arrays) -> Arrays:
    raw = arrays["0"].tobytes()
    for reply in replies:
        raw = aggregate_bagging(raw, reply["0"].tobytes())
    return {"0": np.frombuffer(raw, dtype=np.uint8)}


def _trees(arrays: Arrays) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(arrays["0"].tobytes())["learner"]["gradient_booster"]["model"]["trees"]
    return found


def _margin(p: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(p / (1 - p)))


def _walked(trees: list[dict[str, Any]], x: np.ndarray) -> np.ndarray:
    """The sum of the trees' leaves, by hand, on features rounded to the grid."""
    total = np.zeros(len(x))
    for i, row in enumerate(np.rint(x * GRID) / GRID):
        for tree in trees:
            node = 0
            while tree["left_children"][node] != -1:
                below = row[tree["split_indices"][node]] < tree["split_conditions"][node]
                node = tree["left_children" if below else "right_children"][node]
            total[i] += tree["split_conditions"][node]
    return total


def test_bagging_two_sites_adds_their_trees_margins() -> None:
    learner = _learner()
    start = learner.initial(0)
    replies = [learner.fit(start, *_site(seed), seed, {}).arrays for seed in (1, 2)]
    x, _ = _site(3, 50)
    both = _margin(learner.predict(_appended(start, *replies), x))
    each = [_margin(learner.predict(_appended(start, reply), x)) for reply in replies]
    np.testing.assert_allclose(both, each[0] + each[1], atol=1e-5)
    np.testing.assert_allclose(both, _walked([*_trees(replies[0]), *_trees(replies[1])], x["x"]), atol=1e-5)


def test_a_site_sends_only_its_new_trees_and_fits_them_to_what_is_left() -> None:
    learner = _learner(step_size=0.3, subsample=1.0)
    arrays = learner.initial(0)
    encoded, label = _site(1)
    losses = []
    for number in range(4):
        fit = learner.fit(arrays, encoded, label, number, {})
        assert len(_trees(fit.arrays)) == 4
        arrays = _appended(arrays, fit.arrays)
        assert len(_trees(arrays)) == 4 * (number + 1)
        losses.append(fit.loss)
        # what the site calls its loss is that of the common model with its own trees
        assert np.isclose(fit.loss, log_loss(label, learner.predict(arrays, encoded)).mean(), atol=1e-6)
    assert losses == sorted(losses, reverse=True)


def test_a_leaf_is_the_newton_step_of_its_samples_from_the_common_margin() -> None:
    learner = _learner(trees=1, subsample=1.0, step_size=0.3, l2=2.0)
    encoded, label = _site(1)
    start = _appended(learner.initial(0), learner.fit(learner.initial(0), *_site(2), 0, {}).arrays)
    tree = _trees(learner.fit(start, encoded, label, 1, {}).arrays)[0]
    p, step = learner.predict(start, encoded), _walked([tree], encoded["x"])
    for leaf in np.unique(step):
        here = step == leaf
        newton = (label[here] - p[here]).sum() / ((p * (1 - p))[here].sum() + 2.0)
        assert np.isclose(leaf, 0.3 * newton, atol=1e-5)


def test_all_sites_start_from_one_half_whatever_their_labels() -> None:
    learner = _learner()
    start = learner.initial(0)
    x, label = _site(1)
    assert learner.predict(start, x).tolist() == [0.5] * len(label)
    assert start["0"].tobytes() == learner.initial(9)["0"].tobytes()
    rare, frequent = (learner.fit(start, x, label & (x["x"][:, 2] > k), 0, {}).arrays for k in (1, -9))
    scores = [json.loads(a["0"].tobytes())["learner"]["learner_model_param"]["base_score"] for a in (rare, frequent)]
    assert scores[0] == scores[1] == "[5E-1]"
    one_way, other_way = (learner.predict(_appended(start, *pair), x) for pair in ((rare, frequent), (frequent, rare)))
    np.testing.assert_allclose(one_way, other_way, atol=1e-6)


@pytest.mark.parametrize("depth", [3, 8])
def test_every_leaf_that_leaves_a_site_holds_ten_samples(depth: int) -> None:
    learner = _learner(depth=depth, subsample=0.6)
    encoded, label = _site(1)
    arrays = learner.initial(0)
    for number in range(5):
        fit = learner.fit(arrays, encoded, label, number, {})
        for tree in _trees(fit.arrays):
            step = _walked([tree], encoded["x"])
            assert np.unique(step, return_counts=True)[1].min() >= 10
        arrays = _appended(arrays, fit.arrays)


def test_smaller_leaves_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"min_child_weight 2.4 lets leaves of fewer than ten samples leave a site"):
        _learner(min_child_weight=2.4)
    assert model.load("trees").recipe("federated").ranges["min_child_weight"].low >= 2.5


def test_a_site_of_nine_samples_says_nothing() -> None:
    learner = _learner(subsample=1.0)
    encoded, _ = _site(1, 9)
    trees = _trees(learner.fit(learner.initial(0), encoded, np.ones(9, bool), 0, {}).arrays)
    assert [tree["split_conditions"] for tree in trees] == [[0.0]] * 4


def test_trees_split_on_the_public_grid_and_carry_nothing_but_what_predicts() -> None:
    learner = _learner()
    for tree in _trees(learner.fit(learner.initial(0), *_site(1), 0, {}).arrays):
        inner = np.array(tree["left_children"]) != -1
        assert inner.any()
        places = np.array(tree["split_conditions"])[inner] * GRID
        np.testing.assert_array_equal(places, np.rint(places))
        assert all(set(tree[name]) == {0.0} for name in WITHHELD)


def test_same_seed_same_bits_and_another_seed_draws_others() -> None:
    learner = _learner()
    start = learner.initial(0)
    first, second, other = (learner.fit(start, *_site(1), seed, {}).arrays["0"].tobytes() for seed in (5, 5, 6))
    assert first == second != other


def test_common_trees_learn_what_each_site_knows() -> None:
    learner = _learner(step_size=0.15)
    arrays = learner.initial(0)
    for number in range(12):
        arrays = _appended(arrays, *(learner.fit(arrays, *_site(seed), number, {}).arrays for seed in (1, 2)))
    x, label = _site(3)
    truth = 1 / (1 + np.exp(-(2 * x["x"][:, 0] - x["x"][:, 1] - 1)))
    nothing, learned, best = (
        log_loss(label, p).mean() for p in (np.full(400, label.mean()), learner.predict(arrays, x), truth)
    )
    assert nothing - learned > 0.6 * (nothing - best)
    assert learner.predict(arrays, {"x": x["x"][:0]}).shape == (0,)


def test_boosting_across_sites_knows_no_other_objective() -> None:
    learner = _learner()
    with pytest.raises(TrainingError, match="boosting knows no objective but the site's own loss"):
        learner.fit(learner.initial(0), *_site(1), 0, {}, Objective(mu=0.1, anchor=learner.initial(0)))
