"""Bulyan, Flower's own: sites selected by Krum, then each weight the mean of those near its median.

El Mhamdi, Guerraoui and Rouault, The Hidden Vulnerability of Distributed Learning in Byzantium, 2018, section 4. Of n
answers, at least 4 byzantine + 3, n - 2 byzantine are selected; of their values of each weight the
n - 4 byzantine nearest to the median are averaged, sites alike.

The paper selects one answer at a time, by Krum among those that are left; Flower takes the best n - 2 byzantine scores
of one ranking. What is said of Flower's Krum (`fedcore.strategies.krum`) holds here too.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fedcore.learner import Setting
from fedcore.options import whole
from fedcore.rule import Roster
from fedcore.strategies.strategy import StrategySpec

if TYPE_CHECKING:
    from flwr.app import ArrayRecord, Message, MetricRecord
    from flwr.serverapp.strategy import Strategy


def build(roster: Roster, setting: Setting) -> "Strategy":
    """Bulyan over the roster."""
    from flwr.serverapp.strategy import Bulyan

    from fedcore.engines.collection import objects_set_aside

    class Quick(Bulyan):
        """Without its collections of garbage."""

        def aggregate_train(
            self, server_round: int, replies: "Iterable[Message]"
        ) -> "tuple[ArrayRecord | None, MetricRecord | None]":
            with objects_set_aside():
                return super().aggregate_train(server_round, replies)

    return Quick(num_malicious_nodes=whole(setting, "byzantine", at_least=0), **roster.flower())


STRATEGY = StrategySpec(
    build=build,
    title="Bulyan",
    paper="El Mhamdi, Guerraoui and Rouault, The Hidden Vulnerability of Distributed Learning in Byzantium, 2018",
    when="as Krum, where single weights may be attacked too",
    options={"byzantine": 1},
    min_sites=lambda setting: 4 * whole(setting, "byzantine", at_least=0) + 3,
)
