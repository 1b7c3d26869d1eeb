"""FedXgbBagging, Flower's own: each round every site adds some boosted trees to the model that all share.

The method is Flower's, and has no paper; the trees are XGBoost's (Chen and Guestrin, XGBoost: A Scalable Tree Boosting
System, 2016). Sites fit trees to what the common model leaves unexplained (`fedcore.learners.boosting`), and the server
appends them in the order of the sites' names: the model is the sum of all.

Sites count alike, and K sites move the model K times as far as one would: the step size is per site. Of an answer
Flower appends the first `num_parallel_tree` trees and passes over the rest, so a site that boosted several trees in a
row would lose all but the first; ours fit theirs side by side.
"""

from typing import TYPE_CHECKING

from fedcore.learner import Setting
from fedcore.rule import Roster
from fedcore.strategies.strategy import StrategySpec

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy


def build(roster: Roster, setting: Setting) -> "Strategy":
    """FedXgbBagging over the roster."""
    from flwr.serverapp.strategy import FedXgbBagging

    return FedXgbBagging(**roster.flower())


STRATEGY = StrategySpec(
    build=build,
    title="FedXgbBagging",
    paper="Flower's own; trees by Chen and Guestrin, XGBoost: A Scalable Tree Boosting System, 2016",
    when="the model is boosted trees",
    needs="trees",
)
