"""What a metric is, and where the metrics are found.

A metric is one entry in the `METRICS` of a module in this folder; adding one adds a function and an entry, no parameter
and no branch anywhere. An entry takes outcomes, predicted risks and weights. Weights are what the patient bootstrap
draws with, so a metric that takes none cannot have an interval.

`function` says the value for one set of weights and raises `Undefined` with the reason where there is none: never NaN,
0 or 0.5. `prepare`, where a metric has one, does what depends on outcomes and risks alone once (sorting, say) and
returns the value for many sets of weights at once; NaN marks the replicates in which it is undefined. Without it
`function` is called a replicate at a time, which is right but slower.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Outcomes = NDArray[np.bool_]
Floats = NDArray[np.float64]

Needs = Literal["samples", "events", "both-classes"]

Replicates = Callable[[Floats], Floats]
"""Weights float64 [replicates, samples] -> values float64 [replicates], NaN where undefined."""


class Undefined(ValueError):
    """A metric that does not exist for these outcomes, risks and weights; the message is the reason."""


class PredictionError(ValueError):
    """Predictions that cannot be scored: one sentence with the site, what was found and what was expected."""


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """A metric of predicted risks.

    Attributes:
        name: as it stands in a record.
        title: as readers see it.
        direction: `max`, `min`, or `target` if nearness to `ideal` is good.
        unit: `1` for a number without a unit.
        low, high: the range of possible values.
        needs: what must have weight for it to be defined: any sample, an event, or an event and a non-event.
        function: (y bool [n], p float64 [n] in [0, 1], w float64 [n] >= 0) -> value; raises Undefined.
        prepare: (y, p) -> Replicates; None if there is no faster way than `function` for each.
        ideal: the best possible value; required for `target`.
        scale: for `target`, whether distance from `ideal` is a difference (`linear`) or a ratio (`log`).
    """

    name: str
    title: str
    direction: Literal["max", "min", "target"]
    unit: str
    low: float
    high: float
    needs: Needs
    function: Callable[[Outcomes, Floats, Floats], float]
    prepare: Callable[[Outcomes, Floats], Replicates] | None = None
    ideal: float | None = None
    scale: Literal["linear", "log"] = "linear"

    def __post_init__(self) -> None:
        if self.direction == "target" and self.ideal is None:
            raise ValueError(f"the metric {self.name!r} aims at a target, so it needs its `ideal`")

    def badness(self, values: Floats) -> Floats:
        """How bad values are, so that the worst site is that of the greatest badness. NaN stays NaN."""
        if self.direction == "max":
            return -values
        if self.direction == "min":
            return values
        ideal = float(self.ideal if self.ideal is not None else 0.0)
        if self.scale == "linear":
            return np.abs(values - ideal)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.abs(np.log(values / ideal))

    def replicates(self, y: Outcomes, p: Floats) -> Replicates:
        """The metric as a function of many sets of weights: `prepare`'s, or `function` called for each."""
        if self.prepare is not None:
            return self.prepare(y, p)

        def one_by_one(w: Floats) -> Floats:
            return np.array([self._or_nan(y, p, row) for row in w], dtype=np.float64)

        return one_by_one

    def checked(self, value: float) -> float:
        """The value, if it is one that this metric can have.

        Raises:
            ValueError: NaN, infinite or out of range, so the evaluator has a defect.
        """
        tolerance = 1e-9
        if not math.isfinite(value) or not self.low - tolerance <= value <= self.high + tolerance:
            raise ValueError(
                f"the evaluator {self.name!r} returned {value}, outside its range [{self.low}, {self.high}]; "
                "mend the evaluator, or let it raise Undefined with the reason"
            )
        return min(max(float(value), self.low), self.high)

    def _or_nan(self, y: Outcomes, p: Floats, w: Floats) -> float:
        try:
            return self.function(y, p, w)
        except Undefined:
            return math.nan


def names() -> tuple[str, ...]:
    """The names of all metrics, in the order of their modules and entries."""
    return tuple(_registered())


def modules() -> list[str]:
    """The modules of this folder: discrimination and overall performance stand before what qualifies them."""
    found = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
    return [f"{__package__}.{name}" for name in sorted(found, key=lambda name: (name != "prediction", name))]


def load(name: str) -> MetricSpec:
    """The metric of this name.

    Raises:
        KeyError: there is none; the message lists those there are.
    """
    try:
        return _registered()[name]
    except KeyError:
        raise KeyError(f"there is no metric {name!r}; there are: {', '.join(names())}") from None


@cache
def _registered() -> dict[str, MetricSpec]:
    found: dict[str, MetricSpec] = {}
    for module in modules():
        for spec in getattr(importlib.import_module(module), "METRICS", ()):
            if spec.name in found:
                raise ValueError(f"two evaluators are called {spec.name!r}; the second is in {module}")
            found[spec.name] = spec
    return found


def from_replicates(
    prepare: Callable[[Outcomes, Floats], Replicates], needs: Needs, otherwise: str = "it has no finite value"
) -> Callable[[Outcomes, Floats, Floats], float]:
    """A metric's `function` as its `prepare` with one set of weights: one formula, so the two cannot disagree.

    Args:
        prepare: as in `MetricSpec`.
        needs: what must have weight; what is missing is the reason given.
        otherwise: the reason given where the metric is undefined for all that.
    """

    def function(y: Outcomes, p: Floats, w: Floats) -> float:
        refuse_unusable(y, p, w)
        reason = missing(needs, y, w)
        if reason is not None:
            raise Undefined(reason)
        value = float(prepare(y, p)(w[np.newaxis, :])[0])
        if math.isnan(value):
            raise Undefined(otherwise)
        return value

    return function


def missing(needs: Needs, y: Outcomes, w: Floats) -> str | None:
    """What a metric with such needs misses here, or None."""
    events, others = bool(np.any(w[y] > 0)), bool(np.any(w[~y] > 0))
    if not events and not others:
        return "no sample has any weight"
    if needs != "samples" and not events:
        return "no sample has the event"
    if needs == "both-classes" and not others:
        return "every sample has the event"
    return None


def refuse_unusable(y: Outcomes, p: Floats, w: Floats) -> None:
    """Refuse what no metric can take: other lengths, NaN, risks outside [0, 1], weights below 0.

    Raises:
        PredictionError: what was found and what was expected.
    """
    if not y.shape == p.shape == w.shape or y.ndim != 1:
        raise PredictionError(
            f"outcomes, risks and weights must be as long as each other, found {y.shape}, {p.shape} and {w.shape}"
        )
    if y.dtype != np.bool_:
        raise PredictionError(f"outcomes are booleans, found {y.dtype}")
    if not np.all((p >= 0) & (p <= 1)):
        raise PredictionError("a predicted risk is a number in [0, 1]; found NaN or a number outside")
    if not np.all(np.isfinite(w) & (w >= 0)):
        raise PredictionError("a weight is a number of at least 0; found NaN, an infinity or less than 0")
