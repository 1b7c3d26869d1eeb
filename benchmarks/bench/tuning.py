"""The settings that a suite's `tune` block tries: as many for every strategy, drawn once for all seeds.

The first setting is the declared one. The others are a Latin hypercube (McKay, Beckman and Conover, 1979): of N - 1
settings each hyperparameter has one value in each of N - 1 equal parts of its range. A hyperparameter's draws depend on
its name and on N alone, so every strategy tries the same step sizes, and what a strategy adds changes nothing else.
"""

from collections.abc import Mapping

from fedcore.learner import Setting
from fedcore.models.model import ModelSpec, Range
from fedcore.strategies.strategy import StrategySpec
from fedcore.streams import stream
from sites.errors import InputError


def settings(
    model: ModelSpec,
    strategy: StrategySpec,
    kind: str,
    count: int,
    ranges: Mapping[str, tuple[float, float]],
    fixed: Setting,
) -> tuple[Setting, ...]:
    """`count` settings of a model and a strategy together.

    Args:
        model: the model.
        strategy: the strategy.
        kind: the model's recipe, `federated` or `alone`.
        count: how many.
        ranges: in place of the declared ranges.
        fixed: hyperparameters that are not drawn.

    Raises:
        InputError: a range is upside down, or there is nothing to draw from.
    """
    recipe = model.recipe(kind)
    federated = kind == "federated"
    declared: Setting = {**recipe.untuned, **(strategy.options if federated else {})}
    drawn_from = declared_ranges(model, strategy, kind)
    for name, (low, high) in ranges.items():
        if not low < high or (name in drawn_from and drawn_from[name].log and low <= 0):
            raise InputError(
                f"tune.ranges.{name}: found [{low}, {high}], expected two numbers that rise, above 0 if log"
            )
        if name in drawn_from:
            known = drawn_from[name]
            drawn_from[name] = Range(low, high, log=known.log, whole=known.whole)
    declared = {**declared, **fixed}
    for name in fixed:
        drawn_from.pop(name, None)
    if count > 1 and not drawn_from:
        raise InputError(
            f"model '{model.name}' has no range left to draw its {kind} settings from; expected one to tune"
        )
    drawn = {name: _column(name, span, count - 1) for name, span in sorted(drawn_from.items())}
    others = [{**declared, **{name: values[place] for name, values in drawn.items()}} for place in range(count - 1)]
    return (declared, *others)


def _column(name: str, span: Range, count: int) -> list[int | float]:
    draws = stream(0, "tune", name, count)
    return [span.at((part + draws.random()) / count) for part in draws.permutation(count)]


def declared_ranges(model: ModelSpec, strategy: StrategySpec, kind: str) -> dict[str, Range]:
    """What the hyperparameters of a model and a strategy together are drawn from, as declared."""
    return {**model.recipe(kind).ranges, **(strategy.ranges if kind == "federated" else {})}
