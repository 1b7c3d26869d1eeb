"""Logistic regression on tabular features: the model every other has to beat.

Federated it is a torch linear layer trained by FedAvg's local epochs; alone it is fitted to convergence, so that the
anchors are the optimum itself and not what an optimiser reached.

With patient-level privacy each sample's features are shortened to a length that none exceeds. Else clipping would
shorten the gradients of those patients above all that are far from the mean, and of those who die, who are few.
"""

from functools import partial

from fedcore.learner import Learner, Setting
from fedcore.models.model import ModelSpec, Range, Recipe, Sizes, private_recipe

REACH = 4.0
"""With patient-level privacy, the length that no sample's features exceed."""


def _federated(sizes: Sizes, setting: Setting, *, reach: float | None = None) -> Learner:
    import torch
    from torch import Tensor, nn

    from fedcore.learners.minibatch import MinibatchLearner
    from fedcore.learners.optimizers import SGD

    class LogisticRegression(nn.Linear):
        def __init__(self) -> None:
            super().__init__(sizes["x"], 1)

        def reset_parameters(self) -> None:
            """Zeros: the loss is convex, so a random start would only add noise."""
            nn.init.zeros_(self.weight)
            nn.init.zeros_(self.bias)

        def forward(self, x: Tensor) -> Tensor:
            """Logits [n] of x float32 [n, d]."""
            return super().forward(x)[:, 0]

    class Bounded(nn.Module):
        """Logistic regression on features that are shortened to a length, each sample's by themselves."""

        def __init__(self, reach: float) -> None:
            super().__init__()
            self.output, self._reach = LogisticRegression(), reach

        def forward(self, x: Tensor) -> Tensor:
            """Logits [n] of x float32 [n, d]."""
            length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
            logits: Tensor = self.output(x * (self._reach / length.clamp(min=self._reach)))
            return logits

    made = LogisticRegression if reach is None else partial(Bounded, reach)
    return MinibatchLearner(made, setting, optimizer=SGD)


def _alone(sizes: Sizes, setting: Setting) -> Learner:
    from fedcore.learners.newton import NewtonLearner

    return NewtonLearner(sizes["x"], setting)


def _steps(step_size: float, l2: float) -> Setting:
    return {"step_size": step_size, "epochs": 4, "batch_size": 64, "l2": l2}


L2 = Range(1e-3, 1.0)

MODEL = ModelSpec(
    name="logistic",
    representation="tabular",
    federated=Recipe(
        learner=_federated,
        settings=(_steps(0.1, 0.1), _steps(0.1, 0.03), _steps(0.03, 0.1), _steps(0.1, 0.3), _steps(0.03, 0.3)),
        rounds=40,
        patience=5,
        untuned=_steps(0.03, 0.1),
        untuned_rounds=30,
        ranges={"step_size": Range(0.01, 0.3), "l2": L2},
    ),
    private=private_recipe(partial(_federated, reach=REACH), step_size=0.7, sampling_rate=0.2, steps=5, clip=2.0),
    alone=Recipe(
        learner=_alone,
        settings=tuple({"l2": l2} for l2 in (1.0, 0.3, 0.1, 0.03, 0.01)),
        rounds=1,
        patience=None,
        untuned={"l2": 0.1},
        untuned_rounds=1,
        ranges={"l2": L2},
    ),
)
