"""Logistic regression on tabular features: the model every other has to beat.

Federated it is a torch linear layer trained by FedAvg's local epochs; alone it is fitted to convergence, so that the
anchors are the optimum itself and not what an optimiser reached.
"""

from fedcore.learner import Learner, Setting
from fedcore.models.model import ModelSpec, Range, Recipe, Sizes


def _federated(sizes: Sizes, setting: Setting) -> Learner:
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

    return MinibatchLearner(LogisticRegression, setting, optimizer=SGD)


def _alone(sizes: Sizes, setting: Setting) -> Learner:
    from fedcore.learners.newton import NewtonLearner

    return NewtonLearner(sizes["x"], setting)


def _steps(step_size: float, l2: float) -> Setting:
    return {"step_size": step_size, "epochs": 4, "batch_size": 64, "l2": l2}


PRIVATE: Setting = {"step_size": 0.25, "l2": 0.0, "sampling_rate": 0.1, "steps": 10, "clip": 4.0}
"""Chosen on the tuning splits 0 to 2 of PhysioNet 2012, set A, which is open, at a budget of epsilon 8."""

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
    private=Recipe(
        learner=_federated,
        settings=(PRIVATE,),
        rounds=20,
        patience=None,
        untuned=PRIVATE,
        untuned_rounds=20,
    ),
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
