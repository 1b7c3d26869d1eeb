"""Gradient descent and Adam as torch computes them, at a third of the cost on small models.

`torch.optim` loads torch's compiler at the first step (two seconds a process) and spends more time on bookkeeping
than a linear model spends on its gradient.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np
import torch

BETAS = (0.9, 0.999)
EPSILON = 1e-8


Parameters = Iterable[tuple[str, torch.nn.Parameter]]


class Optimizer(Protocol):
    """Minimises a loss in the parameters.

    Made of the parameters by name, `step_size` (the learning rate) and `l2`, the penalty l2/2 |w|^2 on parameters of
    two axes and more, which biases are not.
    """

    def __init__(self, parameters: Parameters, *, step_size: float, l2: float) -> None: ...

    def step(self) -> None:
        """Move along the gradients that `backward` left, and clear them."""
        ...

    def moments(self) -> dict[str, np.ndarray]:
        """What the next steps depend on beside the parameters, as arrays."""
        ...

    def restore(self, moments: Mapping[str, np.ndarray]) -> None:
        """Go on where `moments` were taken."""
        ...


class SGD(Optimizer):
    """Stochastic gradient descent: w - step_size * gradient."""

    def __init__(self, parameters: Parameters, *, step_size: float, l2: float) -> None:
        self._parameters = [(value, 1 - step_size * l2 if value.ndim > 1 else 1.0) for _, value in parameters]
        self._step_size = step_size

    def step(self) -> None:
        """See `Optimizer`."""
        with torch.no_grad():
            for value, shrunk in self._parameters:
                if value.grad is None:
                    continue
                if shrunk != 1:
                    value.mul_(shrunk)
                value.add_(value.grad, alpha=-self._step_size)
                value.grad = None

    def moments(self) -> dict[str, np.ndarray]:
        """None: each step stands for itself."""
        return {}

    def restore(self, moments: Mapping[str, np.ndarray]) -> None:
        """Nothing to go on from."""


class Adam(Optimizer):
    """Kingma and Ba, Adam: A Method for Stochastic Optimization, 2015."""

    def __init__(self, parameters: Parameters, *, step_size: float, l2: float) -> None:
        self._parameters = dict(parameters)
        self._step_size = step_size
        self._l2 = {name: l2 if value.ndim > 1 else 0.0 for name, value in self._parameters.items()}
        self._first = {name: torch.zeros_like(value) for name, value in self._parameters.items()}
        self._second = {name: torch.zeros_like(value) for name, value in self._parameters.items()}
        self._steps = 0

    @torch.no_grad()
    def step(self) -> None:
        """See `Optimizer`."""
        self._steps += 1
        first_bias, second_bias = (1 - beta**self._steps for beta in BETAS)
        for name, value in self._parameters.items():
            gradient = value.grad
            if gradient is None:
                continue
            if self._l2[name]:
                gradient = gradient.add(value, alpha=self._l2[name])
            first = self._first[name].lerp_(gradient, 1 - BETAS[0])
            second = self._second[name].mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
            spread = second.sqrt().div_(math.sqrt(second_bias)).add_(EPSILON)
            value.addcdiv_(first, spread, value=-self._step_size / first_bias)
            value.grad = None

    def moments(self) -> dict[str, np.ndarray]:
        """The number of steps and the running means of gradients and of their squares."""
        return {
            "steps": np.array(self._steps),
            **{f"first/{name}": value.cpu().numpy().copy() for name, value in self._first.items()},
            **{f"second/{name}": value.cpu().numpy().copy() for name, value in self._second.items()},
        }

    def restore(self, moments: Mapping[str, np.ndarray]) -> None:
        """See `Optimizer`."""
        self._steps = int(moments["steps"])
        for name, value in self._parameters.items():
            self._first[name] = torch.from_numpy(np.array(moments[f"first/{name}"])).to(value.device)
            self._second[name] = torch.from_numpy(np.array(moments[f"second/{name}"])).to(value.device)
