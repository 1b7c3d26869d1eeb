"""Where a site's policy is enforced: around the app, at the hospital, for every message by itself.

The coordinator proposes an analysis with its first message. A site that refuses introduces itself with no count of
anything and says why; whatever it is asked all the same is refused, since each message is held against the policy
anew: what it proposes, what was agreed on, the setting that it asks for. Before anything is released, the analysis's
budget is reserved in the site's total.
"""

import re
from collections.abc import Callable

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp.typing import ClientAppCallable, Mod

from fedcore.desk import Desk
from fedcore.engines.grid import TERMS
from fedcore.guard import Guard, Proposal
from privacy.ledger import LedgerError
from privacy.policy import PolicyRefusal
from privacy.releases.messages import REFUSED, REFUSED_LENGTH
from sites.errors import InputError

COUNTS = ("train", "tuning", "tuning-events", "tuning-non-events")


PROPOSING = frozenset({"query.statistics", "query.space"})
"""Actions whose messages tell what the site is asked to take part in; others go by what was agreed."""


def gate(open_desk: Callable[[Context, str], Desk]) -> Mod:
    """A Flower mod that lets a message reach a site's app only where the site's policy allows it."""

    def enforced(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        desk = open_desk(context, str(message.content[TERMS]["federation"]))
        if desk.guard is None:
            return call_next(message, context)
        action = message.metadata.message_type
        if action == "query.site":
            refused = _refused(desk, desk.guard, message)
            return call_next(message, context) if refused is None else refused
        asked = _asked(desk, message)
        if asked is not None:
            _examine(desk, desk.guard, asked)
            desk.guard.reserve(desk.protection)
        return call_next(message, context)

    return enforced


def _asked(desk: Desk, message: Message) -> Proposal | None:
    """What a message asks the site to take part in; None: nothing was agreed on, and the app will say so."""
    if message.metadata.message_type in PROPOSING:
        return _proposal(message)
    setting = message.content[TERMS].get("setting")
    return Proposal.of(desk.memory.agreed, str(setting or "{}")) if desk.memory.agreed else None


def _without_folders(text: str) -> str:
    """On one line; where a hospital keeps its files is nobody's business.

    >>> _without_folders("/srv/ledgers/a/bern.ledger: is lost")
    'bern.ledger: is lost'
    """
    return re.sub(r"(?<!\S)/\S*/", "", " ".join(text.split()))


def _proposal(message: Message) -> Proposal:
    return Proposal.of(message.content.config_records.get("config", {}))


def _examine(desk: Desk, guard: Guard, asked: Proposal) -> None:
    guard.examine(asked, desk.terms)
    guard.examine_with(asked, desk.protection, desk.patients("train"))


def _refused(desk: Desk, guard: Guard, message: Message) -> Message | None:
    """What a site that takes no part says instead of introducing itself: no count of anything, and why."""
    try:
        _examine(desk, guard, _proposal(message))
    except (PolicyRefusal, LedgerError, InputError) as refusal:
        why = _without_folders(str(refusal))[:REFUSED_LENGTH]
        none, told = MetricRecord(dict.fromkeys(COUNTS, 0)), ConfigRecord({"site": desk.samples.site, REFUSED: why})
        return Message(RecordDict({"metrics": none, "config": told}), reply_to=message)
    return None
