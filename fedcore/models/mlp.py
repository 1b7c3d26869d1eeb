"""A multilayer perceptron on tabular features: two hidden layers, batch normalisation, dropout.

Each hidden layer is linear, batch normalisation, ReLU, dropout (Ioffe and Szegedy, Batch Normalization, 2015;
Srivastava et al., Dropout, 2014). FedBN keeps the normalisations at the site (Li et al., FedBN, 2021).

With patient-level privacy a batch may not normalise its patients by each other: each patient's hidden values are
normalised by themselves (Ba, Kiros and Hinton, Layer Normalization, 2016), without a gain and a shift of their own, so
that all that is trained is linear layers.
"""

from functools import partial

from fedcore.learner import Learner, Setting
from fedcore.models.model import ModelSpec, Range, Recipe, Sizes, private_recipe

HIDDEN = (64, 32)
MOMENTUM = 0.1


def _learner(sizes: Sizes, setting: Setting, *, keeps_moments: bool = False) -> Learner:
    import torch
    from torch import Tensor, nn

    from fedcore.learners.minibatch import MinibatchLearner
    from fedcore.learners.optimizers import Adam

    class BatchNorm(nn.Module):
        """Batch normalisation of [n, k], which differs from torch's in two things.

        A batch of one sample (the last of an epoch) has no variance: it is normalised by the running statistics, as in
        prediction, and leaves them as they are. And there is no count of batches: a number that grows without bound
        would travel with the model, enter its averages and swamp the distances that Krum compares.
        """

        running_mean: Tensor
        running_var: Tensor

        def __init__(self, width: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(width))
            self.bias = nn.Parameter(torch.zeros(width))
            self.register_buffer("running_mean", torch.zeros(width))
            self.register_buffer("running_var", torch.ones(width))

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.batch_norm(
                x,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                training=self.training and len(x) > 1,
                momentum=MOMENTUM,
            )

    class MLP(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            first, second = HIDDEN
            self.hidden1 = nn.Linear(sizes["x"], first, bias=False)  # the normalisation's bias is its own
            self.norm1 = BatchNorm(first)
            self.hidden2 = nn.Linear(first, second, bias=False)
            self.norm2 = BatchNorm(second)
            self.dropout = nn.Dropout(float(setting["dropout"]))
            self.output = nn.Linear(second, 1)

        def embed(self, x: Tensor) -> Tensor:
            """What the last layer sees, [n, 32], of x float32 [n, d] as `tabular` encodes it."""
            for hidden, norm in ((self.hidden1, self.norm1), (self.hidden2, self.norm2)):
                x = self.dropout(torch.relu(norm(hidden(x))))
            return x

        def forward(self, x: Tensor) -> Tensor:
            """Logits [n]."""
            logits: Tensor = self.output(self.embed(x))
            return logits[:, 0]

    return MinibatchLearner(MLP, setting, optimizer=Adam, keeps_moments=keeps_moments)


def _private(sizes: Sizes, setting: Setting) -> Learner:
    import torch
    from torch import Tensor, nn

    from fedcore.learners.minibatch import MinibatchLearner
    from fedcore.learners.optimizers import SGD

    class PrivateMLP(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            first, second = HIDDEN
            self.hidden1, self.hidden2 = nn.Linear(sizes["x"], first), nn.Linear(first, second)
            self.norm1 = nn.LayerNorm(first, elementwise_affine=False)
            self.norm2 = nn.LayerNorm(second, elementwise_affine=False)
            self.output = nn.Linear(second, 1)

        def forward(self, x: Tensor) -> Tensor:
            """Logits [n] of x float32 [n, d]."""
            for hidden, norm in ((self.hidden1, self.norm1), (self.hidden2, self.norm2)):
                x = torch.relu(norm(hidden(x)))
            logits: Tensor = self.output(x)
            return logits[:, 0]

    return MinibatchLearner(PrivateMLP, setting, optimizer=SGD)


def _steps(l2: float) -> Setting:
    return {"step_size": 0.003, "epochs": 1, "batch_size": 64, "l2": l2, "dropout": 0.5}


RANGES = {"step_size": Range(1e-4, 1e-2), "l2": Range(1e-5, 1e-1), "dropout": Range(0.1, 0.7, log=False)}

MODEL = ModelSpec(
    name="mlp",
    representation="tabular",
    federated=Recipe(
        learner=_learner,
        settings=(_steps(1e-3), _steps(3e-2)),
        rounds=30,
        patience=5,
        untuned=_steps(1e-3),
        untuned_rounds=6,
        ranges=RANGES,
    ),
    private=private_recipe(_private, step_size=0.1, sampling_rate=0.1, steps=10, clip=4.0),
    alone=Recipe(
        learner=partial(_learner, keeps_moments=True),
        settings=(_steps(1e-3), _steps(3e-2)),
        rounds=30,
        patience=5,
        untuned=_steps(1e-3),
        untuned_rounds=4,
        ranges=RANGES,
    ),
    head=("output.",),
    norms=("norm1.", "norm2."),
    embeds=True,
)
