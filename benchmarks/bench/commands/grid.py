"""`bench run` and `bench plan`: a suite on sites."""

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import JsonValue

from bench import output
from bench.commands.options import DEFAULT_OUT, Json, Out
from bench.modes import CacheMode, Device, Engine, Noise, Rerun
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
Seeds = Annotated[
    int | None, typer.Option("--seeds", min=1, help="The suite's first N seeds; more go on from its last.")
]
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
Epsilon = Annotated[
    list[float] | None,
    typer.Option(
        "--epsilon", help="Train with patient-level privacy within this budget; several. Anchors stay as they are."
    ),
]
PolicyFile = Annotated[
    list[str] | None,
    typer.Option("--policy", help="NAME=FILE: what the hospital of that site allows; FILE: of all sites; several."),
]
Secure = Annotated[
    bool,
    typer.Option("--secure-aggregation", help="Coordinators learn sums of the sites' models only. Anchors stay."),
]
NoiseOption = Annotated[
    Noise | None,
    typer.Option("--noise", help="Who adds a budget's noise: each site its own; or all together, on secure sums."),
]
Jobs = Annotated[int | None, typer.Option("--jobs", min=1, help="Cells at a time; default: one a core.")]


class PlannedCell(output.Report):
    """One cell of a plan; `state` is cached (ok), failed, skipped or pending.

    `faults`: what goes wrong on purpose, by its name in the suite; `left_out`: the site that only this cell scores.
    """

    cell_id: str
    task: str
    model: str
    strategy: str
    epsilon: float | None
    secure_aggregation: bool
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
    epsilon: float | None
    secure_aggregation: bool
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

    `config`: the model's hyperparameters that are not the declared ones.
    `faults`: what went wrong on purpose, by its name in the suite; `sites` names the worst site or sites, or the
    external site that was scored; `patients` how many were, seed by seed.
    """

    task: str
    model: str
    config: dict[str, JsonValue]
    strategy: str
    epsilon: float | None
    secure_aggregation: bool
    faults: str | None
    scope: str
    sites: tuple[str, ...]
    seeds: tuple[int, ...]
    patients: tuple[int, ...]
    metrics: dict[str, Number]


class Run(output.Report):
    """What `bench run` prints; `attacks`: what attackers learned, `pictures`: the files that were drawn."""

    suite: str
    records: str
    data_kind: str | None
    cells: tuple[FinishedCell, ...]
    summary: tuple[SummaryRow, ...]
    skipped_sites: dict[str, str]
    attacks: tuple[SummaryRow, ...] = ()
    pictures: tuple[str, ...] = ()


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
    epsilon: Epsilon = None,
    policy: PolicyFile = None,
    secure_aggregation: Secure = False,
    noise: NoiseOption = None,
    out: Out = DEFAULT_OUT,
    jobs: Jobs = None,
    json_: Json = False,
) -> None:
    """List a suite's cells: which have a record, which are to be run, and about how long that takes."""
    from bench.estimate import estimate_seconds
    from leaderboard.store import Store

    asked = Asked(
        suite=suite,
        site=site,
        external=external,
        task=task,
        only=only,
        seeds=seeds,
        rounds=rounds,
        model=model,
        strategy=strategy,
        leave_one_out=leave_one_site_out,
        faults=faults,
        epsilon=epsilon,
        policy=policy,
        secure_aggregation=secure_aggregation,
        noise=noise,
    )
    cells, sites, loaded = cells_of(asked, out, quiet=json_)
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
                epsilon=s.epsilon,
                secure_aggregation=s.summed_securely,
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
    epsilon: Epsilon = None,
    policy: PolicyFile = None,
    secure_aggregation: Secure = False,
    noise: NoiseOption = None,
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
    from bench.policies import policies_of
    from bench.run import run_cells

    os.environ[DEVICE] = device.value
    asked = Asked(
        suite=suite,
        site=site,
        external=external,
        task=task,
        only=only,
        seeds=seeds,
        rounds=rounds,
        model=model,
        strategy=strategy,
        leave_one_out=leave_one_site_out,
        faults=faults,
        epsilon=epsilon,
        policy=policy,
        secure_aggregation=secure_aggregation,
        noise=noise,
    )
    cells, sites, loaded = cells_of(asked, out, quiet=json_)
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
        policies=policies_of(policy or [], sites),
    )
    from bench.report import print_run, run_report
    from sites.errors import InputError

    known = sum(one.cached for one in finished)
    if engine is not Engine.inline and known:
        output.note(
            f"{known} of {len(finished)} cells had a record, which does not depend on the engine; "
            f"--cache ignore runs them anew, with engine {engine.value}"
        )

    if not finished:
        raise InputError(f"no cell of this plan has a record in {out}; leave out --cache only to run them")
    folder, pictures = out / loaded.name / "pictures", []
    if loaded.attacks is not None:
        from bench.attacked import draw_attacks

        pictures = draw_attacks(finished, folder)
    if any(one.record.privacy for one in finished):
        from bench.frontier import draw_privacy

        pictures += draw_privacy((one.record for one in finished), folder)
    report = run_report(loaded, out, finished, pictures)
    if json_:
        output.print_json(report)
    else:
        print_run(report)
    states = [cell.status for cell in report.cells]
    if "failed" in states:
        return 1
    return 0 if "ok" in states else 2


def varied(cell: PlannedCell | FinishedCell | SummaryRow) -> str:
    """The strategy, with its privacy, the faults it runs under and the site it leaves out."""
    private = f" at epsilon {cell.epsilon:g}" if cell.epsilon else ""
    under = f" under {cell.faults}" if cell.faults else ""
    left_out = None if isinstance(cell, SummaryRow) else cell.left_out
    private += " summed securely" if cell.secure_aggregation else ""
    return f"{cell.strategy}{private}{under}" + (f" without {left_out}" if left_out else "")


def called(row: SummaryRow) -> str:
    """The model, with the hyperparameters that are not the declared ones."""
    config = ", ".join(f"{name} {value}" for name, value in sorted(row.config.items()))
    return f"{row.model} ({config})" if config else row.model


def _cores() -> int:
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The options that decide on the cells."""

    suite: str
    site: Sequence[str] | None = None
    external: Sequence[str] | None = None
    task: Sequence[str] | None = None
    only: Sequence[str] | None = None
    seeds: int | None = None
    rounds: int | None = None
    model: Sequence[str] | None = None
    strategy: Sequence[str] | None = None
    leave_one_out: bool = False
    faults: Path | None = None
    epsilon: Sequence[float] | None = None
    policy: Sequence[str] | None = None
    secure_aggregation: bool = False
    noise: Noise | None = None


def cells_of(asked: Asked, out: Path, *, quiet: bool) -> tuple[list[Any], list[Any], Any]:
    """The plan of a command line: its cells, its sites, its suite."""
    from bench.open import open_all
    from bench.plan import Choice, check_names, make_plan, with_more
    from bench.policies import foreseen, policies_of
    from bench.suite import load_suite
    from fedcore.faults.plan import FaultPlan
    from leaderboard.store import Store
    from sites.errors import InputError

    loaded = load_suite(asked.suite)
    changes: dict[str, Any] = {}
    if asked.task:
        changes["tasks"] = tuple(asked.task)
    if asked.seeds:
        after = max(loaded.seeds) + 1
        changes["seeds"] = (*loaded.seeds, *range(after, after + asked.seeds))[: asked.seeds]
    for budget in asked.epsilon or ():
        if not 0 < budget < float("inf"):
            raise InputError(f"--epsilon: found {budget:g}, expected a number above 0")
    if asked.epsilon:
        changes["epsilon"] = tuple(dict.fromkeys(asked.epsilon))
    if asked.secure_aggregation:
        changes["secure_aggregation"] = True
    if asked.noise:
        changes["noise"] = asked.noise.value
    if asked.rounds:
        changes["rounds"] = asked.rounds
    faults = FaultPlan.load(asked.faults) if asked.faults else None
    if faults is not None:
        changes["faults"] = {"file": faults}
    replaced: dict[str, Any] = {name: None for name in ("faults", "epsilon") if name in changes}
    if replaced:  # entries chose of what the suite had
        changes["entries"] = tuple(entry.model_copy(update=replaced) for entry in loaded.entries)
    loaded = with_more(loaded.model_copy(update=changes), asked.model or (), asked.strategy or ())
    choice = Choice.parse(asked.only or [])
    check_names(loaded, choice)
    sites = open_all(asked.site or [], asked.external or [], quiet=quiet, suite=loaded)
    if faults is not None:
        faults.check([one.name for one in sites], str(asked.faults))
    policies = policies_of(asked.policy or [], sites)
    cells = make_plan(loaded, sites, choice, Store(out), leave_one_out=asked.leave_one_out, policies=policies)
    for sentence in foreseen([cell.spec for cell in cells if cell.found is None], sites, policies):
        output.note(sentence)
    return cells, sites, loaded
