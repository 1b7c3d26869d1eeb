"""A site's protection: what it plans, writes down and refuses."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from fedcore.desk import Desk
from fedcore.local import Split
from fedcore.memory import SiteMemory
from fedcore.protection import STATISTICS, TRAINING, Protection
from privacy.accounting import Mechanism, epsilon
from privacy.ledger import BudgetError, LedgerError
from privacy.noise import Cryptographic, Seeded
from privacy.terms import Terms
from sites.errors import InputError

SETTING = {"sampling_rate": 0.2, "steps": 5, "clip": 1.0}
ROUNDS, PATIENTS = 3, 20
SPLIT = Split({}, np.zeros(PATIENTS, bool), np.arange(PATIENTS))


def protection(noise: Any = "cryptographic", patients: int = PATIENTS, path: Path | None = None) -> Protection:
    return Protection(Terms(epsilon=4, statistics=0.15, noise=noise), "amman", patients, 0, path)


def visit(here: Protection, number: int) -> Any:
    return here.training(0, number, ROUNDS, "train", SETTING, SPLIT)


@pytest.mark.parametrize(
    "asked", [{"epsilon": 0}, {"epsilon": float("inf")}, {"epsilon": 1, "delta": 1}, {"epsilon": 1, "clip": 2}]
)
def test_terms_out_of_bounds_are_refused_and_noise_is_cryptographic_by_default(asked: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Terms(**asked)
    assert Terms(epsilon=1).noise == "cryptographic"


def test_what_is_planned_is_within_the_budget_and_uses_it() -> None:
    here = protection()
    planned = here.planned(SETTING, ROUNDS)
    assert planned[TRAINING].count == 15
    spent = epsilon(planned.values(), here.ledger.budget.delta)
    assert 0.99 * 4 <= spent <= 4


def test_what_was_not_settled_before_the_first_release_is_refused() -> None:
    """A coordinator that asks twice, or chooses the training by what the statistics were."""
    here = protection()
    here.statistics(SETTING, ROUNDS)
    with pytest.raises(BudgetError):
        here.statistics(SETTING, ROUNDS)
    for asked, rounds in (({**SETTING, "sampling_rate": 0.3}, ROUNDS), ({**SETTING, "steps": 1}, ROUNDS), (SETTING, 9)):
        with pytest.raises(BudgetError, match="has settled"):
            here.training(0, 1, rounds, "train", asked, SPLIT)
    visit(here, 1)
    assert [entry.phase for entry in here.ledger.entries] == [STATISTICS, TRAINING]


@pytest.mark.parametrize("clip", [7.2e-46, 1e-4, 1e5, float("nan"), float("inf")])
def test_a_clip_at_which_numbers_lose_the_noise_is_refused(clip: float) -> None:
    with pytest.raises(InputError, match="clip"):
        protection().planned({**SETTING, "clip": clip}, ROUNDS)


def test_statistics_are_written_down_before_their_noise_is_handed_out(tmp_path: Path) -> None:
    here = protection(path=tmp_path / "ledger")
    noise, _ = here.statistics(SETTING, ROUNDS)
    (entry,) = protection(path=tmp_path / "ledger").ledger.entries
    assert entry.mechanism == Mechanism(noise)
    assert epsilon([entry.mechanism], here.ledger.budget.delta) <= 0.15 * 4


@pytest.mark.parametrize("patients", [10, 15, 16, 17, 100, 4096])
def test_delta_is_a_tenth_of_a_patients_share_at_most(patients: int) -> None:
    assert 1 / (20 * patients) < protection(patients=patients).ledger.budget.delta <= 1 / (10 * patients)


@pytest.mark.parametrize("rate", [0.0, 1.0, 1.5])
def test_a_sampling_rate_that_is_no_sampling_is_refused(rate: float) -> None:
    with pytest.raises(InputError, match=r"'sampling_rate' is .* expected a number above 0 and below 1"):
        protection().planned({**SETTING, "sampling_rate": rate}, ROUNDS)


@pytest.mark.parametrize(("noise", "spends"), [("seeded", 1), ("cryptographic", 2)])
def test_a_visit_made_again_is_paid_again_unless_its_noise_is_the_same(noise: str, spends: int) -> None:
    here = protection(noise)
    drawn = [visit(here, 1).source.normal((3,)).tolist() for _ in range(2)]
    assert len(here.ledger.entries) == spends
    assert (drawn[0] == drawn[1]) == (spends == 1)


@pytest.mark.parametrize(("noise", "source"), [("seeded", Seeded), ("cryptographic", Cryptographic)])
def test_noise_comes_from_the_source_that_the_terms_say(noise: str, source: type) -> None:
    here = protection(noise)
    for found in (here.statistics(SETTING, ROUNDS)[1], visit(here, 1).source):
        assert isinstance(found, source)
        assert found.claim == (noise == "cryptographic")


def test_a_site_that_goes_on_without_its_ledger_releases_nothing(tmp_path: Path) -> None:
    """It has agreed on a federation before, and so has released something."""
    train: Any = SimpleNamespace(patient_id=np.arange(PATIENTS))
    samples: Any = SimpleNamespace(site="amman", in_split=lambda _: train)

    def desk() -> Desk:
        return Desk(samples, SiteMemory(tmp_path / "memory", "amman"), Terms(epsilon=4), ledgers=tmp_path / "ledgers")

    first = desk()
    assert first.protection is not None
    first.protection.statistics(SETTING, ROUNDS)
    first.memory.agree({"space": "{}"})
    for lost in ("amman.ledger", "amman.ledger.head"):
        (tmp_path / "ledgers" / lost).unlink()
    again = desk().protection
    assert again is not None
    with pytest.raises(LedgerError, match="is lost"):
        again.statistics(SETTING, ROUNDS)
