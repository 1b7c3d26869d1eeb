"""Weighted vectors of floats as integers whose sum over the sites is exact and cannot wrap.

A site with weight w and values x contributes the integers rint(scale w x) and w, modulo 2^bits, so that the sums over
the sites S give the weighted mean

    sum_S rint(scale w_i x_i) / (scale W),    W = sum_S w_i

`scale` is the largest power of two with which `sites` vectors of weights up to `weight` and values up to `bound` have
sums below 2^(bits - 1). Rounding moves each w_i x_i by at most 1/(2 scale), so that the mean is wrong by at most
|S| / (2 scale W) and what float64 itself loses, 2^-52 of |x|.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from privacy.releases.sketches import ReleaseError
from privacy.secagg.errors import WrongShareError
from privacy.secagg.masks import Words

BLOCK = 2**15
"""So many numbers are converted at a time: they stay in the processor's cache."""

EXACT = 2.0**53
"""Integers up to here are float64s."""


class Mean(NamedTuple):
    """What the sites' contributions come to: float64 [m], the weighted mean; and the sum of the weights."""

    values: npt.NDArray[np.float64]
    weight: int


@dataclass(frozen=True)
class FixedPoint:
    """How numbers become integers; all sites and the coordinator use the same.

    Attributes:
        sites: at most so many add up.
        weight: the largest weight of one.
        bound: the largest absolute value.
        bits: of a word, 32 or 64.

    Raises:
        ValueError: the words are too short for such numbers.
    """

    sites: int
    weight: int
    bound: float
    bits: Literal[32, 64] = 64

    def __post_init__(self) -> None:
        if self.sites < 1 or not 1 <= self.weight < EXACT or not 0 < self.bound < math.inf or self.scale < 1:
            raise ValueError(
                f"{self.sites} sites of weight {self.weight} with values up to {self.bound:g} do not fit into "
                f"{self.bits} bits; expected fewer, lighter or smaller ones"
            )

    @property
    def scale(self) -> float:
        """The integers of one unit of value and weight: a power of two."""
        room = (2.0 ** (self.bits - 1) - self.sites) / (self.sites * self.weight * max(self.bound, 1.0))
        return math.ldexp(1.0, math.frexp(room)[1] - 1)

    @property
    def words(self) -> np.dtype[np.unsignedinteger[Any]]:
        """The type of the integers."""
        return np.dtype(np.uint32 if self.bits == 32 else np.uint64)

    def encode(self, values: Sequence[npt.NDArray[Any]], weight: int) -> Words:
        """A site's contribution: words [m + 1], the weight last.

        Args:
            values: arrays of m numbers in all, one after the other.
            weight: 1 or more.

        Raises:
            ReleaseError: a value or the weight is out of range, so that the sum could wrap.
        """
        if not 1 <= weight <= self.weight:
            raise ReleaseError(f"a weight of {weight} cannot be summed securely; expected 1 to {self.weight}")
        factor = weight * self.scale
        signed = np.empty(sum(array.size for array in values) + 1, np.int32 if self.bits == 32 else np.int64)
        buffer, at = np.empty(BLOCK), 0
        for array in values:
            flat = array.reshape(-1)
            for start in range(0, flat.size, BLOCK):
                part = flat[start : start + BLOCK]
                wide = np.multiply(part, factor, out=buffer[: part.size], dtype=np.float64)
                if not max(wide.max(), -wide.min()) <= self.bound * factor:
                    raise ReleaseError(
                        f"the model holds a number that is beyond {self.bound:g} or is none, which cannot be summed "
                        "securely; lower the step size"
                    )
                signed[at : at + part.size] = np.rint(wide, out=wide)
                at += part.size
        signed[at] = weight
        return signed.view(self.words)

    def decode(self, total: Words, sites: int) -> Mean:
        """The mean, of the sum of the contributions of so many sites.

        Raises:
            WrongShareError: no such sites' contributions can have this sum.
        """
        signed: npt.NDArray[np.signedinteger[Any]] = total.view(np.int32 if self.bits == 32 else np.int64)
        weight = int(signed[-1])
        most = self.bound * self.weight * self.scale * sites + sites
        largest = max(float(signed[:-1].max(initial=0)), -float(signed[:-1].min(initial=0)))
        if not sites <= weight <= sites * self.weight or largest > most:
            raise WrongShareError("the unmasked sum is out of range: a share or a masked vector was wrong")
        return Mean(signed[:-1] / (self.scale * weight), weight)
