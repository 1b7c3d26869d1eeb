"""Where noise and random choices that protect patients come from.

Whoever can repeat the noise can subtract it. `Cryptographic` noise comes from the operating system's generator and can
be repeated by nobody. `Seeded` noise follows from the cell's seed, which a record publishes: it is for tests and for
data that is simulated or open anyway, gives the same model in every engine, and carries no claim.
"""

import os
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Source(Protocol):
    """Random numbers.

    Attributes:
        claim: whether privacy may be claimed with it.
    """

    claim: bool

    def uniform(self, size: int) -> Floats:
        """Float64 [size], each in [0, 1)."""
        ...

    def normal(self, shape: tuple[int, ...]) -> Floats:
        """Float64 of that shape, independent standard normals."""
        ...


class Seeded:
    """Numbers that follow from a stream.

    Args:
        stream: the stream.
    """

    claim = False

    def __init__(self, stream: np.random.Generator) -> None:
        self._stream = stream

    def uniform(self, size: int) -> Floats:
        """See `Source`."""
        return self._stream.random(size)

    def normal(self, shape: tuple[int, ...]) -> Floats:
        """See `Source`."""
        return self._stream.standard_normal(shape)


class Cryptographic:
    """Numbers from the operating system's cryptographic generator."""

    claim = True

    def uniform(self, size: int) -> Floats:
        """See `Source`; of 53 random bits each."""
        words = np.frombuffer(os.urandom(8 * size), dtype="<u8") >> np.uint64(11)
        return words.astype(np.float64) * 2.0**-53

    def normal(self, shape: tuple[int, ...]) -> Floats:
        """See `Source`; each is the sum of four of Box and Muller's, halved.

        A single one lets differences of floating-point numbers tell what was added to what (Mironov, 2012); of a sum of
        several independent ones too many inputs give each output (Holohan and Braghin, 2021, section 5).
        """
        size = int(np.prod(shape))
        pairs = 2 * size
        radius = np.sqrt(-2 * np.log1p(-self.uniform(pairs)))
        angle = 2 * np.pi * self.uniform(pairs)
        each: Any = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)]).reshape(4, size)
        return np.asarray(each.sum(axis=0) / 2, dtype=np.float64).reshape(shape)
