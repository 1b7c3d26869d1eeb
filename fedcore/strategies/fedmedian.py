"""FedMedian, Flower's own: each weight is the median of the sites'.

Yin et al., Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates, 2018, algorithm 1, option I. Sites
count alike, however many samples they have, and of an even number the mean of the middle two is taken. The paper takes
medians of gradients, one step a round; Flower of models after the sites' epochs. With fewer than three sites a median
is a mean.
"""

from typing import TYPE_CHECKING

from fedcore.learner import Setting
from fedcore.rule import Roster
from fedcore.strategies.strategy import StrategySpec

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy


def build(roster: Roster, setting: Setting) -> "Strategy":
    """FedMedian over the roster."""
    from flwr.serverapp.strategy import FedMedian

    return FedMedian(**roster.flower())


STRATEGY = StrategySpec(
    build=build,
    title="FedMedian",
    paper="Yin et al., Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates, 2018",
    when="fewer than half of the sites may send anything",
    min_sites=lambda _setting: 3,
)
