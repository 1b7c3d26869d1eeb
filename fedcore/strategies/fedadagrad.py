"""FedAdagrad, Flower's own: the server takes the sites' average change for a gradient, and descends by Adagrad.

Reddi et al., Adaptive Federated Optimization, 2021, algorithm 2. With d the average change, weighted by training
samples, and arithmetic element by element,

    v <- v + d^2
    x <- x + server_step_size d / (sqrt(v) + tau)

Flower departs from the paper in the start: v starts at 0, in the paper at tau^2 at least. The paper's algorithm has a
momentum here too; Flower fixes it to none.

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
    """FedAdagrad over the roster."""
    from flwr.serverapp.strategy import FedAdagrad

    from fedcore.engines.measured import MeanStatistics

    return MeanStatistics(
        FedAdagrad(
            eta=number(setting, "server_step_size", above=0),
            tau=number(setting, "tau", above=0),
            **roster.flower(),
        )
    )


STRATEGY = StrategySpec(
    build=build,
    title="FedAdagrad",
    paper="Reddi et al., Adaptive Federated Optimization, 2021",
    sums=True,
    when="as FedAdam, with steps that shrink for good",
    options={"server_step_size": 0.1, "tau": 0.001},
    ranges={"server_step_size": Range(0.001, 1.0), "tau": Range(1e-5, 0.1)},
)
