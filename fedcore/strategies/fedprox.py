"""FedProx, Flower's own: FedAvg whose sites are pulled back to the server's model as they train.

Li et al., Federated Optimization in Heterogeneous Networks, 2020, algorithm 2. To a site's loss comes
mu/2 |w - x|^2, x the model it was sent; Flower's half is to send mu, ours to train so (`fedcore.local.Plain`). The
paper draws sites by their weights and averages those drawn evenly; Flower draws evenly and weighs by training samples.
Sites do their epochs to the end; the paper lets slow ones stop early.
"""

from typing import TYPE_CHECKING

from fedcore.learner import Setting
from fedcore.models.model import Range
from fedcore.options import number
from fedcore.rule import Roster
from fedcore.strategies.strategy import StrategySpec

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy


def build(roster: Roster, setting: Setting) -> "Strategy":
    """FedProx over the roster."""
    from flwr.serverapp.strategy import FedProx

    return FedProx(proximal_mu=number(setting, "mu", at_least=0), **roster.flower())


STRATEGY = StrategySpec(
    build=build,
    title="FedProx",
    paper="Li et al., Federated Optimization in Heterogeneous Networks, 2020",
    sums=True,
    when="sites differ and make many local steps",
    options={"mu": 0.01},
    ranges={"mu": Range(0.001, 1.0)},
)
