"""Gradient-boosted trees on tabular features: the usual winner on such data.

Alone (pooled and local) they are boosted as XGBoost does; across sites each round appends some trees of every site to
the common model, as Flower's `FedXgbBagging` has it (`fedcore.learners.boosting`).
"""

from fedcore.learner import Learner, Setting
from fedcore.models.model import ModelSpec, Range, Recipe, Sizes


def _federated(sizes: Sizes, setting: Setting) -> Learner:
    from fedcore.learners.boosting import BaggingLearner

    return BaggingLearner(sizes["x"], setting)


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


def _bagged(step_size: float) -> Setting:
    """Four trees of each site a round; the step is each site's, and sites add up."""
    return {**_setting(3), "step_size": step_size, "trees": 4, "min_child_weight": 2.5}


RANGES = {
    "step_size": Range(0.01, 0.2),
    "depth": Range(2, 6, log=False, whole=True),
    "min_child_weight": Range(2.5, 20),
    "subsample": Range(0.5, 1, log=False),
    "colsample": Range(0.1, 1),
    "l2": Range(0.1, 10),
}

MODEL = ModelSpec(
    name="trees",
    representation="tabular",
    federated=Recipe(
        learner=_federated,
        settings=(_bagged(0.1), _bagged(0.03)),
        rounds=60,
        patience=6,
        untuned=_bagged(0.05),
        untuned_rounds=15,
        ranges=RANGES,
    ),
    alone=Recipe(
        learner=_alone,
        settings=(_setting(3), _setting(5)),
        rounds=12,
        patience=2,
        untuned=_setting(3),
        untuned_rounds=2,
        ranges=RANGES,
    ),
    kind="trees",
)
