"""What a hospital does in a federation: the Flower ClientApp.

| action | the site gets | the site sends (`privacy.releases.messages`) |
|---|---|---|
| `query.site` | nothing | its name, its number of training samples (0 if it may not train), what its tuning can say |
| `query.statistics` | the representation's name | sketches of its training samples |
| `query.space` | the model, the strategy, the recipe and the agreed features | nothing |
| `train` | the model's arrays, a setting, what the strategy adds | the trained arrays, their weight, the loss |
| `train.masked` and others | see `fedcore.secure` | the same as `train`, of which the coordinator learns the sum |
| `evaluate` | the model's arrays, a setting | the loss over its tuning split of the model it would predict with |

`evaluate` bears no action of its own because Flower's strategies send plain `evaluate`. Each message also holds the
record `fedward` (`fedcore.engines.grid`), whatever its strategy sends.
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from errno import EDQUOT, EMFILE, ENFILE, ENOMEM, ENOSPC
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from fedcore.distributed import noised_step
from fedcore.engines.grid import MEMORY_LOST, SHORTAGE, SITE_FAILED, TERMS
from fedcore.engines.parcels import parcel, plain, record
from fedcore.errors import CheckpointError, StorageError
from fedcore.features import representation
from fedcore.features.representation import FeatureSpace, PrivateRepresentation, Representation
from fedcore.gate import gate
from fedcore.guard import SUMS_ONLY, Guard, Proposal
from fedcore.learner import Arrays, Learner, Setting, TrainingError, log_loss
from fedcore.local import Local, Split, Update, Visit
from fedcore.memory import SiteMemory
from fedcore.models import model
from fedcore.models.model import ModelSpec, Sizes
from fedcore.plan import refuse_unshared
from fedcore.protection import Protection
from fedcore.samples import SiteSamples
from fedcore.secure import secure_actions
from fedcore.strategies import strategy
from fedcore.strategies.strategy import StrategySpec
from privacy.ledger import BudgetError, Ledger, LedgerError
from privacy.policy import PolicyRefusal
from privacy.releases import messages, sketches
from privacy.releases.sketches import DEFAULT_MINIMUM, ReleaseError
from privacy.secagg.fixed_point import FixedPoint
from privacy.secagg.masks import Words
from privacy.terms import Terms
from sites.errors import InputError

log = logging.getLogger(__name__)


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
        return _patients(self.samples.in_split(split))

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


def client_app(open_desk: Callable[[Context, str], Desk]) -> ClientApp:
    """The app of all sites.

    Args:
        open_desk: the desk of the site whose context it is, in the federation of that name; the same for the same.
    """
    app = ClientApp(mods=[wall, gate(open_desk)])

    def desk(message: Message, context: Context) -> Desk:
        return open_desk(context, str(message.content[TERMS]["federation"]))

    @app.query("site")
    def site(message: Message, context: Context) -> Message:
        here = desk(message, context)
        return _reply(message, numbers=_introduction(here), texts={"site": here.samples.site})

    @app.query("statistics")
    def statistics(message: Message, context: Context) -> Message:
        here, told = desk(message, context), parcel(message.content).texts
        chosen = here.representation(str(told["representation"]))
        training = here.samples.in_split("train")
        if here.protection is None:
            drawn = chosen.sketch(training, here.minimum)
        elif isinstance(chosen, PrivateRepresentation):
            asked = Proposal.of(told)
            drawn = chosen.sketch_privately(training, *here.protection.statistics(asked.setting, asked.rounds))
        else:
            raise InputError(
                f"representation '{chosen.name}' cannot be agreed on with noise; expected one of FedWard's"
            )
        return _reply(message, arrays={"arrays": sketches.pack(drawn)})

    @app.query("space")
    def space(message: Message, context: Context) -> Message:
        agreed = message.content.config_records["config"]
        desk(message, context).memory.agree({key: str(value) for key, value in agreed.items()})
        return _reply(message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        here = desk(message, context)
        if here.memory.agreed.get(SUMS_ONLY) == "true":
            raise ReleaseError("the sites agreed on secure aggregation; no model leaves without a mask")
        update, numbers = _trained(here, message)
        sent = (key for key, entry in message.content.items() if isinstance(entry, ArrayRecord))
        name = next((key for key in sent if key not in update.beside), "arrays")
        return _reply(message, arrays={name: update.arrays, **update.beside}, numbers=numbers)

    secure_actions(app, desk, _trained, _noised, _reply)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        here = desk(message, context)
        split = here.split("tuning")
        few = messages.released(split.patients, here.minimum) == 0  # a sum over so few would be nearly a patient's own
        if few or here.protection is not None:
            return _reply(message, numbers={"num-examples": 0, "loss-sum": 0.0})
        visit = here.visit(message)
        if not here.strategy.whole and not visit.memory:  # nobody predicts with a part that was never trained
            return _reply(message, numbers={"num-examples": 0, "loss-sum": 0.0})
        probability = here.learner(visit.setting).predict(here.local.personal(visit), split.encoded)
        total = float(log_loss(split.label, probability).sum())
        return _reply(message, numbers={"num-examples": len(split.label), "loss-sum": total})

    return app


def _trained(here: Desk, message: Message) -> tuple[Update, dict[str, Any]]:
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


def _noised(here: Desk, message: Message, threshold: int, fixed: FixedPoint) -> Words:
    """Make one step as the message says: integers with the site's share of the noise (`fedcore.distributed`)."""
    weight, visit = _weight(here), here.visit(message)
    refuse_unshared(here.memory.term("strategy"), here.strategy, visit.setting)
    assert here.protection is not None
    words = noised_step(visit, here.protection.budget, int(here.memory.term("rounds")), weight, threshold, fixed)
    _remember(here, message, visit)
    return words


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


def wall(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Let no reply out of the site that its action's schema does not describe, and no words about a patient.

    (A Flower mod.) An engine would put what a site's code raises, values of patients and all, into its reply.
    """
    action = message.metadata.message_type
    sent = parcel(message.content).arrays
    code = SITE_FAILED
    try:
        reply = call_next(message, context)
        messages.check(action, parcel(reply.content), sent)
        return reply
    except (CheckpointError, StorageError) as error:
        reason, code = str(error), MEMORY_LOST if isinstance(error, CheckpointError) else SHORTAGE
    except (TrainingError, ReleaseError, BudgetError, LedgerError, PolicyRefusal, InputError) as error:
        reason = str(error)  # written to be read outside
    except Exception as error:  # whatever a site's code raises must become a reply
        log.debug("failed in '%s'", action, exc_info=True)  # stays at the site: it may show values
        reason = f"{type(error).__name__} in '{action}'; the site's log has the details at level DEBUG"
        if _short(error):
            code, reason = SHORTAGE, f"the machine has run short ({type(error).__name__} in '{action}'); make room"
    return Message(Error(code, reason), reply_to=message)


def _introduction(here: Desk) -> dict[str, Any]:
    """How much a site would weigh, and whether its tuning split can help to choose."""
    train, tuning = here.samples.in_split("train"), here.samples.in_split("tuning")
    released = partial(messages.released, minimum=here.minimum)
    if here.protection is not None:  # how many patients a site has is public, and nothing else about them
        return {"train": released(_patients(train)), "tuning": 0, "tuning-events": 0, "tuning-non-events": 0}
    events = _patients(tuning.take(tuning.label))
    others = _patients(tuning) - events  # with no event at all: of who has both outcomes nobody is told
    # both or neither: of the total and one of them the other would be known
    told = released(events) > 0 and released(others) > 0
    return {
        "train": len(train) if released(_patients(train)) else 0,
        "tuning": released(_patients(tuning)),
        "tuning-events": events if told else 0,
        "tuning-non-events": others if told else 0,
    }


def _short(error: Exception) -> bool:
    """Whether it is the machine that lacks something: disk, memory, a GPU's memory."""
    lacking = isinstance(error, OSError) and error.errno in (ENOSPC, EDQUOT, ENOMEM, EMFILE, ENFILE)
    said = str(error) if isinstance(error, RuntimeError) else ""
    return isinstance(error, MemoryError) or lacking or "can't allocate memory" in said or "out of memory" in said


def _patients(samples: SiteSamples) -> int:
    return len(np.unique(samples.patient_id))


def _reply(
    message: Message,
    *,
    arrays: Mapping[str, Arrays] | None = None,
    numbers: dict[str, Any] | None = None,
    texts: dict[str, Any] | None = None,
) -> Message:
    content = RecordDict({key: record(entry) for key, entry in (arrays or {}).items()})
    if numbers is not None:
        content["metrics"] = MetricRecord(numbers)
    if texts is not None:
        content["config"] = ConfigRecord(texts)
    return Message(content, reply_to=message)
