"""What a site does with a model: fit it to its samples, predict with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from privacy.dpsgd import DPSGD

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
        steps: optimiser steps made.
        gradient: the mean gradient of the loss over these steps, if it was asked for, without what was added to the
            loss and without penalties.
        mixture: what became of `Objective.mixture`.
    """

    arrays: Arrays
    loss: float
    memory: Arrays = field(default_factory=dict)
    steps: int = 1
    gradient: Arrays = field(default_factory=dict)
    mixture: "Mixture | None" = None


@dataclass(frozen=True)
class Mixture:
    """A second model v, trained beside the model w for their mixture share v + (1 - share) w (APFL).

    Each step of w, along its own gradient, goes with one of v along the gradient, in v, of the same batch's loss at the
    mixture as it was before both.

    Attributes:
        own: v.
        share: in [0, 1].
        adapts: whether the share descends too, one step at the first batch, and is kept in [0, 1].
    """

    own: Arrays
    share: float
    adapts: bool


@dataclass(frozen=True)
class Contrast:
    """The model-contrastive term of MOON (Li, He and Song, 2021, equation 3).

    Its loss is weight * -log(exp(s(z, z_global)/t) / (exp(s(z, z_global)/t) + exp(s(z, z_previous)/t))) with s the
    cosine similarity, t the temperature and z what the trained, the global and the site's previous model embed a
    sample as.

    Attributes:
        weight: the paper's mu.
        temperature: its tau.
        previous: the site's model of its previous round.
        towards: the global model.
    """

    weight: float
    temperature: float
    previous: Arrays
    towards: Arrays


@dataclass(frozen=True)
class Objective:
    """What a strategy adds to a site's loss: <slope, w> + mu/2 |w - anchor|^2, and what of the model it trains.

    The gradient of each array gains slope + mu (w - anchor). An array without a slope or an anchor gains nothing from
    that term.

    Attributes:
        slope: the linear term, by array.
        mu: the weight of the proximal term.
        anchor: what the proximal term pulls to, by array.
        only: the names of the arrays that are trained; None: all.
        contrast: the model-contrastive term.
        mixture: a second model that is trained beside it.
        traced: whether `Fit.gradient` is wanted.
    """

    slope: Arrays = field(default_factory=dict)
    mu: float = 0.0
    anchor: Arrays = field(default_factory=dict)
    only: frozenset[str] | None = None
    contrast: Contrast | None = None
    mixture: Mixture | None = None
    traced: bool = False

    @property
    def plain(self) -> bool:
        """Whether it asks for the site's own loss and nothing else."""
        added = bool(self.slope) or bool(self.mu) or self.contrast is not None or self.mixture is not None
        return not added and self.only is None and not self.traced


PLAIN = Objective()
"""The site's own loss."""


class Learner(Protocol):
    """A model with its hyperparameters and the way it is trained; it holds no samples and no weights."""

    def initial(self, seed: int) -> Arrays:
        """The model before training: equal for equal seeds."""
        ...

    def fit(
        self,
        arrays: Arrays,
        encoded: Encoded,
        label: np.ndarray,
        seed: int,
        memory: Arrays,
        objective: Objective = PLAIN,
    ) -> Fit:
        """Train on one site's samples, starting from `arrays`.

        Args:
            arrays: the model to start from; left as it is.
            encoded: the samples.
            label: bool [n], n >= 1; one class only is allowed.
            seed: of the order of the samples, of dropout and the like.
            memory: `Fit.memory` of the site's previous round, empty in the first.
            objective: what the strategy adds to the loss.

        Raises:
            TrainingError: the loss is not a number, or the learner knows no such objective.
        """
        ...

    def predict(self, arrays: Arrays, encoded: Encoded) -> np.ndarray:
        """Float64 [n]: the probability of the positive label, each in [0, 1]."""
        ...


@runtime_checkable
class PrivateLearner(Protocol):
    """A learner that can train with patient-level differential privacy."""

    def fit_privately(
        self, arrays: Arrays, encoded: Encoded, label: np.ndarray, how: "DPSGD", seed: int, objective: Objective = PLAIN
    ) -> Fit:
        """Train as `how` says; `Fit.loss` is NaN, for it would be one more release.

        Raises:
            TrainingError: the model or the objective cannot be trained so.
        """
        ...


def refuse_objective(objective: Objective, learner: str) -> None:
    """For learners that minimise the site's own loss and nothing else.

    Raises:
        TrainingError: something would be added to it.
    """
    if not objective.plain:
        raise TrainingError(
            f"{learner} knows no objective but the site's own loss; expected a model trained by gradients"
        )


def log_loss(label: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Float64 [n]: each sample's log loss; probabilities are kept 1e-12 away from 0 and 1.

    >>> log_loss(np.array([True, False]), np.array([0.5, 0.0])).round(3).tolist()
    [0.693, 0.0]
    """
    p = np.clip(probability, 1e-12, 1 - 1e-12)
    return np.asarray(-np.log(np.where(label, p, 1 - p)), dtype=np.float64)
