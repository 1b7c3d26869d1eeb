"""Faults: the file, whom they befall and when, what they do to replies."""

import math
import random
import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.faults.drawn import Faults
from fedcore.faults.kinds import KINDS, Befalls, Lost
from fedcore.faults.plan import FaultPlan
from sites.errors import InputError

EIGHT = ["boston", "calais", "dover", "essen", "fargo", "ghent", "hull", "izmir"]
X = {"w": np.array([1.0, -2.0, 3.0], dtype=np.float32), "b": np.array([0.5]), "seen": np.array([7])}
Y = {"w": np.array([2.0, -2.0, 1.0], dtype=np.float32), "b": np.array([0.0]), "seen": np.array([9])}


def plan(*faults: dict[str, Any], **fields: Any) -> FaultPlan:
    return FaultPlan.parse({"faults": list(faults), **fields}, "faults.yaml")


def drawn(*faults: dict[str, Any], seed: int = 0, sites: list[str] = EIGHT, **fields: Any) -> Faults:
    return plan(*faults, **fields).draw(seed, sites)


def train(faults: Faults, *, site: str = "boston", number: int = 1, history: Any = None, reply: Any = Y) -> Any:
    return faults.apply(site, number, "train", X, reply, history or {})


def same(one: Any, other: Any) -> bool:
    return list(one) == list(other) and all(
        one[name].dtype == other[name].dtype and np.array_equal(one[name], other[name], equal_nan=True) for name in one
    )


# whom and when


@settings(max_examples=30)
@given(rate=st.floats(0, 1), seed=st.integers(0, 10**6), kind=st.sampled_from(["leave", "nan"]))
def test_a_site_fails_as_often_as_the_rate_says(rate: float, seed: int, kind: str) -> None:
    faults = drawn({"kind": kind, "rate": rate}, seed=seed)
    struck = [bool(faults.at(site, number)) for site in EIGHT for number in range(1, 51)]
    # Hoeffding: the share among 400 coins is further from the rate than 0.15 once in 30 million plans
    assert abs(np.mean(struck) - rate) < 0.15


def test_over_many_coins_the_rate_is_met_closely() -> None:
    faults = drawn({"kind": "leave", "rate": 0.3})
    absent = [len(faults.absent(number)) for number in range(1, 1251)]
    assert abs(sum(absent) / 10_000 - 0.3) < 3.5 * math.sqrt(0.3 * 0.7 / 10_000)


def test_coins_of_sites_and_of_rounds_are_independent() -> None:
    faults = drawn({"kind": "leave", "rate": 0.5})
    absent = [faults.absent(number) for number in range(1, 1001)]
    struck = np.array([[site in sites for site in EIGHT] for sites in absent], dtype=float)
    between_sites = np.corrcoef(struck.T) - np.eye(8)
    between_rounds = [np.corrcoef(struck[:-1, k], struck[1:, k])[0, 1] for k in range(8)]
    assert np.abs(between_sites).max() < 0.14 and np.abs(between_rounds).max() < 0.14


def test_rate_one_is_always_and_rate_zero_is_never() -> None:
    always, never = drawn({"kind": "leave"}), drawn({"kind": "leave", "rate": 0})
    assert all(always.absent(number) == frozenset(EIGHT) and not never.absent(number) for number in range(1, 50))


@given(
    calls=st.permutations(list(product(EIGHT[:4], range(1, 6)))),
    seed=st.integers(0, 100),
)
def test_the_order_of_calls_changes_nothing(calls: list[tuple[str, int]], seed: int) -> None:
    faults = [{"kind": "leave", "rate": 0.3}, {"kind": "noise", "share": 0.5, "rate": 0.5, "deviation": 1}]

    def outcomes(order: list[tuple[str, int]]) -> dict[tuple[str, int], Any]:
        cell = drawn(*faults, seed=seed)
        return {(site, number): train(cell, site=site, number=number) for site, number in order}

    here, there = outcomes(calls), outcomes(sorted(calls))
    for call in calls:
        one, other = here[call], there[call]
        assert one == other if isinstance(one, Lost) else same(one, other)


def test_no_global_random_state_is_used() -> None:
    before = (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    train(drawn({"kind": "noise", "deviation": 1, "rate": 0.5, "sites": 3}))
    assert before == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002


OTHERS = [
    {"kind": "leave", "rate": 0.5},
    {"kind": "nan", "sites": 2},
    {"kind": "sign-flip", "share": 0.25, "rounds": [2]},
    {"kind": "stale", "age": 1, "rate": 0.1},
    {"kind": "scale", "factor": 3, "sites": ["boston"]},
]


@given(before=st.lists(st.sampled_from(OTHERS)), after=st.lists(st.sampled_from(OTHERS)), seed=st.integers(0, 100))
def test_other_faults_of_the_file_change_no_draw(before: list[Any], after: list[Any], seed: int) -> None:
    mine = {"kind": "noise", "deviation": 1, "sites": 3, "rate": 0.4}
    alone, among = drawn(mine, seed=seed), drawn(*before, mine, *after, seed=seed)
    assert alone.drawn[0] == among.drawn[len(before)]
    for site, number in product(EIGHT, range(1, 5)):
        assert ("noise" in [each.fault.kind for each in among.at(site, number)]) == bool(alone.at(site, number))


@given(low=st.floats(0, 1), high=st.floats(0, 1), number=st.integers(1, 1000), seed=st.integers(0, 100))
def test_who_fails_at_a_low_rate_fails_at_a_higher_one(low: float, high: float, number: int, seed: int) -> None:
    low, high = sorted([low, high])
    few, many = (drawn({"kind": "leave", "rate": rate}, seed=seed).absent(number) for rate in (low, high))
    assert few <= many


@given(few=st.integers(1, 8), many=st.integers(1, 8), seed=st.integers(0, 1000))
def test_the_seed_chooses_so_many_sites_and_a_few_are_among_the_many(few: int, many: int, seed: int) -> None:
    few, many = sorted([few, many])
    chosen = [drawn({"kind": "nan", "sites": count}, seed=seed).drawn[0].sites for count in (few, many)]
    assert [len(sites) for sites in chosen] == [few, many] and chosen[0] <= chosen[1]


def test_every_site_is_chosen_by_some_seed_and_a_site_keeps_its_fault_over_the_rounds() -> None:
    chosen = [drawn({"kind": "nan", "sites": 1}, seed=seed) for seed in range(100)]
    assert set().union(*(each.drawn[0].sites for each in chosen)) == set(EIGHT)
    (site,) = chosen[0].drawn[0].sites
    assert all(
        [s for s in EIGHT if isinstance(train(chosen[0], site=s, number=n), dict) and chosen[0].at(s, n)] == [site]
        for n in range(1, 6)
    )


def test_taking_away_a_site_that_was_not_chosen_changes_no_choice() -> None:
    chosen = drawn({"kind": "nan", "sites": 2}).drawn[0].sites
    for gone in set(EIGHT) - chosen:
        assert drawn({"kind": "nan", "sites": 2}, sites=[s for s in EIGHT if s != gone]).drawn[0].sites == chosen


@pytest.mark.parametrize(
    ("share", "of", "expected"),
    [(0.25, 8, 2), (0.01, 8, 1), (1, 8, 8), (0.25, 6, 2), (0.3, 8, 2), (0.5, 1, 1), (0.4, 3, 1)],
)
def test_a_share_is_rounded_to_the_nearest_number_of_sites_and_is_one_at_least(
    share: float, of: int, expected: int
) -> None:
    assert len(drawn({"kind": "nan", "share": share}, sites=EIGHT[:of]).drawn[0].sites) == expected


def test_the_order_in_which_sites_are_given_changes_nothing() -> None:
    assert drawn({"kind": "nan", "sites": 3}) == drawn({"kind": "nan", "sites": 3}, sites=EIGHT[::-1])


def test_equal_faults_that_stand_twice_have_coins_of_their_own() -> None:
    once, twice = drawn({"kind": "leave", "rate": 0.2}), drawn(*[{"kind": "leave", "rate": 0.2}] * 2)
    counts = [sum(len(each.absent(number)) for number in range(1, 501)) / 4000 for each in (once, twice)]
    assert abs(counts[0] - 0.2) < 0.03 and abs(counts[1] - 0.36) < 0.03


@given(first=st.integers(1, 20), length=st.integers(0, 20), number=st.integers(1, 60))
def test_a_site_leaves_for_exactly_the_rounds_named_and_comes_back(first: int, length: int, number: int) -> None:
    last = first + length
    as_range = drawn({"kind": "leave", "sites": ["dover"], "rounds": {"from": first, "to": last}})
    as_list = drawn({"kind": "leave", "sites": ["dover"], "rounds": list(range(first, last + 1))})
    expected = frozenset(["dover"] if first <= number <= last else [])
    assert as_range.absent(number) == as_list.absent(number) == expected


def test_a_range_without_an_end_lasts() -> None:
    faults = drawn({"kind": "leave", "sites": ["dover"], "rounds": {"from": 3}})
    assert [bool(faults.absent(number)) for number in (1, 2, 3, 4, 1000)] == [False, False, True, True, True]


def test_a_named_site_that_does_not_train_is_left_out() -> None:
    assert drawn({"kind": "leave", "sites": ["boston", "dover"]}, sites=["dover", "hull"]).absent(1) == {"dover"}


# what arrives

floats = st.floats(-100, 100, width=32)


@given(
    sent=st.lists(floats, min_size=1, max_size=9),
    factor=st.floats(0, 100),
    kind=st.sampled_from(["scale", "sign-flip"]),
    data=st.data(),
)
def test_scale_and_sign_flip_send_what_was_sent_plus_a_multiple_of_the_update(
    sent: list[float], factor: float, kind: str, data: st.DataObject
) -> None:
    reply = data.draw(st.lists(floats, min_size=len(sent), max_size=len(sent)))
    factor = factor if kind == "scale" else -factor - 1e-9
    x, y = np.array(sent, dtype=np.float32), np.array(reply, dtype=np.float32)
    arrives = drawn({"kind": kind, "factor": factor}).apply("boston", 1, "train", {"w": x}, {"w": y}, {})
    assert not isinstance(arrives, Lost)
    exact = x.astype(np.float64) + factor * (y.astype(np.float64) - x)
    assert arrives["w"].dtype == np.float32 and np.array_equal(arrives["w"], exact.astype(np.float32))


def test_a_sign_flip_is_the_mirrored_update_unless_told_otherwise() -> None:
    assert same(train(drawn({"kind": "sign-flip"})), {**Y, "w": np.float32([0, -2, 5]), "b": np.array([1.0])})


def test_a_scale_of_zero_is_a_free_rider_who_sends_back_what_it_was_sent() -> None:
    assert same(train(drawn({"kind": "scale", "factor": 0})), {**X, "seen": Y["seen"]})


def test_a_factor_too_large_for_the_type_becomes_infinite_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    arrives = train(drawn({"kind": "scale", "factor": 1e300}))
    assert np.isinf(arrives["w"]).any() and not list(recwarn)


def test_nan_fills_every_array_of_floating_point_and_no_counter() -> None:
    arrives = train(drawn({"kind": "nan"}))
    assert np.isnan(arrives["w"]).all() and np.isnan(arrives["b"]).all()
    assert arrives["w"].dtype == np.float32 and arrives["seen"] is Y["seen"]


def test_noise_is_in_units_of_the_updates_root_mean_square() -> None:
    rng = np.random.default_rng(0)
    x = {"w": rng.normal(size=50_000), "b": np.zeros(1)}
    y = {"w": x["w"] + rng.normal(0, 0.01, size=50_000), "b": np.array([3.0])}
    arrives = drawn({"kind": "noise", "deviation": 2}).apply("boston", 1, "train", x, y, {})
    assert not isinstance(arrives, Lost)
    noise = arrives["w"] - y["w"]
    assert abs(noise.std() - 0.02) < 3e-4 and abs(noise.mean()) < 3e-4
    assert 0 < abs(arrives["b"][0] - 3.0) < 30  # one number has a root mean square, and no standard deviation


def test_noise_is_anew_for_each_site_round_and_array_and_the_same_for_each_setting() -> None:
    faults = drawn({"kind": "noise", "deviation": 1})
    x, y = ({name: np.full(3, value) for name in "vw"} for value in (0.0, 1.0))
    seen = [
        faults.apply(site, number, "train", x, y, {})[name].tobytes()  # type: ignore[index]
        for site in ("boston", "dover")
        for number in (1, 2)
        for name in "vw"
    ]
    assert len(set(seen)) == 8
    assert same(faults.apply("boston", 1, "train", x, y, {}), faults.apply("boston", 1, "train", x, y, {}))


def test_a_site_whose_update_is_zero_sends_no_noise() -> None:
    assert same(train(drawn({"kind": "noise", "deviation": 5}), reply=X), X)


def test_stale_sends_what_the_site_computed_so_many_rounds_ago_and_before_that_nothing() -> None:
    faults, history = drawn({"kind": "stale", "age": 2}), {}
    for number in range(1, 7):
        reply = {"w": np.array([float(number)])}
        arrives = train(faults, number=number, history=history, reply=reply)
        if number <= 2:
            assert arrives == Lost("has nothing of 2 rounds ago to send")
        else:
            assert arrives["w"] == [number - 2]
        history[number] = reply
    assert faults.memory == 2 and drawn({"kind": "nan"}).memory == 0


def test_stale_sends_nothing_where_the_site_was_away_so_many_rounds_ago() -> None:
    assert isinstance(train(drawn({"kind": "stale", "age": 1}), number=5, history={3: Y}), Lost)


def test_trees_can_be_stale_and_other_bytes_stay_as_they_are() -> None:
    old, new = ({"trees": np.frombuffer(text, dtype=np.uint8)} for text in (b"old forest", b"new"))
    stale = drawn({"kind": "stale", "age": 1}).apply("boston", 2, "train", {}, new, {1: old})
    assert stale == old and drawn({"kind": "nan"}).apply("boston", 2, "train", {}, new, {}) == new


@pytest.mark.parametrize("name", ["control/w", "w"])
def test_an_array_that_answers_none_of_its_name_and_shape_is_an_update_by_itself(name: str) -> None:
    reply = {name: np.array([2.0, 4.0])}
    assert same(train(drawn({"kind": "sign-flip"}), reply=reply), {name: np.array([-2.0, -4.0])})


def test_a_slow_site_is_late_and_beyond_the_limit_lost() -> None:
    faults = drawn(
        {"kind": "slow", "sites": ["boston"], "seconds": 40},
        {"kind": "slow", "sites": ["boston"], "seconds": 30, "rounds": [2]},
        timeout_s=60,
    )
    assert [faults.delay("boston", number) for number in (1, 2)] == [40, 70]
    assert train(faults) is Y and train(faults, number=2) == Lost("answers after 70 s; the coordinator waits 60 s")
    assert [faults.wait(EIGHT, number) for number in (1, 2)] == [40, 60]
    assert faults.wait(["dover"], 1) == 0


def test_without_a_limit_the_coordinator_waits_for_all() -> None:
    faults = drawn({"kind": "slow", "seconds": 1e6})
    assert train(faults) is Y and faults.wait(EIGHT, 1) == 1e6


@pytest.mark.parametrize("fault", [{"kind": "leave"}, {"kind": "slow", "seconds": 90}])
@pytest.mark.parametrize("action", ["train", "evaluate"])
def test_who_cannot_be_reached_or_is_too_slow_neither_trains_nor_evaluates(fault: dict[str, Any], action: str) -> None:
    faults = drawn(fault, timeout_s=60)
    assert isinstance(faults.apply("boston", 1, action, X, Y if action == "train" else {}, {}), Lost)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"leave", "slow"}))
def test_only_trainings_are_corrupted(kind: str) -> None:
    needs = {"stale": {"age": 1}, "scale": {"factor": 2}, "noise": {"deviation": 1}}
    assert drawn({"kind": kind, **needs.get(kind, {})}).apply("boston", 1, "evaluate", X, {}, {}) == {}


def test_faults_of_one_reply_act_in_the_order_of_the_file() -> None:
    flip, stale, nan = {"kind": "sign-flip"}, {"kind": "stale", "age": 1}, {"kind": "nan"}
    history = {1: {"w": np.float32([1, -2, 4])}}

    def w(*faults: dict[str, Any]) -> list[float]:
        arrives = train(drawn(*faults), number=2, history=history, reply={"w": Y["w"]})
        return list(arrives["w"])

    assert w(stale, flip) == [1, -2, 2] and w(flip, stale) == [1, -2, 4]
    assert np.isnan(w(nan, flip)).all() and w(nan, stale) == [1, -2, 4]


def test_neither_what_was_sent_nor_the_reply_is_written_to() -> None:
    x, y = ({name: value.copy() for name, value in arrays.items()} for arrays in (X, Y))
    for value in (*x.values(), *y.values()):
        value.flags.writeable = False
    faults = drawn({"kind": "scale", "factor": 2}, {"kind": "noise", "deviation": 1}, {"kind": "nan"})
    faults.apply("boston", 1, "train", x, y, {})
    assert same(x, X) and same(y, Y)


def test_a_site_that_nothing_befalls_sends_what_it_would_send() -> None:
    assert train(drawn({"kind": "nan", "sites": ["dover"]})) is Y


# the file

WHOLE = """
timeout_s: 60
faults:
  - { kind: leave, share: 0.25, rate: 0.3 }
  - { kind: slow, sites: [dover, boston], rounds: { from: 3, to: 6 }, seconds: 90 }
  - { kind: nan, sites: 1, rounds: [4, 2] }
  - { kind: stale, sites: 2, rounds: { from: 5 }, age: 2 }
  - { kind: sign-flip }
  - { kind: scale, factor: 10 }
  - { kind: noise, deviation: 0.5 }
  - { kind: label-flip, sites: 1 }
  - { kind: backdoor, sites: 1, trigger: { height: 210 }, target: false, part: 0.2, factor: 3 }
"""


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "faults.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_every_kind_is_read_and_the_canonical_form_reads_back(tmp_path: Path) -> None:
    read = FaultPlan.load(written(tmp_path, WHOLE))
    assert [fault.kind for fault in read.faults] == list(KINDS)
    canonical = read.model_dump(mode="json", exclude_none=True)
    assert FaultPlan.parse(canonical, "a record") == read
    assert canonical["faults"][1:3] == [
        {"kind": "slow", "sites": ["boston", "dover"], "rounds": {"from": 3, "to": 6}, "rate": 1.0, "seconds": 90.0},
        {"kind": "nan", "sites": 1, "rounds": [2, 4], "rate": 1.0},
    ]


def test_the_same_faults_written_otherwise_have_one_canonical_form(tmp_path: Path) -> None:
    otherwise = "# a comment\nfaults: [{rounds: [2, 1], sites: [b, a], kind: nan, rate: 1}]"
    terse = "faults:\n- kind: nan\n  sites: [a, b]\n  rounds: [1, 2]"
    one, other = (FaultPlan.load(written(tmp_path, text)).model_dump_json() for text in (otherwise, terse))
    assert one == other


def fault(text: str) -> str:
    return f"faults: [{{{text}}}]"


@pytest.mark.parametrize(
    ("text", "place", "found", "expected"),
    [
        ("", "", "nothing", "`faults:` and a list"),
        ("[1, 2]", "", "[1, 2]", "`faults:` and a list"),
        ("timeout_s: 3", "faults", "nothing", "a list of faults"),
        ("faults: []", "faults", "[]", "a list of faults, one at least"),
        ("faults: {kind: leave}", "faults", "{'kind': 'leave'}", "a list of faults"),
        ("faults: [leave]", "faults.0", "'leave'", "fields, such as {kind: leave"),
        (
            fault(""),
            "faults.0.kind",
            "nothing",
            "leave, slow, nan, stale, sign-flip, scale, noise, label-flip, backdoor",
        ),
        (
            fault("kind: crash"),
            "faults.0.kind",
            "'crash'",
            "leave, slow, nan, stale, sign-flip, scale, noise, label-flip, backdoor",
        ),
        (fault("kind: label-flip, rate: 0.5"), "faults.0", "rounds or rate", "in every round"),
        (fault("kind: backdoor, part: 0"), "faults.0.part", "0", "above 0 and not above 1"),
        (fault("kind: backdoor, trigger: {}"), "faults.0.trigger", "{}", "values by column"),
        (fault("kind: slow"), "faults.0.seconds", "nothing", "seconds above 0"),
        (fault("kind: slow, second: 3"), "faults.0.second", "this field", "sites, share, rounds, rate, seconds"),
        (fault("kind: nan, factor: 3"), "faults.0.factor", "this field", "kind, sites, share, rounds, rate"),
        ("timeout: 3\n" + fault("kind: leave"), "timeout", "this field", "faults, timeout_s"),
        ("timeout_s: 0\n" + fault("kind: leave"), "timeout_s", "0", "seconds above 0"),
        (fault("kind: slow, seconds: 0"), "faults.0.seconds", "0", "seconds above 0"),
        (fault("kind: slow, seconds: .inf"), "faults.0.seconds", "inf", "seconds above 0"),
        (fault("kind: leave, rate: 1.5"), "faults.0.rate", "1.5", "a number from 0 to 1"),
        (fault("kind: leave, rate: -0.1"), "faults.0.rate", "-0.1", "a number from 0 to 1"),
        (fault("kind: leave, rate: .nan"), "faults.0.rate", "nan", "a number from 0 to 1"),
        (fault("kind: leave, rate: true"), "faults.0.rate", "True", "a number from 0 to 1"),
        (fault("kind: leave, rate: 30%"), "faults.0.rate", "'30%'", "a number from 0 to 1"),
        (fault("kind: leave, share: 0"), "faults.0.share", "0", "above 0 and not above 1"),
        (fault("kind: leave, share: 25"), "faults.0.share", "25", "above 0 and not above 1"),
        (fault("kind: leave, share: 0.5, sites: 2"), "faults.0", "both sites and share", "one of them"),
        (fault("kind: leave, sites: 0"), "faults.0.sites", "0", "or how many, from 1"),
        (fault("kind: leave, sites: []"), "faults.0.sites", "[]", "a list of site names"),
        (fault("kind: leave, sites: boston"), "faults.0.sites", "'boston'", "a list of site names"),
        (fault("kind: leave, sites: [no]"), "faults.0.sites", "[False]", "quote those that read as numbers or yes"),
        (fault("kind: leave, sites: [a, a]"), "faults.0.sites", "['a', 'a']", "each once"),
        (fault("kind: leave, rounds: 3"), "faults.0.rounds", "3", "[3, 4] or {from: 3, to: 6}"),
        (fault("kind: leave, rounds: []"), "faults.0.rounds", "[]", "[3, 4] or {from: 3, to: 6}"),
        (fault("kind: leave, rounds: [1, 0]"), "faults.0.rounds", "[1, 0]", "rounds, counted from 1"),
        (fault("kind: leave, rounds: [2, 2]"), "faults.0.rounds", "[2, 2]", "each once"),
        (fault("kind: leave, rounds: [1.5]"), "faults.0.rounds", "[1.5]", "rounds, counted from 1"),
        (fault("kind: leave, rounds: {from: 0}"), "faults.0.rounds", "{'from': 0}", "rounds, counted from 1"),
        (fault("kind: leave, rounds: {from: 6, to: 3}"), "faults.0.rounds", "{'from': 6, 'to': 3}", "`to` not before"),
        (fault("kind: leave, rounds: {to: 3}"), "faults.0.rounds", "{'to': 3}", "{from: 3, to: 6}"),
        (fault("kind: stale, age: 0"), "faults.0.age", "0", "a whole number of rounds from 1"),
        (fault("kind: stale, age: 1.5"), "faults.0.age", "1.5", "a whole number of rounds from 1"),
        (fault("kind: sign-flip, factor: 2"), "faults.0.factor", "2", "a number below 0"),
        (fault("kind: scale, factor: -2"), "faults.0.factor", "-2", "a factor below 0 is kind sign-flip"),
        (fault("kind: noise, deviation: 0"), "faults.0.deviation", "0", "above 0, in units of the root mean square"),
        (fault("kind: nan, 1: 2"), "faults.0.1", "this field", "kind, sites, share, rounds, rate"),
        ("faults: [{kind: nan}, {kind: nan, rate: x}]", "faults.1.rate", "'x'", "a number from 0 to 1"),
        (
            fault("kind: leave, rate: 0.1, rate: 0.2"),
            "line 1, column 35",
            "no YAML (the field 'rate' stands twice)",
            "",
        ),
        ("faults: [", "line 1, column 10", "no YAML (", "a fault file"),
        ("timeout_s: 3\nfaults:\n\t- 3", "line 3, column 1", "no YAML (", "a fault file"),
        ("!!python/object/apply:os.getcwd []", "line 1, column 1", "no YAML (could not determine", "a fault file"),
        ("faults: 1\n---\nfaults: 2", "line 2, column 1", "no YAML (", "a fault file"),
        ("{[a]: 1}", "line 1, column 2", "no YAML (", "a fault file"),
        ("\0", "", "no YAML (", "a fault file"),
        ("[" * 1500, "", "no YAML (", "a fault file"),
        (b"faults: \xe9", "", "no UTF-8 text at byte 8", "save it as UTF-8"),
    ],
)
def test_a_mistake_in_the_file_is_one_sentence(
    tmp_path: Path, text: str | bytes, place: str, found: str, expected: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError) as caught:
        FaultPlan.load(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: {place}{': ' if place else ''}found {found}"), said
    assert "expected " in said and expected in said.split("expected ", 1)[1] and ";" in said, said
    assert "\n" not in said and len(said) < len(str(path)) + 300, said


def test_the_examples_of_the_page_are_fault_plans() -> None:
    page = (Path(__file__).parents[2] / "docs" / "faults.md").read_text(encoding="utf-8")
    file, axis = (
        yaml.safe_load(text) for text in re.findall(r"^```yaml.*?\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    )
    assert FaultPlan.parse(file, "the page").timeout_s == 60
    assert [FaultPlan.parse(each, "the page").faults[0].kind for each in axis["faults"].values() if each] == [
        "leave",
        "slow",
    ]


def test_the_page_names_every_kind_with_its_fields() -> None:
    page = (Path(__file__).parents[2] / "docs" / "faults.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (.*?) \|", page, re.MULTILINE))
    for name, kind in KINDS.items():
        own = set(kind.model_fields) - set(Befalls.model_fields)
        assert set(re.findall(r"`(\w+)`", rows[name])) == own


def test_a_file_that_is_not_there_or_is_a_folder_is_one_sentence(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(InputError, match=f"found no file that can be read \\({why}.*expected a fault file"):
            FaultPlan.load(path)


def test_the_federation_must_have_the_sites_that_are_named_and_so_many() -> None:
    named = plan({"kind": "nan"}, {"kind": "leave", "sites": ["boston", "bostn"]})
    with pytest.raises(
        InputError, match=r"f.yaml: faults.1.sites: found 'bostn', expected sites .*boston, .*; correct"
    ):
        named.check(EIGHT, "f.yaml")
    with pytest.raises(InputError, match=r"f.yaml: faults.0.sites: found 9, expected at most 8, as there are; lower"):
        plan({"kind": "nan", "sites": 9}).check(EIGHT, "f.yaml")
    plan({"kind": "nan", "sites": 8}, {"kind": "leave", "sites": ["boston"]}).check(EIGHT, "f.yaml")


@pytest.mark.parametrize("kind", ["nan", "sign-flip"])
def test_what_trees_would_not_feel_is_refused_for_them(kind: str) -> None:
    with pytest.raises(InputError, match=rf"f.yaml: faults.0.kind: found {kind}, expected leave, slow or stale"):
        plan({"kind": kind}).check(EIGHT, "f.yaml", trees=True)
    plan({"kind": "leave"}, {"kind": "slow", "seconds": 1}, {"kind": "stale", "age": 1}).check(EIGHT, "f", trees=True)
    plan({"kind": kind}).check(EIGHT, "f.yaml")
