"""Gradients of which no patient can make up more than so much: against one at a time, and by taking one away."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from privacy import dpsgd
from privacy.clipping import Clipped, Clipping, InexactError, Inputs, by_layers, refuse_inexact
from privacy.dpsgd import DPSGD, MixesPatientsError, refuse, refuse_mixing
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


class Positions(nn.Module):
    """Several vectors a row, an embedding among them, and a layer that is used at each place."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.each, self.output = nn.Embedding(2, 3), nn.Linear(4, 3), nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        state = self.words((x > 0).long())
        for _ in range(2):
            state = torch.tanh(self.each(torch.cat([state, x[:, :, None]], 2)))
        return self.output(state.mean(1))[:, 0]


class Turned(nn.Module):
    """Its layer sees the rows on the second axis."""

    def __init__(self) -> None:
        super().__init__()
        self.each, self.output = nn.Linear(1, 2), nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(torch.tanh(self.each(x.T[:, :, None])).mean(0))[:, 0]


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
    "positions": Positions,
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
    found = Clipping(built).sum({"x": x}, truth, whose, clip).total
    assert difference(found, expected) <= 1e-4 * (1 + length(expected))


@pytest.mark.parametrize("network", NETWORKS)
@LAW
@given(st.integers(0, 10**6), sizes, st.sampled_from([0.1, 1.0]))
def test_without_one_patient_it_moves_by_at_most_c_and_with_another_by_twice_that(
    network: str, seed: int, size: tuple[int, int], clip: float
) -> None:
    built, x, truth, whose = made(network, seed, *size)
    whole = Clipping(built).sum({"x": x}, truth, whose, clip).total
    last = int(whose.max())
    others = whose != last
    without = Clipping(built).sum({"x": x[others]}, truth[others], whose[others], clip).total
    assert difference(whole, without) <= clip * (1 + 1e-5) + 1e-5 * length(whole)
    replaced = Clipping(built).sum({"x": torch.where(others[:, None], x, -x)}, truth, whose, clip).total
    assert difference(whole, replaced) <= 2 * clip * (1 + 1e-5) + 1e-5 * length(whole)


def test_a_patient_with_fifty_stays_counts_for_one() -> None:
    built, x, truth, _ = made("logistic", 1, 51, 1)
    whose = torch.tensor([0] * 50 + [1])
    found = Clipping(built).sum({"x": x}, truth, whose, 0.5).total
    assert length(found) <= 2 * 0.5
    by_row = Clipping(built).sum({"x": x}, truth, torch.arange(51), 0.5).total
    assert length(by_row) > 2 * 0.5, "clipped row by row, the one would count for many"


def test_the_quick_way_is_gone_where_it_is_right() -> None:
    assert all(by_layers(one) for one in (Logistic(), Perceptron(affine=False), Twice(), Positions()))
    assert not by_layers(Perceptron(affine=True))


@pytest.mark.parametrize("network", NETWORKS)
def test_a_layer_by_itself_is_clipped_to_its_part_of_c(network: str) -> None:
    built, x, truth, whose = made(network, 3, 9, 4)
    parts = len(list(built.children())) or 1
    if network == "any layers":  # through Opacus: by parameter
        parts = len(list(built.parameters()))
    elif network == "linear layers":  # a norm that learns nothing is no part
        parts -= 1
    found = Clipping(built, per_layer=True).sum({"x": x}, truth, whose, 0.1).total
    one = [
        Clipping(built, per_layer=True).sum({"x": x[whose == p]}, truth[whose == p], whose[whose == p] * 0, 0.1).total
        for p in range(4)
    ]
    assert difference(found, {name: sum(each[name] for each in one) for name in found}) < 1e-5
    for each in one:
        layers: dict[str, dict[str, Tensor]] = {}
        for name, value in each.items():
            layers.setdefault(name if network == "any layers" else name.rpartition(".")[0], {})[name] = value
        assert len(layers) == parts
        assert max(length(layer) for layer in layers.values()) <= 0.1 / parts**0.5
        assert length(each) <= 0.1


def test_a_network_whose_first_axis_is_not_the_rows_is_refused() -> None:
    x, truth = torch.randn(4, FEATURES), torch.tensor([0.0, 1.0, 0.0, 1.0])
    with pytest.raises(InexactError, match="cannot be told patient by patient"):
        refuse_inexact(Turned(), {"x": x}, truth)
    for network in NETWORKS.values():
        refuse_inexact(network(), {"x": x}, truth)
    refuse_inexact(Logistic(), {"x": x[:1]}, truth[:1])
    refuse_inexact(Logistic(), {"x": x[:0]}, truth[:0])


def test_many_rows_are_taken_a_part_at_a_time_and_none_of_a_patients_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    built, x, truth, whose = made("linear layers", 5, 60, 12)

    def steps() -> list[dict[str, Tensor]]:
        how = DPSGD(1.0, 0.7, 3, 0.5, whose.numpy(), 12, Seeded(np.random.default_rng(2)))
        return list(how.gradients(built, {"x": x}, truth))

    whole = steps()
    seen: list[Tensor] = []
    inner = Clipping.sum

    def counted(self: Clipping, inputs: Inputs, truth: Tensor, patient: Tensor, clip: float) -> Clipped:
        seen.append(inputs["x"])
        return inner(self, inputs, truth, patient, clip)

    monkeypatch.setattr(dpsgd, "PHYSICAL", 7)
    monkeypatch.setattr(Clipping, "sum", counted)
    parted = steps()
    assert max(difference(a, b) for a, b in zip(whole, parted, strict=True)) < 1e-5
    assert len(seen) > 3 and max(len(one) for one in seen) <= max(7, int(whose.bincount().max()))


def _bounds(quantile: float, noise: float, steps: int = 60) -> tuple[DPSGD, list[float], nn.Module, Tensor, Tensor]:
    built, x, truth, whose = made("logistic", 6, 400, 400)
    how = DPSGD(noise, 0.5, steps, 10.0, whose.numpy(), 400, Seeded(np.random.default_rng(3)), quantile=quantile)
    return how, [how.clip for _ in how.gradients(built, {"x": x}, truth)], built, x, truth


def test_an_adaptive_bound_comes_to_the_quantile_it_follows() -> None:
    how, _, built, x, truth = _bounds(0.5, 0.5)
    lengths = [
        length(Clipping(built).sum({"x": x[i : i + 1]}, truth[i : i + 1], torch.tensor([0]), 1e9).total)
        for i in range(400)
    ]
    assert np.mean(np.array(lengths) <= how.clip) == pytest.approx(0.5, abs=0.1)


def test_an_adaptive_bounds_count_and_the_gradients_cost_together_what_one_release_does() -> None:
    """One patient moves the gradients by C and the count by a half: the z^-2 of both add up to the accounted one's."""
    for noise in (0.5, 1.0, 30.0):
        how = _bounds(0.5, noise, 1)[0]
        assert how._gradients_noise**-2 + (0.5 / how._count_deviation) ** 2 == pytest.approx(noise**-2)
        assert how._gradients_noise > noise
    still = DPSGD(1.0, 0.5, 1, 10.0, np.arange(4), 4, Seeded(np.random.default_rng(3)))
    assert still._gradients_noise == 1.0


@pytest.mark.parametrize("network", NETWORKS)
def test_one_patient_moves_the_count_of_an_adaptive_bound_by_a_half_at_most(network: str) -> None:
    built, x, truth, whose = made(network, 8, 12, 5)
    for clip in (0.01, 1.0, 100.0):
        whole = dpsgd._balance(Clipping(built).sum({"x": x}, truth, whose, clip).squared, clip)
        others = whose < 4
        left = Clipping(built).sum({"x": x[others]}, truth[others], whose[others], clip)
        assert abs(whole - dpsgd._balance(left.squared, clip)) == 0.5


def test_nobody_drawn_is_no_gradient() -> None:
    found = Clipping(Logistic()).sum({"x": torch.zeros(0, FEATURES)}, torch.zeros(0), torch.zeros(0).long(), 1.0).total
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


def test_stays_that_nearly_cancel_count_for_c_at_most() -> None:
    """Lengths from inner products alone would come to nothing, and nothing would be clipped."""
    built, _, _, _ = made("logistic", 1, 2, 1)
    row = torch.randn(1, FEATURES, generator=torch.Generator().manual_seed(4)) * 5
    x = torch.cat([row, row * (1 + 1e-6)])
    with torch.no_grad():
        built.weight.zero_()  # type: ignore[operator, union-attr]
        built.bias.zero_()  # type: ignore[operator, union-attr]
    for clip in (1e-3, 1e-6):
        found = Clipping(built).sum({"x": x}, torch.tensor([0.0, 1.0]), torch.tensor([0, 0]), clip)
        assert length(found.total) <= clip


@pytest.mark.parametrize("network", NETWORKS)
def test_a_patient_whose_gradient_is_no_number_counts_for_nothing(network: str) -> None:
    built, x, truth, whose = made(network, 9, 8, 5)
    others = whose != 2
    broken = torch.where(others[:, None], x, torch.full_like(x, torch.inf))
    found = Clipping(built).sum({"x": broken}, truth, whose, 0.5).total
    place = torch.unique(whose[others], return_inverse=True)[1]
    expected = Clipping(built).sum({"x": x[others]}, truth[others], place, 0.5).total
    assert difference(found, expected) < 1e-6
    alone = Clipping(built).sum({"x": broken[~others]}, truth[~others], whose[~others] * 0, 0.5).total
    assert length(alone) == 0


class Remembering(nn.Module):
    """Keeps statistics of each row's own values: no row changes another's logit, and yet they travel."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm1d(FEATURES, track_running_stats=True)
        self.output = nn.Linear(FEATURES, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.norm(x[:, :, None].expand(-1, -1, 2) * torch.tensor([1.0, 2.0])).mean(2))[:, 0]


class Renormed(nn.Module):
    """An embedding whose words are shortened where they are looked up."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.output = nn.Embedding(2, 3, max_norm=0.01), nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.words((x > 0).long()).mean(1))[:, 0]


@pytest.mark.parametrize("network", [Remembering, Renormed, Normalised])
def test_what_looking_at_rows_changes_is_refused(network: Callable[[], nn.Module]) -> None:
    with pytest.raises(MixesPatientsError):
        refuse(network().train(), {"x": torch.zeros(4, FEATURES)})


@pytest.mark.parametrize("network", NETWORKS)
def test_whether_a_network_is_refused_depends_on_no_patient(network: str) -> None:
    """An error is a release: rows that would break anything are looked at for their shape alone."""
    refuse(NETWORKS[network]().train(), {"x": torch.full((1, FEATURES), torch.nan)})


class Centred(nn.Module):
    """Looks at each row beside the others, and keeps nothing of it."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(FEATURES, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(x - x.mean(0))[:, 0]


def test_what_mixes_rows_and_keeps_nothing_is_refused() -> None:
    with pytest.raises(MixesPatientsError):
        refuse_mixing(Centred(), {"x": torch.rand(4, FEATURES, generator=torch.Generator().manual_seed(0))})
