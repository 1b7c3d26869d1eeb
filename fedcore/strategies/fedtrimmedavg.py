"""FedTrimmedAvg, Flower's own: each weight is the mean of the sites' after the largest and smallest are left out.

Yin et al., Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates, 2018, algorithm 1, option II. Of n
answers floor(trim n) are left out at each end; sites count alike, however many samples they have. The paper trims
gradients, one step a round; Flower models after the sites' epochs.

With few sites trim n rounds to nothing: four sites and Flower's 0.2 are a plain mean that robs nobody of a say. Fewer
sites than it takes to leave out one at each end are refused.
"""

from itertools import count
from typing import TYPE_CHECKING

from fedcore.learner import Setting
from fedcore.options import number
from fedcore.rule import Roster
from fedcore.strategies.strategy import StrategySpec

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy


def build(roster: Roster, setting: Setting) -> "Strategy":
    """FedTrimmedAvg over the roster."""
    from flwr.serverapp.strategy import FedTrimmedAvg

    return FedTrimmedAvg(beta=_trim(setting), **roster.flower())


def _trim(setting: Setting) -> float:
    return number(setting, "trim", above=0, below=0.5)


def _min_sites(setting: Setting) -> int:
    trim = _trim(setting)
    return next(n for n in count(int(1 / trim)) if int(trim * n) >= 1)  # the product as Flower rounds it


STRATEGY = StrategySpec(
    build=build,
    title="FedTrimmedAvg",
    paper="Yin et al., Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates, 2018",
    when="a known share of the sites may send anything",
    options={"trim": 0.2},
    min_sites=_min_sites,
)
