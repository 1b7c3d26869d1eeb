"""Ditto: beside the federation's model each site trains one of its own, which the federation's pulls towards itself.

Li et al., Ditto: Fair and Robust Federated Learning Through Personalization, 2021, algorithm 1. The server sends w; a
site trains it and sends it back, as under FedAvg. Then it trains its own model v, which it predicts with, for as many
steps:

    v <- v - step_size (grad f_i(v) + lambda (v - w))

v starts, in a site's first round, as the w of that round; the two trainings go over the patients in orders of their
own. Before its first round a site predicts with w.
"""

from fedcore.learner import Arrays, Objective, Setting
from fedcore.local import Update, Visit
from fedcore.models.model import Range
from fedcore.options import number
from fedcore.rule import Averaging, Roster, ruled
from fedcore.strategies.strategy import StrategySpec

PERSONAL = "personal"


class Ditto:
    """A site with a model of its own."""

    def train(self, visit: Visit) -> Update:
        """See `fedcore.local.Local`."""
        shared = visit.fit()
        personal = visit.fit(
            self.personal(visit),
            objective=Objective(mu=float(visit.setting["lambda"]), anchor=visit.arrays),
            stream="personal",
            moments="personal moments",
        )
        visit.memory[PERSONAL] = personal.arrays
        return Update(shared.arrays, shared.loss, shared.steps)

    def personal(self, visit: Visit) -> Arrays:
        """The site's own model."""
        return visit.memory.get(PERSONAL) or visit.arrays


def _rule(_roster: Roster, setting: Setting) -> Averaging:
    number(setting, "lambda", at_least=0)
    return Averaging()


STRATEGY = StrategySpec(
    build=ruled(_rule),
    local=Ditto(),
    title="Ditto",
    paper="Li et al., Ditto: Fair and Robust Federated Learning Through Personalization, 2021",
    private=False,
    sums=True,
    when="each site wants its own model, and some sites may be faulty",
    options={"lambda": 1.0},
    ranges={"lambda": Range(0.01, 10.0)},
)
