"""A strategy's options: numbers within bounds, or a sentence."""

import math
from collections.abc import Callable, Mapping

from fedcore.learner import Setting
from sites.errors import InputError


def number(
    setting: Setting,
    name: str,
    *,
    at_least: float = -math.inf,
    above: float = -math.inf,
    at_most: float = math.inf,
    below: float = math.inf,
) -> float:
    """The option's value.

    Raises:
        InputError: it is out of bounds.

    >>> number({"mu": 0.1}, "mu", at_least=0)
    0.1
    >>> number({"mu": -0.1}, "mu", at_least=0)
    Traceback (most recent call last):
    sites.errors.InputError: option 'mu' is -0.1; expected a number of at least 0
    """
    value = _given(setting, name)
    if not (max(at_least, above) <= value <= min(at_most, below) and value not in (above, below)):
        bounds = {"of at least": at_least, "above": above, "of at most": at_most, "below": below}
        words = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound))
        raise InputError(f"option '{name}' is {setting[name]}; expected a number {words}")
    return value


def whole(setting: Setting, name: str, *, at_least: int) -> int:
    """The option's value, a whole number.

    Raises:
        InputError: it is none, or too small.

    >>> whole({"byzantine": 1.5}, "byzantine", at_least=0)
    Traceback (most recent call last):
    sites.errors.InputError: option 'byzantine' is 1.5; expected a whole number of at least 0
    """
    value = _given(setting, name)
    if not value.is_integer() or value < at_least:
        raise InputError(f"option '{name}' is {setting[name]}; expected a whole number of at least {at_least}")
    return int(value)


BOUNDS: Mapping[str, Callable[[Setting], float]] = {
    "step_size": lambda setting: number(setting, "step_size", above=0),
    "epochs": lambda setting: whole(setting, "epochs", at_least=1),
    "batch_size": lambda setting: whole(setting, "batch_size", at_least=1),
    "l2": lambda setting: number(setting, "l2", at_least=0),
    "dropout": lambda setting: number(setting, "dropout", at_least=0, below=1),
    "sampling_rate": lambda setting: number(setting, "sampling_rate", above=0, below=1),
    "steps": lambda setting: whole(setting, "steps", at_least=1),
    "clip": lambda setting: number(setting, "clip", above=0),
    "per_layer": lambda setting: number(setting, "per_layer", at_least=0, at_most=1),
    "quantile": lambda setting: number(setting, "quantile", at_least=0, below=1),
    "depth": lambda setting: whole(setting, "depth", at_least=1),
    "trees": lambda setting: whole(setting, "trees", at_least=1),
    "subsample": lambda setting: number(setting, "subsample", above=0, at_most=1),
    "colsample": lambda setting: number(setting, "colsample", above=0, at_most=1),
}
"""What each hyperparameter of our models can be; a strategy's own are checked where it is built."""


def check_bounds(setting: Setting) -> None:
    """See that hyperparameters are within their bounds.

    Raises:
        InputError: one is not.

    >>> check_bounds({"epochs": 0})
    Traceback (most recent call last):
    sites.errors.InputError: option 'epochs' is 0; expected a whole number of at least 1
    """
    for name in setting:
        if name in BOUNDS:
            BOUNDS[name](setting)


def _given(setting: Setting, name: str) -> float:
    if name not in setting:
        raise InputError(f"option '{name}' is missing; expected a model or a strategy that declares it")
    return float(setting[name])
