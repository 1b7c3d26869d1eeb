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

import logging
from collections.abc import Callable
from errno import EDQUOT, EMFILE, ENFILE, ENOMEM, ENOSPC
from functools import partial
from typing import Any

from flwr.app import ArrayRecord, Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from fedcore.desk import Desk, patients_of, reply, trained
from fedcore.engines.grid import MEMORY_LOST, SHORTAGE, SITE_FAILED, TERMS
from fedcore.engines.parcels import parcel
from fedcore.errors import CheckpointError, StorageError
from fedcore.features.representation import PrivateRepresentation
from fedcore.gate import gate
from fedcore.guard import SUMS_ONLY, Proposal
from fedcore.learner import TrainingError, log_loss
from fedcore.secure import secure_actions
from privacy.ledger import BudgetError, LedgerError
from privacy.policy import PolicyRefusal
from privacy.releases import messages, sketches
from privacy.releases.sketches import ReleaseError
from sites.errors import InputError

log = logging.getLogger(__name__)


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
        return reply(message, numbers=_introduction(here), texts={"site": here.samples.site})

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
        return reply(message, arrays={"arrays": sketches.pack(drawn)})

    @app.query("space")
    def space(message: Message, context: Context) -> Message:
        agreed = message.content.config_records["config"]
        desk(message, context).memory.agree({key: str(value) for key, value in agreed.items()})
        return reply(message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        here = desk(message, context)
        if here.memory.agreed.get(SUMS_ONLY) == "true":
            raise ReleaseError("the sites agreed on secure aggregation; no model leaves without a mask")
        update, numbers = trained(here, message)
        sent = (key for key, entry in message.content.items() if isinstance(entry, ArrayRecord))
        name = next((key for key in sent if key not in update.beside), "arrays")
        return reply(message, arrays={name: update.arrays, **update.beside}, numbers=numbers)

    secure_actions(app, desk)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        here = desk(message, context)
        split = here.split("tuning")
        few = messages.released(split.patients, here.minimum) == 0  # a sum over so few would be nearly a patient's own
        if few or here.protection is not None:
            return reply(message, numbers={"num-examples": 0, "loss-sum": 0.0})
        visit = here.visit(message)
        if not here.strategy.whole and not visit.memory:  # nobody predicts with a part that was never trained
            return reply(message, numbers={"num-examples": 0, "loss-sum": 0.0})
        probability = here.learner(visit.setting).predict(here.local.personal(visit), split.encoded)
        total = float(log_loss(split.label, probability).sum())
        return reply(message, numbers={"num-examples": len(split.label), "loss-sum": total})

    return app


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
        return {"train": released(patients_of(train)), "tuning": 0, "tuning-events": 0, "tuning-non-events": 0}
    events = patients_of(tuning.take(tuning.label))
    others = patients_of(tuning) - events  # with no event at all: of who has both outcomes nobody is told
    # both or neither: of the total and one of them the other would be known
    told = released(events) > 0 and released(others) > 0
    return {
        "train": len(train) if released(patients_of(train)) else 0,
        "tuning": released(patients_of(tuning)),
        "tuning-events": events if told else 0,
        "tuning-non-events": others if told else 0,
    }


def _short(error: Exception) -> bool:
    """Whether it is the machine that lacks something: disk, memory, a GPU's memory."""
    lacking = isinstance(error, OSError) and error.errno in (ENOSPC, EDQUOT, ENOMEM, EMFILE, ENFILE)
    said = str(error) if isinstance(error, RuntimeError) else ""
    return isinstance(error, MemoryError) or lacking or "can't allocate memory" in said or "out of memory" in said
