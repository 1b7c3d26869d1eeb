"""FedAvg, Flower's own: the average of the sites' models, weighted by their numbers of training samples."""

from typing import TYPE_CHECKING

from fedcore.learner import Setting
from fedcore.rule import Roster
from fedcore.strategies.strategy import StrategySpec

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy


def build(roster: Roster, setting: Setting) -> "Strategy":
    """FedAvg over the roster."""
    from flwr.serverapp.strategy import FedAvg

    return FedAvg(**roster.flower())


STRATEGY = StrategySpec(
    build=build,
    title="FedAvg",
    paper="McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data, 2017",
    sums=True,
    when="as the first thing to try",
)
