"""The networks of the side-by-side measurements: torch and nothing else, so that every framework trains the same."""

import torch
from torch import Tensor, nn


class Logistic(nn.Linear):
    """Logistic regression on x float32 [n, d]; starts at zero."""

    def __init__(self, features: int) -> None:
        super().__init__(features, 1)

    def reset_parameters(self) -> None:
        """Zeros."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n]."""
        return super().forward(x)[:, 0]


class Perceptron(nn.Module):
    """Two hidden layers of equal width: (d + 1) h + (h + 1) h + h + 1 parameters."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(features, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n] of x float32 [n, d]."""
        logits: Tensor = self.output(torch.relu(self.second(torch.relu(self.first(x)))))
        return logits[:, 0]


def network(features: int, hidden: int) -> nn.Module:
    """The perceptron, or the logistic regression where there is no hidden layer (`hidden` 0)."""
    return Perceptron(features, hidden) if hidden else Logistic(features)


def hidden_for(parameters: int, features: int) -> int:
    """The width at which the perceptron has about so many parameters.

    >>> hidden_for(10_000, 13)
    92
    """
    return max(1, round(((features + 3) ** 2 / 4 + parameters) ** 0.5 - (features + 3) / 2))
