"""MOON: local training is kept near to how the federation sees a patient, and away from how the site last did.

Li, He and Song, Model-Contrastive Federated Learning, 2021, algorithm 1. To the site's loss comes mu times

    -log( exp(s(z, z_server) / t) / (exp(s(z, z_server) / t) + exp(s(z, z_before) / t)) )

averaged over the batch, with s the cosine similarity, t the temperature, and z what the trained model, the server's and
the site's own of its last round embed a patient as. In its first round a site has none of its own, and trains plainly:
with z_before = z_server, as the paper starts, the term is constant. The server averages as FedAvg does.

The embedding is what the model's last layer sees; the paper puts a projection of two layers between the two.
"""

from fedcore.learner import PLAIN, Contrast, Objective, Setting
from fedcore.local import Plain, Update, Visit
from fedcore.models.model import Range
from fedcore.options import number
from fedcore.rule import Averaging, Roster, ruled
from fedcore.strategies.strategy import StrategySpec

BEFORE = "before"


class Contrasting(Plain):
    """A site that remembers its last model."""

    def train(self, visit: Visit) -> Update:
        """See `fedcore.local.Local`."""
        mu, temperature = float(visit.setting["mu"]), float(visit.setting["temperature"])
        before = visit.memory.get(BEFORE)
        objective = Objective(contrast=Contrast(mu, temperature, before, visit.arrays)) if before and mu else PLAIN
        fit = visit.fit(objective=objective)
        visit.memory[BEFORE] = fit.arrays
        return Update(fit.arrays, fit.loss, fit.steps)


def _rule(_roster: Roster, setting: Setting) -> Averaging:
    number(setting, "mu", at_least=0)
    number(setting, "temperature", above=0)
    return Averaging()


STRATEGY = StrategySpec(
    build=ruled(_rule),
    local=Contrasting(),
    title="MOON",
    paper="Li, He and Song, Model-Contrastive Federated Learning, 2021",
    private=False,
    sums=True,
    when="deep models drift apart between rounds",
    options={"mu": 1.0, "temperature": 0.5},
    ranges={"mu": Range(0.1, 10.0)},
    needs="embedding",
)
