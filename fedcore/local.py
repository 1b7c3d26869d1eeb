"""What a site does for a strategy: how it trains when it is asked to, and which model it predicts with.

A `Local` is the client's half of a strategy (`fedcore.strategies`). It sees one `Visit`: the server's message as plain
arrays, the site's training samples, and what the site remembers of earlier rounds.
"""

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from fedcore.learner import PLAIN, Arrays, Encoded, Fit, Learner, Objective, PrivateLearner, Setting, TrainingError
from fedcore.models.model import ModelSpec
from fedcore.streams import draw_seed

if TYPE_CHECKING:
    from privacy.dpsgd import DPSGD

MOMENTS = "moments"
"""Where a site's optimiser is remembered."""

CLIPS = "clips"
"""Where a site remembers what adaptive bounds have come to."""


class Split(NamedTuple):
    """Encoded samples of one split."""

    encoded: Encoded
    label: np.ndarray
    patient: np.ndarray
    """int64 [n]: whose each sample is, from 0."""

    @property
    def patients(self) -> int:
        """How many they are."""
        return int(self.patient.max()) + 1 if len(self.patient) else 0


@dataclass(frozen=True)
class Update:
    """What a site sends back.

    Attributes:
        arrays: the model, by the names and of the shapes it was sent.
        loss: mean log loss over the training samples.
        steps: optimiser steps made.
        beside: further records, by the names and of the shapes that they were sent.
    """

    arrays: Arrays
    loss: float
    steps: int
    beside: Mapping[str, Arrays] = field(default_factory=dict)


@dataclass
class Visit:
    """One request of the server at one site.

    Attributes:
        site: the site's name.
        round: from 1.
        cell_seed: the cell's seed.
        arrays: the model that the server sent.
        beside: what it sent beside the model, by record.
        config: the plain values that it sent, `proximal-mu` for one.
        setting: the hyperparameters, the model's and the strategy's.
        model: the model.
        make: makes the model's learner for a setting.
        open_split: the training samples, encoded when they are first asked for.
        memory: what the site remembers; what is put here is there in the trial's next round. It never leaves.
        protect: makes the DP-SGD with which the setting is trained, and has written its spend down; None: there is no
            noise.
    """

    site: str
    round: int
    cell_seed: int
    arrays: Arrays
    beside: Mapping[str, Arrays]
    config: Mapping[str, object]
    setting: Setting
    model: ModelSpec
    make: Callable[[Setting], Learner]
    open_split: Callable[[], Split]
    memory: MutableMapping[str, Arrays]
    protect: "Callable[[str, Setting, Split], DPSGD] | None" = None

    @property
    def split(self) -> Split:
        """The site's training samples."""
        return self.open_split()

    def seed(self, *names: str | int) -> int:
        """A seed of this site and round, for the consumer of that name."""
        return draw_seed(self.cell_seed, *names, self.site, self.round)

    def fit(
        self,
        arrays: Arrays | None = None,
        *,
        objective: Objective = PLAIN,
        change: Setting | None = None,
        stream: str = "train",
        moments: str = MOMENTS,
    ) -> Fit:
        """Train on the site's samples.

        Args:
            arrays: the model to start from; the one that the server sent.
            objective: what is added to the site's loss.
            change: hyperparameters that are other than in the setting.
            stream: whose randomness this is; two trainings of one visit take two.
            moments: where the optimiser is remembered, if the learner keeps it.

        Raises:
            TrainingError: the loss is not a number.
        """
        setting = {**self.setting, **(change or {})}
        learner = self.make(setting)
        split = self.split
        if self.protect is not None:
            return self._private(learner, self.protect(stream, setting, split), arrays, objective, stream)
        fit = learner.fit(
            self.arrays if arrays is None else arrays,
            split.encoded,
            split.label,
            self.seed(stream),
            self.memory.get(moments, {}),
            objective,
        )
        if fit.memory:
            self.memory[moments] = fit.memory
        return fit

    def _private(self, learner: Learner, how: "DPSGD", arrays: Arrays | None, objective: Objective, stream: str) -> Fit:
        if not isinstance(learner, PrivateLearner):
            raise TrainingError("this model cannot be trained with noise; expected a network")
        split = self.split
        start = self.arrays if arrays is None else arrays
        if how.quantile is not None and stream in self.memory.get(CLIPS, {}):
            how.clip = float(self.memory[CLIPS][stream])
        fit = learner.fit_privately(start, split.encoded, split.label, how, self.seed(stream), objective)
        if how.quantile is not None:
            self.memory[CLIPS] = {**self.memory.get(CLIPS, {}), stream: np.array(how.clip)}
        return fit


class Local(Protocol):
    """The site's half of a strategy."""

    def train(self, visit: Visit) -> Update:
        """Train for one round.

        Raises:
            TrainingError: training came to no model.
        """
        ...

    def personal(self, visit: Visit) -> Arrays:
        """The model that this site predicts with, of the one the server sent and of what the site remembers.

        Asked of sites that took part; the memory of one that has never trained is empty. Others, external ones among
        them, predict with the server's model.
        """
        ...


class Plain:
    """Train what the server sent on the site's own loss, and predict with what it sends.

    A `proximal-mu` in the message, as Flower's FedProx puts it there, pulls towards the server's model.
    """

    def train(self, visit: Visit) -> Update:
        """See `Local`."""
        fit = visit.fit(objective=proximal(visit))
        return Update(fit.arrays, fit.loss, fit.steps)

    def personal(self, visit: Visit) -> Arrays:
        """The server's model."""
        return visit.arrays


def proximal(visit: Visit) -> Objective:
    """FedProx's term, mu/2 |w - w_server|^2, where the message asks for one."""
    mu = visit.config.get("proximal-mu", 0.0)
    if not isinstance(mu, int | float) or mu < 0:
        raise TrainingError("the message's 'proximal-mu' is no number of 0 or more; mend the strategy that sends it")
    return Objective(mu=float(mu), anchor=visit.arrays) if mu else PLAIN
