"""The coordinator's half of double masking (`privacy.secagg.participant`): it passes on, adds up, and takes masks off.

It is trusted to follow the protocol, and learns the sum and who was there. Each stage takes what the sites of the stage
before answered; who did not answer has left. With fewer than the threshold nothing can be unmasked.
"""

from collections.abc import Mapping, Sequence

from privacy.secagg import keys, shamir
from privacy.secagg.errors import TooFewError, WrongShareError
from privacy.secagg.masks import Words, add_masks
from privacy.secagg.sizes import FEWEST, KEY_BYTES


def majority(sites: int) -> int:
    """The smallest threshold that sites accept: more than half of them, three at least.

    >>> [majority(n) for n in (3, 4, 5, 6, 8)]
    [3, 3, 3, 4, 5]
    """
    return max(FEWEST, sites // 2 + 1)


class Coordinator:
    """One round.

    Args:
        context: what names it; no other round has the same.
        threshold: so many sites have to stay to the end.
    """

    def __init__(self, context: bytes, threshold: int) -> None:
        self._context = context
        self.threshold = threshold
        self._roster: dict[str, bytes] = {}
        self._sharing: list[str] = []
        self._total: Words | None = None
        self._survivors: list[str] = []

    def roster(self, advertised: Mapping[str, bytes]) -> dict[str, bytes]:
        """After stage 1: all sites' keys, for each of them.

        Raises:
            TooFewError: too few advertised keys.
        """
        self._roster = dict(sorted(advertised.items()))
        self._enough(self._roster, "told their keys")
        return self._roster

    def deliver(self, sealed: Mapping[str, Mapping[str, bytes]]) -> dict[str, dict[str, bytes]]:
        """After stage 2: for each site that answered, what the others of these have sealed for it.

        Raises:
            TooFewError: too few answered.
        """
        self._sharing = sorted(sealed)
        self._enough(self._sharing, "shared their keys")
        return {
            site: {other: sealed[other][site] for other in self._sharing if other != site} for site in self._sharing
        }

    def add(self, site: str, masked: Words) -> None:
        """In stage 3: a site's masked vector."""
        if self._total is None:
            self._total = masked.copy()
        else:
            self._total += masked
        self._survivors.append(site)

    def survivors(self) -> list[str]:
        """After stage 3: who answered it.

        Raises:
            TooFewError: too few did.
        """
        self._enough(self._survivors, "sent their vector")
        return sorted(self._survivors)

    def total(self, shares: Mapping[str, Mapping[str, bytes]]) -> Words:
        """After stage 4: the sum of the survivors' vectors, modulo 2^bits.

        Args:
            shares: what each site answered.

        Raises:
            TooFewError: too few answered.
            WrongShareError: a share is wrong.
        """
        self._enough(shares, "told their shares")
        assert self._total is not None
        names = list(self._roster)
        telling = sorted(shares)[: self.threshold]
        points = [names.index(site) + 1 for site in telling]
        bound = keys.binding(self._context, self.threshold, self._roster)
        seeds: list[bytes] = []
        plus: list[bytes] = []
        minus: list[bytes] = []
        for site in self._sharing:
            try:
                secret = shamir.combine({at: shares[one][site] for at, one in zip(points, telling, strict=True)})
            except (KeyError, ValueError) as error:
                raise WrongShareError(f"the shares of {site} do not fit together") from error
            if site in self._survivors:
                seeds.append(secret)
                continue
            pair = keys.Pair(secret)
            if pair.public != self._roster[site][KEY_BYTES:]:
                raise WrongShareError(f"the shares of {site} do not fit together")
            for other in self._survivors:
                key = keys.mask_key(pair, self._roster[other][KEY_BYTES:], bound)
                (plus if other < site else minus).append(key)
        add_masks(self._total, plus, [*seeds, *minus])
        return self._total

    def _enough(self, there: Mapping[str, object] | Sequence[str], did: str) -> None:
        if len(there) < self.threshold:
            raise TooFewError(f"only {len(there)} sites {did}; secure aggregation needs {self.threshold}")
