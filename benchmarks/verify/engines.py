"""Every pair of model and strategy in process and in Flower's simulation engine: the records' `result_sha256`.

Eight small simulated hospitals, one setting, two rounds: whether two engines come to the same bits is not a question of
size. All federations of one representation run in one simulation; the cell is then run twice by the runner itself, once
with that simulation's outcomes in place of an engine, so that the records are those of `bench run`.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.cell import Piece, run_cell
from bench.code import representation_of
from bench.plan import Choice, make_plan
from bench.suite import Entry, SuiteSpec, Tune
from bench.training import prepared_sites, request_of
from fedcore.engines import simulation
from fedcore.models import model
from fedcore.strategies import strategy
from leaderboard.record import result_sha256
from leaderboard.store import Store
from sites.simulate.federation import simulate
from sites.site import open_sites

HOSPITALS = 8
PATIENTS = 300
TASK = "mortality/in_hospital/first_24h"


def pairs(folder: Path) -> dict[tuple[str, str], str]:
    """What became of each pair: `equal`, `differs`, or why there is no result."""
    os.environ["FEDWARD_HOME"] = str(folder / "home")
    (folder / "home").mkdir(mode=0o700, parents=True, exist_ok=True)
    written = simulate(folder / "simulated", HOSPITALS, PATIENTS)
    sites = open_sites([hospital.spec for hospital in written])
    federated = tuple(strategy.federated())
    entries = []
    for name in model.names():
        fitting = tuple(s for s in federated if strategy.load(s).lacks(model.load(name)) is None)
        if fitting:
            entries.append(Entry(model=name, strategies=fitting))
    suite = SuiteSpec(
        name="pairs",
        version="1",
        description="every pair",
        tasks=(TASK,),
        entries=tuple(entries),
        rounds=2,
        seeds=(0,),
        tune=Tune(settings=1),
        evaluation={"replicates": 100},
    )
    cells = [c for c in make_plan(suite, sites, Choice(), Store(folder / "records")) if c.spec.model.name != "oracle"]
    found: dict[tuple[str, str], str] = {}
    for shown in sorted({representation_of(cell.spec.model.name) for cell in cells}):
        these = [cell for cell in cells if representation_of(cell.spec.model.name) == shown]
        served, _ = prepared_sites(these[0].spec, these[0].task, sites, shown)
        training = [one.samples for one in sorted(served, key=lambda one: one.samples.site)]
        print(f"{len(these)} federations on {shown} in one simulation", flush=True)
        requests = [request_of(c.spec, sites, "simulation") for c in these]
        outcomes, memories, _ = simulation.run(training, requests, lambda _: None)
        for cell, outcome, remembered in zip(these, outcomes, memories, strict=True):
            piece = Piece(cell.spec, cell.task, tuple(sites), cell.code_fingerprint, "verify", reuse=False)
            inline = run_cell(piece, lambda _: None)
            simulated = _with(outcome, remembered, replace(piece, engine="simulation"))
            key = (cell.spec.model.name, cell.spec.strategy.name)
            if inline.status != "ok" or simulated.status != "ok":
                found[key] = next(one.error.message for one in (inline, simulated) if one.error)
            else:
                found[key] = "equal" if result_sha256(inline) == result_sha256(simulated) else "differs"
            print(*key, found[key], flush=True)
    return found


def _with(outcome: Any, remembered: Any, piece: Piece) -> Any:
    """The cell's record, the simulation having been run before."""
    engine = simulation.run
    simulation.run = lambda *_, **__: ([outcome], [remembered], [{}])  # type: ignore[assignment]
    try:
        return run_cell(piece, lambda _: None)
    finally:
        simulation.run = engine


def table(found: dict[tuple[str, str], str]) -> list[str]:
    """A line for each strategy, a column for each model; a pair that does not go together is empty."""
    models = sorted({name for name, _ in found})
    lines = [f"| strategy | {' | '.join(models)} |", "|---|" + "---|" * len(models)]
    for name in sorted({name for _, name in found}):
        lines.append(f"| {name} | " + " | ".join(found.get((m, name), "") for m in models) + " |")
    return lines
