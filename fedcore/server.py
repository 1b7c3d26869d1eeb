"""What the coordinator does in a federation: the Flower ServerApp.

The sites introduce themselves; their sketches are merged into one feature space, which they get back; then each
setting of the model's recipe is trained for some rounds with the strategy, and the setting and round with the lowest
log loss over all tuning samples is the result. The rounds are ours and not `Strategy.start`'s, which cannot be seen
into, stopped early or resumed; what happens in a round is the strategy's.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Strategy

from fedcore.engines.grid import FederationError, SiteGrid, seeded_sampling
from fedcore.engines.parcels import parcel, record
from fedcore.features import representation
from fedcore.features.representation import FeatureSpace
from fedcore.learner import Arrays, Setting
from fedcore.models.model import ModelSpec
from fedcore.streams import draw_seed
from privacy.releases import sketches
from privacy.releases.messages import TOO_FEW
from sites.errors import InputError

MIN_TUNING_PATIENTS = 20
"""With and without the event, each: below, the tuning split chooses nothing and the recipe's defaults stand.

A site tells its numbers only from ten patients on (`privacy.releases.messages`); others count as none."""


@dataclass(frozen=True)
class Plan:
    """What to train, and how.

    Attributes:
        model: the model.
        recipe: `federated` or `alone`.
        build: makes the strategy for a number of sites.
        settings: what is tried; the first alone, for `untuned_rounds`, where tuning cannot choose.
        rounds: rounds of each setting.
        patience: see `fedcore.models.model.Recipe`.
        untuned: the setting where tuning cannot choose.
        untuned_rounds: its rounds.
        seed: the cell's seed.
    """

    model: ModelSpec
    recipe: str
    build: Callable[[int], Strategy]
    settings: Sequence[Setting]
    rounds: int
    patience: int | None
    untuned: Setting
    untuned_rounds: int
    seed: int


@dataclass(frozen=True)
class RoundReport:
    """One round.

    Attributes:
        trial: the setting's number, from 0.
        round: from 1.
        train_loss: mean log loss over training patients, each site's as its last pass met it; None if no site has ten.
        tuning_loss: mean log loss over tuning samples of the averaged model; None where no site has enough of them.
        seconds: wall time.
        site: whose model it is, where each site trains alone.
    """

    trial: int
    round: int
    train_loss: float | None
    tuning_loss: float | None
    seconds: float
    site: str | None = None


@dataclass(frozen=True)
class Trial:
    """One setting that was tried.

    Attributes:
        setting: the hyperparameters.
        best_round: the round whose model counts, from 1.
        tuning_loss: its mean tuning log loss; None where there was none to choose by.
        rounds: rounds run.
        error: why it came to no model.
        site: whose setting it is, where each site trains alone.
    """

    setting: Setting
    best_round: int | None
    tuning_loss: float | None
    rounds: int
    error: str | None = None
    site: str | None = None


@dataclass
class Outcome:
    """What a federation came to.

    Attributes:
        arrays: the chosen model.
        space: the features it takes.
        setting: the chosen setting.
        selection: how it was chosen, in words.
        chosen: the number of its trial.
        trials: all settings tried.
        rounds: all rounds run.
        skipped: sites that took no part, and why.
        bytes_up: payload the sites sent.
        bytes_down: payload they got.
    """

    arrays: Arrays
    space: FeatureSpace
    setting: Setting
    selection: str
    chosen: int
    trials: list[Trial] = field(default_factory=list)
    rounds: list[RoundReport] = field(default_factory=list)
    skipped: Mapping[str, str] = field(default_factory=dict)
    bytes_up: int = 0
    bytes_down: int = 0


def server_app(plan: Plan, deliver: Callable[[Outcome], None], on_round: Callable[[RoundReport], None]) -> ServerApp:
    """The coordinator's app.

    Args:
        plan: what to train.
        deliver: gets the outcome.
        on_round: hears of each round as it ends.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        deliver(federate(SiteGrid(grid), plan, on_round))

    return app


def federate(grid: SiteGrid, plan: Plan, on_round: Callable[[RoundReport], None]) -> Outcome:
    """Run a federation from introduction to result.

    Raises:
        FederationError: no site has enough training patients, no setting came to a model, or a site failed.
        sites.errors.InputError: the sketches leave nothing to learn from.
    """
    training = [site for site in grid.sites if grid.introductions[site]["train"] > 0]
    skipped = {site: TOO_FEW for site in grid.sites if site not in training}
    if not training:
        raise InputError(f"no site can train ({', '.join(grid.sites)}: {TOO_FEW}); expected at least one")
    grid.keep(training)
    space = _agree(grid, plan)
    patients = {
        name: sum(grid.introductions[site][name] for site in training)
        for name in ("tuning-events", "tuning-non-events")
    }
    tuned = min(patients.values()) >= MIN_TUNING_PATIENTS
    if tuned:
        settings, rounds, patience = plan.settings, plan.rounds, plan.patience
        selection = f"lowest tuning log loss of {len(settings)} settings, at most {rounds} rounds each"
    else:
        settings, rounds, patience = (plan.untuned,), plan.untuned_rounds, None
        selection = (
            f"declared defaults: sites can tell of {patients['tuning-events']} tuning patients with the event and "
            f"{patients['tuning-non-events']} without; {MIN_TUNING_PATIENTS} of each are needed to choose"
        )
    reports: list[RoundReport] = []

    def heard(report: RoundReport) -> None:
        reports.append(report)
        on_round(report)

    trials: list[Trial] = []
    models: list[Arrays | None] = []
    for number, setting in enumerate(settings):
        search = _Search(grid, plan, space, number, setting)
        trial, arrays = search.run(rounds, patience, tuned, heard)
        trials.append(trial)
        models.append(arrays)
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
        trials=trials,
        rounds=reports,
        skipped=skipped,
        bytes_up=grid.bytes_up,
        bytes_down=grid.bytes_down,
    )


def _agree(grid: SiteGrid, plan: Plan) -> FeatureSpace:
    """The statistics round: sketches in, the feature space out."""
    chosen = representation.load(plan.model.representation)
    answers = grid.ask("query.statistics", {"representation": plan.model.representation})
    merged = sketches.merge([sketches.unpack(parcel(content).arrays) for content in answers.values()])
    space = chosen.agree(merged)
    grid.ask("query.space", {"model": plan.model.name, "recipe": plan.recipe, "space": space.to_json()})
    return space


def _best(trials: Sequence[Trial]) -> int:
    """The trial with the lowest tuning loss; the first of equals; one with a model before one without."""

    def rank(number: int) -> tuple[bool, float, int]:
        trial = trials[number]
        return (trial.error is not None, np.inf if trial.tuning_loss is None else trial.tuning_loss, number)

    return min(range(len(trials)), key=rank)


class _Search:
    """The rounds of one setting."""

    def __init__(self, grid: SiteGrid, plan: Plan, space: FeatureSpace, number: int, setting: Setting) -> None:
        self._grid = grid
        self._seed = plan.seed
        self._number = number
        self._setting = setting
        self._strategy = plan.build(len(grid.sites))
        learner = plan.model.recipe(plan.recipe).learner(space.sizes, setting)
        initial = learner.initial(draw_seed(plan.seed, "initial"))
        grid.travels(initial)
        self._arrays = record(initial)

    def run(
        self, rounds: int, patience: int | None, tuned: bool, heard: Callable[[RoundReport], None]
    ) -> tuple[Trial, Arrays | None]:
        """Train; the best round's model where tuning can tell it (`tuned`), else the last round's."""
        best: tuple[float | None, int, Arrays] | None = None
        number = 0
        for number in range(1, rounds + 1):
            try:
                report = self._round(number)
            except FederationError as error:
                return Trial(self._setting, None, None, number, str(error)), None
            heard(report)
            loss = report.tuning_loss
            if best is None or not tuned or loss is None or best[0] is None or loss < best[0]:
                best = (loss, number, self._grid.narrow(self._arrays))
            elif patience is not None and number - best[1] >= patience:
                break
        if best is None:
            raise FederationError(f"{rounds} rounds train nothing; expected at least 1")
        return Trial(self._setting, best[1], best[0], number), best[2]

    def _round(self, number: int) -> RoundReport:
        started = time.perf_counter()
        grid, strategy = self._grid, self._strategy
        with seeded_sampling(draw_seed(self._seed, "sample", "train", number)):
            asked = strategy.configure_train(number, self._arrays, self._config(), grid)
        arrays, train = strategy.aggregate_train(number, grid.exchange(asked))
        if arrays is not None:
            self._arrays = arrays
        with seeded_sampling(draw_seed(self._seed, "sample", "evaluate", number)):
            asked = strategy.configure_evaluate(number, self._arrays, self._config(), grid)
        tuning = strategy.aggregate_evaluate(number, grid.exchange(asked))
        return RoundReport(
            trial=self._number,
            round=number,
            train_loss=_mean(train, "loss-weight"),
            tuning_loss=_mean(tuning, "num-examples"),
            seconds=time.perf_counter() - started,
        )

    def _config(self) -> ConfigRecord:
        return ConfigRecord(
            {"trial": self._number, "seed": self._seed, "setting": json.dumps(dict(self._setting), sort_keys=True)}
        )


def _mean(metrics: MetricRecord | None, weight: str) -> float | None:
    """The sum of losses over its weight; None where nothing was weighed."""
    if metrics is None or not metrics[weight]:
        return None
    return float(str(metrics["loss-sum"])) / float(str(metrics[weight]))
