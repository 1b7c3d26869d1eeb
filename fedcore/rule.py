"""The server's half of a strategy as plain arithmetic, and the Flower strategy made of it.

A strategy of ours states what goes out beside the model and how replies become the next model; sampling sites,
messages and metrics are Flower's FedAvg's. That leaves a paper's update rule alone in its file, where it can be held
against the paper without a message being sent.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fedcore.learner import Arrays, Setting

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy


@dataclass(frozen=True)
class Roster:
    """Who takes part in a federation.

    Attributes:
        sites: how many train.
        samples: their training samples in all.
        min_sites: how many have to answer in a round.
        fraction: the share that is asked in a round.
        seed: the cell's, for a coordinator that draws.
    """

    sites: int
    samples: int
    min_sites: int = 1
    fraction: float = 1.0
    seed: int = 0

    def flower(self) -> dict[str, Any]:
        """The roster as Flower's strategies take it; their default of two sites waits for ever for one."""
        return {
            "fraction_train": self.fraction,
            "min_train_nodes": self.min_sites,
            "min_evaluate_nodes": self.min_sites,
            "min_available_nodes": self.min_sites,
        }


@dataclass(frozen=True)
class Reply:
    """What one site answered.

    Attributes:
        site: a number that stands for the site, the same in all rounds.
        arrays: the site's model.
        samples: its training samples.
        steps: the optimiser steps it made.
        beside: further records.
    """

    site: int
    arrays: Arrays
    samples: int
    steps: int = 1
    beside: Mapping[str, Arrays] = field(default_factory=dict)


class Rule(Protocol):
    """How a server goes from one model to the next. It may remember; it is made anew for each trial."""

    def beside(self, arrays: Arrays) -> Mapping[str, Arrays]:
        """Records that go out beside the model; each site answers with records of the same names and shapes."""
        ...

    def ask(self, number: int, sites: Sequence[int]) -> Sequence[int]:
        """Which of the sites that were drawn for round `number` (from 1), in the order of their names, are asked."""
        ...

    def combine(self, arrays: Arrays, replies: Sequence[Reply]) -> Arrays:
        """The next model, float64.

        Args:
            arrays: the model that was sent.
            replies: one at least, in the order of the sites' names.
        """
        ...


class Averaging:
    """FedAvg, as the rule from which others depart: McMahan et al., 2017, algorithm 1."""

    def beside(self, arrays: Arrays) -> Mapping[str, Arrays]:
        """Nothing but the model."""
        return {}

    def ask(self, number: int, sites: Sequence[int]) -> Sequence[int]:
        """All that were drawn."""
        return sites

    def combine(self, arrays: Arrays, replies: Sequence[Reply]) -> Arrays:
        """The mean, weighted by training samples."""
        return mean([reply.arrays for reply in replies], [reply.samples for reply in replies])


def mean(models: Sequence[Arrays], weights: Sequence[float]) -> dict[str, np.ndarray]:
    """The weighted mean of models, array by array, in float64.

    >>> mean([{"w": np.array([0.0])}, {"w": np.array([4.0])}], [3, 1])
    {'w': array([1.])}
    """
    total = float(sum(weights))
    if total <= 0:
        raise ValueError("mean: the weights sum to 0")
    return combination(*((weight / total, model) for weight, model in zip(weights, models, strict=True)))


def combination(*terms: tuple[float, Arrays]) -> dict[str, np.ndarray]:
    """The sum of factor * arrays over the terms, in float64.

    >>> combination((1, {"w": np.array([3.0])}), (-2, {"w": np.array([1.0])}))
    {'w': array([1.])}
    """
    out = {}
    for name in terms[0][1]:
        total = np.zeros(np.shape(terms[0][1][name]), np.float64)
        for factor, arrays in terms:
            total += factor * np.asarray(arrays[name], np.float64)
        out[name] = total
    return out


def zeros(arrays: Arrays) -> dict[str, np.ndarray]:
    """Zeros of the model's shapes and types."""
    return {name: np.zeros_like(value) for name, value in arrays.items()}


STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""What torch calls the arrays in which batch normalisation keeps what it has measured."""


def with_mean_statistics(arrays: Arrays, replies: Sequence[Reply]) -> dict[str, np.ndarray]:
    """The model with the replies' means in place of what batch normalisation has measured.

    No gradient made those arrays, so nothing that takes a change for a gradient may step along it: a variance that is
    extrapolated ends below 0.

    >>> reply = Reply(0, {"w": np.array([1.0]), "norm.running_var": np.array([2.0])}, samples=10)
    >>> with_mean_statistics({"w": np.array([5.0]), "norm.running_var": np.array([-1.0])}, [reply])
    {'w': array([5.]), 'norm.running_var': array([2.])}
    """
    names = [name for name in arrays if name.rpartition(".")[2] in STATISTICS]
    measured = [{name: reply.arrays[name] for name in names} for reply in replies]
    means = mean(measured, [reply.samples for reply in replies]) if names else {}
    return {**arrays, **means}


def ruled(make: Callable[[Roster, Setting], Rule]) -> "Callable[[Roster, Setting], Strategy]":
    """What builds the Flower strategy of a rule; Flower is loaded when it is first called."""

    def build(roster: Roster, setting: Setting) -> "Strategy":
        from fedcore.engines.ruled import RuledStrategy

        return RuledStrategy(make(roster, setting), roster)

    return build
