"""The keys of one round: each site has two pairs, and each two sites a secret of each.

A site's keys are 64 bytes: the public key with which shares are sealed for it, and the one with which masks are agreed
on. They have to be two: of a site that leaves, the coordinator is told the second private key, and must not be able to
open with it what others have sealed for that site.

What the keys are for is in each key that is derived: the round, the threshold, all sites' keys (`binding`), and who
speaks to whom. So sites that were shown different rosters agree on nothing: their shares do not open.
"""

import hashlib
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from privacy.secagg.sizes import KEY_BYTES

_NONCE = bytes(12)  # each key seals one message


def derived(secret: bytes, *labels: bytes) -> bytes:
    """A key of 32 bytes for one purpose: HKDF-SHA256 (RFC 5869) of a secret with the labels, each with its length."""
    info = b"".join(len(label).to_bytes(4) + label for label in (b"fedward secure aggregation 1", *labels))
    return HKDF(SHA256(), KEY_BYTES, None, info).derive(secret)


class Pair:
    """An X25519 key pair.

    Args:
        private: 32 bytes.

    Attributes:
        public: 32 bytes.
    """

    def __init__(self, private: bytes) -> None:
        self._private = X25519PrivateKey.from_private_bytes(private)
        self.public = self._private.public_key().public_bytes_raw()

    def agreed(self, other: bytes) -> bytes:
        """The secret that this pair and another's public key make.

        Raises:
            ValueError: the public key is one of those whose secret is known to everybody.
        """
        return self._private.exchange(X25519PublicKey.from_public_bytes(other))


def binding(context: bytes, threshold: int, roster: Mapping[str, bytes]) -> bytes:
    """The hash of what all sites of a round have to agree on: the round, the threshold, the sites' keys."""
    digest = hashlib.sha256()
    named = [part for site in sorted(roster) for part in (site.encode(), roster[site])]
    for part in (context, threshold.to_bytes(4), *named):
        digest.update(len(part).to_bytes(4) + part)
    return digest.digest()


def mask_key(own: Pair, other: bytes, bound: bytes) -> bytes:
    """The key of the mask between two sites: the same from either side.

    Args:
        own: one site's second pair.
        other: the other's second public key.
        bound: `binding`.
    """
    return derived(own.agreed(other), b"mask", bound, *sorted((own.public, other)))


def sealed(secret: bytes, bound: bytes, sender: str, receiver: str, content: bytes) -> bytes:
    """The content under AES-256-GCM, with a key of its own for this round, sender and receiver."""
    return AESGCM(_seal_key(secret, bound, sender, receiver)).encrypt(_NONCE, content, bound)


def opened(secret: bytes, bound: bytes, sender: str, receiver: str, content: bytes) -> bytes:
    """What `sealed` was given.

    Raises:
        ValueError: it was sealed in another round, by or for another site, or was changed on its way.
    """
    try:
        return AESGCM(_seal_key(secret, bound, sender, receiver)).decrypt(_NONCE, content, bound)
    except InvalidTag as error:
        raise ValueError(f"what {sender} sealed does not open") from error


def _seal_key(secret: bytes, bound: bytes, sender: str, receiver: str) -> bytes:
    return derived(secret, b"seal", bound, sender.encode(), receiver.encode())
