"""A site's half of double masking: Bonawitz et al., Practical Secure Aggregation for Privacy-Preserving Machine
Learning, 2017, figure 4, without signatures.

| stage | the site gets | the site answers |
|---|---|---|
| 1 `advertise` | the round | two public keys |
| 2 `share` | all sites' keys, the threshold | for each other site, sealed for it: a share of its seed, one of its key |
| 3 `mask` | what others sealed for it; its vector x | x + mask(seed) + sum of masks with earlier, - with later sites |
| 4 `unmask` | who answered stage 3 | of those: its share of the seed; of all others of stage 2: its share of the key |

With `threshold` shares of each the coordinator takes the masks off the sum, and off nothing else: whoever has both
secrets of a site can read its vector, and no honest site tells of both. It answers a stage once: asked the same again
it says the same, asked anything else it refuses. All its secrets of a round follow from 32 random bytes of that round.

A threshold of more than half of the sites keeps a coordinator from asking one half for a site's seed and the other for
its key. It does not make one that lies harmless: keys are unsigned, and sites do not compare their lists of who stayed.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Self

from privacy.releases.sketches import ReleaseError
from privacy.secagg import keys, shamir
from privacy.secagg.masks import Words, add_masks, keystream
from privacy.secagg.sizes import FEWEST, KEY_BYTES, KEYS_BYTES, SHARE_BYTES


class Participant:
    """One site in one round.

    Args:
        site: its name.
        context: what names the round.
        root: 32 random bytes that nobody else knows and no other round has; drawn if they are not given.
    """

    def __init__(self, site: str, context: bytes, root: bytes | None = None) -> None:
        self.site = site
        self.context = context
        self._root = os.urandom(32) if root is None else root
        self._threshold = 0
        self._roster: dict[str, bytes] = {}
        self._sealed = ""
        self._shares: dict[str, bytes] = {}
        self._survivors: list[str] = []

    def to_json(self) -> str:
        """All of it, secrets too: what the site has to remember between stages."""
        state = {
            "site": self.site,
            "context": self.context.hex(),
            "root": self._root.hex(),
            "threshold": self._threshold,
            "roster": _hexed(self._roster),
            "sealed": self._sealed,
            "shares": _hexed(self._shares),
            "survivors": self._survivors,
        }
        return json.dumps(state)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` said."""
        state: dict[str, Any] = json.loads(text)
        made = cls(state["site"], bytes.fromhex(state["context"]), bytes.fromhex(state["root"]))
        made._threshold = state["threshold"]
        made._roster = {site: bytes.fromhex(value) for site, value in state["roster"].items()}
        made._sealed = state["sealed"]
        made._shares = {site: bytes.fromhex(value) for site, value in state["shares"].items()}
        made._survivors = state["survivors"]
        return made

    @property
    def threshold(self) -> int:
        """So many sites have to stay to the end; 0 before stage 2."""
        return self._threshold

    def advertise(self) -> bytes:
        """Stage 1: the site's two public keys."""
        return self._sealing.public + self._masking.public

    def share(self, roster: Mapping[str, bytes], threshold: int) -> dict[str, bytes]:
        """Stage 2: shares of the site's seed and masking key for each other site, sealed.

        Args:
            roster: the keys of all sites that advertised some, by name.
            threshold: so many sites have to stay to the end.

        Raises:
            ReleaseError: the round is not as it should be.
        """
        if self._roster and (dict(roster), threshold) != (self._roster, self._threshold):
            raise ReleaseError("stage 2 of secure aggregation was asked for twice, with other keys; the site refuses")
        if roster.get(self.site) != self.advertise():
            raise ReleaseError("the keys of secure aggregation are not those that this site has told; it refuses")
        if any(len(each) != KEYS_BYTES for each in roster.values()):
            raise ReleaseError(f"a site's keys of secure aggregation are not {KEYS_BYTES} bytes; this one refuses")
        halves = [each[at : at + KEY_BYTES] for each in roster.values() for at in (0, KEY_BYTES)]
        if len(set(halves)) != len(halves):
            raise ReleaseError("a key of secure aggregation stands twice in the list; the site refuses")
        if not max(FEWEST, len(roster) // 2 + 1) <= threshold <= len(roster):
            raise ReleaseError(
                f"the threshold is {threshold} of {len(roster)} sites; secure aggregation needs more than half of "
                f"them, and {FEWEST} at least"
            )
        self._roster, self._threshold = dict(sorted(roster.items())), threshold
        shares = self._own_shares()
        return {
            other: keys.sealed(self._agreed(other), self._bound, self.site, other, shares[other])
            for other in self._roster
            if other != self.site
        }

    def mask(self, sealed: Mapping[str, bytes], words: Words) -> None:
        """Stage 3: put the vector, where it is, under all masks. That is done once; keep it to be able to say it again.

        Args:
            sealed: what the others have sealed for this site, by their names: those who answered stage 2.
            words: the vector.

        Raises:
            ReleaseError: the round is not as it should be.
        """
        if not self._roster:
            raise ReleaseError("stage 3 of secure aggregation was asked for before stage 2; the site refuses")
        if self._sealed:
            raise ReleaseError("a masked vector was asked for twice; two under the same masks tell their difference")
        self._enough([self.site, *sealed])
        if self.site in sealed or not self._roster.keys() >= sealed.keys():
            raise ReleaseError("there are shares of a site that is not in the round; this one refuses")
        shares = {other: self._opened(other, content) for other, content in sealed.items()}
        pairs = {other: keys.mask_key(self._masking, self._public(other), self._bound) for other in sealed}
        later = [key for other, key in pairs.items() if other > self.site]
        earlier = [key for other, key in pairs.items() if other < self.site]
        add_masks(words, [self._secret(b"seed"), *earlier], later)
        self._sealed = _hashed(sealed)
        self._shares = shares | {self.site: self._own_shares()[self.site]}

    def has_masked(self, sealed: Mapping[str, bytes]) -> bool:
        """Whether stage 3 was answered, and to just this.

        Raises:
            ReleaseError: it was, to something else.
        """
        if self._sealed and _hashed(sealed) != self._sealed:
            raise ReleaseError("stage 3 of secure aggregation was asked for twice, with other shares; the site refuses")
        return bool(self._sealed)

    def unmask(self, survivors: Sequence[str]) -> dict[str, bytes]:
        """Stage 4: for each site of stage 2, one share: of its seed if it has survived, of its masking key if not.

        Args:
            survivors: who answered stage 3.

        Raises:
            ReleaseError: the round is not as it should be.
        """
        chosen = sorted(survivors)
        if not self._sealed:
            raise ReleaseError("stage 4 of secure aggregation was asked for before stage 3; the site refuses")
        if self._survivors and chosen != self._survivors:
            raise ReleaseError(
                "the site was told two lists of who stayed in one round of secure aggregation; it refuses"
            )
        if len(set(chosen)) != len(chosen) or not self._shares.keys() >= set(chosen) or self.site not in chosen:
            raise ReleaseError("the list of who stayed names others than who was there; the site refuses")
        self._enough(chosen)
        self._survivors = chosen
        return {
            other: both[:SHARE_BYTES] if other in chosen else both[SHARE_BYTES:]
            for other, both in sorted(self._shares.items())
        }

    def _enough(self, there: Sequence[str]) -> None:
        if len(there) < max(self._threshold, FEWEST):
            raise ReleaseError(
                f"{len(there)} sites are left of {len(self._roster)}; secure aggregation needs {self._threshold}"
            )

    def _secret(self, label: bytes) -> bytes:
        return keys.derived(self._root, label, self.context, self.site.encode())

    @cached_property
    def _sealing(self) -> keys.Pair:
        return keys.Pair(self._secret(b"sealing"))

    @cached_property
    def _masking(self) -> keys.Pair:
        return keys.Pair(self._secret(b"masking"))

    @cached_property
    def _bound(self) -> bytes:
        return keys.binding(self.context, self._threshold, self._roster)

    def _public(self, other: str) -> bytes:
        return self._roster[other][KEY_BYTES:]

    def _agreed(self, other: str) -> bytes:
        try:
            return self._sealing.agreed(self._roster[other][:KEY_BYTES])
        except ValueError as error:
            raise ReleaseError("a site's key of secure aggregation is none; this one refuses") from error

    def _opened(self, other: str, content: bytes) -> bytes:
        try:
            both = keys.opened(self._agreed(other), self._bound, other, self.site, content)
        except ValueError as error:
            raise ReleaseError("shares were not sealed for this site in this round; it refuses") from error
        if len(both) != 2 * SHARE_BYTES:
            raise ReleaseError(f"two shares have {len(both)} bytes, expected {2 * SHARE_BYTES}; the site refuses")
        return both

    def _own_shares(self) -> dict[str, bytes]:
        """By site, the share of the seed and the share of the masking key, one after the other."""
        size = shamir.RANDOM_BYTES * (self._threshold - 1)
        count = len(self._roster)
        halves = [
            shamir.split(
                self._secret(secret), self._threshold, count, keystream(self._shared(b"shares of " + secret), size)
            )
            for secret in (b"seed", b"masking")
        ]
        return {other: b"".join(each) for other, each in zip(self._roster, zip(*halves, strict=True), strict=True)}

    def _shared(self, label: bytes) -> bytes:
        """What polynomials are drawn from: another list of sites has others."""
        return keys.derived(self._root, label, self._bound)


def _hashed(sealed: Mapping[str, bytes]) -> str:
    """The hash of what others have sealed, and of who they are."""
    digest = hashlib.sha256()
    for site in sorted(sealed):
        digest.update(hashlib.sha256(site.encode()).digest() + hashlib.sha256(sealed[site]).digest())
    return digest.hexdigest()


def _hexed(values: Mapping[str, bytes]) -> dict[str, str]:
    return {site: value.hex() for site, value in values.items()}
