"""Inversion of gradients of which the patients are known."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from privacy.attacks.inversion import analytic, by_optimisation, relative_error

FEATURES = 12


class Perceptron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.output = nn.Linear(FEATURES, 40), nn.Linear(40, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(torch.relu(self.hidden(x)))[:, 0]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.output = nn.GRU(2 * 4, 24, batch_first=True), nn.Linear(48, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        states, _ = self.recurrent(torch.cat([x, mask], dim=2))
        return self.output(torch.cat([states[:, -1], states.mean(1)], dim=1))[:, 0]


def made(kind: type[nn.Module], *shape: int) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(), torch.randn(shape), (torch.arange(shape[0]) % 2).float(), 0.1 * torch.randn(shape)


def gradient(network: nn.Module, truth: Tensor, **inputs: Tensor) -> dict[str, Tensor]:
    loss = nn.functional.binary_cross_entropy_with_logits(network(**inputs), truth)
    names = [name for name, _ in network.named_parameters()]
    return dict(zip(names, torch.autograd.grad(loss, list(network.parameters())), strict=True))


def test_one_patients_gradient_is_the_patient() -> None:
    network, x, truth, _ = made(Perceptron, 1, FEATURES)
    found = gradient(network, truth, x=x)
    row = analytic(found["hidden.weight"].numpy(), found["hidden.bias"].numpy())
    assert np.abs(row - x[0].numpy()).max() < 1e-4
    assert np.abs(analytic(-3 * found["hidden.weight"].numpy(), -3 * found["hidden.bias"].numpy()) - row).max() < 1e-4


def test_a_batchs_gradient_gives_its_rows_to_who_searches() -> None:
    network, x, truth, start = made(Perceptron, 3, FEATURES)
    seen = gradient(network, truth, x=x)
    found = by_optimisation(network, seen, truth, start, steps=500, prior=0.0)
    error = relative_error(found.numpy(), x.numpy(), np.zeros(FEATURES))
    assert error.mean() < 0.05
    mean = analytic(seen["hidden.weight"].numpy(), seen["hidden.bias"].numpy())
    assert relative_error(np.repeat(mean[None], 3, 0), x.numpy(), np.zeros(FEATURES)).mean() > 0.5


def test_a_sequences_gradient_gives_the_sequence() -> None:
    network, x, truth, start = made(Recurrent, 1, 5, 4)
    mask = torch.ones_like(x)
    seen = gradient(network, truth, x=x, mask=mask)
    found = by_optimisation(network, seen, truth, start, known={"mask": mask}, steps=400, prior=0.0)
    assert relative_error(found.numpy(), x.numpy(), np.zeros((5, 4))).mean() < 0.1


def test_noise_of_the_gradients_length_leaves_nothing_to_find() -> None:
    network, x, truth, start = made(Perceptron, 3, FEATURES)
    seen = gradient(network, truth, x=x)
    length = float(torch.stack([value.square().sum() for value in seen.values()]).sum().sqrt())
    noise = torch.Generator().manual_seed(1)
    noised = {name: value + length * torch.randn(value.shape, generator=noise) for name, value in seen.items()}
    found = by_optimisation(network, noised, truth, start, steps=200)
    assert relative_error(found.numpy(), x.numpy(), np.zeros(FEATURES)).mean() > 0.7


def test_rows_are_matched_whatever_their_order_and_the_guess_is_one() -> None:
    truth = np.array([[1.0, 0.0], [0.0, 2.0]])
    assert relative_error(truth[::-1], truth, np.zeros(2)).tolist() == [0.0, 0.0]
    assert relative_error(np.zeros((2, 2)), truth, np.zeros(2)).tolist() == [1.0, 1.0]


def test_without_a_gradient_of_the_bias_there_is_no_ratio() -> None:
    with pytest.raises(ValueError, match="has no gradient"):
        analytic(np.ones((2, 3)), np.zeros(2))
