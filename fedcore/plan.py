"""What is to be trained, and how: the plan that a request becomes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedcore.faults.kinds import Leave, Slow
from fedcore.faults.plan import FaultPlan
from fedcore.learner import Setting
from fedcore.local import Plain
from fedcore.models import model
from fedcore.models.model import ModelSpec
from fedcore.options import check_bounds
from fedcore.protocols import protocol
from fedcore.request import FederationRequest
from fedcore.strategies import strategy
from fedcore.strategies.strategy import StrategySpec
from fedcore.streams import draw_seed
from privacy.terms import Terms
from sites.errors import InputError


@dataclass(frozen=True)
class Plan:
    """What to train, and how.

    Attributes:
        model: the model.
        model_name: its name.
        strategy: the strategy.
        strategy_name: its name.
        recipe: `federated`, `alone` or `private`.
        settings: what is tried; `untuned` alone, for `untuned_rounds`, where tuning cannot choose.
        rounds: rounds of each setting.
        patience: see `fedcore.models.model.Recipe`.
        untuned: the setting where tuning cannot choose.
        untuned_rounds: its rounds.
        seed: the cell's seed.
        initial_seed: that of the initial model.
        min_sites: the fewest sites whose answers make a round.
        fraction: the share of sites that is asked in a round.
        faults: what goes wrong on purpose.
        terms: on which the sites take part; None: without noise.
        secure: whether the coordinator learns sums of the sites' models only.
    """

    model: ModelSpec
    model_name: str
    strategy: StrategySpec
    strategy_name: str
    recipe: str
    settings: Sequence[Setting]
    rounds: int
    patience: int | None
    untuned: Setting
    untuned_rounds: int
    seed: int
    initial_seed: int
    min_sites: int = 1
    fraction: float = 1.0
    faults: FaultPlan | None = None
    terms: Terms | None = None
    secure: bool = False

    @property
    def shares_noise(self) -> bool:
        """Whether the sites share the noise."""
        return self.terms is not None and self.terms.place == "distributed"


def plan_of(request: FederationRequest) -> Plan:
    """The plan of a request.

    Raises:
        InputError: the model, the strategy or a hyperparameter is unknown, or they do not go together.
    """
    rules = None if request.protocol is None else protocol.load(request.protocol)
    model_name = request.model if rules is None else rules.model(request.model)
    strategy_name = request.strategy if rules is None else rules.strategy(request.strategy)
    spec, chosen = model.load(model_name), strategy.load(strategy_name)
    strategy.check(request.model, spec, strategy_name)
    if request.secure_aggregation:
        refuse_single(request.strategy, chosen, request.faults)
    kind = strategy.recipe(request.strategy)
    if request.privacy is not None:
        refuse_unprivate(request.strategy, chosen, request.settings is not None)
        kind = "private"
    recipe = spec.recipe(kind)
    for setting in (request.config, *(request.settings or ())):
        refuse_unknown(spec, kind, request.strategy, chosen, setting)
    declared: Setting = {**recipe.untuned, **chosen.options}
    untuned_rounds = min(request.rounds or recipe.untuned_rounds, recipe.untuned_rounds)
    if request.privacy is not None and request.privacy.place == "distributed":
        if not request.secure_aggregation:
            raise InputError("distributed noise protects nobody unless sums are secure; ask for secure aggregation too")
        refuse_unshared(strategy_name, chosen, request.config)
        untuned_rounds = request.rounds or recipe.untuned_rounds * int(recipe.untuned["steps"])
        declared = {**declared, "steps": 1}
    tried = recipe.settings if request.settings is None else request.settings
    anchor = request.strategy in strategy.ANCHORS
    return Plan(
        model=spec if rules is None else replace(spec, representation=rules.representation),
        model_name=model_name,
        strategy=chosen,
        strategy_name=strategy_name,
        recipe=kind,
        settings=[{**declared, **setting, **request.config} for setting in tried],
        rounds=request.rounds or recipe.rounds,
        patience=recipe.patience,
        untuned={**declared, **request.config},
        untuned_rounds=untuned_rounds,
        seed=request.seed,
        initial_seed=rules.initial_seed(request.seed)
        if rules is not None and rules.initial_seed is not None
        else draw_seed(request.seed, "initial"),
        min_sites=1 if anchor else request.min_sites,
        fraction=1.0 if anchor else request.fraction,
        faults=None if anchor else request.faults,
        terms=request.privacy,
        secure=request.secure_aggregation,
    )


def refuse_single(name: str, chosen: StrategySpec, faults: FaultPlan | None) -> None:
    """See that a strategy, and what goes wrong on purpose, need no single site's model.

    Raises:
        InputError: one of them does, which secure aggregation does not show.
    """
    if name in strategy.ANCHORS:
        raise InputError(f"anchor '{name}' is no federation and sums nothing; expected a federated strategy")
    if not chosen.sums:
        raise InputError(
            f"strategy '{name}' needs single sites' answers, of which secure aggregation shows the sum only; choose "
            "fedavg, fedprox, fedadam or the like"
        )
    for fault in faults.faults if faults is not None else ():
        if not isinstance(fault, Leave | Slow):
            raise InputError(
                f"fault '{fault.kind}' changes a single site's answer, which secure aggregation hides; expected leave "
                "or slow"
            )


def refuse_unshared(name: str, chosen: StrategySpec, setting: Setting) -> None:
    """See that a strategy's sites can share noise: a round is one plain step, of which the server uses the mean alone.

    Raises:
        InputError: they train otherwise.
    """
    if not chosen.sums or not chosen.private or type(chosen.local) is not Plain:
        raise InputError(
            f"strategy '{name}' cannot be trained with distributed noise, where a round is one plain step of each "
            "site; choose fedavg, fedavgm, fedadam, fedyogi or fedadagrad"
        )
    if setting.get("steps", 1) != 1:
        raise InputError(
            f"option 'steps' is {setting['steps']:g}; expected 1 with distributed noise, where a round is one step; "
            "ask for more rounds"
        )
    if setting.get("quantile", 0):
        raise InputError(
            f"option 'quantile' is {setting['quantile']:g}; expected 0 with distributed noise, which a bound that "
            "adapts has none of"
        )


def refuse_unprivate(name: str, chosen: StrategySpec, tuned: bool) -> None:
    """See that a strategy trains with patient-level privacy.

    Raises:
        InputError: it cannot, or settings are to be tried, of which each would have to be paid for.
    """
    if name in strategy.ANCHORS:
        raise InputError(f"anchor '{name}' is no federation and knows no privacy; expected a federated strategy")
    if not chosen.private:
        raise InputError(
            f"strategy '{name}' cannot be trained with patient-level privacy: its sites send more than follows from a "
            "noised model; choose fedavg, fedprox, scaffold or the like"
        )
    if tuned:
        raise InputError(
            "settings cannot be tuned with patient-level privacy yet: each trial would have to be paid for"
        )


def refuse_unknown(spec: ModelSpec, kind: str, name: str, chosen: StrategySpec, setting: Setting) -> None:
    """See that a model's recipe or its strategy knows these hyperparameters.

    Raises:
        InputError: neither knows one of them.
    """
    known = sorted({*spec.recipe(kind).untuned, *chosen.options})
    for hyperparameter in setting:
        if hyperparameter not in known:
            raise InputError(
                f"unknown hyperparameter '{hyperparameter}' of {spec.name} with {name}; expected {', '.join(known)}"
            )
    check_bounds(setting)
