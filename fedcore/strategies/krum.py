"""Krum, Flower's own: the model of the one site that stands closest to its neighbours.

Blanchard et al., Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent, 2017, section 4. Of n answers,
`byzantine` of which may be anything, the one with the least sum of squared distances to its n - byzantine - 2 nearest
is the next model; n is at least 2 byzantine + 3. The paper chooses among gradients, one step a round; Flower among
models after the sites' epochs.

Flower takes squared distances as |a|^2 + |b|^2 - 2 a b and leaves out the smallest of each row as the distance of a
model to itself; where models are large and nearly alike the differences are lost to rounding. All of a model counts,
running statistics included, whatever their scale.
"""

from typing import TYPE_CHECKING

from fedcore.learner import Setting
from fedcore.options import whole
from fedcore.rule import Roster
from fedcore.strategies.strategy import StrategySpec

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy


def build(roster: Roster, setting: Setting) -> "Strategy":
    """Krum over the roster."""
    from flwr.serverapp.strategy import Krum

    return Krum(num_malicious_nodes=whole(setting, "byzantine", at_least=0), **roster.flower())


STRATEGY = StrategySpec(
    build=build,
    title="Krum",
    paper="Blanchard et al., Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent, 2017",
    when="a known number of sites may send anything, and the others are alike",
    options={"byzantine": 1},
    min_sites=lambda setting: 2 * whole(setting, "byzantine", at_least=0) + 3,
)
