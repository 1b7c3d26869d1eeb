"""SCAFFOLD: control variates take the drift out of local steps.

Karimireddy et al., SCAFFOLD: Stochastic Controlled Averaging for Federated Learning, 2020, algorithm 1, option II.
The server sends its model x and its control variate c; a site with control variate c_i makes K steps and answers:

    y_i <- x;  y_i <- y_i - step_size (g_i(y_i) - c_i + c)         K times
    c_i <- c_i - c + (x - y_i) / (K step_size)

after which the server goes on:

    x <- x + server_step_size sum_{i in S} w_i (y_i - x)           w_i = n_i / sum_{j in S} n_j
    c <- c + sum_{i in S} p_i (c_i - what c_i was)                 p_i = n_i / n, n of all sites

Each c_i starts at zero. The paper weighs all sites alike; weights by training samples are the same algorithm with n_i
copies of each site, so that it minimises what `pooled` does.

A site sends c_i itself where the paper sends how much it changed. That is as many numbers, and c = sum_i p_i c_i holds
again after an answer was lost or came late.

What the second line comes to is the mean of g_i over the K steps, and that is what the model's learner is asked for:
with Adam at the sites (x - y_i) / (K step_size) is not of a gradient's scale, and drowns the gradients that it should
correct. A learner that cannot tell gets the paper's line. Penalties, alike at all sites, need no control.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from fedcore.learner import Arrays, Objective, Setting
from fedcore.local import Plain, Update, Visit
from fedcore.options import number
from fedcore.rule import Averaging, Reply, Roster, combination, mean, ruled, with_mean_statistics, zeros
from fedcore.strategies.strategy import StrategySpec

CONTROL = "control"


class Controlled(Plain):
    """A site that corrects its steps."""

    def train(self, visit: Visit) -> Update:
        """See `fedcore.local.Local`."""
        server = visit.beside[CONTROL]
        own = visit.memory.get(CONTROL) or zeros(server)
        fit = visit.fit(objective=Objective(slope=combination((1, server), (-1, own)), traced=True))
        rate = 1 / (fit.steps * float(visit.setting["step_size"]))
        moved: Arrays = combination((1, own), (-1, server), (rate, visit.arrays), (-rate, fit.arrays))
        found = {**zeros(server), **fit.gradient} if fit.gradient else moved
        visit.memory[CONTROL] = {name: value.astype(server[name].dtype) for name, value in found.items()}
        return Update(fit.arrays, fit.loss, fit.steps, beside={CONTROL: visit.memory[CONTROL]})


class Scaffold(Averaging):
    """The server's half.

    Args:
        samples: training samples of all sites.
        step_size: the server's.
    """

    def __init__(self, samples: int, step_size: float) -> None:
        self._samples = samples
        self._step_size = step_size
        self._control: dict[str, np.ndarray] = {}
        self._last: dict[int, Arrays] = {}

    def beside(self, arrays: Arrays) -> Mapping[str, Arrays]:
        """The server's control variate."""
        return {CONTROL: self._control or zeros(arrays)}

    def combine(self, arrays: Arrays, replies: Sequence[Reply]) -> Arrays:
        """See the module."""
        nothing = zeros(arrays)
        terms = []
        for reply in replies:
            share = reply.samples / self._samples
            found = reply.beside[CONTROL]
            terms += [(share, found), (-share, self._last.get(reply.site, nothing))]
            self._last[reply.site] = found
        self._control = combination((1, self._control or nothing), *terms)
        average = mean([reply.arrays for reply in replies], [reply.samples for reply in replies])
        moved = combination((1 - self._step_size, arrays), (self._step_size, average))
        return with_mean_statistics(moved, replies)


def _rule(roster: Roster, setting: Setting) -> Scaffold:
    return Scaffold(roster.samples, number(setting, "server_step_size", above=0))


STRATEGY = StrategySpec(
    build=ruled(_rule),
    local=Controlled(),
    title="SCAFFOLD",
    paper="Karimireddy et al., SCAFFOLD: Stochastic Controlled Averaging for Federated Learning, 2020",
    when="sites differ and make many local steps",
    options={"server_step_size": 1.0},
)
