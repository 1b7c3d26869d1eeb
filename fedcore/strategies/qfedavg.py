"""q-FedAvg, Flower's own: sites that the model serves badly weigh more.

Li et al., Fair Resource Allocation in Federated Learning, 2020, algorithm 2, which minimises
sum_i f_i^(q + 1) / (q + 1). With x the server's model, y_i a site's and L = 1 / step_size,

    d_i = L (x - y_i);  h_i = q f_i(x)^(q - 1) |d_i|^2 + L f_i(x)^q
    x <- x - sum_i f_i(x)^q d_i / sum_i h_i

Flower takes f_i(x) from what a site reports as its training loss; our sites report the loss of the model they were
sent, before training, as the paper has it, where under other strategies they report the loss during training. Sites
count alike, however many samples they have (the paper draws them by their samples): with q = 0 this is the plain mean,
and not FedAvg, which Flower's documentation says it is. L is the inverse of the step size of gradient descent; with
Adam at the sites, whose steps are long whatever the gradient, d_i is large, and a larger q means ever smaller steps.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fedcore.learner import Arrays, Setting, log_loss
from fedcore.local import Plain, Update, Visit
from fedcore.models.model import Range
from fedcore.options import number
from fedcore.rule import Roster
from fedcore.strategies.strategy import StrategySpec

if TYPE_CHECKING:
    from flwr.app import ArrayRecord, Message, MetricRecord
    from flwr.serverapp.strategy import Strategy

LOSS = "train_loss"


class Telling(Plain):
    """A site that reports the loss of the model it was sent."""

    def train(self, visit: Visit) -> Update:
        """See `fedcore.local.Local`."""
        trained = super().train(visit)
        return Update(trained.arrays, self.loss(visit, visit.arrays), trained.steps)

    def loss(self, visit: Visit, arrays: Arrays) -> float:
        """Mean log loss over the training samples."""
        split = visit.split
        return float(log_loss(split.label, visit.make(visit.setting).predict(arrays, split.encoded)).mean())


def build(roster: Roster, setting: Setting) -> "Strategy":
    """q-FedAvg over the roster."""
    from flwr.serverapp.strategy import QFedAvg

    from fedcore.engines.collection import objects_set_aside

    class Told(QFedAvg):
        """With the losses under the name that Flower looks for."""

        def aggregate_train(
            self, server_round: int, replies: "Iterable[Message]"
        ) -> "tuple[ArrayRecord | None, MetricRecord | None]":
            answered = list(replies)
            for message in answered:
                if not message.has_error():
                    numbers = next(iter(message.content.metric_records.values()))
                    numbers[LOSS] = float(str(numbers["loss-sum"])) / float(str(numbers["loss-weight"]))
            with objects_set_aside():
                return super().aggregate_train(server_round, answered)

    return Told(
        client_learning_rate=number(setting, "step_size", above=0),
        q=number(setting, "q", at_least=0),
        train_loss_key=LOSS,
        **roster.flower(),
    )


STRATEGY = StrategySpec(
    build=build,
    local=Telling(),
    title="q-FedAvg",
    paper="Li et al., Fair Resource Allocation in Federated Learning, 2020",
    private=False,
    when="no site should be served much worse than the others",
    options={"q": 0.1},
    ranges={"q": Range(0.01, 5.0)},
)
