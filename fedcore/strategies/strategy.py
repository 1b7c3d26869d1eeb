"""Strategies by name: what `fedcore.federation` trains with.

A federated strategy is a file of this folder that defines `STRATEGY`, a `StrategySpec`; or anything a user names as
`module:NAME`: a `StrategySpec`, or a Flower strategy's class, unchanged. Beside them stand the anchors, which are no
federations: each is trained as a federation of one, whose average is its only model.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from fedcore.learner import Setting
from fedcore.local import Local, Plain
from fedcore.models.model import ModelSpec, Range
from fedcore.registry import Registry
from fedcore.rule import Averaging, Roster, ruled
from sites.errors import InputError

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

ANCHORS: Mapping[str, str] = {
    "local": "Anchor: each site alone with its own data, what a hospital has without a federation.",
    "pooled": "Anchor: the data brought together, which no federation may do: the upper reference.",
    "external": "Anchor: each site takes over the model that the largest other site trained alone.",
}

Build = Callable[[Roster, Setting], "Strategy"]
Needs = Literal["network", "trees", "head", "norms", "embedding"]


@dataclass(frozen=True)
class StrategySpec:
    """A strategy.

    Attributes:
        build: makes the server's half for a roster and a setting.
        title: what it is called in the literature.
        paper: authors, title, year.
        when: when one would choose it, one clause.
        local: the sites' half.
        options: its own hyperparameters with their declared defaults; they stand in one setting with the model's.
        ranges: what a suite's `tune` block draws them from.
        min_sites: the fewest sites its paper allows, for a setting.
        turns: for a number of sites, how many rounds make one in which each site is asked once; a recipe's rounds and
            patience are multiplied by it.
        whole: whether the federation's model is one that a site can predict with that took no part; not where each site
            keeps a part of it to itself.
        private: whether all that its sites send follows from the model that they trained, so that where training is
            noised nothing else needs to be.
        site_level: whether the coordinator adds noise that hides single hospitals, of `site_noise` times what one can
            change a round's sum by.
        sums: whether the server uses nothing of the replies but their weighted mean, so that secure aggregation, which
            shows nothing else, serves it.
        needs: what a model must have: be a `network` or `trees`; have a `head`, `norms` or an `embedding`.
    """

    build: Build
    title: str
    paper: str
    when: str
    local: Local = field(default_factory=Plain)
    options: Setting = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)
    min_sites: Callable[[Setting], int] = lambda _setting: 1
    turns: Callable[[int], int] = lambda _sites: 1
    whole: bool = True
    private: bool = True
    site_level: bool = False
    sums: bool = False
    needs: Needs = "network"

    def lacks(self, model: ModelSpec) -> str | None:
        """What the model lacks to be trained with this strategy, if anything."""
        if self.needs == "trees":
            return None if model.kind == "trees" else "trees"
        if model.kind == "trees":
            return "a network"
        has = {"network": True, "head": bool(model.head), "norms": bool(model.norms), "embedding": model.embeds}
        wanted = {"head": "a head of its own", "norms": "batch normalisation", "embedding": "an embedding"}
        return None if has[self.needs] else wanted[self.needs]


ALONE = StrategySpec(
    build=ruled(lambda _roster, _setting: Averaging()),
    title="No federation",
    paper="",
    when="as the reference",
    needs="network",
)


def recipe(name: str) -> str:
    """The recipe of a model (`fedcore.models.model.ModelSpec.recipe`) that a strategy trains by.

    >>> recipe("pooled"), recipe("fedavg")
    ('alone', 'federated')
    """
    return "alone" if name in ANCHORS else "federated"


def flower(kind: "type[Strategy]", roster: Roster, **options: Any) -> "Strategy":
    """A Flower strategy with the roster's numbers, as far as its constructor takes them.

    Raises:
        InputError: its constructor wants more than it is given, or refuses it.
    """
    parameters = inspect.signature(kind).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    given = {key: value for key, value in roster.flower().items() if takes_all or key in parameters}
    try:
        return kind(**given, **options)
    except (TypeError, ValueError) as error:
        raise InputError(f"{kind.__name__} cannot be made: {error}") from error


def _of_a_user(name: str, found: Any) -> StrategySpec:
    if isinstance(found, StrategySpec):
        return found
    from flwr.serverapp.strategy import Strategy

    if not (inspect.isclass(found) and issubclass(found, Strategy)):
        kind = getattr(found, "__name__", type(found).__name__)
        raise InputError(
            f"{name} is {kind}; expected a class that extends flwr.serverapp.strategy.Strategy, or a StrategySpec"
        )
    if inspect.isabstract(found):
        lacking = ", ".join(sorted(found.__abstractmethods__))
        raise InputError(f"{name} lacks {lacking}; a Flower strategy defines them")

    def build(roster: Roster, setting: Setting) -> Strategy:
        return flower(found, roster)

    documented = (inspect.getdoc(found) or "").partition("\n")[0]
    return StrategySpec(build=build, title=name, paper=documented, when="its author says so")


STRATEGIES = Registry[StrategySpec](
    "strategy",
    "fedcore.strategies",
    "STRATEGY",
    no_part=("strategy",),
    of_a_user=_of_a_user,
    without_file=dict.fromkeys(ANCHORS, ALONE),
)

names, module, load = STRATEGIES.names, STRATEGIES.module, STRATEGIES.load


def federated() -> list[str]:
    """The federated strategies that come with FedWard, sorted; loads none of them."""
    return list(STRATEGIES.files())


def check(model_name: str, model: ModelSpec, name: str) -> None:
    """See that a model and a strategy go together.

    Raises:
        InputError: they do not; says what is lacking.
    """
    if name in ANCHORS:
        return
    lacking = load(name).lacks(model)
    if lacking is not None:
        raise InputError(f"strategy '{name}' needs {lacking}, which model '{model_name}' is not or has not")
