"""DP-FedAvg: FedAvg whose coordinator hides from the models whether any one hospital took part.

McMahan, Ramage, Talwar and Zhang, Learning Differentially Private Recurrent Language Models, 2018, algorithm 1 with
weights of 1 and the fixed-denominator estimator. Each site's change is clipped to length C, the sum bears Gaussian
noise of z C, and is divided by the number of sites that are asked, K, and not of those that answered:

    x <- x + (sum_k clip(y_k - x, C) + N(0, z^2 C^2)) / K

Sites count alike, since a weight would let one move the sum by more than C; a change of zero stays zero, and one that
is no number counts for nothing. That is what Flower's wrappers of the same name leave to their user.

**It protects hospitals, not patients**: neighbours are federations without one hospital, and the coordinator is trusted
with what the sites send. Noise that hides one of five hospitals hides most of what the five have in common: it is a
baseline for federations of hundreds. Its epsilon has another unit than patient-level privacy, and is never set beside
it; it is that of the models, given the feature space and the losses by which a round and a setting were chosen. The
noise follows from the cell's seed, so it runs on simulated and open data only.
"""

from collections.abc import Sequence

import numpy as np

from fedcore.learner import Arrays, Setting
from fedcore.models.model import Range
from fedcore.options import number
from fedcore.rule import Averaging, Reply, Roster, combination, ruled
from fedcore.strategies.strategy import StrategySpec
from fedcore.streams import stream


class DPFedAvg(Averaging):
    """The server's half.

    Args:
        clip: C > 0.
        noise: z > 0.
        asked: K, the number of sites that are asked in a round.
        seed: the cell's.
    """

    def __init__(self, clip: float, noise: float, asked: int, seed: int) -> None:
        self._clip, self._noise, self._asked = clip, noise, asked
        self._stream = stream(seed, "central-noise")

    def combine(self, arrays: Arrays, replies: Sequence[Reply]) -> Arrays:
        """See the module."""
        total = {
            name: self._noise * self._clip * self._stream.standard_normal(np.shape(x)) for name, x in arrays.items()
        }
        for reply in replies:
            change = combination((1, reply.arrays), (-1, arrays))
            length = float(np.sqrt(sum(float(np.square(value).sum()) for value in change.values())))
            if np.isfinite(length):
                total = combination((1, total), (min(1.0, self._clip / max(length, self._clip)), change))
        return combination((1, arrays), (1 / self._asked, total))


def build(roster: Roster, setting: Setting) -> DPFedAvg:
    """The rule for a roster."""
    clip, noise = (number(setting, name, above=0) for name in ("site_clip", "site_noise"))
    return DPFedAvg(clip, noise, max(1, int(roster.fraction * roster.sites)), roster.seed)


STRATEGY = StrategySpec(
    build=ruled(build),
    title="DP-FedAvg",
    paper="McMahan et al., Learning Differentially Private Recurrent Language Models, 2018",
    when="hundreds of hospitals take part, and which of them did is to stay hidden",
    options={"site_clip": 1.0, "site_noise": 1.0},
    ranges={"site_clip": Range(0.1, 10.0)},
    site_level=True,
)
