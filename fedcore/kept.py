"""A model of which each site keeps a part to itself: what FedBN, FedPer and FedRep have in common.

The part never leaves. Messages have the shape of the whole model all the same, so in place of its own part a site
sends back what the server sent it, which tells nobody anything; the server's average of that is what it was at the
start, and no site looks at it again once it has a part of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass

from fedcore.learner import Arrays
from fedcore.local import Update, Visit
from fedcore.models.model import ModelSpec

KEPT = "kept"
"""Where a site remembers its part."""


@dataclass(frozen=True)
class Keeping:
    """Trains the whole model and keeps a part of it: the local half of FedBN and FedPer.

    Attributes:
        part: beginnings of the names of the arrays that are kept.
    """

    part: Callable[[ModelSpec], tuple[str, ...]]

    def train(self, visit: Visit) -> Update:
        """See `fedcore.local.Local`."""
        fit = visit.fit(self.whole(visit))
        return self.update(visit, fit.arrays, fit.loss, fit.steps)

    def personal(self, visit: Visit) -> Arrays:
        """The shared part from the server, the kept part as this site last trained it."""
        return self.whole(visit)

    def names(self, visit: Visit) -> frozenset[str]:
        """The arrays that are kept."""
        beginnings = self.part(visit.model)
        return frozenset(name for name in visit.arrays if name.startswith(beginnings))

    def whole(self, visit: Visit) -> Arrays:
        """The server's model with the site's own part; before its first training it has none."""
        return {**visit.arrays, **visit.memory.get(KEPT, {})}

    def update(self, visit: Visit, arrays: Arrays, loss: float, steps: int) -> Update:
        """Remember the site's part of a trained model, and send the rest."""
        names = self.names(visit)
        visit.memory[KEPT] = {name: arrays[name] for name in arrays if name in names}
        return Update({**arrays, **{name: visit.arrays[name] for name in names}}, loss, steps)
