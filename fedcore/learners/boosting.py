"""Gradient-boosted trees (XGBoost): each round adds a block of trees, so that rounds are what early stopping counts.

Chen and Guestrin, XGBoost: A Scalable Tree Boosting System, 2016; histogram method, one thread, log loss.
"""

from typing import Any

import numpy as np

from fedcore.learner import PLAIN, Arrays, Encoded, Fit, Objective, Setting, TrainingError, log_loss, refuse_objective


class BoostingLearner:
    """Boosts trees on the encoded array `x` float32 [n, d]; the model is one array, XGBoost's own bytes.

    The setting holds `step_size`, `depth`, `trees` (a round's block), `min_child_weight`, `subsample`, `colsample`
    and `l2`.

    Raises:
        TrainingError: xgboost is not installed.
    """

    def __init__(self, setting: Setting) -> None:
        try:
            import xgboost
        except ImportError:
            raise TrainingError("boosted trees need xgboost, which is not installed; install fedward[trees]") from None
        self._xgboost: Any = xgboost
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
        setting = self._setting
        # XGBoost starts its generator anew in each call: the round's own seed keeps blocks from sampling alike
        parameters = {
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
        before = self._booster(arrays)
        if before is None:  # the smoothed prevalence: finite where all labels are of one class
            parameters["base_score"] = (float(label.sum()) + 1) / (len(label) + 2)
        booster = self._xgboost.train(parameters, data, num_boost_round=int(setting["trees"]), xgb_model=before)
        raw = np.frombuffer(bytes(booster.save_raw(raw_format="ubj")), dtype=np.uint8)
        return Fit({"booster": raw}, float(log_loss(label, booster.predict(data)).mean()))

    def predict(self, arrays: Arrays, encoded: Encoded) -> np.ndarray:
        """Probabilities; one half everywhere before the first tree."""
        booster = self._booster(arrays)
        if booster is None:
            return np.full(len(encoded["x"]), 0.5)
        return np.asarray(booster.predict(self._xgboost.DMatrix(encoded["x"], nthread=1)), dtype=np.float64)

    def _booster(self, arrays: Arrays) -> Any | None:
        raw = arrays["booster"]
        if len(raw) == 0:
            return None
        booster = self._xgboost.Booster({"nthread": 1})
        booster.load_model(bytearray(raw.tobytes()))
        return booster
