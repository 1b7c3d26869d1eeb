"""`bench privacy`: what a suite would spend of each site's privacy, what a run has spent, and all runs of a site."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench import output
from bench.commands.grid import (
    Epsilon,
    Model,
    NoiseOption,
    Only,
    PolicyFile,
    Rounds,
    Secure,
    Seeds,
    SiteOption,
    Strategy,
    Suite,
    TaskOption,
)
from bench.commands.options import DEFAULT_OUT, Json, Out
from bench.modes import SHARED

if TYPE_CHECKING:
    from privacy.ledger import Budget

app = typer.Typer(no_args_is_help=True, help="What each site spends of its patients' privacy.")


class PlannedSpend(output.Report):
    """What one site would release in one phase of a cell: with which noise, how often, at which epsilon by itself."""

    task: str
    model: str
    strategy: str
    epsilon: float
    site: str
    patients: int
    delta: float
    phase: str
    noise_multiplier: float
    sampling_rate: float
    releases: int
    phase_epsilon: float


class PrivacyPlan(output.Report):
    """What `bench privacy plan` prints."""

    suite: str
    spends: tuple[PlannedSpend, ...]


class Spent(output.Report):
    """What one site has spent in one cell; `left` of its budget. `claim` is false where noise follows from a seed.

    `noise_placed`: `local`, each site adds all of its own; `distributed`, the sites share it on secure sums.
    """

    cell_id: str
    task: str
    model: str
    strategy: str
    seed: int
    site: str
    epsilon: float
    left: float
    delta: float
    by_phase: dict[str, float]
    opinions: dict[str, float | None]
    claim: bool
    noise_placed: str


class Ledgers(output.Report):
    """What `bench privacy ledger` prints."""

    run: str
    spent: tuple[Spent, ...]


@app.command("plan")
def plan(
    suite: Suite,
    epsilon: Epsilon = None,
    site: SiteOption = None,
    task: TaskOption = None,
    only: Only = None,
    seeds: Seeds = None,
    rounds: Rounds = None,
    model: Model = None,
    strategy: Strategy = None,
    policy: PolicyFile = None,
    secure_aggregation: Secure = False,
    noise: NoiseOption = None,
    json_: Json = False,
) -> None:
    """Show noise, sampling and budget by site and phase, before anything is trained."""
    from bench.commands.grid import Asked, cells_of
    from bench.policies import policies_of
    from bench.spending import planned

    asked = Asked(
        suite=suite,
        site=site,
        task=task,
        only=only,
        seeds=seeds,
        rounds=rounds,
        model=model,
        strategy=strategy,
        epsilon=epsilon,
        policy=policy,
        secure_aggregation=secure_aggregation,
        noise=noise,
    )
    cells, sites, loaded = cells_of(asked, DEFAULT_OUT, quiet=json_)
    report = PrivacyPlan(suite=loaded.name, spends=tuple(planned(cells, sites, policies_of(policy or [], sites))))
    if json_:
        output.print_json(report)
        return
    rows = [
        (
            s.task,
            f"{s.model} {s.strategy}",
            f"{s.epsilon:g}",
            f"{s.site} ({s.patients})",
            f"{s.delta:.2g}",
            s.phase,
            f"{s.noise_multiplier:.3g}",
            f"{s.sampling_rate:g}",
            str(s.releases),
            f"{s.phase_epsilon:.3f}",
        )
        for s in report.spends
    ]
    header = [
        "task",
        "model, strategy",
        "budget",
        "site (patients)",
        "delta",
        "phase",
        "noise",
        "rate",
        "times",
        "alone",
    ]
    output.print_table(f"Suite {loaded.name}: epsilon by site and phase", header, rows, numbers=(2, 4, 6, 7, 8, 9))
    output.say(
        "noise: its standard deviation over the most that one patient can move a sum; alone: the epsilon of that phase "
        "by itself. Phases compose to the budget, and not by adding up."
    )


@app.command("ledger")
def ledger(
    run: Annotated[str, typer.Argument(help="A suite's name, or the beginning of a cell's id.")],
    out: Out = DEFAULT_OUT,
    json_: Json = False,
) -> None:
    """Show what each site has spent, on what, and what is left."""
    from bench.spending import spent

    report = Ledgers(run=run, spent=tuple(spent(run, Path(out))))
    if json_:
        output.print_json(report)
        return
    rows = [
        (
            s.cell_id[:12],
            f"{s.model} {s.strategy}",
            str(s.seed),
            s.site,
            f"{s.epsilon:.3f}",
            f"{s.left:.3f}",
            f"{s.delta:.2g}",
            ", ".join(f"{phase} {value:.3f}" for phase, value in s.by_phase.items()),
            ", ".join(f"{name} {'?' if value is None else f'{value:.3f}'}" for name, value in s.opinions.items()),
        )
        for s in report.spent
    ]
    header = ["cell", "model, strategy", "seed", "site", "epsilon", "left", "delta", "each phase alone", "others say"]
    output.print_table(
        f"Spent in {run}, all releases of a site's training patients", header, rows, numbers=(2, 4, 5, 6)
    )
    if not all(s.claim for s in report.spent):
        output.say("noise: seeded, no privacy claim: simulated or open data, whose noise follows from the cell's seed")
    shared = sorted({s.cell_id[:12] for s in report.spent if s.noise_placed == "distributed"})
    if shared:
        output.say(f"noise placed: distributed, in {', '.join(shared)}; {SHARED}")
    output.say(
        "A line is one cell's. A hospital that took part in several has spent at most the sum of their epsilons."
    )


class Reserved(output.Report):
    """What one analysis may spend at a site, all its runs together; `analysis` is the folder of its ledgers."""

    analysis: str
    epsilon: float
    delta: float


class Total(output.Report):
    """What `bench privacy begin` and `bench privacy total` print: what all analyses of a site may spend together."""

    site: str
    epsilon: float
    delta: float
    reserved: tuple[Reserved, ...]


SiteName = Annotated[str, typer.Argument(help="The site's name, as records call it.")]


@app.command("begin")
def begin(site: SiteName, json_: Json = False) -> None:
    """Begin, once, the total that a site's policy limits; what its ledgers show already is in it."""
    from bench.policies import total_of

    _print_total(site, lambda: total_of(site).begin(), json_)


@app.command("total")
def total(site: SiteName, json_: Json = False) -> None:
    """Show what all analyses of a site may have spent together."""
    from bench.policies import total_of

    _print_total(site, lambda: total_of(site).reserved(), json_)


def _print_total(site: str, read: "Callable[[], Mapping[str, Budget]]", json_: bool) -> None:
    from privacy.ledger import LedgerError
    from sites.errors import InputError

    try:
        budgets = read()
    except LedgerError as error:
        raise InputError(f"site {site}: {error}") from error
    reserved = tuple(Reserved(analysis=name, epsilon=one.epsilon, delta=one.delta) for name, one in budgets.items())
    epsilon, delta = (math.fsum(getattr(one, name) for one in reserved) for name in ("epsilon", "delta"))
    report = Total(site=site, epsilon=epsilon, delta=delta, reserved=reserved)
    if json_:
        output.print_json(report)
        return
    rows = [(one.analysis[:12], f"{one.epsilon:g}", f"{one.delta:.3g}") for one in reserved]
    output.print_table(f"Reserved at {site}", ["analysis", "epsilon", "delta"], rows, numbers=(1, 2))
    output.say(f"together epsilon {epsilon:g} at delta {delta:.3g}, by basic composition")
