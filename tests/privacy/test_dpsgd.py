"""Gradients of which no patient can make up more than so much: against one at a time, and by taking one away."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from privacy.clipping import by_layers, clipped_sum
from privacy.dpsgd import DPSGD, MixesPatientsError, refuse_mixing
from privacy.noise import Cryptographic, Seeded

FEATURES = 5


class Logistic(nn.Linear):
    def __init__(self) -> None:
        super().__init__(FEATURES, 1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, 0]


class Perceptron(nn.Module):
    def __init__(self, *, affine: bool) -> None:
        super().__init__()
        self.hidden, self.norm = nn.Linear(FEATURES, 7), nn.LayerNorm(7, elementwise_affine=affine)
        self.output = nn.Linear(7, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(torch.tanh(self.norm(self.hidden(x))))[:, 0]


class Twice(nn.Module):
    """A layer that is used twice: what its uses add to a gradient does not add up in its length."""

    def __init__(self) -> None:
        super().__init__()
        self.again, self.output = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(torch.tanh(self.again(torch.tanh(self.again(x)))))[:, 0]


class Normalised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.output = nn.BatchNorm1d(FEATURES), nn.Linear(FEATURES, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.norm(x))[:, 0]


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "logistic": Logistic,
    "linear layers": lambda: Perceptron(affine=False),
    "any layers": lambda: Perceptron(affine=True),
    "a layer twice": Twice,
}


def made(network: str, seed: int, rows: int, patients: int) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        built = NETWORKS[network]()
        x = torch.randn(rows, FEATURES) * torch.rand(rows, 1) * 10
        truth = (torch.rand(rows) < 0.5).float()
        whose = torch.cat([torch.arange(patients), torch.randint(patients, (rows - patients,))])
    return built, x, truth, whose[torch.randperm(rows, generator=torch.Generator().manual_seed(seed))]


def one_at_a_time(network: nn.Module, x: Tensor, truth: Tensor, whose: Tensor, clip: float) -> dict[str, Tensor]:
    total = {name: torch.zeros_like(value) for name, value in network.named_parameters()}
    for patient in whose.unique():
        rows = whose == patient
        loss = nn.functional.binary_cross_entropy_with_logits(network(x[rows]), truth[rows], reduction="sum")
        found = torch.autograd.grad(loss, list(network.parameters()))
        length = float(sum(g.double().square().sum() for g in found)) ** 0.5
        for name, g in zip(total, found, strict=True):
            total[name] += g * min(1.0, clip / length)
    return total


def length(total: dict[str, Tensor]) -> float:
    return float(sum(value.double().square().sum() for value in total.values())) ** 0.5


def difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return length({name: a[name] - b[name] for name in a})


sizes = st.tuples(st.integers(1, 8), st.integers(0, 12)).map(lambda two: (two[0] + two[1], two[0]))
LAW = settings(max_examples=25, deadline=None)


@pytest.mark.parametrize("network", NETWORKS)
@LAW
@given(st.integers(0, 10**6), sizes, st.sampled_from([0.1, 1.0, 100.0]))
def test_it_is_the_sum_of_each_patients_gradient_clipped(
    network: str, seed: int, size: tuple[int, int], clip: float
) -> None:
    built, x, truth, whose = made(network, seed, *size)
    expected = one_at_a_time(built, x, truth, whose, clip)
    found = clipped_sum(built, {"x": x}, truth, whose, clip)
    assert difference(found, expected) <= 1e-4 * (1 + length(expected))


@pytest.mark.parametrize("network", NETWORKS)
@LAW
@given(st.integers(0, 10**6), sizes, st.sampled_from([0.1, 1.0]))
def test_without_one_patient_it_moves_by_at_most_c_and_with_another_by_twice_that(
    network: str, seed: int, size: tuple[int, int], clip: float
) -> None:
    built, x, truth, whose = made(network, seed, *size)
    whole = clipped_sum(built, {"x": x}, truth, whose, clip)
    last = int(whose.max())
    others = whose != last
    without = clipped_sum(built, {"x": x[others]}, truth[others], whose[others], clip)
    assert difference(whole, without) <= clip * (1 + 1e-5) + 1e-5 * length(whole)
    replaced = clipped_sum(built, {"x": torch.where(others[:, None], x, -x)}, truth, whose, clip)
    assert difference(whole, replaced) <= 2 * clip * (1 + 1e-5) + 1e-5 * length(whole)


def test_a_patient_with_fifty_stays_counts_for_one() -> None:
    built, x, truth, _ = made("logistic", 1, 51, 1)
    whose = torch.tensor([0] * 50 + [1])
    found = clipped_sum(built, {"x": x}, truth, whose, 0.5)
    assert length(found) <= 2 * 0.5
    by_row = clipped_sum(built, {"x": x}, truth, torch.arange(51), 0.5)
    assert length(by_row) > 2 * 0.5, "clipped row by row, the one would count for many"


def test_the_quick_way_is_gone_where_it_is_right() -> None:
    assert by_layers(Logistic()) and by_layers(Perceptron(affine=False))
    assert not by_layers(Perceptron(affine=True))


def test_nobody_drawn_is_no_gradient() -> None:
    found = clipped_sum(Logistic(), {"x": torch.zeros(0, FEATURES)}, torch.zeros(0), torch.zeros(0).long(), 1.0)
    assert length(found) == 0


def test_what_normalises_over_the_batch_is_refused_with_the_remedy() -> None:
    x = torch.randn(4, FEATURES)
    with pytest.raises(MixesPatientsError, match=r"as batch normalisation does.*LayerNorm"):
        refuse_mixing(Normalised().train(), {"x": x})
    for network in NETWORKS.values():
        refuse_mixing(network().train(), {"x": x})


def _trained(source: Seeded | Cryptographic, *, rate: float = 0.3, steps: int = 400, noise: float = 2.0) -> np.ndarray:
    """The noised gradients [steps, parameters] of patients who have none: noise alone."""
    network = nn.Linear(3, 1, bias=False)
    nn.init.zeros_(network.weight)

    class Zero(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = network

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)[:, 0]

    how = DPSGD(noise, rate, steps, 0.5, np.arange(20), 20, source)
    rows = how.gradients(Zero(), {"x": torch.zeros(20, 3)}, torch.zeros(20))
    return np.stack([row["layer.weight"].numpy().ravel() for row in rows])


@pytest.mark.parametrize("source", [Seeded(np.random.default_rng(0)), Cryptographic()], ids=["seeded", "cryptographic"])
def test_the_noise_has_the_size_that_is_accounted(source: Seeded | Cryptographic) -> None:
    found = _trained(source)
    expected = 2.0 * 0.5 / (0.3 * 20)
    error = 5 * expected / np.sqrt(2 * found.size)
    assert found.std() == pytest.approx(expected, abs=error)
    assert abs(found.mean()) < 5 * expected / np.sqrt(found.size)


class Counting(Seeded):
    """Remembers who was drawn."""

    def __init__(self) -> None:
        super().__init__(np.random.default_rng(1))
        self.drawn: list[np.ndarray] = []

    def uniform(self, size: int) -> np.ndarray:
        found = super().uniform(size)
        self.drawn.append(found < 0.3)
        return found


def test_each_patient_is_drawn_by_itself_with_the_rate_that_is_accounted() -> None:
    """Poisson sampling: numbers drawn are binomial, and two patients' draws are independent."""
    source = Counting()
    _trained(source, steps=3000)
    drawn = np.stack(source.drawn)
    assert drawn.shape == (3000, 20)
    assert np.abs(drawn.mean(axis=0) - 0.3).max() < 5 * np.sqrt(0.21 / 3000)
    assert drawn.sum(axis=1).var() == pytest.approx(20 * 0.21, rel=0.15)
    correlation = np.corrcoef(drawn.T) - np.eye(20)
    assert np.abs(correlation).max() < 5 / np.sqrt(3000)


def test_cryptographic_noise_is_never_the_same_and_normal() -> None:
    from scipy.stats import kstest

    one, other = Cryptographic().normal((4000,)), Cryptographic().normal((4000,))
    assert not np.array_equal(one, other)
    assert kstest(one, "norm").pvalue > 1e-6
    uniform = Cryptographic().uniform(4000)
    assert uniform.min() >= 0 and uniform.max() < 1
    assert kstest(uniform, "uniform").pvalue > 1e-6
