"""Strategies by name: a file in this folder that defines `build(sites) -> flwr.serverapp.strategy.Strategy`."""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flwr.app import MetricRecord, RecordDict
    from flwr.serverapp.strategy import Strategy


class StrategyError(ValueError):
    """A strategy is not known: one sentence."""


def names() -> list[str]:
    """The strategies at hand, sorted; loads none of them.

    >>> names()
    ['fedavg']
    """
    here = Path(__file__)
    return sorted(path.stem for path in here.parent.glob("[a-z]*.py") if path != here)


def load(name: str) -> "Callable[[int], Strategy]":
    """What builds the strategy of that name for a number of sites.

    Raises:
        StrategyError: no file of that name.
    """
    if name not in names():
        raise StrategyError(f"unknown strategy {name!r}; expected one of {', '.join(names())}")
    build: Callable[[int], Strategy] = importlib.import_module(f"fedcore.strategies.{name}").build
    return build


def sums(contents: "Sequence[RecordDict]", weighted_by_key: str) -> "MetricRecord":
    """Add the sites' numbers name by name: sums and their weights are what sites send, and adding them is exact.

    (Flower would average each number by `weighted_by_key`, which is right for few of them.)
    """
    from flwr.app import MetricRecord

    total: dict[str, float] = {}
    for content in contents:
        for entries in content.metric_records.values():
            for name, value in entries.items():
                total[name] = total.get(name, 0.0) + float(value)  # type: ignore[arg-type]
    return MetricRecord(dict(total))
