"""Secure aggregation beside Flower's SecAgg+: `python sums.py PARAMETERS SITES` prints JSON.

Both add up one round of float32 vectors, weighted, with every site a neighbour of every other, in one process, message
by message, from the coordinator's first message to the mean. Nobody trains: a site's vector is there before. Flower's
`SecAggPlusWorkflow` speaks with `secaggplus_mod` over a Grid that calls it, and hands its strategy the mean; ours is
`Secured.exchange` with the sites' app behind the hospital's wall, over the inline engine, in the same way. `protocol`
is ours without Flower's messages. Bytes are those of the messages' contents as each side counts its records.
"""

import gc
import json
import logging
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common import Code, FitIns, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from process import measured

from fedcore.client import wall
from fedcore.engines.grid import TERMS, SiteGrid, Turn
from fedcore.engines.inline import InlineGrid, _task
from fedcore.engines.parcels import payload_bytes, record
from fedcore.engines.secured import Secured
from fedcore.local import Update
from fedcore.memory import SiteMemory
from fedcore.secure import secure_actions
from privacy.secagg.coordinator import Coordinator, majority
from privacy.secagg.fixed_point import FixedPoint
from privacy.secagg.participant import Participant

TURNS = 7
WEIGHT, RANGE = 1000, 8.0
"""Flower's defaults: the largest weight, and the largest absolute value, beyond which it clips."""


def section(folder: Path, home: Path) -> dict[str, Any]:
    """A million parameters over eight sites."""
    return measured(home, "sums.py", "1000000", "8")


def lines(report: dict[str, Any]) -> list[str]:
    """The table of the page."""
    flower = report["flower"]["ms"]
    out = [
        f"| one secure sum of {report['parameters']:,} parameters over {report['sites']} sites | ms | Flower's SecAgg+ "
        "over it | bytes up | bytes down | largest error |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    names = {
        "flower": "Flower's SecAgg+, workflow and mod",
        "ours": "ours, coordinator and sites' app, 64 bits",
        "protocol64": "ours, the protocol alone, 64 bits",
        "protocol32": "ours, the protocol alone, 32 bits",
    }
    for key, name in names.items():
        each = report[key]
        up, down = (f"{each[way]:,}" if way in each else "" for way in ("up", "down"))
        out.append(f"| {name} | {each['ms']:.0f} | {flower / each['ms']:.1f} | {up} | {down} | {each['error']:.0e} |")
    return out


class Sites:
    """So many vectors with their weights, and what they come to."""

    def __init__(self, parameters: int, sites: int) -> None:
        rng = np.random.default_rng(0)
        self.vectors = [rng.standard_normal(parameters, np.float32).clip(-RANGE, RANGE) for _ in range(sites)]
        self.weights = [WEIGHT - 37 * site for site in range(sites)]
        self.mean = np.average(np.array(self.vectors, np.float64), axis=0, weights=self.weights)

    def __len__(self) -> int:
        return len(self.weights)


def protocol(sites: Sites, bits: Any) -> np.ndarray:
    """Ours without messages."""
    coding = FixedPoint(len(sites), WEIGHT, RANGE, bits)
    there = {f"site{n}": Participant(f"site{n}", b"0/1") for n in range(len(sites))}
    coordinator = Coordinator(b"0/1", majority(len(sites)))
    roster = coordinator.roster({name: one.advertise() for name, one in there.items()})
    sealed = {name: one.share(roster, coordinator.threshold) for name, one in there.items()}
    for (name, content), vector, weight in zip(
        coordinator.deliver(sealed).items(), sites.vectors, sites.weights, strict=True
    ):
        words = coding.encode([vector], weight)
        there[name].mask(content, words)
        coordinator.add(name, words)
    survivors = coordinator.survivors()
    total = coordinator.total({name: there[name].unmask(survivors) for name in survivors})
    return coding.decode(total, len(survivors)).values


def _desk(sites: Sites, number: int) -> Any:
    """A site whose training costs nothing: its model is there."""
    weight, update = sites.weights[number], Update({"w": sites.vectors[number]}, 0.5, 1)
    return SimpleNamespace(
        samples=SimpleNamespace(site=f"site{number}"),
        memory=SiteMemory(None, f"site{number}"),
        shares_noise=False,
        protection=None,
        minimum=1,
        split=lambda _name: SimpleNamespace(patients=weight, label=np.zeros(weight)),
        visit=lambda message: SimpleNamespace(round=int(str(message.content[TERMS]["round"])), memory={}),
        local=SimpleNamespace(train=lambda _visit: update),
    )


def ours(sites: Sites) -> tuple[Callable[[], np.ndarray], Callable[[], dict[str, int]]]:
    """Ours as a federation runs it: sums one round after another, and tells the bytes of the last."""
    desks = [_desk(sites, number) for number in range(len(sites))]
    app = ClientApp(mods=[wall])

    def desk(message: Message, context: Context) -> Any:
        return desks[int(str(context.node_config["partition-id"]))]

    @app.query("site")
    def site(message: Message, context: Context) -> Message:
        counts = {"train": WEIGHT, "tuning": 0, "tuning-events": 0, "tuning-non-events": 0}
        name = ConfigRecord({"site": desk(message, context).samples.site})
        return Message(RecordDict({"metrics": MetricRecord(counts), "config": name}), reply_to=message)

    secure_actions(app, desk)
    grid = SiteGrid(InlineGrid(app, len(sites)))
    model = {"w": np.zeros_like(sites.vectors[0])}
    grid.travels(model)
    turn = Turn(0, 0, "{}")
    grid.begin(turn)
    content = RecordDict({"arrays": record(model), "config": ConfigRecord()})
    counted: dict[str, int] = {}

    def add_up() -> np.ndarray:
        turn.round += 1
        up, down = grid.bytes_up, grid.bytes_down
        asked = [Message(content, dst_node_id=n, message_type="train") for n in grid.get_node_ids()]
        summed = Secured(grid, WEIGHT).exchange(turn, asked)
        counted.update(up=grid.bytes_up - up, down=grid.bytes_down - down)
        return summed.replies[0].content.array_records["arrays"]["w"].numpy()

    return add_up, lambda: counted


class _Calls(InlineGrid):
    """A Grid for Flower's mod, each of whose nodes has a Context; counts what travels."""

    up = down = 0

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        sent = list(messages)
        self.down += sum(_payload(message.content) for message in sent)
        replies = list(super().send_and_receive(sent))
        self.up += sum(_payload(reply.content) for reply in replies)
        return replies


def _payload(content: RecordDict) -> int:
    """As `payload_bytes`, without empty texts and lists, at which Flower's count fails."""
    counted = RecordDict()
    for key, entry in content.items():
        said = (
            ConfigRecord({k: v for k, v in entry.items() if v not in ("", [])})
            if key in content.config_records
            else None
        )
        counted[key] = entry if said is None else said
    return payload_bytes(counted)


def flower(sites: Sites) -> tuple[Callable[[], np.ndarray], Callable[[], dict[str, int]]]:
    """Flower's workflow and mod, all sites neighbours, with the threshold of ours."""
    import flwr.compat.common.recorddict_compat as compat
    from flwr.client.mod import secaggplus_mod
    from flwr.server import LegacyContext
    from flwr.server.workflow import SecAggPlusWorkflow
    from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD

    app = ClientApp(mods=[secaggplus_mod])
    model = ndarrays_to_parameters([np.zeros_like(sites.vectors[0])])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        number = int(str(context.node_config["partition-id"]))
        parameters = ndarrays_to_parameters([sites.vectors[number]])
        fitted = FitRes(Status(Code.OK, ""), parameters, sites.weights[number], {"loss": 0.5})
        return Message(compat.fitres_to_recorddict(fitted, keep_input=True), reply_to=message)

    found: dict[str, Any] = {}

    def configure(number: int, parameters: Any, manager: Any) -> list[tuple[Any, FitIns]]:
        return [(SimpleNamespace(node_id=n), FitIns(parameters, {})) for n in range(1, len(sites) + 1)]

    def aggregate(number: int, results: Any, failures: Any) -> tuple[Any, dict[str, Any]]:
        found["mean"] = results[0][1].parameters
        return found["mean"], {}

    strategy: Any = SimpleNamespace(configure_fit=configure, aggregate_fit=aggregate)
    manager: Any = SimpleNamespace(num_available=lambda: len(sites))
    grid = _Calls(app, len(sites))
    workflow = SecAggPlusWorkflow(1.0, majority(len(sites)) / len(sites), max_weight=float(WEIGHT))

    def add_up() -> np.ndarray:
        grid.up = grid.down = 0
        context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
        context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({"current_round": 1})
        context.state.array_records[MAIN_PARAMS_RECORD] = compat.parameters_to_arrayrecord(model, True)
        workflow(grid, LegacyContext(context, strategy=strategy, client_manager=manager))
        return parameters_to_ndarrays(found["mean"])[0]

    return add_up, lambda: {"up": grid.up, "down": grid.down}


def main() -> None:
    """Measure all, turn by turn."""
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    parameters, count = (int(argument) for argument in sys.argv[1:])
    sites = Sites(parameters, count)
    with _task():
        ours_adds, ours_bytes = ours(sites)
        flower_adds, flower_bytes = flower(sites)
        ways: dict[str, Callable[[], np.ndarray]] = {
            "flower": flower_adds,
            "ours": ours_adds,
            "protocol64": lambda: protocol(sites, 64),
            "protocol32": lambda: protocol(sites, 32),
        }
        times: dict[str, list[float]] = {way: [] for way in ways}
        errors = {}
        for _ in range(TURNS):
            for way, add_up in ways.items():
                gc.collect()
                began = time.process_time()
                mean = add_up()
                times[way].append((time.process_time() - began) * 1000)
                errors[way] = float(np.abs(mean - sites.mean).max())
    report: dict[str, Any] = {"parameters": parameters, "sites": count}
    report |= {way: {"ms": median(found[1:]), "error": errors[way]} for way, found in times.items()}
    report["flower"] |= flower_bytes()
    report["ours"] |= ours_bytes()
    print(json.dumps(report))


if __name__ == "__main__":
    main()
