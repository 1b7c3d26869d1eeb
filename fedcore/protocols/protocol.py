"""What a protocol is, and the registry: a file in this folder that defines `PROTOCOL`.

A protocol repeats a published benchmark to the letter where our own rules would give other numbers: it prepares the
sites' samples, and may say what the names of models and strategies mean. All else (messages, rounds, faults, engines,
records) is as ever.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fedcore.registry import Registry
from fedcore.samples import SiteSamples
from sites.errors import InputError

if TYPE_CHECKING:
    from fedcore.cohort import Hospital, Task
    from fedcore.prepare import Prepared


@dataclass(frozen=True)
class Protocol:
    """A benchmark's rules.

    Attributes:
        title: what the benchmark is called.
        paper: authors, title, year.
        representation: what `fedcore.features.representation.load` finds it by.
        prepare: a site's samples of a task, split; takes the split seed.
        gather: all sites' samples as the federation gets them; may refuse them, and add samples that are only scored.
        pool: the training sites' samples as the anchor `pooled` trains on them.
        models: what a model's name loads here, `module:NAME`; other names are refused. None: any model, as ever.
        strategies: the same of strategies and anchors.
        initial_seed: the seed of the initial model, of the cell's; None: a stream of its own, as ever.
    """

    title: str
    paper: str
    representation: str
    prepare: "Callable[[Hospital, Task, int], Prepared]"
    gather: Callable[[Sequence[SiteSamples]], list[SiteSamples]] = list
    pool: Callable[[Sequence[SiteSamples]], SiteSamples] = SiteSamples.concatenate
    models: Mapping[str, str] | None = None
    strategies: Mapping[str, str] | None = None
    initial_seed: Callable[[int], int] | None = field(default=None)

    def model(self, name: str) -> str:
        """What to load for a model's name.

        Raises:
            InputError: the protocol has no such model.
        """
        return _meant(self, "model", self.models, name)

    def strategy(self, name: str) -> str:
        """What to load for a strategy's name.

        Raises:
            InputError: the protocol has no such strategy.
        """
        return _meant(self, "strategy", self.strategies, name)


def _meant(protocol: Protocol, what: str, known: Mapping[str, str] | None, name: str) -> str:
    if known is None:
        return name
    if name not in known:
        raise InputError(f"the protocol of {protocol.title} has no {what} {name!r}; it has: {', '.join(known)}")
    return known[name]


PROTOCOLS = Registry[Protocol]("protocol", "fedcore.protocols", "PROTOCOL", no_part=("protocol",))

names, module, load = PROTOCOLS.names, PROTOCOLS.module, PROTOCOLS.load
