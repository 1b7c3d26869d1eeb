"""Membership attacks against simulated data of which the truth is known."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score
from torch import nn

from privacy.accounting import noise_multiplier
from privacy.attacks import lira, loss, passive, rmia
from privacy.attacks.outcome import auroc, by_patient, clopper_pearson, most_true, roc, tpr_at
from privacy.dpsgd import DPSGD
from privacy.noise import Seeded

N = 4000


def game(gap: float, shadows: int, seed: int = 0):
    """Gaussian statistics: of member i N(mu_i + gap, 1), of others N(mu_i, 1), over models drawn anew."""
    rng = np.random.default_rng(seed)
    mean = 3 * rng.standard_normal(N)
    inside = rng.random((shadows + 1, N)) < 0.5
    inside[1], inside[2] = True, False  # each candidate both, once at least
    value = mean + gap * inside + rng.standard_normal(inside.shape)
    return value[0], inside[0], value[1:], inside[1:]


@pytest.mark.parametrize("attack", [lira.online, lira.offline])
def test_lira_reaches_what_two_normals_leave_to_be_reached(attack) -> None:
    """With the means known the area is Phi(gap / sqrt 2); 60 shadow models cost a little of it."""
    observed, member, shadow, inside = game(1.5, 60)
    found = auroc(attack(observed, shadow, inside), member)
    best = stats.norm.cdf(1.5 / math.sqrt(2))
    assert best - 0.03 < found.value < best + 0.015
    threshold = tpr_at(attack(observed, shadow, inside), member, 0.01)
    assert threshold.value == pytest.approx(stats.norm.sf(stats.norm.isf(0.01) - 1.5), abs=0.06)
    assert auroc(observed, member).value < 0.65, "without shadow models people's differences drown it"


@pytest.mark.parametrize("shadows", [12, 80])
def test_without_a_difference_no_attack_finds_one(shadows: int) -> None:
    observed, member, shadow, inside = game(0.0, shadows, seed=1)
    p, reference = (1 / (1 + np.exp(-value)) for value in (observed, shadow))
    scores = [
        lira.online(observed, shadow, inside),
        lira.offline(observed, shadow, inside),
        loss.score(-np.log(p)),
        rmia.score(p[:2000], reference[:, :2000], inside[:, :2000], p[2000:], reference[:, 2000:]),
    ]
    for score in scores:
        found = auroc(score, member[: len(score)])
        assert found.low <= 0.5 <= found.high


def test_rmia_finds_members_whom_the_loss_alone_does_not_tell() -> None:
    """Relative to what others like the target say of the same people."""
    observed, member, shadow, inside = game(2.0, 20, seed=2)
    rng = np.random.default_rng(3)
    z = 3 * rng.standard_normal(500)
    p, reference, of_z, z_reference = (
        1 / (1 + np.exp(-value))
        for value in (observed, shadow, z + rng.standard_normal(500), z + rng.standard_normal((20, 500)))
    )
    score = rmia.score(p, reference, inside, of_z, z_reference)
    assert auroc(score, member).low > auroc(loss.score(-np.log(p)), member).high


def test_rmia_is_its_formula() -> None:
    observed, reference, inside = np.array([0.5]), np.array([[0.9], [0.4]]), np.array([[True], [False]])
    population, theirs = np.array([0.5, 0.5, 0.1]), np.array([[0.5, 0.9, 0.5], [0.5, 0.9, 0.5]])
    ratio, others = 0.5 / 0.65, [0.5 / 0.5, 0.5 / 0.9, 0.1 / 0.5]
    assert [ratio / other >= 1 for other in others] == [False, True, True]
    assert rmia.score(observed, reference, inside, population, theirs)[0] == pytest.approx(2 / 3)


def test_an_offline_attack_looks_at_no_model_that_was_trained_on_the_candidate() -> None:
    observed, _, shadow, inside = game(1.0, 8)
    other = np.where(inside, 1e6, shadow)
    assert np.array_equal(lira.offline(observed, shadow, inside), lira.offline(observed, other, inside))


def test_lira_refuses_a_candidate_of_whom_it_has_no_model() -> None:
    with pytest.raises(ValueError, match="train more of them"):
        lira.online(np.zeros(2), np.zeros((2, 2)), np.array([[True, False], [True, True]]))
    with pytest.raises(ValueError, match="train more of them"):
        lira.offline(np.zeros(1), np.zeros((1, 1)), np.array([[True]]))


def test_alignment_is_the_slope_of_the_loss_along_the_update() -> None:
    rng = np.random.default_rng(4)
    x, w = rng.standard_normal((6, 3)), {"w": rng.standard_normal(3)}
    step = {"w": w["w"] + 0.1 * rng.standard_normal(3)}

    def losses(model):
        return np.log1p(np.exp(-(x @ model["w"])))

    gradient = -x / (1 + np.exp(x @ w["w"]))[:, None]
    u = step["w"] - w["w"]
    assert passive.alignment(losses, w, step) == pytest.approx(-(gradient @ u) / np.linalg.norm(u), rel=1e-3)
    assert passive.alignment(losses, w, w).tolist() == [0.0] * 6


def test_rates_at_few_false_alarms_are_given_only_where_ten_could_fall() -> None:
    rng = np.random.default_rng(5)
    score, member = rng.standard_normal(1998), np.arange(1998) < 999
    absent = tpr_at(score, member, 0.01)
    assert absent.value is None and "999 non-members is 10.0" in absent.reason
    score, member = np.append(score, 0.0), np.append(member, False)
    there = tpr_at(score, member, 0.01)
    assert there.value is not None and there.low <= there.value <= there.high
    assert tpr_at(score, member, 0.001).value is None


def test_the_share_of_false_alarms_is_never_above_what_is_allowed() -> None:
    score = np.array([*[3.0] * 20, *[1.0] * 980, *[3.0] * 50, *[1.0] * 50])
    member = np.arange(1100) >= 1000
    assert tpr_at(score, member, 0.01).value == 0.0, "20 tied non-members are more than the 10 that are allowed"
    assert tpr_at(score, member, 0.02).value == 0.5


def test_scores_that_are_no_numbers_are_refused() -> None:
    for measure in (auroc, lambda score, member: tpr_at(score, member, 0.5)):
        with pytest.raises(ValueError, match="1 of 40 scores are NaN"):
            measure(np.array([np.nan, *[0.0] * 39]), np.arange(40) < 20)


def test_areas_and_curves_are_as_scikit_learn_says() -> None:
    rng = np.random.default_rng(6)
    score, member = rng.integers(0, 9, 300).astype(float), rng.random(300) < 0.4
    found = auroc(score, member)
    assert found.value == pytest.approx(roc_auc_score(member, score))
    fpr, tpr = roc(score, member)
    assert np.trapezoid(tpr, fpr) == pytest.approx(found.value)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)


def test_the_interval_of_an_area_covers_it_nineteen_times_in_twenty() -> None:
    rng = np.random.default_rng(7)
    truth, hits = stats.norm.cdf(0.5 / math.sqrt(2)), 0
    for _ in range(400):
        member = np.arange(160) < 80
        found = auroc(rng.standard_normal(160) + 0.5 * member, member)
        hits += found.low <= truth <= found.high
    assert 0.92 < hits / 400 < 0.98


def test_exact_intervals_of_shares() -> None:
    assert clopper_pearson(5, 10) == pytest.approx((0.187086, 0.812914), abs=1e-5)
    assert clopper_pearson(0, 10)[0] == 0 and clopper_pearson(10, 10)[1] == 1


def test_a_patients_stays_make_one_score() -> None:
    patient = np.array([0, 0, 1])
    assert by_patient(np.array([1.0, 3.0, 5.0]), patient, 2).tolist() == [2.0, 5.0]
    assert by_patient(np.array([[1.0, 3.0, 5.0], [0.0, 0.0, 1.0]]), patient, 2).tolist() == [[2.0, 5.0], [0.0, 1.0]]


def test_no_attack_on_a_private_mechanism_passes_the_line() -> None:
    """Randomised response with epsilon ln 3 attains it in the middle."""
    assert most_true(np.array([0.1, 0.25, 0.5]), math.log(3), 0.0).tolist() == pytest.approx([0.3, 0.75, 1 - 0.5 / 3])
    assert most_true(np.array([0.0]), 1.0, 0.01)[0] == pytest.approx(0.01)
    assert most_true(np.array([1.0]), 1.0, 0.01)[0] == 1.0


class Wide(nn.Linear):
    """Of more weights than there are patients: each has a direction of their own."""

    def __init__(self) -> None:
        super().__init__(300, 1)
        nn.init.zeros_(self.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)[:, 0]


@pytest.mark.parametrize(("budget", "found_out"), [(0.5, False), (None, True)])
def test_with_a_small_budget_no_attack_on_an_update_passes_what_it_leaves(
    budget: float | None, found_out: bool
) -> None:
    """The same training without noise does, so the line is one that can be passed."""
    rng, n, steps, rate, delta = np.random.default_rng(8), 600, 10, 0.2, 1e-4
    x, label, member = rng.standard_normal((n, 300)).astype(np.float32), rng.random(n) < 0.5, np.arange(n) < n // 2
    noise = 1e-6 if budget is None else noise_multiplier(budget, delta, rate, steps)
    how = DPSGD(noise, rate, steps, 1.0, np.arange(n // 2), n // 2, Seeded(rng))
    network = Wide()
    for gradient in how.gradients(network, {"x": torch.from_numpy(x[member])}, torch.from_numpy(label[member]).float()):
        for name, value in network.named_parameters():
            value.data -= 0.5 * gradient[name]
    sent = {"weight": np.zeros((1, 300), np.float32), "bias": np.zeros(1, np.float32)}
    trained = {name: value.detach().numpy() for name, value in network.named_parameters()}

    def losses(model):
        logit = x @ model["weight"][0] + model["bias"]
        return np.logaddexp(0, np.where(label, -logit, logit)).astype(np.float64)

    fpr, tpr = roc(passive.alignment(losses, sent, trained), member)
    passed = tpr - most_true(fpr, 0.5, delta)
    assert (passed.max() > 0.15) == found_out, "three standard deviations of two rates over 300 people each"


def test_a_model_that_met_no_candidate_tells_nothing_of_them() -> None:
    """Twenty such models, of which one interval may miss a half; the shadow models did meet the candidates."""
    misses = 0
    for seed in range(20):
        observed, _, shadow, inside = game(1.0, 10, seed)
        member = np.random.default_rng(seed).random(N) < 0.5  # a coin that the model knows nothing of
        found = auroc(lira.online(observed, shadow, inside), member)
        misses += not found.low <= 0.5 <= found.high
    assert misses <= 3
