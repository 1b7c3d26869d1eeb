"""Gradient-boosted trees (XGBoost), at one site and across sites; histogram method, one thread, log loss.

Chen and Guestrin, XGBoost: A Scalable Tree Boosting System, 2016. At one site a round adds a block of trees, so that
rounds are what early stopping counts. Across sites a round adds a bag of trees to the model all share, some of each
site: the federation of Flower's `FedXgbBagging`.
"""

import json
from typing import Any

import numpy as np

from fedcore.learner import PLAIN, Arrays, Encoded, Fit, Objective, Setting, TrainingError, log_loss, refuse_objective

LEAF_HESSIAN = 2.5
"""The least `min_child_weight` of trees that leave a site: ten samples in every leaf.

It bounds the leaf's sum of second derivatives of the log loss, p (1 - p) <= 1/4 each, so a leaf that has at least 2.5
holds at least 2.5 / (1/4) = 10 samples, whatever the model predicts for them (and a tree that cannot have two such
leaves says nothing, or one number for the whole site). Samples are not patients: where a task gives a patient several
samples, ten may be of fewer patients.
"""

GRID = 16
"""Trees that leave a site split at whole sixteenths of a feature's agreed unit, its standard deviation: XGBoost would
split at values some patient has."""

WITHHELD = ("base_weights", "loss_changes", "sum_hessian")
"""What XGBoost writes of a node beside what predicts: it describes the site's samples, and is sent as 0."""


class BoostingLearner:
    """Boosts trees on the encoded array `x` float32 [n, d]; the model is one array, XGBoost's own bytes.

    The setting holds `step_size`, `depth`, `trees` (a round's block), `min_child_weight`, `subsample`, `colsample`
    and `l2`.

    Raises:
        TrainingError: xgboost is not installed.
    """

    def __init__(self, setting: Setting) -> None:
        self._xgboost = _xgboost()
        self._setting = setting

    def initial(self, seed: int) -> Arrays:
        """No trees: an empty array."""
        return {"booster": np.zeros(0, dtype=np.uint8)}

    def fit(
        self,
        arrays: Arrays,
        encoded: Encoded,
        label: np.ndarray,
        seed: int,
        memory: Arrays,
        objective: Objective = PLAIN,
    ) -> Fit:
        """Add a block of trees; see `fedcore.learner.Learner`."""
        refuse_objective(objective, "boosting")
        data = self._xgboost.DMatrix(encoded["x"], label=label.astype(np.float32), nthread=1)
        parameters = _parameters(self._setting, seed)
        before = _booster(arrays["booster"]) if len(arrays["booster"]) else None
        if before is None:  # the smoothed prevalence: finite where all labels are of one class
            parameters["base_score"] = (float(label.sum()) + 1) / (len(label) + 2)
        rounds = int(self._setting["trees"])
        booster = self._xgboost.train(parameters, data, num_boost_round=rounds, xgb_model=before)
        raw = np.frombuffer(bytes(booster.save_raw(raw_format="ubj")), dtype=np.uint8)
        return Fit({"booster": raw}, float(log_loss(label, booster.predict(data)).mean()))

    def predict(self, arrays: Arrays, encoded: Encoded) -> np.ndarray:
        """Probabilities; one half everywhere before the first tree."""
        if len(arrays["booster"]) == 0:
            return np.full(len(encoded["x"]), 0.5)
        data = self._xgboost.DMatrix(encoded["x"], nthread=1)
        return np.asarray(_booster(arrays["booster"]).predict(data), dtype=np.float64)


class BaggingLearner:
    """Boosts one step on the sites' common model and returns its new trees alone, for the server to append.

    The model is one array named "0", as Flower's `FedXgbBagging` wants it: XGBoost's JSON, as bytes. `fit` takes the
    common model's margin F as given and returns a booster of its own `trees` trees f, none of F's; appending what K
    sites return makes the model F + f_1 + ... + f_K, for XGBoost adds all trees up. Three things follow.

    - The starting margin must be the same everywhere. XGBoost would estimate `base_score` of each site's labels, fit
      that site's trees to the residuals of its own, and the sum would start at that of whichever model came first.
      Here the server's model of no trees bears it, 1/2 (a margin of 0): no statistic of labels is agreed on before
      training, and the first rounds' leaves make up for it. A site's trees know it only as part of F.
    - The trees are added, not averaged. Each f_k is a whole Newton step for site k's loss, and what descends on the
      mean loss is their mean; the sum oversteps K times. So `step_size` is per site: K sites move by K * step_size
      (Flower's example divides its learning rate by the number of sites to this end, where its `scaled_lr` is set).
      Choose it about 0.3 / K; the tuning split chooses among a recipe's settings.
    - A site's `trees` of one round are fitted side by side, each on its own draw of samples and columns, and share
      the step size (`num_parallel_tree`): a small forest for one step. Trees boosted one after the other would be
      lost: `FedXgbBagging` appends `num_parallel_tree` trees of a reply and passes over the rest.

    What leaves the site: see `LEAF_HESSIAN`, `GRID` and `WITHHELD`.

    The setting is `BoostingLearner`'s.

    Args:
        features: d.
        setting: the hyperparameters.

    Raises:
        TrainingError: xgboost is not installed, or leaves could have fewer than ten samples.
    """

    def __init__(self, features: int, setting: Setting) -> None:
        if setting["min_child_weight"] < LEAF_HESSIAN:
            raise TrainingError(
                f"min_child_weight {setting['min_child_weight']} lets leaves of fewer than ten samples leave a site; "
                f"expected at least {LEAF_HESSIAN}"
            )
        self._xgboost = _xgboost()
        self._features = features
        self._setting = setting

    def initial(self, seed: int) -> Arrays:
        """No trees, and the margin 0."""
        nobody = self._xgboost.DMatrix(np.zeros((1, self._features), np.float32), label=[0], nthread=1)
        parameters = {**self._parameters(seed), "base_score": 0.5}
        return _sent(self._xgboost.train(parameters, nobody, num_boost_round=0))

    def fit(
        self,
        arrays: Arrays,
        encoded: Encoded,
        label: np.ndarray,
        seed: int,
        memory: Arrays,
        objective: Objective = PLAIN,
    ) -> Fit:
        """This site's trees of the round, without those of `arrays`; the loss is that of `arrays` with them."""
        if np.isnan(encoded["x"]).any():  # XGBoost would split what is missing off at a patient's largest value
            raise TrainingError("a feature has missing values; expected none, as the representation tabular has none")
        refuse_objective(objective, "boosting")
        data = self._xgboost.DMatrix(_gridded(encoded["x"]), label=label.astype(np.float32), nthread=1)
        data.set_base_margin(_booster(arrays["0"]).predict(data, output_margin=True))
        booster = self._xgboost.train({**self._parameters(seed), "base_score": 0.5}, data, num_boost_round=1)
        return Fit(_sent(booster), float(log_loss(label, booster.predict(data)).mean()))

    def predict(self, arrays: Arrays, encoded: Encoded) -> np.ndarray:
        """Probabilities."""
        if len(encoded["x"]) == 0:  # XGBoost would warn
            return np.zeros(0)
        data = self._xgboost.DMatrix(_gridded(encoded["x"]), nthread=1)
        return np.asarray(_booster(arrays["0"]).predict(data), dtype=np.float64)

    def _parameters(self, seed: int) -> dict[str, Any]:
        return {**_parameters(self._setting, seed), "num_parallel_tree": int(self._setting["trees"])}


def _xgboost() -> Any:
    try:
        import xgboost
    except ImportError:
        raise TrainingError("boosted trees need xgboost, which is not installed; install fedward[trees]") from None
    return xgboost


def _parameters(setting: Setting, seed: int) -> dict[str, Any]:
    """XGBoost starts its generator anew in each call: the round's own seed keeps rounds from sampling alike."""
    return {
        "objective": "binary:logistic",
        "tree_method": "hist",
        "max_bin": 64,
        "nthread": 1,
        "seed": seed % 2**31,
        "eta": setting["step_size"],
        "max_depth": int(setting["depth"]),
        "min_child_weight": setting["min_child_weight"],
        "subsample": setting["subsample"],
        "colsample_bytree": setting["colsample"],
        "lambda": setting["l2"],
    }


def _booster(raw: np.ndarray) -> Any:
    booster = _xgboost().Booster({"nthread": 1})
    booster.load_model(bytearray(raw.tobytes()))
    return booster


def _gridded(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.rint(x * GRID) / np.float32(GRID))


def _sent(booster: Any) -> Arrays:
    """The booster as it leaves the site: the trees with nothing but what predicts."""
    model = json.loads(bytes(booster.save_raw(raw_format="json")))
    for tree in model["learner"]["gradient_booster"]["model"]["trees"]:
        for name in WITHHELD:
            tree[name] = [0.0] * len(tree[name])
    return {"0": np.frombuffer(json.dumps(model, separators=(",", ":")).encode(), dtype=np.uint8)}
