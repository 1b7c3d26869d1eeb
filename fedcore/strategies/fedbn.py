"""FedBN: each site keeps its own batch normalisation, and shares all else.

Li et al., FedBN: Federated Learning on Non-IID Features via Local Batch Normalization, 2021, algorithm 1. Scale, shift
and running statistics of each normalisation stay at the site; the rest is averaged as FedAvg does. How they stay:
`fedcore.kept`.

A site that took no part has no normalisation of its own, and what the server holds was never trained.
"""

from fedcore.kept import Keeping
from fedcore.rule import Averaging, ruled
from fedcore.strategies.strategy import StrategySpec

STRATEGY = StrategySpec(
    build=ruled(lambda _roster, _setting: Averaging()),
    local=Keeping(lambda model: model.norms),
    title="FedBN",
    paper="Li et al., FedBN: Federated Learning on Non-IID Features via Local Batch Normalization, 2021",
    private=False,
    sums=True,
    when="sites measure the same thing on different scales",
    whole=False,
    needs="norms",
)
