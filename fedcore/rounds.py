"""The rounds of one setting: what a strategy does in them, and which of them is the best.

The rounds are ours and not `Strategy.start`'s, which cannot be seen into, stopped early or resumed; what happens in a
round is the strategy's. A strategy with a `start` of its own runs through that.

In a round a site may fail, or send what does not count: it is left out of this round, and the round goes on while
`min_sites` answer. With fewer the round changes nothing, and the next begins.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import Strategy

from fedcore.engines.grid import SiteGrid, Turn, seeded_sampling
from fedcore.engines.parcels import parcel, record
from fedcore.engines.secured import Secured, Summed
from fedcore.errors import CheckpointError, FederationError, StorageError
from fedcore.features.representation import FeatureSpace
from fedcore.learner import Arrays, Setting
from fedcore.plan import Plan
from fedcore.rule import Roster
from fedcore.streams import draw_seed
from privacy.secagg.sizes import FEWEST
from sites.errors import InputError


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


OnRound = Callable[[RoundReport], None]


class Search:
    """The rounds of one setting."""

    def __init__(
        self,
        grid: SiteGrid,
        plan: Plan,
        space: FeatureSpace,
        number: int,
        setting: Setting,
        secured: Secured | None = None,
    ) -> None:
        self._grid = grid
        self._plan = plan
        self._setting = setting
        self._secured = secured
        required = max(plan.min_sites, plan.strategy.min_sites(setting))
        if secured is not None and len(grid.sites) < FEWEST:
            raise InputError(
                f"secure aggregation needs {FEWEST} sites; found {len(grid.sites)} that can train "
                f"({', '.join(grid.sites)})"
            )
        required = required if secured is None else max(required, FEWEST)
        if required > len(grid.sites):
            raise InputError(
                f"strategy '{plan.strategy_name}' needs {required} sites with {_shown(setting, plan)}; "
                f"found {len(grid.sites)} that can train ({', '.join(grid.sites)})"
            )
        self._required = required
        samples = sum(grid.introductions[site]["train"] for site in grid.sites)
        roster = Roster(len(grid.sites), samples, min_sites=required, fraction=plan.fraction, seed=plan.seed)
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
        if secured is not None and self.own_start:
            raise InputError(
                f"strategy '{plan.strategy_name}' runs through a start of its own, where nothing is summed securely; "
                "expected one without"
            )
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
        heard = Summed([], 0)
        waited = 0.0
        needed = self._required
        if len(list(grid.get_node_ids())) >= self._awaited:
            with self._the_strategys(number, "train"):
                asked = list(strategy.configure_train(number, self._arrays, ConfigRecord(), grid))
            needed = min(needed, max(len(asked), 1))  # a strategy may ask fewer, as cyclic transfer asks one
            waited += grid.waited(asked)
            heard = self._exchange(asked)
            if all(site in grid.failing for site in grid.sites):
                site, reason = next(iter(grid.failing.items()))
                raise FederationError(f"every site failed by round {number}; {site}: {reason}")
        tuning: list[Message] = []
        if heard.sites >= needed:
            with self._the_strategys(number, "train"):
                arrays = _model_of(strategy.aggregate_train(number, heard.replies))
            if arrays is not None:
                self._arrays = arrays
            with self._the_strategys(number, "evaluate"):
                asked = list(strategy.configure_evaluate(number, self._arrays, ConfigRecord(), grid))
            waited += grid.waited(asked)
            tuning = grid.exchange(asked)
            with self._the_strategys(number, "evaluate"):
                strategy.aggregate_evaluate(number, tuning)
        else:
            heard = Summed([], 0)
        return RoundReport(
            trial=self._turn.trial,
            round=number,
            train_loss=_mean(heard.replies, "loss-weight"),
            tuning_loss=self._tuning_loss(tuning),
            seconds=time.perf_counter() - started,
            answered=heard.sites,
            waited_s=waited,
        )

    def _exchange(self, asked: Sequence[Message]) -> Summed:
        """What counts of the sites' answers: one each, or one for all whose sum is learnt."""
        if self._secured is not None:
            return self._secured.exchange(self._turn, asked)
        replies = self._grid.exchange(asked)
        return Summed(replies, len(replies))

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


def _model_of(made: object) -> ArrayRecord | None:
    """The model that a strategy's `aggregate_train` returned.

    Raises:
        TypeError: it returned something else.
    """
    if isinstance(made, tuple) and len(made) == 2:
        arrays = made[0]
        if arrays is None or isinstance(arrays, ArrayRecord):
            return arrays
        made = arrays
    raise TypeError(
        f"aggregate_train returned {type(made).__name__}; expected (ArrayRecord or None, MetricRecord or None)"
    )


def _shown(setting: Setting, plan: Plan) -> str:
    own = {name: setting[name] for name in plan.strategy.options}
    return ", ".join(f"{name} {value}" for name, value in own.items()) or "its settings"


def _mean(replies: Sequence[Message], weight: str) -> float | None:
    """The replies' sum of losses over their sum of weights; None where nothing was weighed."""
    numbers = [parcel(RecordDict(dict(reply.content.metric_records))).numbers for reply in replies]
    total = sum(float(str(one.get(weight, 0))) for one in numbers)
    return sum(float(str(one.get("loss-sum", 0.0))) for one in numbers) / total if total else None
