"""FedDyn: each site's loss is bent until the sites' optima agree with the federation's.

Acar et al., Federated Learning Based on Dynamic Regularization, 2021, algorithm 1. The server sends its model x. Site i
remembers its gradient l_i, zero at first, and answers with

    y_i <- argmin_y  f_i(y) - <l_i, y> + alpha/2 |y - x|^2
    l_i <- l_i - alpha (y_i - x)

which makes l_i the gradient of f_i at y_i. The server keeps h, zero at first:

    h <- h - alpha sum_{i in S} p_i (y_i - x)                      p_i = n_i / n, n of all sites
    x <- sum_{i in S} w_i y_i - h / alpha                          w_i = n_i / sum_{j in S} n_j

so that h is the mean of all l_i, and what x comes to rest at has sum_i p_i grad f_i(x) = 0. The argmin is as good as
the model's local epochs make it. Weights are by training samples (the paper's are equal): the same algorithm with n_i
copies of each site, which minimises what `pooled` does.

Nothing is sent but models. The price: where an answer is lost or spoiled after the site has trained, l_i has changed
and h has not, and the federation comes to rest elsewhere from then on.
"""

from collections.abc import Sequence

import numpy as np

from fedcore.learner import Arrays, Objective, Setting
from fedcore.local import Plain, Update, Visit
from fedcore.models.model import Range
from fedcore.options import number
from fedcore.rule import Averaging, Reply, Roster, combination, mean, ruled, with_mean_statistics, zeros
from fedcore.strategies.strategy import StrategySpec

GRADIENT = "gradient"


class Bent(Plain):
    """A site that remembers its gradient."""

    def train(self, visit: Visit) -> Update:
        """See `fedcore.local.Local`."""
        alpha = float(visit.setting["alpha"])
        gradient = visit.memory.get(GRADIENT) or zeros(visit.arrays)
        slope = combination((-1, gradient))
        fit = visit.fit(objective=Objective(slope=slope, mu=alpha, anchor=visit.arrays))
        visit.memory[GRADIENT] = combination((1, gradient), (-alpha, fit.arrays), (alpha, visit.arrays))
        return Update(fit.arrays, fit.loss, fit.steps)


class FedDyn(Averaging):
    """The server's half.

    Args:
        samples: training samples of all sites.
        alpha: the paper's.
    """

    def __init__(self, samples: int, alpha: float) -> None:
        self._samples = samples
        self._alpha = alpha
        self._h: dict[str, np.ndarray] = {}

    def combine(self, arrays: Arrays, replies: Sequence[Reply]) -> Arrays:
        """See the module."""
        h = self._h or zeros(arrays)
        shares = [reply.samples / self._samples for reply in replies]
        moved = [(-self._alpha * share, reply.arrays) for share, reply in zip(shares, replies, strict=True)]
        self._h = combination((1, h), (self._alpha * sum(shares), arrays), *moved)
        average = mean([reply.arrays for reply in replies], [reply.samples for reply in replies])
        return with_mean_statistics(combination((1, average), (-1 / self._alpha, self._h)), replies)


def _rule(roster: Roster, setting: Setting) -> FedDyn:
    return FedDyn(roster.samples, number(setting, "alpha", above=0))


STRATEGY = StrategySpec(
    build=ruled(_rule),
    local=Bent(),
    title="FedDyn",
    paper="Acar et al., Federated Learning Based on Dynamic Regularization, 2021",
    sums=True,
    when="sites differ, nearly all answer in every round, and messages should be no longer than FedAvg's",
    options={"alpha": 0.1},
    ranges={"alpha": Range(0.01, 1.0)},
)
