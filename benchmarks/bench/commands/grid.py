"""`bench run` and `bench plan`: a suite on sites."""

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from bench import output
from bench.commands.options import DEFAULT_OUT, Json, Out
from bench.modes import CacheMode, Device, Engine, Rerun
from bench.provenance import DEVICE

Suite = Annotated[
    str, typer.Option("--suite", help="A suite's name (`bench list suites`) or the path of a .yaml file.")
]
SiteOption = Annotated[
    list[str] | None,
    typer.Option(
        "--site", help="NAME=KIND[,OPTION...]:PATH, or a remembered name; several. None: simulated hospitals."
    ),
]
External = Annotated[list[str] | None, typer.Option("--external", help="As --site; only scored, never trained on.")]
TaskOption = Annotated[list[str] | None, typer.Option("--task", help="Only these tasks, or ACES files; several.")]
Only = Annotated[list[str] | None, typer.Option("--only", help="model=NAME or strategy=NAME, by commas; several.")]
Seeds = Annotated[int | None, typer.Option("--seeds", min=1, help="Seeds 0 to N-1 instead of the suite's.")]
Rounds = Annotated[int | None, typer.Option("--rounds", min=1, help="At most so many federated rounds.")]
Model = Annotated[
    list[str] | None,
    typer.Option("--model", help="A model to add to the suite's, also your own module:NAME; several."),
]
Strategy = Annotated[
    list[str] | None,
    typer.Option("--strategy", help="A strategy to add to the suite's, also your own module:NAME; several."),
]
LeaveOneOut = Annotated[
    bool, typer.Option("--leave-one-site-out", help="Each cell once for each site, which is then only scored.")
]
FaultFile = Annotated[Path | None, typer.Option("--faults", help="A file of what goes wrong in every federated cell.")]
Jobs = Annotated[int | None, typer.Option("--jobs", min=1, help="Cells at a time; default: one a core.")]


class PlannedCell(output.Report):
    """One cell of a plan; `state` is cached (ok), failed, skipped or pending.

    `faults`: what goes wrong on purpose, by its name in the suite; `left_out`: the site that only this cell scores.
    """

    cell_id: str
    task: str
    model: str
    strategy: str
    faults: str | None
    left_out: str | None
    seed: int
    state: str
    estimated_s: float


class Plan(output.Report):
    """What `bench plan` prints."""

    suite: str
    sites: tuple[str, ...]
    cells: tuple[PlannedCell, ...]
    pending: int
    estimated_minutes: float


class FinishedCell(output.Report):
    """One cell of a run; `faults` and `left_out` as in a plan."""

    cell_id: str
    result_sha256: str
    task: str
    model: str
    strategy: str
    faults: str | None
    left_out: str | None
    seed: int
    status: str
    cached: bool
    error: str | None
    record: str


class Number(output.Report):
    """Mean of the seeds' values, means of their intervals' ends, and the seeds' extremes; null with a reason."""

    value: float | None
    low: float | None
    high: float | None
    seed_low: float | None
    seed_high: float | None
    reason: str | None


class SummaryRow(output.Report):
    """One line of the end table.

    `faults`: what went wrong on purpose, by its name in the suite; `sites` names the worst site or sites, or the
    external site that was scored.
    """

    task: str
    model: str
    strategy: str
    faults: str | None
    scope: str
    sites: tuple[str, ...]
    seeds: tuple[int, ...]
    metrics: dict[str, Number]


class Run(output.Report):
    """What `bench run` prints."""

    suite: str
    records: str
    data_kind: str | None
    cells: tuple[FinishedCell, ...]
    summary: tuple[SummaryRow, ...]
    skipped_sites: dict[str, str]


def plan(
    suite: Suite,
    site: SiteOption = None,
    external: External = None,
    task: TaskOption = None,
    only: Only = None,
    seeds: Seeds = None,
    rounds: Rounds = None,
    model: Model = None,
    strategy: Strategy = None,
    leave_one_site_out: LeaveOneOut = False,
    faults: FaultFile = None,
    out: Out = DEFAULT_OUT,
    jobs: Jobs = None,
    json_: Json = False,
) -> None:
    """List a suite's cells: which have a record, which are to be run, and about how long that takes."""
    from bench.estimate import estimate_seconds
    from leaderboard.store import Store

    asked = _Asked(suite, site, external, task, only, seeds, rounds, model, strategy, leave_one_site_out, faults)
    cells, sites, loaded = _cells(asked, out, quiet=json_)
    pending = [cell for cell in cells if cell.found is None]
    seconds = estimate_seconds(pending, Store(out)) if pending else {}
    rows = []
    for cell in cells:
        state = "pending" if cell.found is None else {"ok": "cached"}.get(cell.found.status, cell.found.status)
        s = cell.spec
        rows.append(
            PlannedCell(
                cell_id=cell.cell_id,
                task=s.task.name,
                model=s.model.name,
                strategy=s.strategy.name,
                faults=s.federation.faults.name if s.federation.faults else None,
                left_out=cell.left_out,
                seed=s.seed,
                state=state,
                estimated_s=0.0 if cell.found else round(seconds[cell.cell_id], 1),
            )
        )
    minutes = sum(row.estimated_s for row in rows) / 60 / (jobs or _cores())
    report = Plan(
        suite=loaded.name,
        sites=tuple(one.name for one in sites),
        cells=tuple(rows),
        pending=len(pending),
        estimated_minutes=round(minutes, 1),
    )
    if json_:
        output.print_json(report)
        return
    table = [(r.cell_id[:12], r.task, r.model, varied(r), str(r.seed), r.state, f"{r.estimated_s:.0f} s") for r in rows]
    header = ["cell", "task", "model", "strategy", "seed", "state", "estimate"]
    output.print_table(f"Suite {loaded.name} on {', '.join(report.sites)}", header, table, numbers=(4, 6))
    output.say(f"{len(cells)} cells, {len(pending)} pending, about {report.estimated_minutes:.1f} minutes")


def run(
    suite: Suite,
    site: SiteOption = None,
    external: External = None,
    task: TaskOption = None,
    only: Only = None,
    seeds: Seeds = None,
    rounds: Rounds = None,
    model: Model = None,
    strategy: Strategy = None,
    leave_one_site_out: LeaveOneOut = False,
    faults: FaultFile = None,
    engine: Annotated[Engine, typer.Option("--engine", help="Where a federation runs; the result is the same.")] = (
        Engine.inline
    ),
    device: Annotated[Device, typer.Option("--device", help="Where networks train; auto: a GPU if there is one.")] = (
        Device.auto
    ),
    jobs: Jobs = None,
    ray_address: Annotated[str | None, typer.Option("--ray-address", help="A Ray cluster, e.g. auto.")] = None,
    cache: Annotated[
        CacheMode, typer.Option("--cache", help="ignore: run all anew; only: run none.")
    ] = CacheMode.default,
    rerun: Annotated[Rerun | None, typer.Option("--rerun", help="Run again what failed, or all.")] = None,
    out: Out = DEFAULT_OUT,
    json_: Json = False,
) -> int:
    """Run a suite: every cell that has no record yet, then one table. The same command goes on where it stopped."""
    from bench.run import run_cells

    os.environ[DEVICE] = device.value
    asked = _Asked(suite, site, external, task, only, seeds, rounds, model, strategy, leave_one_site_out, faults)
    cells, sites, loaded = _cells(asked, out, quiet=json_)
    finished = run_cells(
        cells,
        sites,
        out=out,
        jobs=jobs or _cores(),
        address=ray_address,
        cache_mode=cache,
        rerun=rerun,
        command=shlex.join(["bench", *sys.argv[1:]]),
        quiet=json_,
        engine=engine.value,
    )
    from bench.report import print_run, run_report
    from sites.errors import InputError

    if not finished:
        raise InputError(f"no cell of this plan has a record in {out}; leave out --cache only to run them")
    report = run_report(loaded.name, out, finished)
    if json_:
        output.print_json(report)
    else:
        print_run(report)
    states = [cell.status for cell in report.cells]
    if "failed" in states:
        return 1
    return 0 if "ok" in states else 2


def varied(cell: PlannedCell | FinishedCell) -> str:
    """The strategy, with the faults it runs under and the site it leaves out."""
    under = f" under {cell.faults}" if cell.faults else ""
    return f"{cell.strategy}{under}" + (f" without {cell.left_out}" if cell.left_out else "")


def _cores() -> int:
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class _Asked:
    """The options that decide on the cells."""

    suite: str
    site: Sequence[str] | None
    external: Sequence[str] | None
    task: Sequence[str] | None
    only: Sequence[str] | None
    seeds: int | None
    rounds: int | None
    model: Sequence[str] | None
    strategy: Sequence[str] | None
    leave_one_out: bool
    faults: Path | None


def _cells(asked: _Asked, out: Path, *, quiet: bool) -> tuple[list[Any], list[Any], Any]:
    """The plan of a command line: its cells, its sites, its suite."""
    from bench.open import open_all
    from bench.plan import Choice, check_names, make_plan, with_more
    from bench.suite import load_suite
    from fedcore.faults.plan import FaultPlan
    from leaderboard.store import Store

    loaded = load_suite(asked.suite)
    changes: dict[str, Any] = {}
    if asked.task:
        changes["tasks"] = tuple(asked.task)
    if asked.seeds:
        changes["seeds"] = tuple(range(asked.seeds))
    if asked.rounds:
        changes["rounds"] = asked.rounds
    faults = FaultPlan.load(asked.faults) if asked.faults else None
    if faults is not None:
        changes["faults"] = {"file": faults}
    loaded = with_more(loaded.model_copy(update=changes), asked.model or (), asked.strategy or ())
    choice = Choice.parse(asked.only or [])
    check_names(loaded, choice)
    sites = open_all(asked.site or [], asked.external or [], quiet=quiet, suite=loaded)
    if faults is not None:
        faults.check([one.name for one in sites], str(asked.faults))
    return make_plan(loaded, sites, choice, Store(out), leave_one_out=asked.leave_one_out), sites, loaded
