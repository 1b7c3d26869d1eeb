"""RETAIN over hourly measurements: attention in reverse time, over hours and over what each hour embeds to.

Choi et al., RETAIN: An Interpretable Predictive Model for Healthcare using Reverse Time Attention Mechanism, 2016.
The paper attends to visits, each a set of codes with a time. What stands for visits in an intensive care stay are its
hours (`series`): each says what was measured, which values came out and how old the others are, as for `gru`. (The
other reading, each event of `sequence` a visit of one code, would attend to 256 visits in which one thing happened.)

    v_t = W x_t                                    an hour's embedding, linear
    g = GRU_alpha(v_T, ..., v_1)                   both recurrences run from the last hour to the first
    h = GRU_beta(v_T, ..., v_1)
    alpha = softmax_t(w' g_t + b)                  how much an hour counts: one number
    beta_t = tanh(W_beta h_t + b_beta)             how each part of its embedding counts
    c = sum_t alpha_t beta_t * v_t
    logit = w_out' c + b_out

Since c is linear in x once the attention is given, each value's contribution to the logit can be read off (the
paper's section 2.3). Dropout acts on v and on c, as in the authors' code.
"""

from functools import partial

from fedcore.learner import Learner, Setting
from fedcore.models.model import ModelSpec, Range, Recipe, Sizes, private_recipe

EMBEDDING = 64
HIDDEN = 32


def _learner(sizes: Sizes, setting: Setting, *, keeps_moments: bool = False, private: bool = False) -> Learner:
    import torch
    from torch import Tensor, nn

    from fedcore.learners.minibatch import MinibatchLearner
    from fedcore.learners.optimizers import SGD, Adam
    from fedcore.models.recurrence import Recurrence

    def recurrent() -> nn.Module:
        return Recurrence(EMBEDDING, HIDDEN) if private else nn.GRU(EMBEDDING, HIDDEN, batch_first=True)

    class RETAIN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Linear(3 * sizes["x"], EMBEDDING, bias=False)
            self.recurrent_alpha = recurrent()
            self.recurrent_beta = recurrent()
            self.alpha = nn.Linear(HIDDEN, 1)
            self.beta = nn.Linear(HIDDEN, EMBEDDING)
            self.dropout = nn.Dropout(float(setting.get("dropout", 0)))
            self.output = nn.Linear(EMBEDDING, 1)

        def embed(self, x: Tensor, mask: Tensor, delta: Tensor) -> Tensor:
            """The context c [n, 64] of x, mask and delta, each float32 [n, hours, d] as `series` encodes them."""
            back = torch.cat([x, mask, 1 / (1 + delta)], dim=2).flip(1)
            v = self.dropout(self.embedding(back))
            g, _ = self.recurrent_alpha(v)
            h, _ = self.recurrent_beta(v)
            attended = torch.softmax(self.alpha(g), dim=1) * torch.tanh(self.beta(h)) * v
            context: Tensor = self.dropout(attended.sum(dim=1))
            return context

        def forward(self, x: Tensor, mask: Tensor, delta: Tensor) -> Tensor:
            """Logits [n]."""
            logits: Tensor = self.output(self.embed(x, mask, delta))
            return logits[:, 0]

    return MinibatchLearner(RETAIN, setting, optimizer=SGD if private else Adam, keeps_moments=keeps_moments)


def _steps(step_size: float) -> Setting:
    return {"step_size": step_size, "epochs": 1, "batch_size": 64, "l2": 1e-4, "dropout": 0.3}


RANGES = {"step_size": Range(3e-4, 1e-2), "l2": Range(1e-6, 1e-2), "dropout": Range(0.1, 0.6, log=False)}

MODEL = ModelSpec(
    name="retain",
    representation="series",
    federated=Recipe(
        learner=_learner,
        settings=(_steps(0.003), _steps(0.001)),
        rounds=20,
        patience=3,
        untuned=_steps(0.003),
        untuned_rounds=6,
        ranges=RANGES,
    ),
    private=private_recipe(partial(_learner, private=True), step_size=1.0, sampling_rate=0.2, steps=5, clip=1.0),
    alone=Recipe(
        learner=partial(_learner, keeps_moments=True),
        settings=(_steps(0.003), _steps(0.001)),
        rounds=20,
        patience=3,
        untuned=_steps(0.003),
        untuned_rounds=3,
        ranges=RANGES,
    ),
    head=("output.",),
    embeds=True,
)
