"""The engine of the grid: the whole federation in this process, one site after another."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

SERVER_NODE = 1
RUN = 1


class InlineGrid(Grid):
    """Delivers messages by calling the ClientApp. Nodes are 1..K; each has a Context that lives as long as the Grid.

    Args:
        app: the sites' app.
        sites: number of sites K.
    """

    def __init__(self, app: ClientApp, sites: int) -> None:
        self._app = app
        self._contexts = {
            node: Context(
                run_id=RUN,
                node_id=node,
                node_config={"partition-id": node - 1, "num-partitions": sites},
                state=RecordDict(),
                run_config={},
            )
            for node in range(1, sites + 1)
        }
        self._replies: dict[str, Message] = {}
        self._sent = 0
        self._run = Run.create_empty(RUN)

    def set_run(self, run: Run) -> None:
        """See `flwr.serverapp.Grid`."""
        self._run = run

    @property
    def run(self) -> Run:
        """See `flwr.serverapp.Grid`."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """See `flwr.serverapp.Grid`."""
        return Message(content, dst_node_id=dst_node_id, message_type=message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Nodes 1..K."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Deliver, run the sites, and keep their replies until they are pulled."""
        ids = []
        for message in messages:
            self._sent += 1
            name = str(self._sent)
            self._replies[name] = self._delivered(message)
            ids.append(name)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies; each can be pulled once."""
        return [self._replies.pop(name) for name in message_ids if name in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push and pull; nothing is waited for, so `timeout` cannot run out."""
        return self.pull_messages(self.push_messages(messages))

    def _delivered(self, message: Message) -> Message:
        """The site's reply to its own copy of the message."""
        message.content = RecordDict(
            {
                key: ConfigRecord(dict(entry)) if isinstance(entry, ConfigRecord) else entry
                for key, entry in message.content.items()
            }
        )
        return self._app(message, self._contexts[message.metadata.dst_node_id])


def run(server: ServerApp, client: ClientApp, sites: int) -> None:
    """Run a federation to its end in this process.

    Args:
        server: its `main` gets the Grid.
        client: answers for all sites; `context.node_config["partition-id"]` (0..K-1) says for which.
        sites: their number K.
    """
    with _task(), _quiet():
        context = Context(run_id=RUN, node_id=SERVER_NODE, node_config={}, state=RecordDict(), run_config={})
        server(InlineGrid(client, sites), context)


@contextmanager
def _task() -> Iterator[None]:
    """Flower 1.41 stamps each message with the identity of the running task; outside its own processes none is set."""
    identity: Any = TaskIdentity
    names: Sequence[str] = ("_task_id", "_run_id", "_node_id")
    before = {name: getattr(identity, name) for name in names}
    identity.task_id, identity.run_id, identity.node_id = 1, RUN, SERVER_NODE
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(identity, name, value)


@contextmanager
def _quiet() -> Iterator[None]:
    """Strategies log each step to the terminal; progress is the caller's to show."""
    logger = logging.getLogger("flwr")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
