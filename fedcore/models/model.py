"""What a model is, and the registry: a file in this folder that defines `MODEL`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fedcore.learner import Learner, Setting
from fedcore.registry import Registry
from sites.errors import InputError

Sizes = Mapping[str, int]
"""How wide the encoded arrays are, as the sites' agreement (`FeatureSpace.sizes`) states it."""


@dataclass(frozen=True)
class Range:
    """The values of a hyperparameter among which a suite's `tune` block draws.

    Attributes:
        low: the smallest.
        high: the largest.
        log: drawn evenly on the logarithmic scale, else on the plain one.
        whole: rounded to whole numbers.
    """

    low: float
    high: float
    log: bool = True
    whole: bool = False

    def at(self, share: float) -> int | float:
        """The value so far along the range, `share` in [0, 1).

        >>> Range(0.01, 1.0).at(0.5), Range(1, 9, log=False, whole=True).at(0.5)
        (0.1, 5)
        """
        value = self.low * (self.high / self.low) ** share if self.log else self.low + (self.high - self.low) * share
        return round(value) if self.whole else float(f"{value:.4g}")


@dataclass(frozen=True)
class Recipe:
    """How a model is trained, and what is tried on the tuning split.

    Attributes:
        learner: makes the learner for an agreed feature space and one setting.
        settings: the settings tried, all of them, in this order.
        rounds: rounds each setting runs at most; the best one counts.
        patience: a setting ends when the tuning loss has not fallen for so many rounds; None runs all rounds.
        untuned: the setting used where the tuning split is too small to choose on.
        untuned_rounds: the rounds it runs.
        ranges: what a suite's `tune` block draws settings from, by hyperparameter; those without one stay as `untuned`.
    """

    learner: Callable[[Sizes, Setting], Learner]
    settings: Sequence[Setting]
    rounds: int
    patience: int | None
    untuned: Setting
    untuned_rounds: int
    ranges: Mapping[str, Range] = field(default_factory=dict)


def private_recipe(
    learner: Callable[[Sizes, Setting], Learner],
    *,
    step_size: float,
    sampling_rate: float,
    steps: int,
    clip: float,
    rounds: int = 20,
) -> Recipe:
    """How a model is trained with patient-level privacy: one setting, since each that is tried would have to be paid.

    Args:
        learner: makes a `fedcore.learner.PrivateLearner`.
        step_size: of the optimiser.
        sampling_rate: the share of the patients that is drawn into a step.
        steps: of DP-SGD, a round.
        clip: what a patient's gradient counts for at most; where a setting has a `quantile` above 0, at the beginning.
        rounds: how many.
    """
    setting: Setting = {
        "step_size": step_size,
        "l2": 0.0,
        "sampling_rate": sampling_rate,
        "steps": steps,
        "clip": clip,
        "per_layer": 0,
        "quantile": 0.0,
    }
    return Recipe(learner, (setting,), rounds, None, setting, rounds)


@dataclass(frozen=True)
class ModelSpec:
    """A model, its representation of patients and its recipes.

    Attributes:
        name: what records call it.
        representation: `tabular`, `sequence` or `series`.
        federated: how several sites train it together; None: it serves as an anchor only.
        alone: how one body of data trains it: a site by itself, or the pooled data.
        private: how several sites train it with patient-level differential privacy (`private_recipe`); None: they
            cannot.
        kind: `network`: arrays of numbers that can be averaged; `trees`: one array of bytes that grows.
        head: beginnings of the names of the last layer's arrays, which FedPer and FedRep keep at the site.
        norms: beginnings of the names of batch normalisation's arrays, which FedBN keeps at the site.
        embeds: the torch module has `embed(**inputs) -> [n, k]`, of which its last layer makes the logits (MOON).
    """

    name: str
    representation: str
    federated: Recipe | None
    alone: Recipe
    private: Recipe | None = None
    kind: Literal["network", "trees"] = "network"
    head: tuple[str, ...] = ()
    norms: tuple[str, ...] = ()
    embeds: bool = False

    def recipe(self, kind: str) -> Recipe:
        """The recipe `federated`, `alone` or `private`.

        Raises:
            InputError: the model has no recipe of that kind.
        """
        chosen = {"federated": self.federated, "alone": self.alone, "private": self.private}[kind]
        if chosen is None and kind == "private":
            raise InputError(
                f"model '{self.name}' cannot be trained with patient-level privacy; expected one that has a "
                "private recipe, such as logistic"
            )
        if chosen is None:
            raise InputError(f"model '{self.name}' is an anchor only; use strategy pooled or local")
        return chosen


def _of_a_user(name: str, found: Any) -> ModelSpec:
    if not isinstance(found, ModelSpec):
        raise InputError(f"{name} is a {type(found).__name__}; expected a fedcore.models.model.ModelSpec")
    return found


MODELS = Registry[ModelSpec]("model", "fedcore.models", "MODEL", no_part=("model", "recurrence"), of_a_user=_of_a_user)

names, module, load = MODELS.names, MODELS.module, MODELS.load
