"""The Grid all engines share: it makes one federation the same, bit for bit, in each of them.

It stands between Flower's strategies and an engine's own Grid. Nodes and replies stand in the order of the sites'
names, whatever ids an engine gives them and whichever answers first; what goes out is narrowed to the model's types,
what comes back is widened to float64 before a strategy adds it up; every reply is held against the schema of its
action; bytes are counted.
"""

import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedcore.engines.parcels import parcel, payload_bytes
from privacy.releases import messages as releases
from privacy.releases.sketches import ReleaseError


class FederationError(RuntimeError):
    """A federation cannot go on: one sentence."""


class SiteGrid(Grid):
    """A Grid whose nodes are hospitals in the order of their names.

    Args:
        inner: the engine's Grid.

    Attributes:
        bytes_down: payload sent to the sites so far (`fedcore.engines.parcels.payload_bytes`).
        bytes_up: payload of what the sites sent, before it is widened.

    Raises:
        FederationError: two nodes give the same site name.
    """

    def __init__(self, inner: Grid) -> None:
        self._inner = inner
        self._types: dict[str, np.dtype[np.generic]] = {}
        self._sent: dict[int, dict[str, np.ndarray]] = {}
        self.bytes_down = 0
        self.bytes_up = 0
        self._nodes: dict[str, int] = {}
        nodes = list(inner.get_node_ids())
        self._order = {node: place for place, node in enumerate(nodes)}
        asked = [Message(RecordDict(), dst_node_id=node, message_type="query.site") for node in nodes]
        replies = self.exchange(asked)
        introduced = {str(parcel(reply.content).texts["site"]): reply for reply in replies}
        if len(introduced) != len(nodes):
            raise FederationError(f"{len(nodes)} nodes give {len(introduced)} site names; expected one name for each")
        self._nodes = {site: introduced[site].metadata.src_node_id for site in sorted(introduced)}
        self._order = {node: place for place, node in enumerate(self._nodes.values())}
        self._present = list(self._nodes)
        self.introductions: Mapping[str, Mapping[str, int]] = {
            site: {name: int(str(count)) for name, count in parcel(introduced[site].content).numbers.items()}
            for site in self._nodes
        }

    @property
    def sites(self) -> list[str]:
        """The sites that take part, in order."""
        return list(self._present)

    def keep(self, sites: Iterable[str]) -> None:
        """Let only these sites take part from now on."""
        kept = set(sites)
        self._present = [site for site in self._nodes if site in kept]

    def travels(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Name the model: outgoing arrays of these names are narrowed to these types."""
        self._types = {name: value.dtype for name, value in arrays.items()}

    def narrow(self, arrays: ArrayRecord) -> dict[str, np.ndarray]:
        """A model as the sites get it."""
        return {name: _as_type(value.numpy(), self._types[name]) for name, value in arrays.items()}

    def ask(self, action: str, config: Mapping[str, str]) -> dict[str, RecordDict]:
        """Put one query to every site that takes part; the answers by site, in order.

        Raises:
            FederationError: a site could not answer.
        """
        content = RecordDict({"config": ConfigRecord(dict(config))})
        asked = [Message(content, dst_node_id=self._nodes[site], message_type=action) for site in self._present]
        replies = self.exchange(asked)
        return dict(zip(self._present, (reply.content for reply in replies), strict=True))

    def exchange(self, messages: Iterable[Message]) -> list[Message]:
        """Send, wait for all, and demand that all sites answered.

        Raises:
            FederationError: a site failed.
        """
        replies = list(self.send_and_receive(messages))
        for reply in replies:
            if reply.has_error():
                raise FederationError(f"{self._name(reply.metadata.src_node_id)}: {reply.error.reason}")
        return replies

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
        """The nodes of the sites that take part, in the order of the sites' names."""
        return [self._nodes[site] for site in self._present]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """See `flwr.serverapp.Grid`."""
        return self._inner.push_messages(self._outgoing(messages))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """See `flwr.serverapp.Grid`; the replies stand in site order."""
        return self._incoming(self._inner.pull_messages(message_ids))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """See `flwr.serverapp.Grid`; the replies stand in site order."""
        return self._incoming(self._inner.send_and_receive(self._outgoing(messages), timeout=timeout))

    def _name(self, node: int) -> str:
        return next((f"site {site}" for site, its in self._nodes.items() if its == node), f"node {node}")

    def _outgoing(self, messages: Iterable[Message]) -> list[Message]:
        sent = sorted(messages, key=lambda message: self._order[message.metadata.dst_node_id])
        done: dict[int, tuple[RecordDict, dict[str, np.ndarray]]] = {}  # strategies send one record to all
        for message in sent:
            key = id(message.content)
            if key not in done:
                content = _converted(message.content, self._types)
                done[key] = content, dict(parcel(content).arrays)
            message.content, self._sent[message.metadata.dst_node_id] = done[key]
            self.bytes_down += payload_bytes(message.content)
        return sent

    def _incoming(self, messages: Iterable[Message]) -> list[Message]:
        replies = sorted(messages, key=lambda reply: self._order[reply.metadata.src_node_id])
        wide = {name: np.dtype(np.float64) for name, dtype in self._types.items() if dtype.kind == "f"}
        for reply in replies:
            if reply.has_error():
                continue
            sent = self._sent.get(reply.metadata.src_node_id, {})
            try:
                releases.check(reply.metadata.message_type, parcel(reply.content), sent)
            except ReleaseError as error:
                raise FederationError(f"{self._name(reply.metadata.src_node_id)}: {error}") from error
            self.bytes_up += payload_bytes(reply.content)
            reply.content = _converted(reply.content, wide)
        return replies


@contextmanager
def seeded_sampling(seed: int) -> Iterator[None]:
    """Python's `random`, from which Flower's strategies sample nodes, seeded inside and as it was outside."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


def _converted(content: RecordDict, types: Mapping[str, np.dtype[np.generic]]) -> RecordDict:
    """The content with the arrays named in `types` of those types; untouched records are the same objects."""

    def convert(name: str, value: Array) -> Array:
        dtype = types.get(name)
        return value if dtype is None or value.dtype == dtype.name else Array(_as_type(value.numpy(), dtype))

    return RecordDict(
        {
            key: ArrayRecord({name: convert(name, value) for name, value in entry.items()})
            if isinstance(entry, ArrayRecord)
            else entry
            for key, entry in content.items()
        }
    )


def _as_type(value: np.ndarray, dtype: np.dtype[np.generic]) -> np.ndarray:
    return np.asarray(np.rint(value) if dtype.kind in "iu" else value).astype(dtype, copy=False)
