"""A Transformer encoder over events: each measurement and each code is a token with its value and its time.

A token's input is the sum of an embedding of what it is, that concept's own direction times the standardised value,
and an encoding of how many hours before the last event it stands: sinusoids as in Vaswani et al., Attention Is All You
Need, 2017, of hours instead of positions, with wavelengths from an hour to eleven years. That is the triplet (what,
value, when) of Tipirneni and Reddy, Self-Supervised Transformer for Sparse and Irregularly Sampled Multivariate
Clinical Time-Series (STraTS), 2022. Events of one minute have one time, so their order does not matter. Of the 256
events that `sequence` holds the last 128 are read, at a quarter of the attention's cost.

The blocks normalise before they attend (Xiong et al., On Layer Normalization in the Transformer Architecture, 2020),
which trains without warm-up. A softmax over the events, from one learned score, weighs their last states into one
vector, from which the logit is linear. Padding is neither attended to nor weighed; a sample without events is
answered by a vector of zeros, and so by the output's bias.
"""

import math
from functools import partial

from fedcore.learner import Learner, Setting
from fedcore.models.model import ModelSpec, Range, Recipe, Sizes, private_recipe

WIDTH = 32
HEADS = 2
BLOCKS = 1
EVENTS = 128
LONGEST_HOURS = 1e5


def _learner(sizes: Sizes, setting: Setting, *, keeps_moments: bool = False, private: bool = False) -> Learner:
    import torch
    from torch import Tensor, nn

    from fedcore.learners.minibatch import MinibatchLearner
    from fedcore.learners.optimizers import SGD, Adam

    def norm() -> nn.LayerNorm:
        return nn.LayerNorm(WIDTH, elementwise_affine=not private)  # without, all that is trained is linear layers

    class Block(nn.Module):
        """x + attention(norm(x)), then x + perceptron(norm(x))."""

        def __init__(self) -> None:
            super().__init__()
            self.norm1 = norm()
            self.attend = nn.Linear(WIDTH, 3 * WIDTH)
            self.merge = nn.Linear(WIDTH, WIDTH)
            self.norm2 = norm()
            self.widen = nn.Linear(WIDTH, 2 * WIDTH)
            self.narrow = nn.Linear(2 * WIDTH, WIDTH)
            self.dropout = nn.Dropout(float(setting.get("dropout", 0)))

        def forward(self, x: Tensor, visible: Tensor) -> Tensor:
            n, events, _ = x.shape
            query, key, each = (
                self.attend(self.norm1(x)).view(n, events, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
            )
            seen = nn.functional.scaled_dot_product_attention(query, key, each, attn_mask=visible[:, None, None, :])
            x = x + self.dropout(self.merge(seen.transpose(1, 2).reshape(n, events, WIDTH)))
            narrowed = self.narrow(torch.relu(self.widen(self.norm2(x))))
            out: Tensor = x + self.dropout(narrowed)
            return out

    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.code = nn.Embedding(sizes["vocabulary"], WIDTH)
            self.value = nn.Embedding(sizes["vocabulary"], WIDTH)
            self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
            self.norm = norm()
            self.score = nn.Linear(WIDTH, 1)
            self.dropout = nn.Dropout(float(setting.get("dropout", 0)))
            self.output = nn.Linear(WIDTH, 1)

        def embed(self, code: Tensor, gap_hours: Tensor, value: Tensor, length: Tensor) -> Tensor:
            """A vector [n, 32] of each sample, of the arrays [n, events] that `sequence` encodes."""
            longest = max(min(int(length.max()), EVENTS), 1)
            at = (length.long() - EVENTS).clamp(min=0)[:, None] + torch.arange(longest, device=code.device)
            there = at < length[:, None]
            code, gap_hours, value = (each.gather(1, at) for each in (code, gap_hours, value))
            gap_hours = gap_hours * there  # whatever stands in the padding
            visible = there.clone()
            visible[:, 0] = True  # a softmax over nothing is not a number
            x = self.code(code) + value[:, :, None] * self.value(code) + _encoded(_hours_before_last(gap_hours))
            x = self.dropout(x)
            for block in self.blocks:
                x = block(x, visible)
            x = self.norm(x)
            weight = torch.softmax(self.score(x)[:, :, 0].masked_fill(~visible, -math.inf), dim=1) * there
            pooled: Tensor = self.dropout((weight[:, :, None] * x).sum(dim=1))
            return pooled

        def forward(self, code: Tensor, gap_hours: Tensor, value: Tensor, length: Tensor) -> Tensor:
            """Logits [n]."""
            logits: Tensor = self.output(self.embed(code, gap_hours, value, length))
            return logits[:, 0]

    def _hours_before_last(gap_hours: Tensor) -> Tensor:
        """The sum of the gaps that follow: from the end, so that old events cost no digits."""
        return gap_hours.flip(1).cumsum(dim=1).flip(1) - gap_hours

    def _encoded(hours: Tensor) -> Tensor:
        """Sine and cosine of each wavelength, [n, events, 32]."""
        lengths = torch.logspace(0, math.log10(LONGEST_HOURS), WIDTH // 2, device=hours.device)
        angle = 2 * math.pi * hours[:, :, None] / lengths
        return torch.cat([angle.sin(), angle.cos()], dim=2)

    return MinibatchLearner(Transformer, setting, optimizer=SGD if private else Adam, keeps_moments=keeps_moments)


def _steps(step_size: float) -> Setting:
    return {"step_size": step_size, "epochs": 1, "batch_size": 64, "l2": 1e-4, "dropout": 0.2}


RANGES = {"step_size": Range(3e-4, 1e-2), "l2": Range(1e-6, 1e-2), "dropout": Range(0.1, 0.5, log=False)}

MODEL = ModelSpec(
    name="transformer",
    representation="sequence",
    federated=Recipe(
        learner=_learner,
        settings=(_steps(0.003), _steps(0.001)),
        rounds=15,
        patience=3,
        untuned=_steps(0.003),
        untuned_rounds=8,
        ranges=RANGES,
    ),
    private=private_recipe(partial(_learner, private=True), step_size=1.0, sampling_rate=0.2, steps=5, clip=1.0),
    alone=Recipe(
        learner=partial(_learner, keeps_moments=True),
        settings=(_steps(0.003), _steps(0.001)),
        rounds=15,
        patience=3,
        untuned=_steps(0.003),
        untuned_rounds=4,
        ranges=RANGES,
    ),
    head=("output.",),
    embeds=True,
)
