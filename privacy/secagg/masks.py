"""Masks: uniform words that follow from a key, added to a vector modulo 2^32 or 2^64.

The mask of a key is what AES-128-GCM makes of zeros with a nonce of zero, read as little-endian words: AES in counter
mode from 2. Where OpenSSL has vector instructions for it this is faster than its plain counter mode (0.65 ms for 8 MB
against 0.85 ms on an EPYC with VAES), and twice as fast as ChaCha20; 128 bits are what X25519 is good for. A key makes
one mask only: none is used for two vectors.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

Words = npt.NDArray[np.unsignedinteger[Any]]
"""uint32 or uint64 [m], whose sums wrap."""

BLOCK_BYTES = 2**17
"""So much is masked with all keys in turn before the next: it stays in the processor's cache."""

_ZEROS = bytes(BLOCK_BYTES)
_AES_BLOCK = 16
_NONCE = bytes(12)


def add_masks(words: Words, plus: Sequence[bytes], minus: Sequence[bytes]) -> None:
    """Add the masks of some keys to a vector, in place, and subtract those of others.

    Args:
        words: contiguous.
        plus: keys of 32 bytes, of which a mask takes the first 16.
        minus: as well.
    """
    streams = [(_stream(key), np.add) for key in plus] + [(_stream(key), np.subtract) for key in minus]
    buffer = bytearray(BLOCK_BYTES + _AES_BLOCK)
    drawn = np.frombuffer(buffer, words.dtype.newbyteorder("<"), count=BLOCK_BYTES // words.itemsize)
    for at in range(0, len(words), len(drawn)):
        block = words[at : at + len(drawn)]
        here = drawn[: len(block)]
        for stream, apply in streams:
            stream.update_into(_ZEROS, buffer)
            apply(block, here, out=block)


def keystream(key: bytes, size: int) -> bytes:
    """The first bytes of what a key's mask is made of.

    >>> keystream(bytes(32), 16).hex()
    '0388dace60b6a392f328c2b971b2fe78'
    """
    drawn: bytes = _stream(key).update(bytes(size))
    return drawn


def _stream(key: bytes) -> Any:
    return Cipher(algorithms.AES128(key[:16]), modes.GCM(_NONCE)).encryptor()
