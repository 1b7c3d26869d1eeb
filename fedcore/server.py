"""What the coordinator does in a federation: the Flower ServerApp.

The sites introduce themselves; their sketches are merged into one feature space, which they get back; then each
setting of the model's recipe is trained for some rounds with the strategy, and the setting and round with the lowest
log loss over all tuning samples is the result. The rounds are ours and not `Strategy.start`'s, which cannot be seen
into, stopped early or resumed; what happens in a round is the strategy's. A strategy with a `start` of its own runs
through that.

In a round a site may fail, or send what does not count: it is left out of this round, and the round goes on while
`min_sites` answer. With fewer the round changes nothing, and the next begins.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Strategy

from fedcore.engines.grid import Dropped, FederationError, SiteGrid, Turn, seeded_sampling
from fedcore.engines.journal import CheckpointError, Journal, StorageError
from fedcore.engines.parcels import parcel, record
from fedcore.features import representation
from fedcore.features.representation import FeatureSpace
from fedcore.learner import Arrays, Setting
from fedcore.plan import Plan
from fedcore.rule import Roster
from fedcore.streams import draw_seed
from privacy.releases import sketches
from privacy.releases.messages import TOO_FEW
from sites.errors import InputError

MIN_TUNING_EVENTS = 20
MIN_TUNING_PATIENTS = 300
"""So many tuning patients with and without the event each, or so many in all, are needed to choose on: below, the
tuning split chooses nothing and the recipe's defaults stand (docs/decisions/0005).

A site tells its numbers only from ten patients on (`privacy.releases.messages`); others count as none."""


@dataclass(frozen=True)
class RoundReport:
    """One round.

    Attributes:
        trial: the setting's number, from 0.
        round: from 1.
        train_loss: mean log loss over training patients, each site's as its last pass met it; None if no site has ten.
        tuning_loss: mean log loss over tuning samples of the averaged model; None where no site has enough of them.
            A site that does not answer counts with what it said last: who is away must not decide which round is best.
        seconds: wall time.
        answered: sites whose training counted; 0: too few of them, and the round changed nothing.
        waited_s: simulated seconds that the coordinator waited for slow sites (`fedcore.faults`).
        site: whose model it is, where each site trains alone.
    """

    trial: int
    round: int
    train_loss: float | None
    tuning_loss: float | None
    seconds: float
    answered: int
    waited_s: float = 0.0
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
        heard_of: over how many sites the tuning loss is.
    """

    setting: Setting
    best_round: int | None
    tuning_loss: float | None
    rounds: int
    error: str | None = None
    site: str | None = None
    heard_of: int = 0


@dataclass
class Outcome:
    """What a federation came to.

    Attributes:
        arrays: the chosen model.
        space: the features it takes.
        setting: the chosen setting.
        selection: how it was chosen, in words.
        chosen: the number of its trial.
        remembered: the sites that trained it, and in which round last: they predict with what they remembered then.
        trials: all settings tried.
        rounds: all rounds run.
        skipped: sites that took no part, and why.
        dropped: answers that did not count.
        own_start: the strategy ran through a `start` of its own, which cannot be resumed.
        bytes_up: payload the sites sent.
        bytes_down: payload they got.
    """

    arrays: Arrays
    space: FeatureSpace
    setting: Setting
    selection: str
    chosen: int
    remembered: Mapping[str, int] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)
    rounds: list[RoundReport] = field(default_factory=list)
    skipped: Mapping[str, str] = field(default_factory=dict)
    dropped: list[Dropped] = field(default_factory=list)
    own_start: bool = False
    bytes_up: int = 0
    bytes_down: int = 0


OnRound = Callable[[RoundReport], None]


def server_app(
    plan: Plan, deliver: Callable[[Outcome], None], on_round: OnRound, journal: Journal | None = None
) -> ServerApp:
    """The coordinator's app.

    Args:
        plan: what to train.
        deliver: gets the outcome.
        on_round: hears of each round as it ends.
        journal: the checkpoint to go on from.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        deliver(federate(grid, plan, on_round, journal))

    return app


def federate(
    inner: Grid, plan: Plan, on_round: OnRound, journal: Journal | None = None, federation: str = "000"
) -> Outcome:
    """Run a federation from introduction to result.

    Args:
        inner: the engine's Grid.
        plan: what to train.
        on_round: hears of each round as it ends.
        journal: the checkpoint to go on from.
        federation: a name for it, where several run over one Grid.

    Raises:
        FederationError: no setting came to a model.
        CheckpointError: the checkpoint cannot be gone on from.
        sites.errors.InputError: too few sites can train, or their sketches leave nothing to learn from.
    """
    grid = SiteGrid(inner, federation=federation, journal=journal)
    skipped = {site: TOO_FEW for site in grid.sites if grid.introductions[site]["train"] == 0}
    grid.keep([site for site in grid.sites if site not in skipped])
    if not grid.sites:
        raise InputError(f"no site can train ({', '.join(skipped)}: {TOO_FEW}); expected at least one")
    space, failed = _agree(grid, plan)
    skipped |= failed
    if plan.faults is not None:
        grid.suffers(plan.faults.draw(plan.seed, grid.sites))
    told = {name: sum(grid.introductions[site][name] for site in grid.sites) for name in _TUNING}
    tuned = told["tuning"] >= MIN_TUNING_PATIENTS or min(told[name] for name in _TUNING[1:]) >= MIN_TUNING_EVENTS
    turns = plan.strategy.turns(len(grid.sites))
    if tuned:
        settings, rounds = plan.settings, plan.rounds * turns
        patience = None if plan.patience is None else plan.patience * turns
        selection = f"lowest tuning log loss of {len(settings)} settings, at most {rounds} rounds each"
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
    own_start = False
    for number, setting in enumerate(settings):
        search = _Search(grid, plan, space, number, setting)
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
        dropped=grid.dropped,
        own_start=own_start,
        bytes_up=grid.bytes_up,
        bytes_down=grid.bytes_down,
    )


_TUNING = ("tuning", "tuning-events", "tuning-non-events")


def _agree(grid: SiteGrid, plan: Plan) -> tuple[FeatureSpace, dict[str, str]]:
    """The statistics round: sketches in, the feature space out; and the sites that failed in it, with the reason."""
    chosen = representation.load(plan.model.representation)
    answers, failed = grid.ask("query.statistics", {"representation": plan.model.representation})
    grid.keep(answers)
    if not answers:
        site, reason = next(iter(failed.items()))
        raise FederationError(f"no site could describe its samples; {site}: {reason}")
    space = chosen.agree(sketches.merge([sketches.unpack(parcel(content).arrays) for content in answers.values()]))
    terms = {
        "model": plan.model_name,
        "recipe": plan.recipe,
        "strategy": plan.strategy_name,
        "space": space.to_json(),
    }
    agreed, refused = grid.ask("query.space", terms)
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


class _Search:
    """The rounds of one setting."""

    def __init__(self, grid: SiteGrid, plan: Plan, space: FeatureSpace, number: int, setting: Setting) -> None:
        self._grid = grid
        self._plan = plan
        self._setting = setting
        required = max(plan.min_sites, plan.strategy.min_sites(setting))
        if required > len(grid.sites):
            raise InputError(
                f"strategy '{plan.strategy_name}' needs {required} sites with {_shown(setting, plan)}; "
                f"found {len(grid.sites)} that can train ({', '.join(grid.sites)})"
            )
        self._required = required
        samples = sum(grid.introductions[site]["train"] for site in grid.sites)
        roster = Roster(sites=len(grid.sites), samples=samples, min_sites=required, fraction=plan.fraction)
        self._strategy = plan.strategy.build(roster, setting)
        # Flower's strategies wait for ever for as many sites as they were made for
        waits = ("min_available_nodes", "min_train_nodes", "min_evaluate_nodes")
        awaited = max(int(getattr(self._strategy, name, 0)) for name in waits)
        if awaited > len(grid.sites):
            raise InputError(
                f"strategy '{plan.strategy_name}' waits for {awaited} sites (min_available_nodes and the like); found "
                f"{len(grid.sites)} that can train ({', '.join(grid.sites)}); make it with fewer"
            )
        self._awaited = max(required, awaited)
        self._turn = Turn(number, plan.seed, json.dumps(dict(setting), sort_keys=True))
        grid.begin(self._turn)
        learner = plan.model.recipe(plan.recipe).learner(space.sizes, setting)
        initial = learner.initial(plan.initial_seed)
        grid.travels(initial)
        self._arrays = record(initial)
        self._told: dict[int, Message] = {}
        self.remembered: Mapping[str, int] = {}

    @property
    def own_start(self) -> bool:
        """Whether the strategy has a `start` of its own."""
        return type(self._strategy).start is not Strategy.start

    def run(self, rounds: int, patience: int | None, tuned: bool, heard: OnRound) -> tuple[Trial, Arrays | None]:
        """Train; the best round's model where tuning can tell it (`tuned`), else the last round's."""
        if self.own_start:
            return self._through_start(rounds, heard)
        best: tuple[float | None, int, Arrays] | None = None
        number = heard_of = 0  # losses over fewer sites are not to be compared with those over more
        for number in range(1, rounds + 1):
            self._turn.round = number
            try:
                report = self._round(number)
            except FederationError as error:
                return Trial(self._setting, None, None, number, str(error)), None
            heard(report)
            if report.answered == 0:
                continue
            loss = report.tuning_loss
            more, heard_of = len(self._told) > heard_of, len(self._told)
            if best is None or not tuned or (loss is not None and (more or best[0] is None or loss < best[0])):
                best = (loss, number, self._grid.narrow(self._arrays))
                self._turn.best_round = number
                self.remembered = self._grid.trained()
            elif patience is not None and number - best[1] >= patience:
                break
        if best is None:
            reason = f"in none of {rounds} rounds did {self._required} sites answer"
            return Trial(self._setting, None, None, number, reason), None
        return Trial(self._setting, best[1], best[0], number, heard_of=heard_of), best[2]

    def _round(self, number: int) -> RoundReport:
        started = time.perf_counter()
        grid, strategy = self._grid, self._strategy
        replies: list[Message] = []
        waited = 0.0
        needed = self._required
        if len(list(grid.get_node_ids())) >= self._awaited:
            with self._the_strategys(number, "train"):
                asked = list(strategy.configure_train(number, self._arrays, ConfigRecord(), grid))
            needed = min(needed, max(len(asked), 1))  # a strategy may ask fewer, as cyclic transfer asks one
            waited += grid.waited(asked)
            replies = grid.exchange(asked)
            if all(site in grid.failing for site in grid.sites):
                site, reason = next(iter(grid.failing.items()))
                raise FederationError(f"every site failed by round {number}; {site}: {reason}")
        tuning: list[Message] = []
        if len(replies) >= needed:
            with self._the_strategys(number, "train"):
                arrays, _ = strategy.aggregate_train(number, replies)
            if arrays is not None:
                self._arrays = arrays
            with self._the_strategys(number, "evaluate"):
                asked = list(strategy.configure_evaluate(number, self._arrays, ConfigRecord(), grid))
            waited += grid.waited(asked)
            tuning = grid.exchange(asked)
            with self._the_strategys(number, "evaluate"):
                strategy.aggregate_evaluate(number, tuning)
        else:
            replies = []
        return RoundReport(
            trial=self._turn.trial,
            round=number,
            train_loss=_mean(replies, "loss-weight"),
            tuning_loss=self._tuning_loss(tuning),
            seconds=time.perf_counter() - started,
            answered=len(replies),
            waited_s=waited,
        )

    def _tuning_loss(self, replies: Sequence[Message]) -> float | None:
        """The loss over all tuning samples that the sites told of last."""
        for reply in replies:
            self._told[reply.metadata.src_node_id] = reply
        return _mean([self._told[node] for node in sorted(self._told, key=self._grid.place)], "num-examples")

    def _through_start(self, rounds: int, heard: OnRound) -> tuple[Trial, Arrays | None]:
        """The strategy's own `start`: its rounds are not seen, and its last model is the result."""
        started, grid = time.perf_counter(), self._grid
        grid.let_go()
        try:
            with self._the_strategys(rounds, "start"):
                result = self._strategy.start(grid=grid, initial_arrays=self._arrays, num_rounds=rounds)
            if not result.arrays:
                raise FederationError(f"strategy '{self._plan.strategy_name}' came to no model in its own start")
            self._arrays = result.arrays
            content = RecordDict({"arrays": self._arrays, "config": ConfigRecord()})
            replies = grid.exchange(
                [Message(content, dst_node_id=n, message_type="evaluate") for n in grid.get_node_ids()]
            )
        except FederationError as error:
            return Trial(self._setting, None, None, rounds, str(error)), None
        self.remembered = grid.trained()
        loss, trial = _mean(replies, "num-examples"), self._turn.trial
        heard(RoundReport(trial, rounds, None, loss, time.perf_counter() - started, len(replies)))
        return Trial(self._setting, rounds, loss, rounds), grid.narrow(self._arrays)

    @contextmanager
    def _the_strategys(self, number: int, what: str) -> Iterator[None]:
        """Strategy code: it draws from a seeded `random`, and whatever it raises ends the trial with a sentence."""
        try:
            with seeded_sampling(draw_seed(self._plan.seed, "sample", what, number)):
                yield
        except (FederationError, CheckpointError, StorageError):
            raise
        except Exception as error:
            raise FederationError(
                f"strategy '{self._plan.strategy_name}' failed in round {number}: {type(error).__name__}: {error}"
            ) from error


def _shown(setting: Setting, plan: Plan) -> str:
    own = {name: setting[name] for name in plan.strategy.options}
    return ", ".join(f"{name} {value}" for name, value in own.items()) or "its settings"


def _mean(replies: Sequence[Message], weight: str) -> float | None:
    """The replies' sum of losses over their sum of weights; None where nothing was weighed."""
    numbers = [parcel(RecordDict(dict(reply.content.metric_records))).numbers for reply in replies]
    total = sum(float(str(one.get(weight, 0))) for one in numbers)
    return sum(float(str(one.get("loss-sum", 0.0))) for one in numbers) / total if total else None
