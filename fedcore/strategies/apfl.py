"""APFL: each site predicts with a mixture of the federation's model and one of its own.

Deng, Kamani and Mahdavi, Adaptive Personalized Federated Learning, 2020, algorithm 1. A site has a model v of its own
and a share alpha; the server sends w, which the site trains and sends back, as under FedAvg. At each step, on the same
batch and with u = alpha v + (1 - alpha) w as it was before the step,

    w <- w - step_size grad f_i(w)
    v <- v - step_size alpha grad f_i(u)
    alpha <- alpha - step_size <v - w, grad f_i(u)>                once a round, at its first step; kept in [0, 1]

and the site predicts with u, w being the server's. v starts, in a site's first round, as the w of that round. The paper
lets alpha descend at every step; that it does so once a round is the rule of its authors' code. With `adaptive` 0 it
stays where it is. Before its first round a site predicts with w.
"""

import numpy as np

from fedcore.learner import Arrays, Mixture, Objective, Setting, TrainingError
from fedcore.local import Update, Visit
from fedcore.models.model import Range
from fedcore.options import number
from fedcore.rule import STATISTICS, Averaging, Roster, ruled
from fedcore.strategies.strategy import StrategySpec

OWN, SHARE = "own", "share"


class Mixing:
    """A site with a model of its own and a share of it."""

    def train(self, visit: Visit) -> Update:
        """See `fedcore.local.Local`."""
        before = self._mixture(visit)
        fit = visit.fit(objective=Objective(mixture=before))
        if fit.mixture is None:
            raise TrainingError(
                "the model's learner trains no mixture; expected a learner that strategy 'apfl' can use"
            )
        visit.memory[OWN] = fit.mixture.own
        visit.memory[SHARE] = {SHARE: np.array(fit.mixture.share)}
        return Update(fit.arrays, fit.loss, fit.steps)

    def personal(self, visit: Visit) -> Arrays:
        """The mixture; of what batch normalisation measured, the site's own."""
        mixture = self._mixture(visit)
        mixed = {}
        for name, shared in visit.arrays.items():
            own = mixture.own[name]
            statistic = name.rpartition(".")[2] in STATISTICS
            between = mixture.share * own + (1 - mixture.share) * shared
            mixed[name] = own if statistic else between.astype(shared.dtype)
        return mixed

    def _mixture(self, visit: Visit) -> Mixture:
        own = visit.memory.get(OWN) or visit.arrays
        share = visit.memory.get(SHARE, {SHARE: np.array(visit.setting["alpha"])})[SHARE]
        return Mixture(own, float(share), bool(visit.setting["adaptive"]))


def _rule(_roster: Roster, setting: Setting) -> Averaging:
    number(setting, "alpha", at_least=0, at_most=1)
    number(setting, "adaptive", at_least=0, at_most=1)
    return Averaging()


STRATEGY = StrategySpec(
    build=ruled(_rule),
    local=Mixing(),
    title="APFL",
    paper="Deng, Kamani and Mahdavi, Adaptive Personalized Federated Learning, 2020",
    private=False,
    sums=True,
    when="each site wants its own model, and nobody knows how much of it",
    options={"alpha": 0.5, "adaptive": 1},
    ranges={"alpha": Range(0.1, 0.9, log=False)},
)
