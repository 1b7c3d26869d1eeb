"""FedAvg with local fine-tuning: each site trains the federation's model further on its own patients, and predicts so.

Named and compared as a way of personalisation by Yu, Bagdasaryan and Shmatikov, Salvaging Federated Learning by Local
Adaptation, 2020. The federation is FedAvg's (`fedcore.strategies.fedavg`); nothing of the fine-tuning comes back to it.
A site fine-tunes the model of the round at hand for `finetune_epochs` with the model's other hyperparameters, anew and
with the same randomness whenever that round's model is asked for, so that the model which is chosen on the tuning split
is the one that predicts.
"""

from fedcore.learner import Arrays, Setting
from fedcore.local import Plain, Visit
from fedcore.models.model import Range
from fedcore.options import whole
from fedcore.rule import Averaging, Roster, ruled
from fedcore.strategies.strategy import StrategySpec


class FineTuning(Plain):
    """A site that trains as FedAvg's does and predicts with what it makes of the result."""

    def personal(self, visit: Visit) -> Arrays:
        """The server's model, trained further."""
        epochs = int(visit.setting["finetune_epochs"])
        if epochs == 0 or len(visit.split.label) == 0:
            return visit.arrays
        return visit.fit(change={"epochs": epochs}, stream="finetune").arrays


def _rule(_roster: Roster, setting: Setting) -> Averaging:
    whole(setting, "finetune_epochs", at_least=0)
    return Averaging()


STRATEGY = StrategySpec(
    build=ruled(_rule),
    local=FineTuning(),
    title="FedAvg with local fine-tuning",
    paper="Yu, Bagdasaryan and Shmatikov, Salvaging Federated Learning by Local Adaptation, 2020",
    sums=True,
    when="each site wants the best model for its own patients; the first personalised one to try",
    private=False,
    options={"finetune_epochs": 2},
    ranges={"finetune_epochs": Range(1, 10, whole=True)},
)
