"""A gated recurrent unit over hourly measurements, told what was measured and how long ago.

Each hour's input is the value, whether it was measured, and the time since it last was; the last state gives the
logit. It is the "GRU-simple" of Che et al., Recurrent Neural Networks for Multivariate Time Series with Missing
Values, 2018.
"""

from fedcore.learner import Learner, Setting
from fedcore.models.model import ModelSpec, Recipe, Sizes

HIDDEN = 32


def _learner(sizes: Sizes, setting: Setting, *, keeps_moments: bool) -> Learner:
    import torch
    from torch import Tensor, nn

    from fedcore.learners.minibatch import MinibatchLearner
    from fedcore.learners.optimizers import Adam

    class GRU(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent = nn.GRU(3 * sizes["x"], HIDDEN, batch_first=True)
            self.dropout = nn.Dropout(float(setting["dropout"]))
            self.output = nn.Linear(HIDDEN, 1)

        def forward(self, x: Tensor, mask: Tensor, delta: Tensor) -> Tensor:
            """Logits [n] of x, mask and delta, each float32 [n, hours, d] as `series` encodes them."""
            _, last = self.recurrent(torch.cat([x, mask, delta], dim=2))
            logits: Tensor = self.output(self.dropout(last[0]))
            return logits[:, 0]

    return MinibatchLearner(GRU, setting, optimizer=Adam, keeps_moments=keeps_moments)


def _federated(sizes: Sizes, setting: Setting) -> Learner:
    return _learner(sizes, setting, keeps_moments=False)


def _alone(sizes: Sizes, setting: Setting) -> Learner:
    return _learner(sizes, setting, keeps_moments=True)


_SETTING: Setting = {"step_size": 0.003, "epochs": 1, "batch_size": 64, "l2": 1e-5, "dropout": 0.2}

MODEL = ModelSpec(
    name="gru",
    representation="series",
    federated=Recipe(
        learner=_federated,
        settings=(_SETTING,),
        rounds=12,
        patience=3,
        untuned=_SETTING,
        untuned_rounds=6,
    ),
    alone=Recipe(
        learner=_alone,
        settings=(_SETTING,),
        rounds=12,
        patience=3,
        untuned=_SETTING,
        untuned_rounds=6,
    ),
)
