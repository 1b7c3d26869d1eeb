"""Noise that sites share: each adds a part, and their secure sum bears what one release needs.

Distributed differential privacy: Dwork et al., Our Data, Ourselves, 2006; Kairouz, Liu and Steinke, The Distributed
Discrete Gaussian Mechanism for Federated Learning with Secure Aggregation, 2021.

**A round.** The model is x; site i has n_i patients, a public number, and draws each with probability q. S_i is the sum
of their gradients, each clipped to length C, without noise. The site makes one step, y_i = x - eta S_i / (q n_i) and
what depends on no patient, and what is summed securely are the integers

    k_i = rint(s n_i y_i) + rint(G_i),    G_i normal with mean 0 and standard deviation z D / sqrt(h) a coordinate

with s the cells of the grid a unit (`privacy.secagg.fixed_point`). The mean over the sites there is x - eta S / (q N)
of all their patients, and noise: the step of DP-SGD on pooled patients.

**Sensitivity.** One patient changes s n_i y_i by at most s eta C / q, whatever n_i is, and rounding by less than 1 a
coordinate more, so that D = 1.001 s eta C / q + sqrt(d) for d coordinates. The thousandth is for what float32 loses in
the clipped sum, which the tests find far below it; a step is made in float64. It is no proof for sums of very many
patients.

**Noise.** h is the threshold less one: a sum is opened over the threshold's number of sites at least, of which one may
know its own share and subtract it. So what is left, without an insider too, has a variance of (z D)^2 or more, and the
sites' integers are a release with noise multiplier z of the mechanism that `privacy.accounting` composes. All sites use
one z, the largest that any of them needs.

**Rounding.** rint(k + G) of one Gaussian follows from k + G and costs nothing. A sum of h rounded ones does not follow
from their sum. With v = (z D)^2, a coordinate of a share is within total variation h / (24 v) of a discrete Gaussian
(Canonne, Kamath and Steinke, The Discrete Gaussian for Differential Privacy, 2020), since the midpoint rule errs by
phi'' / 24; h discrete Gaussians sum to one of variance v but for a term in exp(-pi^2 v / h) (Kairouz et al., theorem
1), nothing here; and that is within 1 / (24 v) of a rounded Gaussian of variance v. In all, over d coordinates and T
rounds,

    gamma = T d (h^2 + 1) / (24 v)

and what is (epsilon, delta)-private with Gaussian noise is (epsilon, delta + (1 + e^epsilon) gamma)-private with this.
A thousandth of delta is kept back for it, and a site refuses where it does not suffice.

**Whom it protects from.** The coordinator, who sees sums, and one site that works with it or by itself. It takes secure
aggregation for granted: a coordinator that is curious and does not lie, and honest sites that add what they should. A
site's own vector, if it were seen, would bear 1/h of the variance.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from privacy.clipping import Clipping, Inputs
from privacy.dpsgd import DPSGD
from privacy.noise import Source
from privacy.releases.sketches import ReleaseError

KEPT_BACK = 1e-3
"""The share of delta that is for rounding."""

WIDER = 1.001
"""What the sensitivity is multiplied by, for what float32 loses."""

FARTHEST = 64
"""No noise is so many standard deviations long."""


@dataclass(frozen=True)
class SharedNoise:
    """A site's share of a round's noise.

    Attributes:
        noise_multiplier: z.
        step_size: eta.
        clip: C.
        sampling_rate: q.
        scale: s, cells a unit.
        coordinates: d.
        threshold: so many sites are in the sum, at least.
    """

    noise_multiplier: float
    step_size: float
    clip: float
    sampling_rate: float
    scale: float
    coordinates: int
    threshold: int

    @property
    def honest(self) -> int:
        """h, the shares that nobody can subtract."""
        return self.threshold - 1

    @property
    def sensitivity(self) -> float:
        """D, the most that one patient changes a site's integers by, as a length in cells."""
        return WIDER * self.scale * self.step_size * self.clip / self.sampling_rate + math.sqrt(self.coordinates)

    @property
    def deviation(self) -> float:
        """The standard deviation of this site's share, in cells."""
        return self.noise_multiplier * self.sensitivity / math.sqrt(self.honest)

    def distance(self, rounds: int) -> float:
        """gamma, the total variation between these releases and Gaussian ones, at most."""
        variance = (self.noise_multiplier * self.sensitivity) ** 2
        return rounds * self.coordinates * (self.honest**2 + 1) / (24 * variance)

    def check(self, epsilon: float, delta: float, rounds: int) -> None:
        """See that what is kept back of delta suffices for rounding.

        Raises:
            ReleaseError: it does not.
        """
        more = (1 + math.exp(min(epsilon, 700))) * self.distance(rounds)
        if not more <= KEPT_BACK * delta:
            raise ReleaseError(
                f"rounding the shared noise to whole numbers would add {more:.3g} to delta, more than {KEPT_BACK:g} of "
                f"the {delta:.3g} agreed on; ask for a smaller epsilon or fewer rounds, or add the noise at the sites"
            )

    def draw(self, source: Source) -> npt.NDArray[np.int64]:
        """Int64 [d]: the share."""
        return np.rint(self.deviation * source.normal((self.coordinates,))).astype(np.int64)


@dataclass
class ClippedSum(DPSGD):
    """DP-SGD's draw and clipping without its noise: nothing of it may leave the site before `SharedNoise` is on it."""

    @classmethod
    def of(cls, how: DPSGD) -> Self:
        """The same draw and clipping."""
        return cls(**{field.name: getattr(how, field.name) for field in fields(how)})

    def gradients(self, network: nn.Module, inputs: Inputs, truth: Tensor) -> Iterator[dict[str, Tensor]]:
        """Once: the sum of the drawn patients' clipped gradients, by parameter; neither noised nor divided."""
        drawn = torch.from_numpy(self.source.uniform(self.patients) < self.sampling_rate)
        clipping = Clipping(network, per_layer=self.per_layer)
        yield self._clipped(clipping, inputs, truth, torch.from_numpy(self.patient), drawn).total
