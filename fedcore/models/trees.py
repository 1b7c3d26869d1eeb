"""Gradient-boosted trees on tabular features: the usual winner on such data, here as an anchor (pooled and local)."""

from fedcore.learner import Learner, Setting
from fedcore.models.model import ModelSpec, Recipe, Sizes


def _alone(sizes: Sizes, setting: Setting) -> Learner:
    from fedcore.learners.boosting import BoostingLearner

    return BoostingLearner(setting)


def _setting(depth: int) -> Setting:
    return {
        "step_size": 0.05,
        "depth": depth,
        "trees": 50,
        "min_child_weight": 5.0,
        "subsample": 0.7,
        "colsample": 0.3,
        "l2": 2.0,
    }


MODEL = ModelSpec(
    name="trees",
    representation="tabular",
    federated=None,
    alone=Recipe(
        learner=_alone,
        settings=(_setting(3), _setting(5)),
        rounds=12,
        patience=2,
        untuned=_setting(3),
        untuned_rounds=2,
    ),
)
