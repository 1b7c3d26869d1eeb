"""One federation from samples to predictions: the one entry to training across sites."""

import os

# what flwr reads when it loads
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from flwr.app import Context
from pydantic import BaseModel, ConfigDict, Field

from fedcore.client import client_app
from fedcore.engines import inline
from fedcore.engines.grid import FederationError
from fedcore.features import representation
from fedcore.features.representation import FeatureSpace
from fedcore.learner import Arrays, Setting
from fedcore.models import model
from fedcore.samples import SiteSamples
from fedcore.server import Outcome, Plan, RoundReport, Trial, server_app
from fedcore.strategies import strategy
from sites.errors import InputError

PREDICTION_BLOCK = 4096


class FederationRequest(BaseModel):
    """What to train, with what and how.

    Attributes:
        model: a name of `fedcore.models.model.names()`.
        strategy: a name of `fedcore.strategies.strategy.names()`: a federated strategy or an anchor.
        rounds: rounds of each setting; None: as the model's recipe says.
        tune: the settings to try; None: the recipe's.
        config: hyperparameters that override the settings', for all of them.
        seed: the cell's seed.
        engine: where the federation runs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    strategy: str
    rounds: int | None = Field(default=None, ge=1)
    tune: tuple[dict[str, int | float], ...] | None = Field(default=None, min_length=1)
    config: dict[str, int | float] = Field(default_factory=dict)
    seed: int = Field(default=0, ge=0)
    engine: Literal["inline"] = "inline"


@dataclass(frozen=True)
class FederationResult:
    """What a federation came to.

    Under the anchor `local` there is a model for each site: `by_site` holds them, `arrays` is empty, `space` None.

    Attributes:
        predictions: by site, external ones included: float64 [n], the probability of each of its samples, in their
            order. They stay with the runner. `local` predicts for each site that has a model, and for none else.
        arrays: the model, by the arrays' names.
        space: the features it takes.
        settings: the chosen hyperparameters.
        selection: how they were chosen, in words.
        trials: all settings tried.
        chosen: the number of the chosen trial; None under `local`, where each site chooses.
        rounds: all rounds run.
        skipped: sites that took no part in training, and why.
        bytes_up: payload the sites sent in all rounds of all settings, statistics included; 0 for an anchor, which
            is no federation and sends nothing.
        bytes_down: payload they got.
        by_site: under `local`, each site's own result.
    """

    predictions: Mapping[str, np.ndarray]
    arrays: Arrays
    space: FeatureSpace | None
    settings: Setting
    selection: str
    trials: list[Trial]
    chosen: int | None
    rounds: list[RoundReport]
    skipped: Mapping[str, str]
    bytes_up: int
    bytes_down: int
    by_site: "Mapping[str, FederationResult]" = field(default_factory=dict)


def run_federation(
    sites: Sequence[SiteSamples],
    request: FederationRequest,
    *,
    on_round: Callable[[RoundReport], None] | None = None,
) -> FederationResult:
    """Train a model over sites and predict with it.

    Equal sites, request and machine give equal arrays and predictions, bit for bit; the order of `sites` does not
    matter.

    Args:
        sites: their samples, each name once; external sites are only predicted for.
        request: what to train.
        on_round: hears of each round as it ends.

    Raises:
        FederationError: nothing could be trained; one sentence.
        sites.errors.InputError: the model, the strategy or a hyperparameter is unknown, the model is an anchor only, or
            the training samples leave no feature to learn from.
    """
    ordered = sorted(sites, key=lambda site: site.site)
    for before, after in pairwise(ordered):
        if before.site == after.site:
            raise FederationError(f"two sites are named '{after.site}'; expected a name of its own for each")
    training = [site for site in ordered if not site.external]
    if not training:
        raise FederationError("all sites are external; expected at least one to train on")
    heard = on_round or (lambda _: None)
    plan = _plan(request)
    with _one_thread():
        if request.strategy == "local":
            return _local(training, plan, heard)
        if request.strategy == "pooled":
            result = _train([SiteSamples.concatenate(training)], ordered, plan, heard)
            return replace(result, bytes_up=0, bytes_down=0)
        return _train(training, ordered, plan, heard)


def _plan(request: FederationRequest) -> Plan:
    spec = model.load(request.model)
    kind = strategy.recipe(request.strategy)
    recipe = spec.recipe(kind)
    for setting in (request.config, *(request.tune or ())):
        spec.refuse_unknown(kind, setting)
    tried = recipe.settings if request.tune is None else [{**recipe.untuned, **setting} for setting in request.tune]
    return Plan(
        model=spec,
        recipe=kind,
        build=strategy.load(request.strategy),
        settings=[{**setting, **request.config} for setting in tried],
        rounds=request.rounds or recipe.rounds,
        patience=recipe.patience,
        untuned={**recipe.untuned, **request.config},
        untuned_rounds=min(request.rounds or recipe.untuned_rounds, recipe.untuned_rounds),
        seed=request.seed,
    )


def _local(sites: Sequence[SiteSamples], plan: Plan, on_round: Callable[[RoundReport], None]) -> FederationResult:
    results: dict[str, FederationResult] = {}
    skipped: dict[str, str] = {}
    for samples in sites:
        rounds = _Named(samples.site, on_round)
        try:
            results[samples.site] = _train([samples], [samples], plan, rounds)
        except (FederationError, InputError) as error:
            skipped[samples.site] = str(error)
    if not results:
        raise InputError(f"no site can train alone: {next(iter(skipped.values()))}")
    return FederationResult(
        predictions={name: result.predictions[name] for name, result in results.items()},
        arrays={},
        space=None,
        settings={},
        selection="each site by itself",
        trials=[replace(trial, site=name) for name, result in results.items() for trial in result.trials],
        chosen=None,
        rounds=[replace(report, site=name) for name, result in results.items() for report in result.rounds],
        skipped=skipped,
        bytes_up=0,
        bytes_down=0,
        by_site=results,
    )


@dataclass(frozen=True)
class _Named:
    """Passes rounds on with the site whose they are."""

    site: str
    on_round: Callable[[RoundReport], None]

    def __call__(self, report: RoundReport) -> None:
        self.on_round(replace(report, site=self.site))


def _train(
    training: Sequence[SiteSamples],
    scored: Sequence[SiteSamples],
    plan: Plan,
    on_round: Callable[[RoundReport], None],
) -> FederationResult:
    """A federation of `training`, in order, and its predictions for `scored`."""
    outcomes: list[Outcome] = []

    def open_site(context: Context) -> SiteSamples:
        return training[int(str(context.node_config["partition-id"]))]

    inline.run(server_app(plan, outcomes.append, on_round), client_app(open_site), len(training))
    outcome = outcomes[0]
    return FederationResult(
        predictions={samples.site: _predictions(plan, outcome, samples) for samples in scored},
        arrays=outcome.arrays,
        space=outcome.space,
        settings=outcome.setting,
        selection=outcome.selection,
        trials=outcome.trials,
        chosen=outcome.chosen,
        rounds=outcome.rounds,
        skipped=outcome.skipped,
        bytes_up=outcome.bytes_up,
        bytes_down=outcome.bytes_down,
    )


def _predictions(plan: Plan, outcome: Outcome, samples: SiteSamples) -> np.ndarray:
    """Float64 [n]: computed at the site, in blocks, and never sent."""
    learner = plan.model.recipe(plan.recipe).learner(outcome.space.sizes, outcome.setting)
    shown = representation.load(outcome.space.representation)
    blocks = [np.zeros(0)]
    for start in range(0, len(samples), PREDICTION_BLOCK):
        block = samples.take(np.arange(start, min(start + PREDICTION_BLOCK, len(samples))))
        blocks.append(learner.predict(outcome.arrays, shown.encode(block, outcome.space)))
    return np.concatenate(blocks)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums of floats depend on how many threads share them: one, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
