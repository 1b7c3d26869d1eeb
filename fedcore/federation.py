"""One federation from samples to predictions: the one entry to training across sites."""

import os

# what flwr reads when it loads
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch
from flwr.app import Context

from fedcore.checkpoint import SITES, journal
from fedcore.client import client_app
from fedcore.desk import Desk, ledgers_of
from fedcore.engines import inline
from fedcore.engines.grid import Passed
from fedcore.errors import CheckpointError, FederationError, StorageError
from fedcore.guard import Guard, Proposal
from fedcore.learners.device import device
from fedcore.memory import SiteMemory
from fedcore.plan import Plan, plan_of
from fedcore.predictions import predictions
from fedcore.protocols import protocol
from fedcore.request import Engine, FederationRequest
from fedcore.rounds import OnRound, RoundReport
from fedcore.samples import SiteSamples
from fedcore.server import Outcome, server_app
from fedcore.strategies.strategy import ANCHORS
from privacy.ledger import Ledger
from privacy.policy import PolicyRefusal
from sites.errors import InputError

__all__ = [
    "CheckpointError",
    "FederationError",
    "FederationRequest",
    "FederationResult",
    "Passed",
    "StorageError",
    "run_federation",
]


@dataclass(frozen=True, kw_only=True)
class FederationResult(Outcome):
    """What a federation came to, and what its model says.

    Under the anchors `local` and `external` there is a model for each site: `by_site` holds them, `arrays` is empty,
    `space` and `chosen` are None. An anchor is no federation and sends nothing: its bytes are 0.

    Attributes:
        predictions: by site, external ones included: float64 [n], the probability of each of its samples, in their
            order. They stay with the runner. `local` predicts for each site that has a model, and for none else; so
            does a strategy under which each site keeps a part of the model to itself.
        ledgers: of the sites that took part on terms (`FederationRequest.privacy`); they stay with the runner.
        device: what networks trained on, `cpu` or `cuda`.
        engine: where it ran; an anchor, or a federation of one site, runs in process whatever was asked for.
        by_site: under `local` and `external`, each site's own training.
    """

    predictions: Mapping[str, np.ndarray]
    ledgers: Mapping[str, Ledger] = field(default_factory=dict)
    engine: Engine = "inline"
    device: str = "cpu"
    by_site: "Mapping[str, FederationResult]" = field(default_factory=dict)


def run_federation(
    sites: Sequence[SiteSamples],
    request: FederationRequest,
    *,
    folder: Path | None = None,
    ledgers: Path | None = None,
    guards: Mapping[str, Guard] | None = None,
    on_round: Callable[[RoundReport], None] | None = None,
    watch: Callable[[Passed], None] | None = None,
) -> FederationResult:
    """Train a model over sites and predict with it.

    Equal sites, request and machine give equal arrays and predictions, bit for bit; the order of `sites` does not
    matter, nor does the engine, nor how often it was killed and went on.

    Args:
        sites: their samples, each name once, as the request's protocol gathers them if it has one; external sites are
            only predicted for.
        request: what to train.
        folder: where its checkpoint is kept, patient data and all; a federation that was killed goes on from there.
            None: it keeps none.
        ledgers: where the sites' ledgers are kept, which outlive the checkpoint: whoever runs the same federation again
            spends from what is left. None: they lie in the checkpoint.
        guards: by site, what its hospital's policy allows. A site that refuses is left out, of scoring too.
        on_round: hears of each round as it ends.
        watch: hears of each site's training what passes the coordinator, and no more; such a federation runs in
            process, whatever was asked for.

    Raises:
        FederationError: nothing could be trained; one sentence.
        CheckpointError: the folder's checkpoint is of another federation, or a part of it is lost.
        StorageError: the machine ran short of disk or memory; what is in the folder is intact.
        EngineError: the engine ended before the federation did; what is in the folder is intact.
        sites.errors.InputError: the model, the strategy or a hyperparameter is unknown, they do not go together, too
            few sites can train, or the training samples leave no feature to learn from.
    """
    ordered = sorted(sites, key=lambda site: site.site)
    for before, after in pairwise(ordered):
        if before.site == after.site:
            raise FederationError(f"two sites are named '{after.site}'; expected a name of its own for each")
    training = [site for site in ordered if not site.external]
    if not training:
        raise FederationError("all sites are external; expected at least one to train on")
    plan = plan_of(request)
    rules = None if request.protocol is None else protocol.load(request.protocol)
    if plan.faults is not None:
        plan.faults.check([site.site for site in ordered], "faults", trees=plan.model.kind == "trees")
    run = _Run(request, plan, folder, ledgers, guards or {}, on_round or (lambda _: None), watch)
    with _one_thread():
        if request.strategy in ANCHORS:
            refused = _refused(run, training)
            training = [site for site in training if site.site not in refused]
            ordered = [site for site in ordered if site.site not in refused]
            if not training:
                raise InputError(f"no site can train: {next(iter(refused.values()))}")
            run = replace(run, guards={})
            if request.strategy == "pooled":
                together = SiteSamples.concatenate if rules is None else rules.pool
                result = replace(_train(run, [together(training)], ordered), bytes_up=0, bytes_down=0)
            else:
                result = _alone(run, training, ordered)
            return replace(result, skipped={**result.skipped, **refused}, refused=frozenset(refused))
        if plan.faults is not None:
            drawn = plan.faults.draw(plan.seed, [site.site for site in training])
            training = [drawn.poisoned(site) for site in training]
        return _train(run, training, ordered)


@dataclass(frozen=True)
class _Run:
    """What all trainings of one request share."""

    request: FederationRequest
    plan: Plan
    folder: Path | None
    ledgers: Path | None
    guards: Mapping[str, Guard]
    on_round: OnRound
    watch: Callable[[Passed], None] | None


def _refused(run: _Run, training: Sequence[SiteSamples]) -> dict[str, str]:
    """The sites whose policies keep them out of an anchor, which sends no message, and why."""
    refused = {}
    for one in training:
        try:
            if one.site in run.guards:
                run.guards[one.site].examine_anchor(Proposal.of_plan(run.plan))
        except PolicyRefusal as refusal:
            refused[one.site] = str(refusal)
    return refused


def _alone(run: _Run, training: Sequence[SiteSamples], scored: Sequence[SiteSamples]) -> FederationResult:
    """Each site by itself. `local` predicts with its own model, `external` with that of the largest other site."""
    results: dict[str, FederationResult] = {}
    skipped: dict[str, str] = {}
    takes_over = run.request.strategy == "external"
    for samples in training:
        at = None if run.folder is None else run.folder / quote(samples.site, safe="")
        named = replace(run, folder=at, on_round=_Named(samples.site, run.on_round))
        try:
            results[samples.site] = _train(named, [samples], scored if takes_over else [samples])
        except (FederationError, InputError) as error:
            skipped[samples.site] = str(error)
    if not results:
        raise InputError(f"no site can train alone: {next(iter(skipped.values()))}")
    sizes = {one.site: int(np.sum(one.split == "train")) for one in training if one.site in results}
    largest = sorted(sizes, key=lambda site: (-sizes[site], site))
    found = {}
    taken: dict[str, frozenset[str]] = {}
    for one in scored:
        sources = [site for site in largest if site != one.site] if takes_over else [one.site]
        if sources and sources[0] in results and one.site in results[sources[0]].predictions:
            found[one.site] = results[sources[0]].predictions[one.site]
            if takes_over:
                taken[sources[0]] = frozenset({"model"})
    if not found:
        raise InputError("only one site can train, and no other takes its model over; expected two at least")
    return FederationResult(
        predictions=found,
        selection="each site takes over the model that the largest other site trained alone"
        if takes_over
        else "each site by itself",
        trials=[replace(trial, site=name) for name, result in results.items() for trial in result.trials],
        rounds=[replace(report, site=name) for name, result in results.items() for report in result.rounds],
        skipped=skipped,
        answered=taken,
        device=next(iter(results.values())).device,
        by_site=results,
    )


@dataclass(frozen=True)
class _Named:
    """Passes rounds on with the site whose they are."""

    site: str
    on_round: Callable[[RoundReport], None]

    def __call__(self, report: RoundReport) -> None:
        self.on_round(replace(report, site=self.site))


def _train(run: _Run, training: Sequence[SiteSamples], scored: Sequence[SiteSamples]) -> FederationResult:
    """A federation of `training`, in order, and its predictions for `scored`."""
    memories = None if run.folder is None else run.folder / SITES
    ledgers: Mapping[str, Ledger]
    elsewhere = run.request.engine == "simulation" and len(training) > 1 and run.watch is None
    engine: Engine = "simulation" if elsewhere else "inline"
    if engine == "simulation":
        from fedcore.engines import simulation

        remembered: Mapping[str, SiteMemory]
        (outcome,), (remembered,), (ledgers,) = simulation.run(
            training, [run.request], run.on_round, run.folder, run.ledgers, run.guards
        )
    else:
        outcome, remembered, ledgers = _in_process(run, training, memories)
    return FederationResult(
        predictions={
            one.site: predictions(run.plan, outcome, one, remembered)
            for one in scored
            if one.site not in outcome.refused and (run.plan.strategy.whole or outcome.remembered.get(one.site, 0) > 0)
        },
        ledgers=ledgers,
        engine=engine,
        device=device().type if run.plan.model.kind == "network" else "cpu",
        **vars(outcome),
    )


def _in_process(
    run: _Run, training: Sequence[SiteSamples], memories: Path | None
) -> tuple[Outcome, Mapping[str, SiteMemory], Mapping[str, Ledger]]:
    desks = [
        Desk(one, SiteMemory(memories, one.site), run.plan.terms, run.plan.seed, run.ledgers, run.guards.get(one.site))
        for one in training
    ]
    outcomes: list[Outcome] = []

    def open_desk(context: Context, federation: str) -> Desk:
        return desks[int(str(context.node_config["partition-id"]))]

    with journal(run.folder, run.request, training) as answered:
        server = server_app(run.plan, outcomes.append, run.on_round, answered, run.watch)
        inline.run(server, client_app(open_desk), len(training))
    serving = [desk for desk in desks if desk.samples.site not in outcomes[0].refused]
    return outcomes[0], {desk.samples.site: desk.memory for desk in desks}, ledgers_of(serving)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums of floats depend on how many threads share them: one, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
