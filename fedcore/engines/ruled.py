"""A rule as a Flower strategy: FedAvg in all but what goes out beside the model and how replies are combined."""

from collections.abc import Iterable, Mapping

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from fedcore.engines.parcels import plain, record
from fedcore.rule import Reply, Roster, Rule


class RuledStrategy(FedAvg):
    """Asks and combines as a `fedcore.rule.Rule` says."""

    def __init__(self, rule: Rule, roster: Roster) -> None:
        super().__init__(**roster.flower())
        self._rule = rule
        self._sent: dict[str, np.ndarray] = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """FedAvg's messages to the sites that the rule asks, with the rule's records beside the model."""
        self._sent = _arrays(arrays)
        drawn = {
            message.metadata.dst_node_id: message
            for message in super().configure_train(server_round, arrays, config, grid)
        }
        in_order = [node for node in grid.get_node_ids() if node in drawn]  # ids differ from engine to engine
        asked = [drawn[node] for node in self._rule.ask(server_round, in_order)]
        beside = {name: record(beside) for name, beside in self._rule.beside(self._sent).items()}
        content = RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: config, **beside})
        for message in asked:
            message.content = content
        return asked

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The rule's next model."""
        answered = [reply_of(message, self.arrayrecord_key) for message in replies if not message.has_error()]
        if not answered:
            return None, None
        return record(self._rule.combine(self._sent, answered)), MetricRecord()


def reply_of(message: Message, key: str = "arrays") -> Reply:
    """A site's answer to `train`.

    Args:
        message: the answer.
        key: the record that holds the model.
    """
    content = message.content
    numbers: Mapping[str, object] = next(iter(content.metric_records.values()))
    return Reply(
        site=message.metadata.src_node_id,
        arrays=_arrays(content.array_records[key]),
        samples=int(str(numbers["num-examples"])),
        steps=int(str(numbers["steps"])),
        beside={name: _arrays(beside) for name, beside in content.array_records.items() if name != key},
    )


def _arrays(beside: ArrayRecord) -> dict[str, np.ndarray]:
    return plain(beside)
