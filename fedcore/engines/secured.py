"""The coordinator's side of secure aggregation: the four stages of a round, put to the sites that a strategy asks.

For the strategy a round looks as if one site had answered: the weighted mean of all of them, their weights in all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from fedcore.engines.grid import SiteGrid, Turn
from fedcore.engines.parcels import parcel, plain, record
from fedcore.secure import BOUND, SECURE, fixed_point
from privacy.secagg.coordinator import Coordinator, majority
from privacy.secagg.errors import NoSumError, WrongShareError
from privacy.secagg.fixed_point import Mean

MASK = "train.masked"


class Summed(NamedTuple):
    """What a strategy gets: one reply, or none; and the sites it stands for."""

    replies: list[Message]
    sites: int


@dataclass(frozen=True)
class SecuredSums:
    """What was summed in a federation.

    Attributes:
        sums: how many were learnt.
        threshold: so many sites had to stay to the end, at least; 0: there was no round.
        fewest: the fewest sites in a sum that was learnt; 0: there was none.
        bytes_up: payload of the sites' answers in all stages.
        bytes_down: payload of what they were sent.
    """

    sums: int = 0
    threshold: int = 0
    fewest: int = 0
    bytes_up: int = 0
    bytes_down: int = 0


class Secured:
    """Secure aggregation in one federation.

    Args:
        grid: the sites.
        weight: the largest weight of one.
        bound: the largest number that a model may hold; None: `fedcore.secure.BOUND`.

    Attributes:
        sums: what was summed so far.
    """

    def __init__(self, grid: SiteGrid, weight: int, bound: float | None = None) -> None:
        self._grid = grid
        self._weight = weight
        self._bound = BOUND if bound is None else bound
        self.sums = SecuredSums()

    def exchange(self, turn: Turn, messages: Sequence[Message]) -> Summed:
        """Put a strategy's requests to train to its sites; what is learnt of their answers is the weighted mean.

        Sites that leave are noted on the grid; if too few are left, so are those who stayed, with the reason.
        """
        up, down = self._grid.bytes_up, self._grid.bytes_down
        asked = {self._grid.name(message.metadata.dst_node_id): message for message in messages}
        there: list[str] = []
        threshold = majority(len(asked))
        try:
            mean = self._mean(f"{turn.trial}/{turn.round}", threshold, asked, there)
        except NoSumError as error:
            for site in there:
                self._grid.note(site, MASK, str(error))
            return Summed([], 0)
        finally:
            before = self.sums
            self.sums = replace(
                before,
                threshold=min(before.threshold or threshold, threshold),
                bytes_up=before.bytes_up + self._grid.bytes_up - up,
                bytes_down=before.bytes_down + self._grid.bytes_down - down,
            )
        fewest = min(self.sums.fewest or len(there), len(there))
        self.sums = replace(self.sums, sums=self.sums.sums + 1, fewest=fewest)
        return Summed([_reply(next(iter(asked.values())), mean)], len(there))

    def _mean(self, name: str, threshold: int, asked: Mapping[str, Message], there: list[str]) -> Mean:
        """The four stages of the round of that name; `there` comes to hold whom the sum is of, or who stayed last.

        Raises:
            NoSumError: too few sites are left, or what they say does not fit together.
        """
        coordinator = Coordinator(name.encode(), threshold)
        numbers: dict[str, Any] = {"most": len(asked), "weight": self._weight, "bound": self._bound}

        def put(action: str, each: Mapping[str, Mapping[str, Any]]) -> dict[str, np.ndarray]:
            contents = {
                site: {
                    **(asked[site].content if action == MASK else {}),
                    SECURE: ConfigRecord({"round": name, **record}),
                }
                for site, record in each.items()
            }
            replies = self._grid.exchange(
                Message(RecordDict(content), dst_node_id=self._grid.node(site), message_type=action)
                for site, content in contents.items()
            )
            there[:] = [self._grid.name(reply.metadata.src_node_id) for reply in replies]
            return {
                site: next(iter(parcel(reply.content).arrays.values()))
                for site, reply in zip(there, replies, strict=True)
            }

        keys = put("query.advertise", {site: {} for site in asked})
        roster = coordinator.roster({site: value.tobytes() for site, value in keys.items()})
        listed = {"sites": list(roster), "keys": list(roster.values()), "threshold": threshold}
        rows = put("query.share", dict.fromkeys(roster, listed))
        delivered = coordinator.deliver(
            {site: _named(value, [other for other in roster if other != site]) for site, value in rows.items()}
        )
        masked = put(
            MASK,
            {
                site: {"sites": list(sealed), "sealed": list(sealed.values()), **numbers}
                for site, sealed in delivered.items()
            },
        )
        for site, words in masked.items():
            coordinator.add(site, words)
        survivors = coordinator.survivors()
        told = put("query.unmask", {site: {"sites": survivors} for site in survivors})
        total = coordinator.total({site: _named(value, list(delivered)) for site, value in told.items()})
        mean = fixed_point(numbers).decode(total, len(survivors))
        there[:] = survivors
        return mean


def _named(rows: np.ndarray, sites: Sequence[str]) -> dict[str, bytes]:
    if len(rows) != len(sites):
        raise WrongShareError(f"a site answered with {len(rows)} contents for {len(sites)} sites")
    return {site: row.tobytes() for site, row in zip(sites, rows, strict=True)}


def _reply(request: Message, mean: Mean) -> Message:
    """The mean as the reply of one site of all their weight."""
    (key, sent), *_ = request.content.array_records.items()
    arrays, at = {}, 0
    for name, value in plain(sent).items():
        arrays[name] = mean.values[at : at + value.size].reshape(value.shape)
        at += value.size
    loss, weight = mean.values[at:] * mean.weight
    numbers = {"num-examples": mean.weight, "loss-weight": round(weight), "loss-sum": float(loss), "steps": 1}
    return Message(RecordDict({key: record(arrays), "metrics": MetricRecord(numbers)}), reply_to=request)
