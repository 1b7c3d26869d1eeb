"""FedPer: each site keeps its own last layer, and shares the layers below.

Arivazhagan et al., Federated Learning with Personalization Layers, 2019, algorithms 1 and 2: both parts are trained
together, the last layer stays at the site, the others are averaged as FedAvg does. How it stays: `fedcore.kept`.

A site that took no part has no last layer of its own, and what the server holds was never trained.
"""

from fedcore.kept import Keeping
from fedcore.rule import Averaging, ruled
from fedcore.strategies.strategy import StrategySpec

STRATEGY = StrategySpec(
    build=ruled(lambda _roster, _setting: Averaging()),
    local=Keeping(lambda model: model.head),
    title="FedPer",
    paper="Arivazhagan et al., Federated Learning with Personalization Layers, 2019",
    private=False,
    sums=True,
    when="sites agree on what matters in a patient, and not on the risk that follows",
    whole=False,
    needs="head",
)
