"""What a site's process keeps at hand, and how it trains and answers."""

import json
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedcore.distributed import noised_step
from fedcore.engines.grid import TERMS
from fedcore.engines.parcels import plain, record
from fedcore.features import representation
from fedcore.features.representation import FeatureSpace, Representation
from fedcore.guard import Guard
from fedcore.learner import Arrays, Learner, Setting
from fedcore.local import Local, Split, Update, Visit
from fedcore.memory import SiteMemory
from fedcore.models import model
from fedcore.models.model import ModelSpec, Sizes
from fedcore.plan import refuse_unshared
from fedcore.protection import Protection
from fedcore.samples import SiteSamples
from fedcore.strategies import strategy
from fedcore.strategies.strategy import StrategySpec
from privacy.ledger import Ledger
from privacy.releases import messages
from privacy.releases.sketches import DEFAULT_MINIMUM, ReleaseError
from privacy.secagg.fixed_point import FixedPoint
from privacy.secagg.masks import Words
from privacy.terms import Terms
from sites.errors import InputError


class Desk:
    """What a site's process keeps at hand: its samples, and tensors it would otherwise make anew in each round.

    Args:
        samples: the site's.
        memory: what the site remembers of this federation.
        terms: on which the site gives up some of its patients' privacy; None: it takes part without noise.
        seed: the cell's, for noise that is seeded.
        ledgers: the folder of the sites' ledgers; None: they lie with what the sites remember.
        guard: what the hospital's policy allows; None: it has none.
    """

    def __init__(
        self,
        samples: SiteSamples,
        memory: SiteMemory,
        terms: Terms | None = None,
        seed: int = 0,
        ledgers: Path | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.samples = samples
        self.memory = memory
        self.guard = guard
        self.terms = terms if guard is None else guard.terms(terms)
        self._seed = seed
        self._ledgers = ledgers
        self._spaces: dict[str, FeatureSpace] = {}
        self._splits: dict[tuple[str, str], Split] = {}

    def split(self, name: str) -> Split:
        """A split, encoded for the agreed space."""
        key = (name, self.memory.term("space"))
        if key not in self._splits:
            space = self.space
            chosen = self.samples.in_split(name)
            encoded = self.representation(space.representation).encode(chosen, space)
            patient = np.unique(chosen.patient_id, return_inverse=True)[1].astype(np.int64)
            self._splits[key] = Split(encoded, chosen.label, patient)
        return self._splits[key]

    def representation(self, name: str) -> Representation:
        """A representation: where a policy or a budget holds one of FedWard's, whoever asks.

        Raises:
            InputError: it is none.
        """
        if (self.terms is not None or self.guard is not None) and name not in representation.names():
            raise InputError(f"representation '{name}' is no code of FedWard's, which this site's terms want")
        return representation.load(name)

    @cached_property
    def protection(self) -> Protection | None:
        """What noise the site adds, and what it has spent; None: it takes part without."""
        if self.terms is None:
            return None
        path = self.memory.place("ledger")
        if self._ledgers is not None:
            path = self._ledgers / f"{quote(self.samples.site, safe='')}.ledger"
        expected = bool(self.memory.agreed) or (self.guard is not None and self.guard.expects_ledger())
        patients = self.patients("train")
        return Protection(self.terms, self.samples.site, patients, self._seed, path, expected=expected)

    @property
    def shares_noise(self) -> bool:
        """Whether its models leave in secure sums only, with its share of their noise."""
        return self.terms is not None and self.terms.place == "distributed"

    @property
    def minimum(self) -> int:
        """The fewest patients that a number which leaves the site may stand for."""
        return DEFAULT_MINIMUM if self.guard is None else max(DEFAULT_MINIMUM, self.guard.policy.smallest_count)

    def patients(self, split: str) -> int:
        """How many patients a split has."""
        return patients_of(self.samples.in_split(split))

    @property
    def space(self) -> FeatureSpace:
        """The agreed features."""
        text = self.memory.term("space")
        if text not in self._spaces:
            self._spaces[text] = FeatureSpace.from_json(text)
        return self._spaces[text]

    @cached_property
    def model(self) -> ModelSpec:
        """The agreed model."""
        return model.load(self.memory.term("model"))

    @cached_property
    def strategy(self) -> StrategySpec:
        """The agreed strategy."""
        return strategy.load(self.memory.term("strategy"))

    @property
    def local(self) -> Local:
        """The site's half of it."""
        return self.strategy.local

    def learner(self, setting: Setting) -> Learner:
        """The agreed model's learner with a setting."""
        make = self.model.recipe(self.memory.term("recipe")).learner
        sizes, wanted = (json.dumps(dict(one), sort_keys=True) for one in (self.space.sizes, setting))
        return _learner(make, sizes, wanted)

    def visit(self, message: Message) -> Visit:
        """The server's message, with what the site remembers.

        Raises:
            CheckpointError: the site has forgotten a round.
        """
        terms = message.content[TERMS]
        number, trial = int(str(terms["round"])), int(str(terms["trial"]))
        records = {key: entry for key, entry in message.content.items() if isinstance(entry, ArrayRecord)}
        name = "arrays" if "arrays" in records else next(iter(records), "")
        texts = {
            key: value
            for other, entry in message.content.items()
            if isinstance(entry, ConfigRecord) and other != TERMS
            for key, value in entry.items()
        }
        last = int(str(terms["last-round"]))
        protection = self.protection
        return Visit(
            site=self.samples.site,
            round=number,
            cell_seed=int(str(terms["seed"])),
            arrays=plain(records.pop(name, {})),
            beside={key: plain(entry) for key, entry in records.items()},
            config=texts,
            setting=json.loads(str(terms["setting"])),
            model=self.model,
            make=self.learner,
            open_split=lambda: self.split("train"),
            memory=self.memory.read(trial, last),
            protect=None
            if protection is None
            else partial(protection.training, trial, number, int(self.memory.term("rounds"))),
        )


def ledgers_of(desks: Iterable[Desk]) -> dict[str, Ledger]:
    """The ledgers of the sites that take part on terms."""
    return {one.samples.site: one.protection.ledger for one in desks if one.protection is not None}


def trained(here: Desk, message: Message) -> tuple[Update, dict[str, Any]]:
    """Train as the message says: the update, and the numbers that go with it."""
    if here.shares_noise:
        raise ReleaseError("the site shares its noise with others; none of its models leaves but in a secure sum")
    split, weight = here.split("train"), _weight(here)
    visit = here.visit(message)
    update = here.local.train(visit)
    _remember(here, message, visit)
    numbers = {
        "num-examples": len(split.label),
        "loss-weight": weight,
        "loss-sum": update.loss * weight,
        "steps": update.steps,
    }
    if here.protection is not None:  # stays are the patients' own, and a loss would be one release more
        numbers |= {"num-examples": weight, "loss-weight": 0, "loss-sum": 0.0}
    return update, numbers


def noised(here: Desk, message: Message, threshold: int, fixed: FixedPoint) -> Words:
    """Make one step as the message says: integers with the site's share of the noise (`fedcore.distributed`)."""
    weight, visit = _weight(here), here.visit(message)
    refuse_unshared(here.memory.term("strategy"), here.strategy, visit.setting)
    assert here.protection is not None
    words = noised_step(visit, here.protection.budget, int(here.memory.term("rounds")), weight, threshold, fixed)
    _remember(here, message, visit)
    return words


def reply(
    message: Message,
    *,
    arrays: Mapping[str, Arrays] | None = None,
    numbers: dict[str, Any] | None = None,
    texts: dict[str, Any] | None = None,
) -> Message:
    """An answer of named arrays, numbers and texts."""
    content = RecordDict({key: record(entry) for key, entry in (arrays or {}).items()})
    if numbers is not None:
        content["metrics"] = MetricRecord(numbers)
    if texts is not None:
        content["config"] = ConfigRecord(texts)
    return Message(content, reply_to=message)


def _weight(here: Desk) -> int:
    """How many training patients the site has, as it may be told.

    Raises:
        ReleaseError: too few to train.
    """
    weight = messages.released(here.split("train").patients, here.minimum)
    if weight == 0:
        raise ReleaseError(f"fewer than {here.minimum} training patients; a model of so few would tell of each of them")
    return weight


def _remember(here: Desk, message: Message, visit: Visit) -> None:
    """Keep what a visit remembers, as of its round."""
    terms = message.content[TERMS]
    trial, last, best = (int(str(terms[name])) for name in ("trial", "last-round", "best-round"))
    here.memory.write(trial, visit.round, visit.memory, last=last, best=best)


@lru_cache(maxsize=2)
def _learner(make: Callable[[Sizes, Setting], Learner], sizes: str, setting: str) -> Learner:
    """One learner for all sites of this process: it keeps its network, which is dear to build."""
    return make(json.loads(sizes), json.loads(setting))


def patients_of(samples: SiteSamples) -> int:
    """How many patients the samples are of."""
    return len(np.unique(samples.patient_id))
