"""Attacks that fail where the mechanism is whole, and find it broken where it is broken.

A reduced audit: twenty honest ones, of which up to three may exceed the claim (four or more of twenty do once in 63
times if each does one time in twenty), and each fault once. `make audit` runs a hundred of each.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fedcore.local import Split
from fedcore.protection import Protection
from privacy.accounting import Mechanism, epsilon
from privacy.audit import audits
from privacy.audit.audits import Transcript
from privacy.audit.broken import FAULTS, WHOLE, Trial
from privacy.audit.canaries import Watched
from privacy.dpsgd import DPSGD
from privacy.noise import Seeded
from privacy.terms import Terms

FULL = Trial()
SMALL = Trial(runs=8)
ONE_RUN = Trial(sampling_rate=1.0, steps=1, canaries=400, runs=1)
MANY_RUNS = Trial(claim=1.0, sampling_rate=1.0, steps=1, canaries=1, runs=300)


def test_an_honest_mechanism_is_not_found_out() -> None:
    bounds = [audits.white_box(SMALL.transcript(WHOLE, seed), SMALL.delta).epsilon for seed in range(20)]
    assert sum(bound > SMALL.claim for bound in bounds) <= 3, bounds
    assert np.median(bounds) > SMALL.claim / 3, "the attack learns something: it is no attack that cannot succeed"


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_by_the_white_box_audit(fault: str) -> None:
    bound = audits.white_box(FULL.transcript(FAULTS[fault], 0), FULL.delta).epsilon
    assert bound > FULL.claim


@pytest.mark.parametrize("trial", [ONE_RUN, MANY_RUNS], ids=["one run", "many runs"])
def test_audits_that_take_nothing_for_granted_find_noise_that_is_not_there(trial: Trial) -> None:
    audit = audits.one_run if trial is ONE_RUN else audits.many_runs
    assert 0 <= audit(trial.transcript(WHOLE, 0), trial.delta).epsilon <= trial.claim
    assert audit(trial.transcript(FAULTS["no noise"], 0), trial.delta).epsilon > trial.claim


class Network(nn.Module):
    def __init__(self, *, affine: bool) -> None:
        super().__init__()
        self.hidden, self.norm = nn.Linear(3, 4), nn.LayerNorm(4, elementwise_affine=affine)
        self.output = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output(torch.tanh(self.norm(self.hidden(x))))[:, 0]


def _made(affine: bool) -> tuple[Network, torch.Tensor, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Network(affine=affine), torch.randn(12, 3), (torch.rand(12) < 0.5).float()


def _silent(**more: float) -> DPSGD:
    how = DPSGD(0.0, 1.0, 3, 0.5, np.repeat(np.arange(6), 2), 6, Seeded(np.random.default_rng(0)))
    return replace(how, **more)


@pytest.mark.parametrize("affine", [False, True], ids=["by layers", "by rows"])
@pytest.mark.parametrize("direction", [1, -1])
def test_a_canary_adds_c_in_its_own_direction_however_many_its_stays(affine: bool, direction: int) -> None:
    network, x, truth = _made(affine)
    present = np.array([True, False, True, True])
    visit = Watched.of(_silent(), present, stays=6, direction=direction)
    assert len(list(visit.gradients(network, {"x": x}, truth))) == 3
    assert visit.scores == pytest.approx(3.0 * present, abs=1e-3)
    assert visit.drawn == pytest.approx(3.0, abs=1e-3)


def test_clipped_by_layers_a_canary_adds_its_layers_share() -> None:
    network, x, truth = _made(affine=False)
    visit = Watched.of(_silent(per_layer=True), np.array([True, False]), stays=4)
    list(visit.gradients(network, {"x": x}, truth))
    assert visit.scores == pytest.approx([3 / 3**0.5, 0.0], abs=1e-3)
    assert visit.drawn == pytest.approx(3 / 3**0.5, abs=1e-3)


@pytest.mark.parametrize("affine", [False, True], ids=["by layers", "by rows"])
def test_the_patients_train_as_if_no_canary_were_there(affine: bool) -> None:
    network, x, truth = _made(affine)
    plain = next(_silent().gradients(network, {"x": x}, truth))
    visit = Watched.of(_silent(), np.array([True, False]))
    watched = next(visit.gradients(network, {"x": x}, truth))
    assert watched.keys() == plain.keys()
    for name, gradient in plain.items():  # the mean is over two patients more
        assert torch.allclose(watched[name] * 8, gradient * 6, atol=2e-3)


def test_stays_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(ValueError, match="stays: found 3, expected an even number"):
        Watched.of(_silent(), np.array([True]), stays=3)


def test_the_lowest_scores_are_guessed_out_and_the_middle_is_left() -> None:
    present = np.array([True, True, False, True, False, False])
    scores = np.array([9.0, 8.0, 7.0, 3.0, 2.0, 1.0])
    seen = Transcript(present, scores, 4.0)
    assert seen.guesses() == (2, 2), "one of each kind at least"
    more = Transcript(np.r_[present, np.ones(54, np.bool_)], np.r_[scores, np.full(54, 5.0)], 4.0)
    assert more.guesses() == (6, 4), "of sixty the three highest and the three lowest"
    answers = seen.answers(0.5)
    assert (answers.true_positives, answers.present, answers.false_positives, answers.absent) == (3, 3, 1, 3)


def test_steps_that_are_not_counted_are_found_out_by_the_accountant() -> None:
    count = FULL.steps * FULL.visits
    assert epsilon([Mechanism(FULL.noise, FULL.sampling_rate, count)], FULL.delta) <= FULL.claim
    assert epsilon([Mechanism(FULL.noise, FULL.sampling_rate, 2 * count)], FULL.delta) > 1.4 * FULL.claim


ROUNDS = 4
SETTING = {"sampling_rate": 0.2, "steps": 5, "clip": 1.0}
SPLIT = Split({}, np.zeros(40, bool), np.repeat(np.arange(20), 2))


def _protection(site: str = "amman", noise: str = "seeded") -> Protection:
    return Protection(Terms(epsilon=4, noise=noise), site, 20, 0)


def test_as_many_steps_are_made_as_are_written_down() -> None:
    here, made, network = _protection(), 0, Network(affine=False)
    for number in (1, 2, 3):
        how = here.training(0, number, ROUNDS, "train", SETTING, SPLIT)
        made += len(list(how.gradients(network, {"x": torch.zeros(40, 3)}, torch.zeros(40))))
        (spent,) = here.ledger.mechanisms("training")
        assert (spent.count, spent.noise_multiplier, spent.sampling_rate) == (made, how.noise_multiplier, 0.2)
    assert made == 15


@pytest.mark.parametrize("noise", ["seeded", "cryptographic"])
def test_the_noise_of_two_visits_is_never_the_same(noise: str) -> None:
    """Nor of two trials, two trainings of a visit, two phases, two sites."""

    def drawn(protection: Protection, *names: int | str) -> tuple[float, ...]:
        trial, number, stream = names
        how = protection.training(trial, number, ROUNDS, stream, SETTING, SPLIT)
        return tuple(how.source.normal((3,)).tolist())

    one = _protection(noise=noise)
    visits = [(0, 1, "train"), (0, 2, "train"), (1, 1, "train"), (0, 1, "personal")]
    found = [drawn(one, *names) for names in visits]
    found.append(tuple(one.statistics(SETTING, ROUNDS)[1].normal((3,)).tolist()))
    found.append(drawn(_protection("bern", noise), 0, 1, "train"))
    assert len(set(found)) == len(found)
