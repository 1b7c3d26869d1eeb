"""Strategies by name: what `fedcore.federation` trains with.

A federated strategy is a file of this folder that defines `build(sites) -> flwr.serverapp.strategy.Strategy`; beside
them stand two anchors, which are no federations. An anchor is trained as a federation of one, whose average is its only
model.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sites.errors import InputError

if TYPE_CHECKING:
    from flwr.app import MetricRecord, RecordDict
    from flwr.serverapp.strategy import Strategy

FOLDER = Path(__file__).parent

ANCHORS: Mapping[str, str] = {
    "local": "Anchor: each site alone with its own data, what a hospital has without a federation.",
    "pooled": "Anchor: the data brought together, which no federation may do: the upper reference.",
}


def federated() -> list[str]:
    """The federated strategies, sorted; loads none of them.

    >>> federated()
    ['fedavg']
    """
    return sorted(path.stem for path in FOLDER.glob("[a-z]*.py") if path != Path(__file__))


def names() -> list[str]:
    """The anchors, then the federated strategies.

    >>> names()
    ['local', 'pooled', 'fedavg']
    """
    return [*ANCHORS, *federated()]


def recipe(name: str) -> str:
    """The recipe of a model (`fedcore.models.model.ModelSpec.recipe`) that a strategy trains by.

    >>> recipe("pooled"), recipe("fedavg")
    ('alone', 'federated')
    """
    return "alone" if name in ANCHORS else "federated"


def module(name: str) -> str:
    """The module that builds what trains under this name.

    Raises:
        InputError: there is no strategy of that name.

    >>> module("pooled")
    'fedcore.strategies.fedavg'
    """
    if name not in names():
        raise InputError(f"unknown strategy {name!r}; expected one of {', '.join(names())}")
    return f"fedcore.strategies.{'fedavg' if name in ANCHORS else name}"


def load(name: str) -> "Callable[[int], Strategy]":
    """What builds the strategy of that name for a number of sites.

    Raises:
        InputError: there is no strategy of that name.
    """
    build: Callable[[int], Strategy] = importlib.import_module(module(name)).build
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
