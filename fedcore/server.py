"""What the coordinator does in a federation: the Flower ServerApp.

The sites introduce themselves; their sketches are merged into one feature space, which they get back; then each
setting of the model's recipe is trained for some rounds with the strategy (`fedcore.rounds`), and the setting and round
with the lowest log loss over all tuning samples is the result.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedcore.engines.grid import Dropped, Passed, SiteGrid
from fedcore.engines.journal import Journal
from fedcore.engines.parcels import parcel
from fedcore.engines.secured import Secured, SecuredSums
from fedcore.errors import FederationError
from fedcore.features import representation
from fedcore.features.representation import FeatureSpace
from fedcore.guard import Proposal
from fedcore.learner import Arrays, Setting
from fedcore.plan import Plan
from fedcore.protection import AGREED, agreed_noise
from fedcore.rounds import OnRound, RoundReport, Search, Trial
from fedcore.secure import NOISED_BOUND
from privacy.releases import sketches
from privacy.releases.messages import TOO_FEW
from sites.errors import InputError

MIN_TUNING_EVENTS = 20
MIN_TUNING_PATIENTS = 300
"""So many tuning patients with and without the event each, or so many in all, are needed to choose on: below, the
tuning split chooses nothing and the recipe's defaults stand (docs/decisions/0005).

A site tells its numbers only from ten patients on (`privacy.releases.messages`); others count as none."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a federation came to.

    Attributes:
        arrays: the chosen model, by the arrays' names; under a personalised strategy, what the sites share.
        space: the features it takes; None where there is no one model.
        setting: the chosen hyperparameters.
        selection: how they were chosen, in words.
        chosen: the number of the chosen trial; None where each site chooses.
        remembered: the sites that trained it, and in which round last: they predict with what they remembered then.
        trials: all settings tried.
        rounds: all rounds run.
        skipped: sites that took no part in training, and why.
        refused: those of them whose policy refused.
        dropped: answers that did not count, of all trials.
        answered: by training site, the actions (`train`, `query.statistics`, ...) to which it ever said anything of its
            patients; under `external`, `model` of those whose model another takes over.
        secured: how models were summed securely; None: each was sent.
        own_start: the strategy ran through a `start` of its own, which begins anew when it is killed.
        bytes_up: payload the sites sent in all rounds of all settings, statistics included.
        bytes_down: payload they got.
    """

    selection: str
    arrays: Arrays = field(default_factory=dict)
    space: FeatureSpace | None = None
    setting: Setting = field(default_factory=dict)
    chosen: int | None = None
    remembered: Mapping[str, int] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)
    rounds: list[RoundReport] = field(default_factory=list)
    skipped: Mapping[str, str] = field(default_factory=dict)
    refused: frozenset[str] = frozenset()
    dropped: list[Dropped] = field(default_factory=list)
    answered: Mapping[str, frozenset[str]] = field(default_factory=dict)
    secured: SecuredSums | None = None
    own_start: bool = False
    bytes_up: int = 0
    bytes_down: int = 0


def server_app(
    plan: Plan,
    deliver: Callable[[Outcome], None],
    on_round: OnRound,
    journal: Journal | None = None,
    watch: Callable[[Passed], None] | None = None,
) -> ServerApp:
    """The coordinator's app.

    Args:
        plan: what to train.
        deliver: gets the outcome.
        on_round: hears of each round as it ends.
        journal: the checkpoint to go on from.
        watch: hears of each site's training, as the coordinator does.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        deliver(federate(grid, plan, on_round, journal, watch=watch))

    return app


def federate(
    inner: Grid,
    plan: Plan,
    on_round: OnRound,
    journal: Journal | None = None,
    federation: str = "000",
    watch: Callable[[Passed], None] | None = None,
) -> Outcome:
    """Run a federation from introduction to result.

    Args:
        inner: the engine's Grid.
        plan: what to train.
        on_round: hears of each round as it ends.
        journal: the checkpoint to go on from.
        federation: a name for it, where several run over one Grid.
        watch: hears of each site's training, as the coordinator does.

    Raises:
        FederationError: no setting came to a model.
        CheckpointError: the checkpoint cannot be gone on from.
        sites.errors.InputError: too few sites can train, or their sketches leave nothing to learn from.
    """
    proposal = Proposal.of_plan(plan).texts()
    grid = SiteGrid(inner, federation=federation, journal=journal, proposal=proposal, watch=watch)
    skipped = {
        site: grid.refused.get(site, TOO_FEW)
        for site in grid.sites
        if site in grid.refused or grid.introductions[site]["train"] == 0
    }
    grid.keep([site for site in grid.sites if site not in skipped])
    if not grid.sites:
        few = [site for site, reason in skipped.items() if reason == TOO_FEW]
        reasons = [f"site {site}: {reason}" for site, reason in grid.refused.items()]
        reasons += [f"{', '.join(few)}: {TOO_FEW}"] if few else []
        raise InputError(f"no site can train ({'; '.join(reasons)}); expected at least one")
    weights = [grid.introductions[site]["train"] for site in grid.sites]
    plan = _with_agreed_noise(plan, weights)
    proposal = Proposal.of_plan(plan).texts()
    space, failed = _agree(grid, plan, proposal)
    skipped |= failed
    if plan.faults is not None:
        grid.suffers(plan.faults.draw(plan.seed, grid.sites))
    told = {name: sum(grid.introductions[site][name] for site in grid.sites) for name in _TUNING}
    tuned = told["tuning"] >= MIN_TUNING_PATIENTS or min(told[name] for name in _TUNING[1:]) >= MIN_TUNING_EVENTS
    tuned = tuned and plan.terms is None
    turns = plan.strategy.turns(len(grid.sites))
    if tuned:
        settings, rounds = plan.settings, plan.rounds * turns
        patience = None if plan.patience is None else plan.patience * turns
        selection = f"lowest tuning log loss of {len(settings)} settings, at most {rounds} rounds each"
    elif plan.terms is not None:
        settings, rounds, patience = (plan.untuned,), plan.untuned_rounds * turns, None
        selection = "declared defaults: with patient-level privacy nothing is chosen on patients"
    else:
        settings, rounds, patience = (plan.untuned,), plan.untuned_rounds * turns, None
        selection = (
            f"declared defaults: sites can tell of {told['tuning']} tuning patients, {told['tuning-events']} known to "
            f"have the event and {told['tuning-non-events']} not to; {MIN_TUNING_PATIENTS}, or {MIN_TUNING_EVENTS} of "
            "each, are needed to choose"
        )
    reports: list[RoundReport] = []

    def heard(report: RoundReport) -> None:
        reports.append(report)
        on_round(report)

    trials: list[Trial] = []
    models: list[Arrays | None] = []
    remembered: list[Mapping[str, int]] = []
    secured = Secured(grid, max(weights), NOISED_BOUND if plan.shares_noise else None) if plan.secure else None
    own_start = False
    for number, setting in enumerate(settings):
        search = Search(grid, plan, space, number, setting, secured)
        own_start = search.own_start
        trial, arrays = search.run(rounds, patience, tuned, heard)
        trials.append(trial)
        models.append(arrays)
        remembered.append(search.remembered)
    chosen = _best(trials)
    arrays = models[chosen]
    if arrays is None:
        raise FederationError(f"none of {len(trials)} settings came to a model: {trials[chosen].error}")
    return Outcome(
        arrays=arrays,
        space=space,
        setting=trials[chosen].setting,
        selection=selection,
        chosen=chosen,
        remembered=remembered[chosen],
        trials=trials,
        rounds=reports,
        skipped=skipped,
        refused=frozenset(grid.refused),
        dropped=grid.dropped,
        answered={site: frozenset(actions) for site, actions in grid.answered.items()},
        secured=None if secured is None else secured.sums,
        own_start=own_start,
        bytes_up=grid.bytes_up,
        bytes_down=grid.bytes_down,
    )


_TUNING = ("tuning", "tuning-events", "tuning-non-events")


def _with_agreed_noise(plan: Plan, patients: Sequence[int]) -> Plan:
    """The plan with the noise multiplier that serves all sites, where they share noise."""
    if plan.terms is None or not plan.shares_noise:
        return plan
    noise = agreed_noise(plan.terms, patients, plan.untuned, plan.untuned_rounds)
    return replace(plan, untuned={**plan.untuned, AGREED: noise})


def _agree(grid: SiteGrid, plan: Plan, proposal: Mapping[str, str]) -> tuple[FeatureSpace, dict[str, str]]:
    """The statistics round: sketches in, the feature space out; and the sites that failed in it, with the reason."""
    chosen = representation.load(plan.model.representation)
    answers, failed = grid.ask("query.statistics", {"representation": plan.model.representation, **proposal})
    grid.keep(answers)
    if not answers:
        site, reason = next(iter(failed.items()))
        raise FederationError(f"no site could describe its samples; {site}: {reason}")
    space = chosen.agree(sketches.merge([sketches.unpack(parcel(content).arrays) for content in answers.values()]))
    agreed, refused = grid.ask("query.space", {**proposal, "space": space.to_json()})
    grid.keep(agreed)
    return space, failed | refused


def _best(trials: Sequence[Trial]) -> int:
    """The trial with the lowest tuning loss; the first of equals; one with a model before one without.

    A loss over more sites goes before one over fewer, with which it cannot be compared.
    """

    def rank(number: int) -> tuple[bool, int, float, int]:
        trial = trials[number]
        loss = np.inf if trial.tuning_loss is None else trial.tuning_loss
        return (trial.error is not None, -trial.heard_of, loss, number)

    return min(range(len(trials)), key=rank)
