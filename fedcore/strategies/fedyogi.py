"""FedYogi, Flower's own: the server takes the sites' average change for a gradient, and descends by Yogi.

Reddi et al., Adaptive Federated Optimization, 2021, algorithm 2. With d the average change, weighted by training
samples, and arithmetic element by element,

    m <- beta_1 m + (1 - beta_1) d;  v <- v - (1 - beta_2) d^2 sign(v - d^2)
    x <- x + server_step_size m / (sqrt(v) + tau)

Flower departs from the paper in the start: v starts at 0, in the paper at tau^2 at least. Unlike in its FedAdam there
is no correction of bias.

Running statistics of batch normalisation are averaged (`fedcore.engines.measured`). Flower's `eta_l`, the sites' step
size, is used nowhere; sites have the model's `step_size`.
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
    """FedYogi over the roster."""
    from flwr.serverapp.strategy import FedYogi

    from fedcore.engines.measured import MeanStatistics

    return MeanStatistics(
        FedYogi(
            eta=number(setting, "server_step_size", above=0),
            beta_1=number(setting, "beta_1", at_least=0, below=1),
            beta_2=number(setting, "beta_2", at_least=0, below=1),
            tau=number(setting, "tau", above=0),
            **roster.flower(),
        )
    )


STRATEGY = StrategySpec(
    build=build,
    title="FedYogi",
    paper="Reddi et al., Adaptive Federated Optimization, 2021",
    sums=True,
    when="as FedAdam, where steps should not grow suddenly when changes get small",
    options={"server_step_size": 0.01, "beta_1": 0.9, "beta_2": 0.99, "tau": 0.001},
    ranges={"server_step_size": Range(0.001, 1.0), "tau": Range(1e-5, 0.1)},
)
