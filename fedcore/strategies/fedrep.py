"""FedRep: a shared representation, and at each site a last layer that is trained first.

Collins et al., Exploiting Shared Representations for Personalized Federated Learning, 2021, algorithm 1. A site

1. trains its own last layer for `head_epochs` on the representation that the server sent, which stays as it is;
2. trains the representation for the model's local epochs under that last layer, which stays as it is, and sends it.

The server averages representations as FedAvg does. How the last layer stays: `fedcore.kept`. Batch normalisation is
part of the representation, and its running statistics follow in both steps; the server's are the starting point of the
second.

A site that took no part has no last layer of its own, and what the server holds was never trained.
"""

from fedcore.kept import Keeping
from fedcore.learner import Objective, Setting
from fedcore.local import Update, Visit
from fedcore.models.model import Range
from fedcore.options import whole
from fedcore.rule import Averaging, Roster, ruled
from fedcore.strategies.strategy import StrategySpec


class HeadFirst(Keeping):
    """A site that trains its last layer, then the representation."""

    def train(self, visit: Visit) -> Update:
        """See `fedcore.local.Local`."""
        own = self.names(visit)
        head = visit.fit(
            self.whole(visit),
            objective=Objective(only=own),
            change={"epochs": int(visit.setting["head_epochs"])},
            stream="head",
            moments="head moments",
        )
        start = {name: head.arrays[name] if name in own else value for name, value in visit.arrays.items()}
        body = visit.fit(start, objective=Objective(only=frozenset(visit.arrays) - own))
        return self.update(visit, body.arrays, body.loss, body.steps)


def _rule(_roster: Roster, setting: Setting) -> Averaging:
    whole(setting, "head_epochs", at_least=1)
    return Averaging()


STRATEGY = StrategySpec(
    build=ruled(_rule),
    local=HeadFirst(lambda model: model.head),
    title="FedRep",
    paper="Collins et al., Exploiting Shared Representations for Personalized Federated Learning, 2021",
    private=False,
    sums=True,
    when="as FedPer, with sites that differ more",
    options={"head_epochs": 5},
    ranges={"head_epochs": Range(1, 10, whole=True)},
    whole=False,
    needs="head",
)
