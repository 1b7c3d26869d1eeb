"""FedAvgM, Flower's own: FedAvg with momentum at the server.

Hsu, Qi and Brown, Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification, 2019.
With d the sites' average change, weighted by training samples,

    v <- momentum v + d;  x <- x + server_step_size v

Flower keeps its own copy of x, in float64, where the sites get float32. Running statistics of batch normalisation are
averaged (`fedcore.engines.measured`).
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
    """FedAvgM over the roster."""
    from flwr.serverapp.strategy import FedAvgM

    from fedcore.engines.measured import MeanStatistics

    return MeanStatistics(
        FedAvgM(
            server_learning_rate=number(setting, "server_step_size", above=0),
            server_momentum=number(setting, "momentum", at_least=0, below=1),
            **roster.flower(),
        )
    )


STRATEGY = StrategySpec(
    build=build,
    title="FedAvgM",
    paper="Hsu, Qi and Brown, Measuring the Effects of Non-Identical Data Distribution for Federated Visual "
    "Classification, 2019",
    sums=True,
    when="FedAvg zigzags from round to round",
    options={"server_step_size": 1.0, "momentum": 0.9},
    ranges={"server_step_size": Range(0.1, 1.0), "momentum": Range(0.5, 0.99, log=False)},
)
