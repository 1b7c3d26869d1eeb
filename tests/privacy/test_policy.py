"""A policy file says what it must, or a sentence says what is wrong; a total is never begun anew."""

import json
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from privacy.accounting import Mechanism
from privacy.ledger import Budget, BudgetError, Ledger, LedgerError
from privacy.policy import Policy, PolicyError, json_schema, load
from privacy.total import Total

DOCS = Path(__file__).parents[2] / "docs"
ONE = Budget(4.0, 1e-6)
ALL = Budget(12.0, 1e-5)


def test_the_schema_and_the_example_are_of_this_version() -> None:
    assert json.loads((DOCS / "policy.schema.json").read_text()) == json_schema()
    policy, sha256 = load(DOCS / "policy.example.yaml")
    assert len(sha256) == 64
    given = policy.model_dump(mode="json", exclude_unset=True)
    assert given.keys() == Policy.model_fields.keys(), "the example shows each rule"
    assert given["privacy"].keys() == type(policy.privacy).model_fields.keys()


def test_an_empty_policy_rules_nothing_but_the_smallest_count() -> None:
    assert Policy.parse({}, "a.yaml") == Policy()
    assert Policy().smallest_count == 10


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("task: [a]", "task: found this key, expected one of valid_until, tasks,"),
        ("privacy: {epsilon: 3}", "privacy.epsilon: found this key, expected one of required, noise,"),
        ("smallest_count: 9", "smallest_count: found 9, expected a whole number of 10 or more"),
        ("smallest_count: '20'", "smallest_count: found '20', expected a whole number"),
        ("tasks: []", r"tasks: found [], expected a list of NAME"),
        ("models: [a b]", "models.0: found 'a b', expected a list of NAME"),
        ("models: [logistic@12]", "models.0: found 'logistic@12', expected a list of NAME"),
        ("valid_until: soon", "valid_until: found 'soon', expected the last day"),
        ("valid_until: 20271231", "valid_until: found 20271231, expected the last day"),
        ("secure_aggregation: true", "secure_aggregation: found True, expected required or optional"),
        ("privacy: {required: 'yes'}", "privacy.required: found 'yes', expected true"),
        ("privacy: 4", "privacy: found 4, expected rules of differential privacy"),
        ("privacy: {largest_clip: 0}", "privacy.largest_clip: found 0, expected a number above 0"),
        ("privacy: {smallest_noise_multiplier: .inf}", "privacy.smallest_noise_multiplier: found inf, expected a"),
        ("privacy: {per_analysis: {epsilon: 4}}", "privacy.per_analysis.delta: found nothing, expected a number above"),
        ("privacy: {per_analysis: {epsilon: -1, delta: 0.1}}", "privacy.per_analysis.epsilon: found -1, expected a"),
        ("privacy: {per_analysis: {epsilon: .nan, delta: 0.1}}", "privacy.per_analysis.epsilon: found nan, expected"),
        ("privacy: {per_analysis: {epsilon: 1, delta: 1}}", "privacy.per_analysis.delta: found 1, expected a number"),
        (
            "privacy: {total: {epsilon: 1, delta: 0.1}}",
            "privacy.total: found without `required: true`, expected both",
        ),
        (
            "privacy: {largest_clip: 1}",
            "privacy.largest_clip: found without `required: true`, expected both",
        ),
        (
            "privacy: {noise: cryptographic}",
            "privacy.noise: found without `required: true`, expected both",
        ),
        (
            "privacy: {required: true, total: {epsilon: 1, delta: 0.1}}",
            "privacy.total: found without per_analysis, expected both",
        ),
        (
            "privacy: {required: true, per_analysis: {epsilon: 4, delta: 0.1}, total: {epsilon: 2, delta: 0.1}}",
            "privacy.per_analysis.epsilon: found 4, expected at most the total's 2",
        ),
        ("{privacy: {required: true}, models: ['my:M']}", "models.0: found 'my:M', expected its hash behind it"),
        ("[1, 2]", "found [1, 2], expected keys such as tasks"),
        ("", "found nothing, expected keys such as tasks"),
        ("a: [", "line 1, column 5: found no YAML"),
        ("tasks: [a]\ntasks: [b]", "line 2, column 1: found no YAML (the key 'tasks' stands twice)"),
    ],
)
def test_a_file_that_is_no_policy_is_a_sentence(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(text)
    with pytest.raises(PolicyError) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: {said}"), error.value
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="found no file that can be read"):
        load(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"tasks: [\xe4]")
    with pytest.raises(PolicyError, match="found no UTF-8 text at byte 8"):
        load(tmp_path / "latin.yaml")


def test_only_what_changes_an_analysis_makes_it_another() -> None:
    rules: dict[str, Any] = yaml.safe_load((DOCS / "policy.example.yaml").read_text())
    hashed = Policy.parse(rules, "").rules_sha256()
    more = {**rules, "privacy": {**rules["privacy"], "total": {"epsilon": 100.0, "delta": 1e-4}}, "valid_until": None}
    assert Policy.parse(more, "").rules_sha256() == hashed
    assert Policy.parse({**rules, "smallest_count": 99}, "").rules_sha256() != hashed


class Clock:
    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time


@pytest.fixture
def total(tmp_path: Path) -> Total:
    return Total(tmp_path / "totals" / "a.ledger", tmp_path / "ledgers", Clock())


def test_budgets_add_up_to_the_total_and_no_further(total: Total) -> None:
    total.begin()
    for name in ("x", "y", "x", "z"):
        total.reserve(name, ONE, ALL)
    before = total.path.read_bytes()
    with pytest.raises(BudgetError, match="epsilon of all analyses is at most 12, 12 is reserved, and this one asks"):
        total.reserve("w", Budget(0.1, 1e-7), ALL)
    with pytest.raises(BudgetError, match="delta of all analyses is at most 1e-05, 3e-06 is reserved"):
        total.reserve("w", Budget(0.1, 1e-5), Budget(20.0, 1e-5))
    assert total.path.read_bytes() == before
    assert total.reserved() == dict.fromkeys("xyz", ONE)
    with pytest.raises(LedgerError, match="reserved with another budget"):
        total.reserve("x", Budget(1.0, 1e-6), ALL)


def test_tenths_add_up_as_they_are_written(total: Total) -> None:
    total.begin()
    for name in "abc":
        total.reserve(name, Budget(0.1, 1e-6), Budget(0.3, 3e-6))


def test_only_begin_begins_and_only_once(total: Total) -> None:
    for act in (total.reserved, lambda: total.reserve("x", ONE, ALL), lambda: total.see("x", ONE, ALL)):
        with pytest.raises(LedgerError, match="is not there; restore it, or where there never was any, begin it"):
            act()
    assert not total.path.exists()
    total.begin()
    total.reserve("x", ONE, ALL)
    before = total.path.read_bytes()
    with pytest.raises(LedgerError, match="has begun already"):
        total.begin()
    assert total.path.read_bytes() == before
    assert [path.name for path in total.path.parent.iterdir()] == ["a.ledger"]


def test_what_the_ledgers_show_counts_whoever_lost_the_total_or_ran_without_a_policy(total: Total) -> None:
    for name in ("old", "empty"):
        (total.ledgers / name).mkdir(parents=True)
    Ledger(Budget(8.0, 1e-6), total.ledgers / "old" / "a.ledger").spend("s", "statistics", Mechanism(6.0))
    Ledger(Budget(8.0, 1e-6), total.ledgers / "empty" / "a.ledger")
    assert total.begin() == {"old": Budget(8.0, 1e-6)}
    with pytest.raises(BudgetError, match="at most 10, 8 is reserved, and this one asks for 4"):
        total.reserve("new", ONE, Budget(10.0, 1e-5))
    total.reserve("new", ONE, ALL)
    total.reserve("old", Budget(8.0, 1e-6), ALL)
    total.path.unlink()
    assert total.begin() == {"old": Budget(8.0, 1e-6)}
    Ledger(Budget(8.0, 1e-6), total.ledgers / "late" / "a.ledger").spend("s", "statistics", Mechanism(6.0))
    with pytest.raises(BudgetError, match="16 is reserved"):
        total.see("new", ONE, ALL)
    (total.ledgers / "late" / "a.ledger").write_text("{}\nx\n")
    with pytest.raises(LedgerError, match="the ledger of analysis late is damaged"):
        total.reserve("new", ONE, ALL)


def test_a_line_that_was_cut_off_reserved_nothing(total: Total) -> None:
    total.begin()
    total.reserve("x", ONE, ALL)
    whole = total.path.read_bytes()
    total.path.write_bytes(whole + b'{"analysis": "y", "epsi')
    assert total.reserved() == {"x": ONE}
    total.reserve("z", ONE, ALL)
    assert total.path.read_bytes().startswith(whole + b'{"after"')
    assert total.reserved() == {"x": ONE, "z": ONE}


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda lines: [*lines[:1], *lines[2:]], 2),
        (lambda lines: [*lines[:1], lines[1].replace(b'"epsilon": 4.0', b'"epsilon": 0.1'), lines[2]], 3),
        (lambda lines: [*lines[:2], b"{}\n"], 3),
        (lambda lines: lines[1:], 1),
        (lambda lines: [], 1),
    ],
)
def test_a_damaged_total_is_refused_and_left_as_it_is(total: Total, damage: Any, line: int) -> None:
    total.begin()
    for name in "xy":
        total.reserve(name, ONE, ALL)
    total.path.write_bytes(b"".join(damage(total.path.read_bytes().splitlines(keepends=True))))
    before = total.path.read_bytes()
    with pytest.raises(LedgerError, match=f"a.ledger: line {line} of the site's total is damaged; restore the file"):
        total.reserve("z", ONE, ALL)
    assert total.path.read_bytes() == before


def test_a_clock_that_went_back_is_refused(total: Total) -> None:
    total.begin()
    total.reserve("x", ONE, ALL)
    total.now.time -= timedelta(days=1)  # type: ignore[attr-defined]
    with pytest.raises(
        LedgerError, match=r"clock says 2025-12-31T.* before the last entry of a.ledger .*; set the clock"
    ):
        total.reserve("y", ONE, ALL)


def _begun_apart(act: Callable[[], None]) -> int:
    """A process of its own that does this; its id."""
    child = os.fork()
    if child == 0:
        try:
            act()
        except BudgetError:
            os._exit(3)
        os._exit(0)
    return child


def _ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def timely(tmp_path: Path) -> Total:
    """A total under the genuine clock."""
    total = Total(tmp_path / "a.ledger", tmp_path / "ledgers")
    total.begin()
    return total


def test_a_reservation_outlives_a_kill(timely: Total) -> None:
    def killed() -> None:
        timely.reserve("x", Budget(10.0, 1e-6), ALL)
        os.kill(os.getpid(), signal.SIGKILL)

    assert _ended(_begun_apart(killed)) == -signal.SIGKILL
    assert timely.reserved() == {"x": Budget(10.0, 1e-6)}
    with pytest.raises(BudgetError, match="10 is reserved"):
        timely.reserve("y", ONE, ALL)


def test_of_processes_that_reserve_at_once_only_as_many_may_as_fit(timely: Total) -> None:
    children = [_begun_apart(lambda n=n: timely.reserve(f"analysis {n}", ONE, ALL)) for n in range(6)]  # type: ignore[misc]
    assert sorted(map(_ended, children)) == [0, 0, 0, 3, 3, 3]
    assert len(timely.reserved()) == 3
