"""A gated recurrent unit over hourly measurements, told what was measured and how long ago.

Each hour's input is the value, whether it was measured, and how fresh it is, 1/(1 + hours since it last was), which is
bounded; the logit is linear in the last state and the mean one. It is the "GRU-simple" of Che et al., Recurrent Neural
Networks for Multivariate Time Series with Missing Values, 2018, with the mean state added.
"""

from functools import partial

from fedcore.learner import Learner, Setting
from fedcore.models.model import ModelSpec, Range, Recipe, Sizes, private_recipe

HIDDEN = 64


def _learner(sizes: Sizes, setting: Setting, *, keeps_moments: bool = False, private: bool = False) -> Learner:
    import torch
    from torch import Tensor, nn

    from fedcore.learners.minibatch import MinibatchLearner
    from fedcore.learners.optimizers import SGD, Adam
    from fedcore.models.recurrence import Recurrence

    class GRU(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            inputs = 3 * sizes["x"]
            self.recurrent = Recurrence(inputs, HIDDEN) if private else nn.GRU(inputs, HIDDEN, batch_first=True)
            self.dropout = nn.Dropout(float(setting.get("dropout", 0)))
            self.output = nn.Linear(2 * HIDDEN, 1)

        def embed(self, x: Tensor, mask: Tensor, delta: Tensor) -> Tensor:
            """Both states [n, 128] of x, mask and delta, each float32 [n, hours, d] as `series` encodes them."""
            states, _ = self.recurrent(torch.cat([x, mask, 1 / (1 + delta)], dim=2))
            seen: Tensor = self.dropout(torch.cat([states[:, -1], states.mean(dim=1)], dim=1))
            return seen

        def forward(self, x: Tensor, mask: Tensor, delta: Tensor) -> Tensor:
            """Logits [n]."""
            logits: Tensor = self.output(self.embed(x, mask, delta))
            return logits[:, 0]

    return MinibatchLearner(GRU, setting, optimizer=SGD if private else Adam, keeps_moments=keeps_moments)


def _steps(step_size: float) -> Setting:
    return {"step_size": step_size, "epochs": 1, "batch_size": 64, "l2": 1e-4, "dropout": 0.3}


RANGES = {"step_size": Range(3e-4, 1e-2), "l2": Range(1e-6, 1e-2), "dropout": Range(0.1, 0.6, log=False)}

MODEL = ModelSpec(
    name="gru",
    representation="series",
    federated=Recipe(
        learner=_learner,
        settings=(_steps(0.003), _steps(0.001)),
        rounds=20,
        patience=3,
        untuned=_steps(0.003),
        untuned_rounds=8,
        ranges=RANGES,
    ),
    private=private_recipe(partial(_learner, private=True), step_size=1.0, sampling_rate=0.2, steps=5, clip=1.0),
    alone=Recipe(
        learner=partial(_learner, keeps_moments=True),
        settings=(_steps(0.003), _steps(0.001)),
        rounds=20,
        patience=3,
        untuned=_steps(0.003),
        untuned_rounds=6,
        ranges=RANGES,
    ),
    head=("output.",),
    embeds=True,
)
