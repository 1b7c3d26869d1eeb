"""What a site does with a model: fit it to its samples, predict with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

Arrays = Mapping[str, np.ndarray]
"""A model as it travels: named arrays, in the model's order."""

Encoded = Mapping[str, np.ndarray]
"""Samples as a representation encoded them: float32 or int32, the first axis is the samples."""

Setting = Mapping[str, int | float]
"""One choice of hyperparameters."""


class TrainingError(ValueError):
    """Training came to no model: one sentence that holds nothing of any patient, for it leaves the site."""


@dataclass(frozen=True)
class Fit:
    """What came out of a local training.

    Attributes:
        arrays: the model.
        loss: mean log loss over the training samples, as the last pass met them, without penalties.
        memory: what the site keeps for its next round with this model (an optimiser's moments); it never leaves.
    """

    arrays: Arrays
    loss: float
    memory: Arrays = field(default_factory=dict)


class Learner(Protocol):
    """A model with its hyperparameters and the way it is trained; it holds no samples and no weights."""

    def initial(self, seed: int) -> Arrays:
        """The model before training: equal for equal seeds."""
        ...

    def fit(self, arrays: Arrays, encoded: Encoded, label: np.ndarray, seed: int, memory: Arrays) -> Fit:
        """Train on one site's samples, starting from `arrays`.

        Args:
            arrays: the model to start from; left as it is.
            encoded: the samples.
            label: bool [n], n >= 1; one class only is allowed.
            seed: of the order of the samples, of dropout and the like.
            memory: `Fit.memory` of the site's previous round, empty in the first.

        Raises:
            TrainingError: the loss is not a number.
        """
        ...

    def predict(self, arrays: Arrays, encoded: Encoded) -> np.ndarray:
        """Float64 [n]: the probability of the positive label, each in [0, 1]."""
        ...


def log_loss(label: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Float64 [n]: each sample's log loss; probabilities are kept 1e-12 away from 0 and 1.

    >>> log_loss(np.array([True, False]), np.array([0.5, 0.0])).round(3).tolist()
    [0.693, 0.0]
    """
    p = np.clip(probability, 1e-12, 1 - 1e-12)
    return np.asarray(-np.log(np.where(label, p, 1 - p)), dtype=np.float64)
