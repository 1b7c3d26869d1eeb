"""The Grid all engines share: it makes one federation the same, bit for bit, in each of them.

It stands between Flower's strategies and an engine's own Grid. Nodes and replies stand in the order of the sites'
names, whatever ids an engine gives them and whichever answers first; what goes out is narrowed to the model's types,
what comes back is widened to float64 before a strategy adds it up; every reply is held against the schema of its
action; bytes are counted.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedcore.engines.journal import Answer, Journal
from fedcore.engines.parcels import Widened, as_type, converted, narrowed, parcel, payload_bytes, unpacked, with_arrays
from fedcore.errors import CheckpointError, FederationError, StorageError
from fedcore.faults.drawn import Faults
from fedcore.faults.kinds import Lost
from fedcore.learner import Arrays
from privacy.releases import messages as releases
from privacy.releases.messages import REFUSED
from privacy.releases.sketches import ReleaseError

TERMS = "fedward"
"""The record of every message in which the federation says what the site is to do, whatever the strategy sends."""

TRAINS = frozenset({"train", "train.masked"})
"""The actions by which a site trains."""

SILENT = frozenset({"query.space", "query.advertise", "query.share", "query.unmask"})
"""The actions whose replies tell nothing of patients."""

SITE_FAILED: int = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
"""The code of the error of a site that could not do what it was asked."""

MEMORY_LOST = 451
"""The code of the error of a site that does not remember what it should: nothing can go on from there."""

SHORTAGE = 452
"""The code of the error of a site whose machine has run out of disk or memory: its hospital has not failed."""


class Dropped(NamedTuple):
    """A site whose answer did not count in a round, and why."""

    trial: int
    round: int
    site: str
    action: str
    reason: str


class Passed(NamedTuple):
    """What a coordinator sees of one site's training: the model that it was sent, and what arrived of its reply.

    Both are as they travel, faults and noise included; a strategy's further arrays are none of them.
    """

    trial: int
    round: int
    site: str
    sent: Arrays
    arrived: Arrays


@dataclass
class Turn:
    """Where a trial stands: what the sites are told with each message."""

    trial: int
    seed: int
    setting: str
    round: int = 0
    best_round: int = 0


class SiteGrid(Grid):
    """A Grid whose nodes are hospitals in the order of their names.

    Args:
        inner: the engine's Grid.
        federation: a name for this federation, where several run over one Grid.
        journal: answers what has been asked before.
        proposal: what the sites are told of the analysis before they introduce themselves.
        watch: hears of each reply to a training that counts, as the coordinator does.

    Attributes:
        refused: the sites that take no part, each with the rule of its policy that is why.
        bytes_down: payload sent to the sites so far (`fedcore.engines.parcels.payload_bytes`).
        bytes_up: payload of what the sites sent, before it is widened.
        dropped: the answers that did not count.
        answered: by site, the actions to which it said anything of its patients, whether it counted or not.
        failing: the sites that answered the last request to train that reached them with an error, and which; not
            those whom a fault befell on purpose.

    Raises:
        FederationError: two nodes give the same site name.
    """

    def __init__(
        self,
        inner: Grid,
        *,
        federation: str = "000",
        journal: Journal | None = None,
        proposal: Mapping[str, str] | None = None,
        watch: Callable[[Passed], None] | None = None,
    ) -> None:
        self._inner = inner
        self._watch = watch
        self._federation = federation
        self._journal: Journal | None = None
        self._faults: Faults | None = None
        self._types: dict[str, np.dtype[np.generic]] = {}
        self._sent: dict[int, dict[str, np.ndarray]] = {}
        self._requests: dict[int, Message] = {}
        self._turn: Turn | None = None
        self._counting = False
        self._trained: dict[tuple[int, str], int] = {}
        self._absent: dict[int, frozenset[str]] = {}
        self._history: dict[tuple[int, str], dict[int, Arrays]] = {}
        self.bytes_down = 0
        self.bytes_up = 0
        self.dropped: list[Dropped] = []
        self.answered: dict[str, set[str]] = {}
        self.failing: dict[str, str] = {}
        nodes = list(inner.get_node_ids())
        self._names = {node: f"node {node}" for node in nodes}
        self._order = {node: place for place, node in enumerate(nodes)}
        self._present: list[str] = []
        told = RecordDict({"config": ConfigRecord(dict(proposal))}) if proposal else RecordDict()
        asked = [Message(told, dst_node_id=node, message_type="query.site") for node in nodes]
        introduced: dict[str, Message] = {}
        for reply in self.send_and_receive(asked):
            if reply.has_error():
                raise FederationError(f"{self._names[reply.metadata.src_node_id]}: {reply.error.reason}")
            introduced[str(parcel(reply.content).texts["site"])] = reply
        if len(introduced) != len(nodes):
            raise FederationError(f"{len(nodes)} nodes give {len(introduced)} site names; expected one name for each")
        self._nodes = {site: introduced[site].metadata.src_node_id for site in sorted(introduced)}
        self._names = {node: site for site, node in self._nodes.items()}
        self._order = {node: place for place, node in enumerate(self._nodes.values())}
        self._present = list(self._nodes)
        texts = {site: parcel(introduced[site].content).texts for site in self._nodes}
        self.refused = {site: str(said[REFUSED]) for site, said in texts.items() if REFUSED in said}
        self.answered = {site: {"query.site"} for site in self._nodes if site not in self.refused}
        self._journal = journal
        self.introductions: Mapping[str, Mapping[str, int]] = {
            site: {name: int(str(count)) for name, count in parcel(introduced[site].content).numbers.items()}
            for site in self._nodes
        }

    @property
    def sites(self) -> list[str]:
        """The sites that take part, in order."""
        return list(self._present)

    def place(self, node: int) -> int:
        """Where a node stands in the order of the sites' names."""
        return self._order[node]

    def keep(self, sites: Iterable[str]) -> None:
        """Let only these sites take part from now on."""
        kept = set(sites)
        self._present = [site for site in self._nodes if site in kept]

    def travels(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Name the model: outgoing arrays of these names are narrowed to these types."""
        self._types = {name: value.dtype for name, value in arrays.items()}

    def name(self, node: int) -> str:
        """The site that a node is."""
        return self._names[node]

    def node(self, site: str) -> int:
        """The node that a site is."""
        return self._nodes[site]

    def narrow(self, arrays: ArrayRecord) -> dict[str, np.ndarray]:
        """A model as the sites get it."""
        return {name: as_type(unpacked(value), self._types[name]) for name, value in arrays.items()}

    def suffers(self, faults: Faults) -> None:
        """Let this go wrong from now on, on purpose."""
        self._faults = faults

    def let_go(self) -> None:
        """Leave the rounds to the strategy: they are counted by its requests to train, and none is journaled."""
        self._journal, self._counting = None, True

    def trained(self) -> dict[str, int]:
        """The sites that have trained in this trial, and in which round last."""
        return {
            site: number for (trial, site), number in self._trained.items() if self._turn and trial == self._turn.trial
        }

    def begin(self, turn: Turn) -> None:
        """Tell the sites of this trial from now on; who makes it raises its rounds."""
        self._turn = turn
        self.failing = {}

    def ask(self, action: str, config: Mapping[str, str]) -> tuple[dict[str, RecordDict], dict[str, str]]:
        """Put one query to every site that takes part.

        Returns:
            The answers by site, in order; and of those who failed, why.
        """
        content = RecordDict({"config": ConfigRecord(dict(config))})
        asked = [Message(content, dst_node_id=self._nodes[site], message_type=action) for site in self._present]
        answers: dict[str, RecordDict] = {}
        failed: dict[str, str] = {}
        for reply in self.send_and_receive(asked):
            site = self._names[reply.metadata.src_node_id]
            if reply.has_error():
                failed[site] = reply.error.reason or "no reason given"
            else:
                answers[site] = reply.content
        return answers, failed

    def exchange(self, messages: Iterable[Message]) -> list[Message]:
        """Send, wait for all, and return the replies that count; the others are noted in `dropped`."""
        return [reply for reply in self.send_and_receive(messages) if not reply.has_error()]

    def set_run(self, run: Run) -> None:
        """See `flwr.serverapp.Grid`."""
        self._inner.set_run(run)

    @property
    def run(self) -> Run:
        """See `flwr.serverapp.Grid`."""
        return self._inner.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """See `flwr.serverapp.Grid`."""
        return self._inner.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """The nodes of the sites that can be reached, in the order of the sites' names."""
        away = self._away()
        return [self._nodes[site] for site in self._present if site not in away]

    def _away(self) -> frozenset[str]:
        """Who cannot be reached in this round."""
        if self._faults is None or self._turn is None:
            return frozenset()
        number = self._turn.round
        if number not in self._absent:
            self._absent = {number: self._faults.absent(number)}
        return self._absent[number]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """See `flwr.serverapp.Grid`."""
        return self._inner.push_messages(self._outgoing(messages))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """See `flwr.serverapp.Grid`; the replies stand in site order."""
        return self._incoming(self._inner.pull_messages(message_ids))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """See `flwr.serverapp.Grid`.

        The replies stand in site order; one that does not count (the site failed, or sent what may not leave it, or
        what is no model) is an error, and is noted in `dropped`.

        Raises:
            CheckpointError: the journal is of another federation, or a site has lost its memory.
            StorageError: what was answered, or what a site is to remember, cannot be written.
        """
        sent = [message for message in self._outgoing(messages) if self._reachable(message)]
        if not sent:
            return []
        action = sent[0].metadata.message_type
        names = [self._names[message.metadata.dst_node_id] for message in sent]
        answers = self._journal.next(action, names) if self._journal else None
        if answers is not None:
            replies = [_replayed(message, answer) for message, answer in zip(sent, answers, strict=True)]
        else:
            replies = list(self._inner.send_and_receive(sent, timeout=timeout))
            answered = {reply.metadata.src_node_id: reply for reply in replies}
            late = "no answer in time"
            replies = [answered.get(m.metadata.dst_node_id) or _error(m, late) for m in sent]
            if self._journal and not any(_memory_fails(reply) for reply in replies):
                self._journal.append(action, [self._answer(reply) for reply in replies])
        return self._incoming(replies)

    def _reachable(self, message: Message) -> bool:
        """Whether a message is delivered; a strategy that does not look who is there may ask who is away."""
        site = self._names[message.metadata.dst_node_id]
        if site not in self._away():
            return True
        self.note(site, message.metadata.message_type, "cannot be reached")
        return False

    def waited(self, messages: Iterable[Message]) -> float:
        """The simulated seconds that the coordinator waits for the slowest of those it asks in this round."""
        if self._faults is None or self._turn is None:
            return 0.0
        return self._faults.wait([self._names[m.metadata.dst_node_id] for m in messages], self._turn.round)

    def _answer(self, reply: Message) -> Answer:
        site = self._names[reply.metadata.src_node_id]
        return Answer(site, None, reply.error.reason) if reply.has_error() else Answer(site, reply.content)

    def _terms(self, node: int) -> ConfigRecord:
        turn = self._turn
        if turn is None:
            return ConfigRecord({"federation": self._federation})
        return ConfigRecord(
            {
                "federation": self._federation,
                "trial": turn.trial,
                "seed": turn.seed,
                "setting": turn.setting,
                "round": turn.round,
                "best-round": turn.best_round,
                "last-round": self._trained.get((turn.trial, self._names[node]), 0),
            }
        )

    def _outgoing(self, messages: Iterable[Message]) -> list[Message]:
        sent = sorted(messages, key=lambda message: self._order[message.metadata.dst_node_id])
        if self._counting and self._turn and sent and sent[0].metadata.message_type == "train":
            self._turn.round += 1
        done: dict[int, tuple[RecordDict, dict[str, np.ndarray]]] = {}  # strategies send one record to all
        for message in sent:
            key = id(message.content)
            if key not in done:
                content = converted(message.content, self._types, make=narrowed)
                done[key] = content, dict(parcel(content).arrays)
            node = message.metadata.dst_node_id
            content, self._sent[node] = done[key]
            message.content = RecordDict({**content, TERMS: self._terms(node)})
            self._requests[node] = message
            self.bytes_down += payload_bytes(message.content)
        return sent

    def _incoming(self, messages: Iterable[Message]) -> list[Message]:
        replies = sorted(messages, key=lambda reply: self._order[reply.metadata.src_node_id])
        wide = {name: np.dtype(np.float64) for name, dtype in self._types.items() if dtype.kind == "f"}
        for reply in replies:
            if reply.metadata.message_type in TRAINS:
                site = self._names[reply.metadata.src_node_id]
                self.failing.pop(site, None)
                if reply.has_error():
                    self.failing[site] = reply.error.reason or "no reason given"
        return [self._counted(reply, wide) for reply in replies]

    def _counted(self, reply: Message, wide: Mapping[str, np.dtype[np.generic]]) -> Message:
        """The reply as a strategy gets it, or the error that it is."""
        site, action = self._names[reply.metadata.src_node_id], reply.metadata.message_type
        turn = self._turn
        if reply.has_error():
            if _memory_fails(reply):
                kind = CheckpointError if reply.error.code == MEMORY_LOST else StorageError
                raise kind(f"site {site}: {reply.error.reason}")
            return self._drop(reply, reply.error.reason or "no reason given")
        if action in TRAINS and turn is not None:
            self._trained[turn.trial, site] = turn.round
        if _says_something(action, reply.content):
            self.answered.setdefault(site, set()).add(action)
        self.bytes_up += payload_bytes(reply.content)
        sent = self._sent.get(reply.metadata.src_node_id, {})
        if self._faults is not None and turn is not None:
            struck = self._struck(self._faults, turn, site, action, sent, reply.content)
            if isinstance(struck, Lost):
                return self._drop(reply, struck.reason)
            reply.content = struck
        arrived = parcel(reply.content)
        try:
            releases.check(action, arrived, sent)
        except ReleaseError as error:
            return self._drop(reply, str(error))
        if action == "evaluate" and arrived.numbers["num-examples"] == 0:  # a mean over such replies divides by 0
            return _error(self._requests[reply.metadata.src_node_id], "too few tuning patients to tell of")
        if self._watch is not None and action == "train" and turn is not None:
            self._watch(Passed(turn.trial, turn.round, site, self._model(sent), self._model(arrived.arrays)))
        reply.content = converted(reply.content, wide, make=Widened)
        return reply

    def _model(self, arrays: Arrays) -> Arrays:
        return {name: arrays[name] for name in self._types if name in arrays}

    def _struck(
        self, faults: Faults, turn: Turn, site: str, action: str, sent: Arrays, content: RecordDict
    ) -> RecordDict | Lost:
        """What arrives of a reply."""
        history = self._history.setdefault((turn.trial, site), {})
        arrays = parcel(content).arrays
        sent = {name: value for name, value in sent.items() if name in self._types}  # what stands beside is an update
        arrives = faults.apply(site, turn.round, action, sent, arrays, history)
        if action == "train" and faults.memory:
            history[turn.round] = arrays
            for old in [number for number in history if number <= turn.round - faults.memory]:
                del history[old]
        return arrives if isinstance(arrives, Lost) else with_arrays(content, arrives)

    def note(self, site: str, action: str, reason: str) -> None:
        """Note an answer that does not count, and why."""
        if self._turn is not None:
            self.dropped.append(Dropped(self._turn.trial, self._turn.round, site, action, reason))

    def _drop(self, reply: Message, reason: str) -> Message:
        self.note(self._names[reply.metadata.src_node_id], reply.metadata.message_type, reason)
        code = reply.error.code if reply.has_error() else ErrorCode.UNKNOWN
        return Message(Error(code, reason), reply_to=self._requests[reply.metadata.src_node_id])


def _says_something(action: str, content: RecordDict) -> bool:
    """Whether a reply tells anything of patients: no sketch and a loss over nobody do not."""
    told = parcel(content)
    if action == "evaluate":
        return told.numbers.get("num-examples") != 0
    return bool(told.arrays) if action == "query.statistics" else action not in SILENT


def _memory_fails(reply: Message) -> bool:
    """Whether nothing can go on, and the next attempt has to find out anew."""
    return reply.has_error() and reply.error.code in (MEMORY_LOST, SHORTAGE)


def _replayed(message: Message, answer: Answer) -> Message:
    if answer.content is None:
        return _error(message, answer.error or "no answer")
    return Message(answer.content, reply_to=message)


def _error(message: Message, reason: str) -> Message:
    return Message(Error(ErrorCode.UNKNOWN, reason), reply_to=message)


@contextmanager
def seeded_sampling(seed: int) -> Iterator[None]:
    """The global generators that a strategy may draw from, seeded inside and as they were outside.

    Python's `random`, from which Flower's strategies sample nodes, and numpy's, from which Flower and others add noise.
    """
    before, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002 - it is others who draw from it
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(numpys)  # noqa: NPY002
