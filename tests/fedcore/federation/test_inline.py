"""The Grid all engines share, and the engine in this process."""

import logging
import random
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Strategy
from flwr.supercore.task_identity import TaskIdentity

from fedcore.engines import inline
from fedcore.engines.grid import SiteGrid, seeded_sampling
from fedcore.engines.inline import InlineGrid
from fedcore.engines.parcels import parcel, payload_bytes, record
from fedcore.errors import FederationError
from fedcore.rule import Roster
from fedcore.strategies import strategy

SITES = ["cairo", "amman", "bern"]
WEIGHTS = {"amman": 30, "bern": 110, "cairo": 70}


def _app(sites: list[str] = SITES) -> ClientApp:
    """Sites that add a number of their own to what they get, and count their calls."""
    app = ClientApp()

    def name(context: Context) -> str:
        return sites[int(str(context.node_config["partition-id"]))]

    @app.query("site")
    def site(message: Message, context: Context) -> Message:
        numbers = MetricRecord({"train": 30, "tuning": 0, "tuning-events": 0, "tuning-non-events": 0})
        return Message(
            RecordDict({"metrics": numbers, "config": ConfigRecord({"site": name(context)})}), reply_to=message
        )

    @app.train()
    def train(message: Message, context: Context) -> Message:
        calls = int(str(context.state.config_records.get("calls", {"n": 0})["n"])) + 1
        context.state["calls"] = ConfigRecord({"n": calls})
        own = np.random.default_rng(len(name(context)) * 1000 + ord(name(context)[0]) + calls)
        arrays = {
            key: (value + own.normal(size=value.shape)).astype(value.dtype)
            for key, value in parcel(message.content).arrays.items()
        }
        weight = WEIGHTS[name(context)]
        numbers = MetricRecord({"num-examples": weight, "loss-weight": 10, "loss-sum": float(calls), "steps": 4})
        return Message(RecordDict({"arrays": record(arrays), "metrics": numbers}), reply_to=message)

    return app


class Backwards(InlineGrid):
    """An engine whose replies arrive in the wrong order."""

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return list(reversed(list(super().pull_messages(message_ids))))


def _run(use: Any, sites: list[str] = SITES, grid: type[InlineGrid] = InlineGrid) -> Any:
    """What `use` returns of a Grid in a running federation."""
    out: list[Any] = []
    server = ServerApp()

    @server.main()
    def main(inner: Grid, context: Context) -> None:
        out.append(use(grid(_app(sites), len(sites))))

    inline.run(server, _app(sites), len(sites))
    return out[0]


def _fedavg(sites: int) -> Strategy:
    return strategy.load("fedavg").build(Roster(sites=sites, samples=210), {})


def _average(inner: Grid) -> dict[str, np.ndarray]:
    """Three rounds of FedAvg of a float32 model."""
    grid = SiteGrid(inner)
    start = {"w": np.linspace(0, 1, 1000, dtype=np.float32), "n": np.array(5), "b": np.float32([3.0])}
    grid.travels(start)
    arrays: ArrayRecord = record(start)
    fedavg = _fedavg(len(grid.sites))
    for number in (1, 2, 3):
        asked = fedavg.configure_train(number, arrays, ConfigRecord(), grid)
        arrays = fedavg.aggregate_train(number, grid.exchange(asked))[0]
        assert {value.dtype for value in arrays.values()} == {"float64"}
    return grid.narrow(arrays)


def test_sites_stand_in_the_order_of_their_names() -> None:
    assert _run(lambda inner: SiteGrid(inner).sites) == ["amman", "bern", "cairo"]
    assert _run(lambda inner: list(SiteGrid(inner).get_node_ids())) == [2, 3, 1]


def test_neither_the_order_of_sites_nor_of_replies_changes_a_bit() -> None:
    reference = _run(_average)
    for sites, grid in [(sorted(SITES), InlineGrid), (SITES[::-1], InlineGrid), (SITES, Backwards)]:
        again = _run(_average, sites, grid)
        assert {key: value.tobytes() for key, value in again.items()} == {
            key: value.tobytes() for key, value in reference.items()
        }


def test_a_model_keeps_its_types_and_shapes_over_rounds() -> None:
    arrays = _run(_average)
    assert {name: (value.dtype.name, value.shape) for name, value in arrays.items()} == {
        "w": ("float32", (1000,)),
        "n": ("int64", ()),
        "b": ("float32", (1,)),
    }


def test_the_average_is_taken_in_float64() -> None:
    def once(inner: Grid) -> tuple[np.ndarray, list[np.ndarray], list[int]]:
        grid = SiteGrid(inner)
        start = {"w": np.linspace(0, 1, 1000, dtype=np.float32)}
        grid.travels(start)
        fedavg = _fedavg(3)
        replies = grid.exchange(fedavg.configure_train(1, record(start), ConfigRecord(), grid))
        sent = [parcel(reply.content).arrays["w"] for reply in replies]
        averaged = fedavg.aggregate_train(1, replies)[0]
        return averaged["w"].numpy(), sent, [WEIGHTS[site] for site in grid.sites]

    averaged, sent, weights = _run(once)
    exact = sum(np.longdouble(w) * value for w, value in zip(weights, sent, strict=True)) / np.longdouble(sum(weights))
    assert all(np.array_equal(value, value.astype(np.float32)) for value in sent)
    np.testing.assert_allclose(averaged, exact.astype(np.float64), rtol=1e-14, atol=1e-15)


def test_bytes_are_those_of_the_messages() -> None:
    def count(inner: Grid) -> tuple[int, int, int, int]:
        grid = SiteGrid(inner)
        up, down = grid.bytes_up, grid.bytes_down
        start = {"w": np.zeros(1000, np.float32)}
        grid.travels(start)
        fedavg = _fedavg(3)
        grid.exchange(fedavg.configure_train(1, record(start), ConfigRecord({"trial": 1}), grid))
        return up, down, grid.bytes_up - up, grid.bytes_down - down

    up, down, up_train, down_train = _run(count)
    header = 128  # of numpy's format
    array = header + 4000 + len("w")
    terms = len("federation") + len("000")
    assert down == 3 * terms
    assert up == sum(4 * 8 + len("traintuningtuning-eventstuning-non-events") + len("site") + len(s) for s in SITES)
    assert down_train == 3 * (array + len("trial") + 8 + len("server-round") + 8 + terms)
    assert up_train == 3 * (array + 4 * 8 + len("num-examplesloss-weightloss-sumsteps"))
    assert payload_bytes(RecordDict({"m": MetricRecord({"ab": 1})})) == 10


def test_a_single_site_does_not_wait_for_a_second() -> None:
    assert set(_run(_average, ["bern"])) == {"w", "n", "b"}


def test_two_sites_of_one_name_are_refused() -> None:
    with pytest.raises(FederationError, match="2 nodes give 1 site names"):
        _run(SiteGrid, ["bern", "bern"])


def test_a_site_left_out_is_out_of_sight_of_the_strategy() -> None:
    def kept(inner: Grid) -> list[int]:
        grid = SiteGrid(inner)
        grid.keep(["cairo", "amman"])
        asked = _fedavg(2).configure_train(1, ArrayRecord(), ConfigRecord(), grid)
        return sorted(message.metadata.dst_node_id for message in asked)

    assert _run(kept) == [1, 2]


def test_client_state_lives_through_rounds_and_dies_with_the_federation() -> None:
    def calls(inner: Grid) -> list[float]:
        grid = SiteGrid(inner)
        fedavg = _fedavg(3)
        return [
            float(
                str(
                    fedavg.aggregate_train(
                        n, grid.exchange(fedavg.configure_train(n, record({"w": np.zeros(1)}), ConfigRecord(), grid))
                    )[1]["loss-sum"]
                )
            )
            for n in (1, 2)
        ]

    assert _run(calls) == _run(calls) == [1.0, 2.0]


def test_what_strategies_draw_is_seeded_and_the_global_generators_left_as_found() -> None:
    random.seed(99)
    np.random.seed(99)  # noqa: NPY002
    before, numpys = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    drawn = []
    for _ in range(2):
        with seeded_sampling(2**40 + 4):
            drawn.append((random.sample(range(100), 5), np.random.normal(size=3).tolist()))  # noqa: NPY002
    assert drawn[0] == drawn[1]
    assert random.getstate() == before
    assert np.random.get_state()[1].tolist() == numpys  # noqa: NPY002


def test_flower_is_left_as_found() -> None:
    level = logging.getLogger("flwr").level
    with pytest.raises(FederationError):
        _run(SiteGrid, ["bern", "bern"])
    assert logging.getLogger("flwr").level == level
    with pytest.raises(RuntimeError, match="not set"):
        _ = TaskIdentity.run_id


def test_pushed_messages_are_pulled_once() -> None:
    def push_and_pull(inner: Grid) -> tuple[int, int]:
        grid = SiteGrid(inner)
        ids = list(grid.push_messages([grid.create_message(RecordDict(), "query.site", 1, "")]))
        return len(list(grid.pull_messages(ids))), len(list(grid.pull_messages(ids)))

    assert _run(push_and_pull) == (1, 0)
