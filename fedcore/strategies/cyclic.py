"""Cyclic weight transfer: one model goes from site to site.

Chang et al., Distributed deep learning networks among institutions for medical imaging, 2018. A round is one visit: the
model is trained at one site for the model's local epochs, and what comes back is the model. As many rounds as there are
sites make a cycle, in which each site trains as much as in one round of FedAvg; the numbers of rounds that a suite or a
model's recipe asks for are numbers of cycles.

Sites take turns in the order of their names. Whose last turn is longest ago is next, so a site that could not be
reached is asked as soon as it can be. All sites stand by in every round, whatever share of them is asked by other
strategies.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from fedcore.learner import Setting
from fedcore.rule import Averaging, Roster, ruled
from fedcore.strategies.strategy import StrategySpec

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy


class Cyclic(Averaging):
    """The server's half: the average of one model is that model."""

    def __init__(self) -> None:
        self._last: dict[int, int] = {}

    def ask(self, number: int, sites: Sequence[int]) -> Sequence[int]:
        """The site whose turn it is."""
        chosen = min(sites, key=lambda site: self._last.get(site, 0))  # the first of equals
        self._last[chosen] = number
        return [chosen]


def build(roster: Roster, setting: Setting) -> "Strategy":
    """One site of all in each round."""
    return ruled(lambda _roster, _setting: Cyclic())(replace(roster, fraction=1.0), setting)


STRATEGY = StrategySpec(
    build=build,
    title="Cyclic weight transfer",
    paper="Chang et al., Distributed deep learning networks among institutions for medical imaging, 2018",
    when="few sites that are alike, and no server that averages",
    turns=lambda sites: sites,
)
