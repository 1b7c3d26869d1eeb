"""Shamir's secret sharing over the integers modulo 2^256 + 297 (Shamir, How to Share a Secret, 1979).

The secret is a polynomial's value at 0, a share its value at a site's own point. So many shares as the polynomial has
coefficients determine it; with fewer every secret is equally likely. A secret has 32 bytes, a share 33.
"""

from collections.abc import Mapping, Sequence

from privacy.secagg.sizes import SECRET_BYTES, SHARE_BYTES

PRIME = 2**256 + 297
"""The smallest prime above all secrets."""

RANDOM_BYTES = 48
"""Of each coefficient: modulo the prime they are uniform up to 2^-127."""


def split(secret: bytes, threshold: int, points: int, random: bytes) -> list[bytes]:
    """The shares at the points 1, 2, ..., `points`.

    Args:
        secret: 32 bytes.
        threshold: so many shares give the secret back, 1 or more.
        points: how many shares.
        random: `RANDOM_BYTES` (threshold - 1) random bytes.

    Raises:
        ValueError: the sizes do not fit.

    >>> shares = split(bytes(31) + b"\\x07", 2, 3, bytes(47) + b"\\x05")
    >>> [int.from_bytes(share) for share in shares]
    [12, 17, 22]
    >>> combine({1: shares[0], 3: shares[2]}) == bytes(31) + b"\\x07"
    True
    """
    if len(secret) != SECRET_BYTES or not 1 <= threshold <= points or len(random) != RANDOM_BYTES * (threshold - 1):
        raise ValueError(f"split: {len(secret)} bytes, threshold {threshold} of {points}, {len(random)} random bytes")
    drawn = [random[at : at + RANDOM_BYTES] for at in range(0, len(random), RANDOM_BYTES)]
    polynomial = [int.from_bytes(secret), *(int.from_bytes(one) % PRIME for one in drawn)]
    return [_value(polynomial, point).to_bytes(SHARE_BYTES) for point in range(1, points + 1)]


def combine(shares: Mapping[int, bytes]) -> bytes:
    """The secret, by Lagrange's interpolation at 0.

    Args:
        shares: as many as the threshold, by their points.

    Raises:
        ValueError: they are of no secret of 32 bytes: one is wrong, or there are too few.
    """
    total = 0
    for point, share in shares.items():
        above, below = 1, 1
        for other in shares:
            if other != point:
                above = above * other % PRIME
                below = below * (other - point) % PRIME
        total = (total + int.from_bytes(share) * above * pow(below, -1, PRIME)) % PRIME
    if total >= 2 ** (8 * SECRET_BYTES):
        raise ValueError("combine: the shares are of no secret")
    return total.to_bytes(SECRET_BYTES)


def _value(polynomial: Sequence[int], point: int) -> int:
    total = 0
    for coefficient in reversed(polynomial):
        total = (total * point + coefficient) % PRIME
    return total
