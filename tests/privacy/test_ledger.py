"""A site's ledger: what is spent is written before it leaves, and is never forgotten."""

import json
from pathlib import Path

import pytest

from privacy.accounting import Mechanism, epsilon
from privacy.ledger import Budget, BudgetError, Ledger, LedgerError

BUDGET = Budget(4.0, 1e-4)
STEP = Mechanism(2.0, 0.1, 20)


def test_it_says_what_all_releases_together_come_to(tmp_path: Path) -> None:
    ledger = Ledger(BUDGET, tmp_path / "site" / "ledger")
    ledger.spend("statistics", "statistics", Mechanism(6.0))
    for number in range(3):
        ledger.spend(f"training/{number}", "training", STEP)
    whole = [Mechanism(6.0), Mechanism(2.0, 0.1, 60)]
    assert ledger.spent() == epsilon(whole, 1e-4)
    assert ledger.spent(phase="training") == epsilon(whole[1:], 1e-4)
    assert ledger.opinions().keys() == {"pld", "prv", "rdp"}
    again = Ledger(BUDGET, tmp_path / "site" / "ledger")
    assert again.entries == ledger.entries
    assert again.spent() == ledger.spent()


def test_what_would_pass_the_budget_is_refused_and_not_written(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    ledger = Ledger(BUDGET, path)
    rounds = 0
    with pytest.raises(BudgetError, match=r"budget of epsilon 4 at delta 0.0001 would be passed: .* spent 4\.\d+"):
        while True:
            ledger.spend(f"training/{rounds}", "training", STEP)
            rounds += 1
    assert len(ledger.entries) == len(Ledger(BUDGET, path).entries) == rounds > 3
    assert ledger.spent() <= 4.0 < epsilon([Mechanism(2.0, 0.1, 20 * (rounds + 1))], 1e-4)


def test_what_was_settled_is_allowed_to_the_last_and_nothing_else(tmp_path: Path) -> None:
    ledger = Ledger(BUDGET, tmp_path / "ledger")
    with pytest.raises(BudgetError):
        ledger.settle([Mechanism(2.0, 0.1, 2000)])
    ledger.settle([Mechanism(2.0, 0.1, 100), Mechanism(10.0)])
    for number in range(5):
        ledger.spend(f"training/{number}", "training", STEP)
    for another in (STEP, Mechanism(0.5), Mechanism(3.0, 0.1, 1), Mechanism(2.0, 0.05, 1)):
        with pytest.raises(BudgetError, match=r"is spent|settled"):
            ledger.spend("more", "training", another)
        with pytest.raises(BudgetError):
            Ledger(BUDGET, tmp_path / "ledger").spend("more", "training", another)
    ledger.spend("statistics", "statistics", Mechanism(10.0))
    with pytest.raises(BudgetError):
        ledger.spend("more", "statistics", Mechanism(10.0))


def test_what_is_released_is_not_settled_anew_after_something_came_out() -> None:
    """The accountant composes what stands beforehand: later noise and numbers may not follow from earlier releases."""
    ledger = Ledger(BUDGET)
    ledger.settle([Mechanism(10.0), Mechanism(2.0, 0.1, 100)])
    ledger.spend("statistics", "statistics", Mechanism(10.0))
    ledger.settle([Mechanism(10.0), Mechanism(2.0, 0.1, 100)])
    with pytest.raises(BudgetError, match="other noise or another number"):
        ledger.settle([Mechanism(10.0), Mechanism(4.0, 0.2, 100)])
    late = Ledger(BUDGET)
    late.spend("statistics", "statistics", Mechanism(10.0))
    with pytest.raises(BudgetError):
        late.settle([Mechanism(10.0)])


@pytest.mark.parametrize("lost", ["a byte", "a line", "all but the first", "all"])
def test_a_ledger_that_has_lost_its_end_is_refused(tmp_path: Path, lost: str) -> None:
    path = tmp_path / "ledger"
    ledger = Ledger(BUDGET, path)
    for number in range(3):
        ledger.spend(f"training/{number}", "training", STEP)
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    left = {"a byte": content[:-1], "a line": b"".join(lines[:-1]), "all but the first": lines[0], "all": b""}[lost]
    path.write_bytes(left)
    if lost == "all":
        path.unlink()
    with pytest.raises(LedgerError, match=r"is damaged|is lost"):
        Ledger(BUDGET, path)
    path.write_bytes(content)
    assert len(Ledger(BUDGET, path).entries) == 3
    path.write_bytes(content + b'{"key": "training/3", "pha')  # killed while it was written: nothing was released
    assert len(Ledger(BUDGET, path).entries) == 3


def test_a_release_made_once_more_is_a_spend_unless_its_noise_is_the_same() -> None:
    ledger = Ledger(BUDGET)
    ledger.spend("training/1", "training", STEP)
    ledger.spend("training/1", "training", STEP, repeats=True)
    assert len(ledger.entries) == 1
    ledger.spend("training/1", "training", STEP)
    ledger.spend("training/1", "training", STEP)
    assert [entry.key for entry in ledger.entries] == ["training/1", "training/1#2", "training/1#3"]
    ledger.spend("training/1", "training", Mechanism(3.0, 0.1, 20), repeats=True)
    assert len(ledger.entries) == 4, "another noise is another release"


def test_two_processes_of_one_site_keep_one_ledger(tmp_path: Path) -> None:
    """An engine may serve a site by now this process, now that."""
    here, there = Ledger(BUDGET, tmp_path / "ledger"), Ledger(BUDGET, tmp_path / "ledger")
    for number in range(3):
        (here if number % 2 else there).spend(f"training/{number}", "training", STEP)
    assert len(Ledger(BUDGET, tmp_path / "ledger").entries) == 3
    with pytest.raises(BudgetError):
        for number in range(3, 100):
            (here if number % 2 else there).spend(f"training/{number}", "training", STEP)
    assert Ledger(BUDGET, tmp_path / "ledger").spent() <= BUDGET.epsilon


def test_a_ledger_that_vanishes_meanwhile_is_refused(tmp_path: Path) -> None:
    ledger = Ledger(BUDGET, tmp_path / "ledger")
    (tmp_path / "ledger").unlink()
    with pytest.raises(LedgerError, match="cannot be read"):
        ledger.spend("training/1", "training", STEP)


def _written(path: Path) -> list[bytes]:
    ledger = Ledger(BUDGET, path)
    for number in range(3):
        ledger.spend(f"training/{number}", "training", STEP)
    return path.read_bytes().splitlines(keepends=True)


def test_a_line_that_was_cut_off_was_never_released(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    lines = _written(path)
    path.write_bytes(b"".join(lines) + lines[-1][:-5])  # killed while it wrote: its head does not know of it
    ledger = Ledger(BUDGET, path)
    assert len(ledger.entries) == len(lines) - 1
    assert path.read_bytes() == b"".join(lines)


def _changed(line: bytes) -> bytes:
    return json.dumps({**json.loads(line), "noise_multiplier": 20.0}, sort_keys=True).encode() + b"\n"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda lines: [*lines[:1], *lines[2:]], "line 2 of the ledger is damaged"),
        (lambda lines: [*lines[:2], _changed(lines[2]), lines[3]], "line 4 of the ledger is damaged"),
        (lambda lines: [*lines[:2], b"{}\n", *lines[3:]], "line 3 of the ledger is damaged"),
        (lambda lines: [*lines[:2], b"\xff\n", *lines[3:]], "line 3 of the ledger is damaged"),
        (lambda lines: [], "line 1 of the ledger is damaged"),
    ],
)
def test_a_damaged_ledger_is_refused_and_never_begun_anew(tmp_path: Path, damage, said: str) -> None:
    path = tmp_path / "ledger"
    path.write_bytes(b"".join(damage(_written(path))))
    before = path.read_bytes()
    with pytest.raises(LedgerError, match=said):
        Ledger(BUDGET, path)
    assert path.read_bytes() == before


def test_a_lost_ledger_and_one_of_another_budget_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="the ledger of what this site has spent is lost"):
        Ledger(BUDGET, tmp_path / "ledger", expected=True)
    _written(tmp_path / "ledger")
    with pytest.raises(LedgerError, match="of another budget"):
        Ledger(Budget(8.0, 1e-4), tmp_path / "ledger")


def test_a_spend_that_cannot_be_written_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="cannot be written"):
        Ledger(BUDGET, tmp_path / "file" / "ledger")


@pytest.mark.parametrize(
    ("target", "delta", "said"),
    [
        (0.0, None, "epsilon: found 0.0"),
        (float("inf"), None, "epsilon: found inf"),
        (1.0, 1e-3, r"delta: found 0.001, expected above 0 and at most 1/\(10 x 500\) = 0.0002"),
    ],
)
def test_a_budget_out_of_bounds_is_refused(target: float, delta: float | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Budget.of(target, delta, 500)
