"""What a federation is asked for, and the plan that it becomes."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from fedcore.faults.plan import FaultPlan
from fedcore.learner import Setting
from fedcore.models import model
from fedcore.models.model import ModelSpec
from fedcore.server import Plan
from fedcore.strategies import strategy
from fedcore.strategies.strategy import StrategySpec
from sites.errors import InputError

Engine = Literal["inline", "simulation"]


class FederationRequest(BaseModel):
    """What to train, with what and how.

    Attributes:
        model: a name of `fedcore.models.model.names()`, or a user's `module:NAME`.
        strategy: a name of `fedcore.strategies.strategy.names()`, a federated strategy or an anchor; or `module:NAME`.
        rounds: rounds of each setting; None: as the model's recipe says.
        settings: the settings to try, each the model's and the strategy's hyperparameters together, what is left out as
            declared; None: the recipe's.
        config: hyperparameters that override the settings', for all of them.
        seed: the cell's seed.
        min_sites: the fewest sites whose answers make a round; a strategy may need more.
        fraction: the share of the sites that is asked in a round.
        faults: what goes wrong on purpose; anchors suffer none of it.
        protocol: another body of rules for data, models and strategies: a name of `fedcore.protocols`.
        engine: where the federation runs; anchors always run in process.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    strategy: str
    rounds: int | None = Field(default=None, ge=1)
    settings: tuple[dict[str, int | float], ...] | None = Field(default=None, min_length=1)
    config: dict[str, int | float] = Field(default_factory=dict)
    seed: int = Field(default=0, ge=0)
    min_sites: int = Field(default=1, ge=1)
    fraction: float = Field(default=1.0, gt=0, le=1)
    faults: FaultPlan | None = None
    protocol: str | None = None
    engine: Engine = "inline"


def plan_of(request: FederationRequest) -> Plan:
    """The plan of a request.

    Raises:
        InputError: the model, the strategy or a hyperparameter is unknown, or they do not go together.
    """
    spec, chosen = model.load(request.model), strategy.load(request.strategy)
    strategy.check(request.model, spec, request.strategy)
    kind = strategy.recipe(request.strategy)
    recipe = spec.recipe(kind)
    for setting in (request.config, *(request.settings or ())):
        refuse_unknown(spec, kind, request.strategy, chosen, setting)
    declared: Setting = {**recipe.untuned, **chosen.options}
    tried = recipe.settings if request.settings is None else request.settings
    anchor = request.strategy in strategy.ANCHORS
    return Plan(
        model=spec,
        model_name=request.model,
        strategy=chosen,
        strategy_name=request.strategy,
        recipe=kind,
        settings=[{**declared, **setting, **request.config} for setting in tried],
        rounds=request.rounds or recipe.rounds,
        patience=recipe.patience,
        untuned={**declared, **request.config},
        untuned_rounds=min(request.rounds or recipe.untuned_rounds, recipe.untuned_rounds),
        seed=request.seed,
        min_sites=1 if anchor else request.min_sites,
        fraction=1.0 if anchor else request.fraction,
        faults=None if anchor else request.faults,
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
