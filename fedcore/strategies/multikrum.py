"""Multi-Krum, Flower's own: the mean of the sites that stand closest to their neighbours.

Blanchard et al., Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent, 2017, section 5. Scores are
Krum's (`fedcore.strategies.krum`, with what is said of them there); the `selected` best are averaged. 0 stands for as
many as a score sums over, n - byzantine - 2 of the n sites that answer in a round. (Flower's class selects as many in
every round, whoever is away; of few answers those would be all, the Byzantine ones too.)

The paper's mean is plain. Flower weighs by the number of samples that each site says it has, so a Byzantine site that
is selected can claim as much weight as it likes.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fedcore.learner import Setting
from fedcore.options import whole
from fedcore.rule import Roster
from fedcore.strategies.strategy import StrategySpec

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy


def build(roster: Roster, setting: Setting) -> "Strategy":
    """Multi-Krum over the roster."""
    from flwr.app import ArrayRecord, Message, MetricRecord
    from flwr.serverapp.strategy import MultiKrum

    byzantine, selected = whole(setting, "byzantine", at_least=0), whole(setting, "selected", at_least=0)

    class OfThoseWhoAnswer(MultiKrum):
        def aggregate_train(
            self, server_round: int, replies: Iterable[Message]
        ) -> tuple[ArrayRecord | None, MetricRecord | None]:
            answered = list(replies)
            self.num_nodes_to_select = max(1, len(answered) - byzantine - 2)
            return super().aggregate_train(server_round, answered)

    kind = MultiKrum if selected else OfThoseWhoAnswer
    return kind(num_malicious_nodes=byzantine, num_nodes_to_select=max(selected, 1), **roster.flower())


STRATEGY = StrategySpec(
    build=build,
    title="Multi-Krum",
    paper="Blanchard et al., Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent, 2017",
    when="as Krum, with more of the sites' patients used",
    options={"byzantine": 1, "selected": 0},
    min_sites=lambda setting: 2 * whole(setting, "byzantine", at_least=0) + 3,
)
