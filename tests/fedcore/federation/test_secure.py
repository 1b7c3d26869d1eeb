"""Secure aggregation through whole federations: the coordinator learns sums, whoever leaves, wherever it runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
from flwr.app import Error, Message, RecordDict

from fedcore.engines import inline
from fedcore.engines.grid import SITE_FAILED
from fedcore.engines.inline import InlineGrid
from fedcore.engines.parcels import parcel
from fedcore.faults.plan import FaultPlan
from fedcore.federation import FederationError, FederationRequest, FederationResult, run_federation
from fedcore.guard import Guard, Named
from fedcore.samples import SiteSamples
from fedcore.secure import SECURE
from fedcore.strategies import strategy
from fedcore.strategies.strategy import ANCHORS
from privacy.policy import Policy
from privacy.releases.messages import Parcel
from privacy.terms import Terms
from sites.errors import InputError

STAGES = ("query.advertise", "query.share", "train.masked", "query.unmask")
MODELS = {"network": "logistic", "head": "mlp", "norms": "mlp", "embedding": "mlp"}
SUMMING = [name for name in strategy.federated() if strategy.load(name).sums]
OTHERS = [name for name in strategy.federated() if name not in SUMMING]
NAMES = [f"site{i}" for i in range(6)]


class Heard(NamedTuple):
    """What a site was asked and what it sent; None: it was not heard of."""

    site: str
    action: str
    asked: RecordDict
    sent: Parcel | None


class Met(InlineGrid):
    """Keeps what the sites were asked and sent; some of them are not heard of any more in round 2."""

    gone: ClassVar[Mapping[str, set[str]]] = {}
    heard: ClassVar[list[Heard]] = []

    def _delivered(self, message: Message) -> Message:
        action, asked = message.metadata.message_type, RecordDict({**message.content})
        site = NAMES[message.metadata.dst_node_id - 1]
        reply = super()._delivered(message)
        so_far = STAGES[: STAGES.index(action) + 1] if action in STAGES else ()
        if asked["fedward"].get("round") == 2 and any(site in self.gone.get(stage, ()) for stage in so_far):
            reply = Message(Error(SITE_FAILED, "gone"), reply_to=message)
        sent = None if reply.has_error() else parcel(reply.content)
        self.heard.append(Heard(site, action, asked, sent))
        return reply


@pytest.fixture
def met(monkeypatch: pytest.MonkeyPatch) -> type[Met]:
    monkeypatch.setattr(Met, "heard", [])
    monkeypatch.setattr(inline, "InlineGrid", Met)
    return Met


@pytest.fixture
def sites(make_hospital: Any) -> list[SiteSamples]:
    """Six that train."""
    return [make_hospital(name, n=200 + 20 * i, shift=0.3 * (i - 3)) for i, name in enumerate(NAMES)]


def _run(sites: list[SiteSamples], name: str = "fedavg", *, secure: bool = True, **more: Any) -> FederationResult:
    folder = more.pop("folder", None)
    asked = {"model": "logistic", "rounds": 3, "settings": ({"step_size": 0.03},), "seed": 1, **more}
    return run_federation(sites, FederationRequest(strategy=name, secure_aggregation=secure, **asked), folder=folder)


def _near(one: FederationResult, other: FederationResult, within: float = 2e-6) -> bool:
    return all(np.abs(one.arrays[name].astype(np.float64) - other.arrays[name]).max() < within for name in one.arrays)


@pytest.mark.parametrize("name", SUMMING)
def test_a_strategy_that_sums_comes_to_the_same_model_and_losses(name: str, sites: list[SiteSamples]) -> None:
    model = MODELS[strategy.load(name).needs]
    plain, secured = (_run(sites, name, secure=secure, model=model, rounds=2) for secure in (False, True))
    assert _near(plain, secured)
    for one, other in zip(plain.rounds, secured.rounds, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, abs=1e-6)
        assert other.answered == one.answered == 6
    assert (plain.secured, secured.dropped) == (None, [])
    assert secured.secured is not None
    assert (secured.secured.sums, secured.secured.threshold, secured.secured.fewest) == (2, 4, 6)


def test_what_the_coordinator_gets_of_a_site_is_nothing_but_masked(sites: list[SiteSamples], met: type[Met]) -> None:
    result = _run(sites, rounds=2)
    actions = {one.action for one in met.heard}
    assert actions == {"query.site", "query.statistics", "query.space", *STAGES, "evaluate"}
    assert result.answered["site0"] == {"query.site", "query.statistics", "train.masked", "evaluate"}
    for one in met.heard:
        assert one.sent is not None
        if one.action in STAGES:
            assert (one.sent.numbers, one.sent.texts) == ({}, {})
            assert all(value.dtype.kind == "u" for value in one.sent.arrays.values())
    masked = [one.sent.arrays["masked"] for one in met.heard if one.action == "train.masked" and one.sent]
    assert {value.shape for value in masked} == {(8 + 1 + 3,)}
    first, second = np.array(masked[:6]), np.array(masked[6:])
    words = np.concatenate([first.ravel(), second.ravel()])
    assert len(set(words.tolist())) == len(words)
    assert (words > 2**56).mean() > 0.9  # none is a small integer, as a weight is
    weights = [int((site.split == "train").sum()) for site in sites]
    assert not set(words.tolist()) & set(weights)


def test_a_site_says_the_same_again_and_never_a_second_vector(sites: list[SiteSamples], met: type[Met]) -> None:
    """The coordinator was killed before it wrote down what it heard, and asks again."""
    again: list[tuple[str, Message]] = []
    inner = Met._delivered

    def twice(self: Met, message: Message) -> Message:
        content = RecordDict({**message.content})
        first = inner(self, message)
        if message.metadata.message_type in STAGES:
            message.content = content
            second = inner(self, message)
            again.append((message.metadata.message_type, second))
            assert second.content["secure"] == first.content["secure"]
        return first

    plain = _run(sites)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Met, "_delivered", twice)
        result = _run(sites)
    assert {action for action, _ in again} == set(STAGES)
    assert result.arrays["weight"].tobytes() == plain.arrays["weight"].tobytes()


def test_another_vector_under_the_same_masks_is_refused(sites: list[SiteSamples], met: type[Met]) -> None:
    """As with noise that is drawn anew: the difference of two would show."""
    refused: list[str] = []
    inner = Met._delivered

    def changed(self: Met, message: Message) -> Message:
        content = RecordDict({**message.content})
        first = inner(self, message)
        if message.metadata.message_type == "train.masked":
            asked = dict(content[SECURE])
            asked["sites"], asked["sealed"] = asked["sites"][:-1], asked["sealed"][:-1]
            message.content = RecordDict({**content, SECURE: type(content[SECURE])(asked)})
            second = inner(self, message)
            refused.append(second.error.reason)
        return first

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Met, "_delivered", changed)
        _run(sites, rounds=1)
    assert len(refused) == 6
    assert set(refused) == {"stage 3 of secure aggregation was asked for twice, with other shares; the site refuses"}


@pytest.mark.parametrize("stage", STAGES)
def test_two_of_six_may_leave_at_each_stage(
    stage: str, sites: list[SiteSamples], met: type[Met], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Met, "gone", {stage: {"site1", "site4"}})
    result = _run(sites)
    heard_of = 6 if stage == "query.unmask" else 4  # their vectors were in
    assert [report.answered for report in result.rounds] == [6, heard_of, 6]
    assert result.secured is not None
    assert (result.secured.fewest, result.secured.sums) == (heard_of, 3)
    assert {(one.site, one.action, one.reason) for one in result.dropped} == {
        ("site1", stage, "gone"),
        ("site4", stage, "gone"),
    }
    absent = FaultPlan.model_validate({"faults": [{"kind": "leave", "sites": ["site1", "site4"], "rounds": [2]}]})
    alike = _run(sites, secure=False, faults=None if stage == "query.unmask" else absent)
    assert _near(result, alike)


@pytest.mark.parametrize("stage", STAGES)
def test_below_the_threshold_a_round_changes_nothing_and_says_why(
    stage: str, sites: list[SiteSamples], met: type[Met], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Met, "gone", {stage: {"site1", "site2", "site4"}})
    result = _run(sites)
    assert [report.answered for report in result.rounds] == [6, 0, 6]
    start = [one.asked["arrays"]["weight"].numpy() for one in met.heard if one.action == "train.masked"]
    assert result.secured is not None
    assert result.secured.sums == 2
    models = {value.tobytes() for value in start}
    assert len(models) == 2  # of rounds 1 and 3; of round 2 it is that of round 3
    said = {one.site: one.reason for one in result.dropped if one.action == "train.masked" and one.reason != "gone"}
    assert set(said) == {"site0", "site3", "site5"}
    did = ("told their keys", "shared their keys", "sent their vector", "told their shares")[STAGES.index(stage)]
    assert set(said.values()) == {f"only 3 sites {did}; secure aggregation needs 4"}


def test_with_too_few_in_every_round_there_is_no_model(sites: list[SiteSamples]) -> None:
    away = FaultPlan.model_validate({"faults": [{"kind": "leave", "sites": 4}]})
    with pytest.raises(FederationError, match="in none of 3 rounds did 3 sites answer"):
        _run(sites, faults=away)


def test_a_site_that_cannot_train_leaves_the_sum(sites: list[SiteSamples], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number is out of range: it says so, and its masks are taken off the sum."""
    monkeypatch.setattr("fedcore.secure.BOUND", 0.5)
    monkeypatch.setattr("fedcore.engines.secured.BOUND", 0.5)
    with pytest.raises(FederationError, match=r"a number that is beyond 0\.5 or is none"):
        _run(sites, settings=({"step_size": 100.0},))


def test_agreed_sites_send_no_model_without_a_mask(sites: list[SiteSamples], met: type[Met]) -> None:
    refused = []
    inner = Met._delivered

    def unmasked(self: Met, message: Message) -> Message:
        if message.metadata.message_type == "train.masked":
            content = RecordDict({key: entry for key, entry in message.content.items() if key != SECURE})
            plain = Message(content, dst_node_id=message.metadata.dst_node_id, message_type="train")
            refused.append(InlineGrid._delivered(self, plain).error.reason)
        return inner(self, message)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Met, "_delivered", unmasked)
        _run(sites, rounds=1)
    assert set(refused) == {"the sites agreed on secure aggregation; no model leaves without a mask"}
    assert len(refused) == 6


@pytest.mark.parametrize("name", OTHERS)
def test_strategies_that_need_single_answers_are_refused(name: str, sites: list[SiteSamples], met: type[Met]) -> None:
    model = "trees" if strategy.load(name).needs == "trees" else "logistic"
    with pytest.raises(InputError, match=f"strategy '{name}' needs single sites' answers"):
        _run(sites, name, model=model, settings=None)
    assert met.heard == []


@pytest.mark.parametrize("name", ANCHORS)
def test_anchors_are_refused(name: str, sites: list[SiteSamples]) -> None:
    with pytest.raises(InputError, match=f"anchor '{name}' is no federation and sums nothing"):
        _run(sites, name)


def test_what_would_spoil_single_answers_and_two_sites_are_refused(sites: list[SiteSamples]) -> None:
    spoilt = FaultPlan.model_validate({"faults": [{"kind": "sign-flip", "sites": 1}]})
    with pytest.raises(InputError, match="fault 'sign-flip' changes a single site's answer"):
        _run(sites, faults=spoilt)
    with pytest.raises(InputError, match=r"secure aggregation needs 3 sites; found 2 that can train \(site0, site1\)"):
        _run(sites[:2])


def test_half_of_the_sites_and_late_ones(sites: list[SiteSamples]) -> None:
    late = FaultPlan.model_validate(
        {"timeout_s": 10, "faults": [{"kind": "slow", "sites": ["site2"], "seconds": 20, "rounds": [1]}]}
    )
    result = _run(sites, faults=late)
    assert [report.answered for report in result.rounds] == [5, 6, 6]
    asked = _run(sites, fraction=0.5)
    assert [report.answered for report in asked.rounds] == [3, 3, 3]
    assert asked.secured is not None
    assert asked.secured.threshold == 3


def test_noise_of_the_sites_and_secure_sums_go_together(clinics: list[SiteSamples]) -> None:
    sites = clinics[1:4]
    more: dict[str, Any] = {"settings": None, "privacy": Terms(epsilon=20, noise="seeded"), "rounds": 1}
    plain, secured = (_run(sites, secure=secure, **more) for secure in (False, True))
    assert _near(plain, secured)
    assert {site: one.entries for site, one in plain.ledgers.items()} == {
        site: one.entries for site, one in secured.ledgers.items()
    }
    assert all(report.train_loss is None for report in secured.rounds)


def test_a_round_that_is_asked_again_after_a_kill_spends_nothing_twice(
    clinics: list[SiteSamples], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cryptographic noise is drawn anew: the site says what it said, and trains no second time."""
    sites = clinics[1:4]
    seen = 0
    inner = InlineGrid._delivered

    def dying(self: InlineGrid, message: Message) -> Message:
        nonlocal seen
        reply = inner(self, message)
        seen += message.metadata.message_type == "train.masked"
        if seen == 2:
            raise KeyboardInterrupt
        return reply

    more: dict[str, Any] = {"settings": None, "privacy": Terms(epsilon=20), "rounds": 1, "folder": tmp_path}
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(InlineGrid, "_delivered", dying)
        _run(sites, **more)
    result = _run(sites, **more)
    assert [report.answered for report in result.rounds] == [3]
    assert result.dropped == []
    assert [len(ledger.mechanisms("training")) for ledger in result.ledgers.values()] == [1, 1, 1]


def test_of_two_equal_federations_the_coordinator_sees_nothing_alike_but_the_sum(
    sites: list[SiteSamples], met: type[Met]
) -> None:
    one = _run(sites, rounds=1)
    before = {h.site: h.sent.arrays["masked"] for h in met.heard if h.action == "train.masked" and h.sent}
    met.heard.clear()
    two = _run(sites, rounds=1)
    after = {h.site: h.sent.arrays["masked"] for h in met.heard if h.action == "train.masked" and h.sent}
    assert one.arrays["weight"].tobytes() == two.arrays["weight"].tobytes()
    for site in NAMES:
        assert not (before[site] == after[site]).any()


def test_a_hospital_that_wants_sums_only_takes_part_in_them_and_in_nothing_else(sites: list[SiteSamples]) -> None:
    policy = Policy.parse({"secure_aggregation": "required"}, "mercy.yaml")
    guards = {"site0": Guard(policy, "mercy.yaml", "suite", Named("task", "0" * 64))}
    plain, secured = (
        run_federation(
            sites,
            FederationRequest(model="logistic", strategy="fedavg", rounds=2, secure_aggregation=secure, seed=1),
            guards=guards,
        )
        for secure in (False, True)
    )
    assert {report.answered for report in plain.rounds} == {5}
    assert {report.answered for report in secured.rounds} == {6}
    assert (plain.refused, secured.refused) == ({"site0"}, frozenset())
