"""The faults of one cell: a plan with the seed's choices, and what it does to the sites' replies.

Whether a fault strikes is decided by its own coin for that site and round, whatever is asked first and whatever engine
asks: `stream(seed, "faults", fault, "coin", site, round)`. A fault is called by its kind, the sites it names and its
rounds, and not by its strength. So all settings and all strategies of a seed meet the same faults; other faults in the
file change none of its draws; and a site that fails at rate 0.2 fails at 0.3 too, as do the sites chosen for a smaller
number among those for a larger one. (Faults alike in kind, named sites and rounds are numbered in the file's order.)
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from fedcore.faults.kinds import Befalls, Circumstances, Leave, Lost, Slow, Stale
from fedcore.learner import Arrays
from fedcore.streams import stream

if TYPE_CHECKING:
    from fedcore.samples import SiteSamples


class Drawn(NamedTuple):
    """A fault, what its streams are called, and the sites it can befall."""

    fault: Befalls
    name: str
    sites: frozenset[str]


@dataclass(frozen=True)
class Faults:
    """What befalls whom in which round.

    Attributes:
        seed: the cell's seed.
        timeout_s: a later reply is lost; None: the coordinator waits for all.
        drawn: the faults in the file's order.
    """

    seed: int
    timeout_s: float | None
    drawn: tuple[Drawn, ...]

    @property
    def memory(self) -> int:
        """How many rounds back `apply` may look in a site's history."""
        return max((each.fault.age for each in self.drawn if isinstance(each.fault, Stale)), default=0)

    def at(self, site: str, number: int) -> list[Drawn]:
        """What befalls a site in round `number`, in the file's order."""
        return [each for each in self.drawn if self._strikes(each, site, number)]

    def absent(self, number: int) -> frozenset[str]:
        """The sites that cannot be reached in round `number`, neither to train nor to evaluate."""
        return frozenset(
            site
            for each in self.drawn
            if isinstance(each.fault, Leave)
            for site in each.sites
            if self._strikes(each, site, number)
        )

    def delay(self, site: str, number: int) -> float:
        """The seconds by which each reply of the site is late in round `number`."""
        return _delay(self.at(site, number))

    def wait(self, sites: Iterable[str], number: int) -> float:
        """The seconds that the coordinator waits for the slowest of the sites it asked, and no longer than its limit.

        Nobody sleeps: this is time that a record may count.
        """
        slowest = max((self.delay(site, number) for site in sites), default=0.0)
        return slowest if self.timeout_s is None else min(slowest, self.timeout_s)

    def apply(
        self, site: str, number: int, action: str, sent: Arrays, reply: Arrays, history: Mapping[int, Arrays]
    ) -> Arrays | Lost:
        """What arrives of a site's reply.

        A site that cannot be reached sends nothing, one that is too slow sends it in vain, in training and evaluation
        alike. What arrives of a training passes through the site's other faults in the file's order.

        Args:
            site: its name.
            number: the round, from 1.
            action: `train` or `evaluate`.
            sent: the arrays that the site was sent in this round.
            reply: the arrays it would send; of the shapes that were sent.
            history: what `reply` was in the site's earlier rounds, by round: the last `memory` rounds are looked at.

        Returns:
            Arrays of the reply's names and types, the same objects where nothing befalls them; or why nothing arrives.
        """
        struck = self.at(site, number)
        if any(isinstance(each.fault, Leave) for each in struck):
            return Lost("cannot be reached")
        late = _delay(struck)
        if self.timeout_s is not None and late > self.timeout_s:
            return Lost(f"answers after {late:g} s; the coordinator waits {self.timeout_s:g} s")
        arrives: Arrays = reply
        for fault, name, _ in struck if action == "train" else ():
            draws = partial(stream, self.seed, "faults", name, "noise", site, number)
            after = fault.act(arrives, Circumstances(number, sent, history, draws))
            if isinstance(after, Lost):
                return after
            arrives = after
        return arrives

    def poisoned(self, samples: "SiteSamples") -> "SiteSamples":
        """What a site trains on.

        Raises:
            sites.errors.InputError: a fault cannot befall such samples.
        """
        for fault, name, sites in self.drawn:
            if samples.site in sites:
                samples = fault.poison(samples, stream(self.seed, "faults", name, "poison", samples.site))
        return samples

    def _strikes(self, each: Drawn, site: str, number: int) -> bool:
        if site not in each.sites or not each.fault.in_round(number):
            return False
        rate = each.fault.rate
        return rate == 1 or stream(self.seed, "faults", each.name, "coin", site, number).random() < rate


def draw(faults: Sequence[Befalls], timeout_s: float | None, seed: int, sites: Iterable[str]) -> Faults:
    """Choose the sites of each fault among those that train; a named site that is not there is left out."""
    present = frozenset(sites)
    names = _names(faults)
    return Faults(
        seed=seed,
        timeout_s=timeout_s,
        drawn=tuple(
            Drawn(fault, name, _chosen(fault, name, seed, present)) for fault, name in zip(faults, names, strict=True)
        ),
    )


def _chosen(fault: Befalls, name: str, seed: int, sites: frozenset[str]) -> frozenset[str]:
    """The sites with the smallest draws, so that one who was not chosen can be taken away and changes nothing."""
    if fault.names is not None:
        return sites.intersection(fault.names)
    count = fault.count(len(sites))
    if count == len(sites):
        return sites
    draws = {site: stream(seed, "faults", name, "choice", site).random() for site in sites}
    return frozenset(sorted(sites, key=lambda site: (draws[site], site))[:count])


def _delay(struck: Iterable[Drawn]) -> float:
    return sum((each.fault.seconds for each in struck if isinstance(each.fault, Slow)), 0.0)


def _names(faults: Sequence[Befalls]) -> list[str]:
    names: list[str] = []
    met: Counter[str] = Counter()
    for fault in faults:
        rounds = fault.model_dump(mode="json", include={"rounds"})["rounds"]
        name = json.dumps([fault.kind, fault.names, rounds])
        names.append(f"{name} {met[name]}")
        met[name] += 1
    return names
