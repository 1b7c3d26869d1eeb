"""A site's policy is kept at the site, whatever the coordinator asks, and the federation goes on without it."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from fedcore.client import client_app
from fedcore.desk import Desk
from fedcore.engines import inline
from fedcore.engines.grid import TERMS
from fedcore.engines.inline import InlineGrid
from fedcore.engines.parcels import parcel
from fedcore.federation import FederationRequest, FederationResult, run_federation
from fedcore.guard import SUMS_ONLY, Guard, Named, Proposal, code_sha256
from fedcore.memory import SiteMemory
from fedcore.plan import plan_of
from fedcore.samples import SiteSamples
from privacy.ledger import LedgerError
from privacy.policy import Policy, PolicyRefusal
from privacy.releases.sketches import unpack
from privacy.terms import Terms
from privacy.total import Total
from sites.errors import InputError

TASK = Named("mortality/in_hospital/first_24h", "0" * 64)
PRIVATE = {"required": True, "noise": "any"}
TERMS_20 = Terms(epsilon=20.0, delta=1e-4, noise="seeded")


def _guard(content: dict[str, Any], **more: Any) -> Guard:
    return Guard(Policy.parse(content, "mercy.yaml"), "mercy.yaml", "quickstart", TASK, **more)


def _asked(**more: Any) -> FederationRequest:
    return FederationRequest(
        **{
            "model": "logistic",
            "strategy": "fedavg",
            "rounds": 2,
            "seed": 1,
            "privacy": TERMS_20,
            "config": {"clip": 4.0} if more.get("privacy", TERMS_20) else {},
            **more,
        }
    )


def _run(sites: list[SiteSamples], guard: Guard, *, ledgers: Path | None = None, **more: Any) -> FederationResult:
    return run_federation(sites, _asked(**more), ledgers=ledgers, guards={"bern": guard})


@pytest.fixture
def sites(clinics: list[SiteSamples]) -> list[SiteSamples]:
    return [*clinics[:3], clinics[-1]]


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What bern sent, by action."""
    sent: dict[str, list[Any]] = {}
    inner = InlineGrid._delivered

    def delivered(self: InlineGrid, message: Any) -> Any:
        reply = inner(self, message)
        if message.metadata.dst_node_id == 2:
            sent.setdefault(message.metadata.message_type, []).append(
                reply.error.reason if reply.has_error() else parcel(reply.content)
            )
        return reply

    monkeypatch.setattr(InlineGrid, "_delivered", delivered)
    return sent


def test_a_federation_goes_on_without_a_site_that_refuses(sites: list[SiteSamples], left: dict[str, list[Any]]) -> None:
    result = _run(sites, _guard({"privacy": {**PRIVATE, "per_analysis": {"epsilon": 4.0, "delta": 1e-6}}}))
    said = "mercy.yaml, privacy.per_analysis.epsilon: this analysis asks for 20, at most 4 is allowed"
    assert dict(result.skipped) == {"bern": said}
    assert result.refused == {"bern"}
    assert result.ledgers.keys() == {"amman", "cairo"}
    assert result.predictions.keys() == {"amman", "cairo", "outside"}, "who takes no part is not scored"
    assert left.keys() == {"query.site"}
    (told,) = left["query.site"]
    assert told.numbers == dict.fromkeys(("train", "tuning", "tuning-events", "tuning-non-events"), 0)
    assert told.texts == {"site": "bern", "refused": said}
    assert "query.site" not in result.answered.get("bern", ())


KEPT: dict[str, dict[str, Any]] = {
    "valid_until": {"valid_until": datetime.now(UTC).date()},
    "tasks": {"tasks": [TASK.name]},
    "suites": {"suites": ["other", "quickstart"]},
    "models": {"models": ["logistic"]},
    "models, pinned": {"models": [f"logistic@{code_sha256('fedcore.models.logistic')}"]},
    "strategies": {"strategies": ["fedavg"]},
    "smallest_count": {"smallest_count": 20},
    "privacy.required": {"privacy": {**PRIVATE}},
    "privacy.per_analysis": {"privacy": {**PRIVATE, "per_analysis": {"epsilon": 20.0, "delta": 1e-4}}},
    "privacy.largest_clip": {"privacy": {**PRIVATE, "largest_clip": 4.0}},
    "privacy.smallest_noise_multiplier": {"privacy": {**PRIVATE, "smallest_noise_multiplier": 0.3}},
}
BROKEN: dict[str, dict[str, Any]] = {
    "valid_until": {"valid_until": datetime.now(UTC).date() - timedelta(days=1)},
    "tasks: found task": {"tasks": ["mortality/in_icu/first_24h"]},
    "suites: found 'quickstart', allowed are other": {"suites": ["other"]},
    "models: found model 'logistic', allowed are mlp": {"models": ["mlp"]},
    "models: the model logistic has another definition": {"models": [f"logistic@{'0' * 64}"]},
    "strategies: found strategy 'fedavg', allowed are krum": {"strategies": ["krum"]},
    "smallest_count: the site has fewer than 500 training patients": {"smallest_count": 500},
    "privacy.noise: this analysis's noise follows from its seed": {"privacy": {"required": True}},
    "privacy.per_analysis.epsilon": {"privacy": {**PRIVATE, "per_analysis": {"epsilon": 19.0, "delta": 1e-6}}},
    "privacy.per_analysis.delta: this analysis asks for 0.0001, at most 1e-06 is allowed": {
        "privacy": {**PRIVATE, "per_analysis": {"epsilon": 20.0, "delta": 1e-6}}
    },
    "privacy.per_analysis.delta: found 0.1, expected at most 1/(10 x": {
        "privacy": {**PRIVATE, "per_analysis": {"epsilon": 20.0, "delta": 0.1}}
    },
    "privacy.largest_clip: this analysis clips each patient's gradient to 4, at most 1": {
        "privacy": {**PRIVATE, "largest_clip": 1.0}
    },
    "privacy.smallest_noise_multiplier: this analysis trains with": {
        "privacy": {**PRIVATE, "smallest_noise_multiplier": 3.0}
    },
    "secure_aggregation: this analysis sums updates in the clear": {"secure_aggregation": "required"},
}


def _introduced(site: SiteSamples, guard: Guard, request: FederationRequest, **more: str) -> str | None:
    """What a site says when it hears of an analysis: why it refuses, if it does."""
    proposal = {**Proposal.of_plan(plan_of(request)).texts(), **more}
    return _told(Desk(site, SiteMemory(None, site.site), request.privacy, 1, guard=guard), "query.site", proposal)[0]


def _told(desk: Desk, action: str, texts: dict[str, str], terms: dict[str, Any] | None = None) -> tuple[Any, Any]:
    """Put one message to a desk: why it refuses, and what it sends."""
    content = RecordDict({TERMS: ConfigRecord({"federation": "000", **(terms or {})}), "config": ConfigRecord(texts)})
    if action == "train":
        content["arrays"] = ArrayRecord()
    replies: list[Message] = []
    with inline._task():
        grid = InlineGrid(client_app(lambda _context, _name: desk), 1)
        replies += grid.send_and_receive([Message(content, dst_node_id=1, message_type=action)])
    (reply,) = replies
    if reply.has_error():
        return reply.error.reason, None
    return parcel(reply.content).texts.get("refused"), parcel(reply.content)


@pytest.mark.parametrize("rule", KEPT)
def test_a_rule_that_is_kept_lets_the_site_take_part(rule: str, sites: list[SiteSamples]) -> None:
    assert _introduced(sites[1], _guard(KEPT[rule]), _asked()) is None


@pytest.mark.parametrize("rule", BROKEN)
def test_a_rule_that_is_broken_keeps_the_site_out_and_is_named(rule: str, sites: list[SiteSamples]) -> None:
    said = _introduced(sites[1], _guard(BROKEN[rule]), _asked())
    assert said is not None
    assert said.startswith(f"mercy.yaml, {rule}"), said


def test_where_privacy_is_required_an_analysis_without_is_refused(sites: list[SiteSamples]) -> None:
    guard = _guard({"privacy": {**PRIVATE, "per_analysis": {"epsilon": 4.0, "delta": 1e-6}}})
    said = _introduced(sites[1], guard, _asked(privacy=None))
    assert said == ("mercy.yaml, privacy.required: this analysis asks for none; run it with --epsilon 4 or less")


def test_secure_aggregation_that_is_agreed_on_satisfies_the_rule(sites: list[SiteSamples]) -> None:
    guard = _guard({"secure_aggregation": "required"})
    assert _introduced(sites[1], guard, _asked(), **{SUMS_ONLY: "true"}) is None
    assert _introduced(sites[1], guard, _asked(), **{SUMS_ONLY: "false"}) is not None


def test_a_coordinator_that_proposes_one_thing_and_does_another_is_refused(sites: list[SiteSamples]) -> None:
    """Each message is held against the policy by itself: nothing that was told before switches it off."""
    guard = _guard({"models": ["logistic"], "strategies": ["fedavg"], "privacy": {**PRIVATE, "largest_clip": 4.0}})
    desk = Desk(sites[1], SiteMemory(None, "bern"), TERMS_20, 1, guard=guard)
    honest = Proposal.of_plan(plan_of(_asked())).texts()
    assert _told(desk, "query.site", honest)[0] is None
    tabular = {"representation": "tabular"}
    for texts, said in (
        ({**honest, "model": "mlp"}, "models: found model 'mlp'"),
        ({**honest, "strategy": "ditto"}, "strategies: found strategy 'ditto'"),
        ({**honest, "recipe": "federated"}, "privacy.required: logistic with fedavg sends more"),
        ({**honest, "setting": "{}"}, "privacy: this analysis does not tell its clip"),
        ({**honest, "setting": "no JSON"}, "proposal cannot be read"),
        ({}, "models: unknown model ''"),
    ):
        for action, more in (("query.statistics", tabular), ("query.space", {"space": "{}"})):
            refused, sent = _told(desk, action, {**texts, **more})
            assert said in str(refused), (action, texts)
            assert sent is None
    assert not desk.memory.agreed
    assert desk.protection is not None
    assert desk.protection.ledger.entries == ()
    desk.memory.agree({**honest, "space": "{}"})
    adaptive = json.dumps({**json.loads(honest["setting"]), "quantile": 0.5})
    refused, _ = _told(desk, "train", {}, {"setting": adaptive, "round": 1, "trial": 0})
    assert "privacy.largest_clip: this analysis adapts its clip" in str(refused)
    loose = json.dumps({**json.loads(honest["setting"]), "clip": 1e9})
    refused, _ = _told(desk, "train", {}, {"setting": loose, "round": 1, "trial": 0})
    assert "privacy.largest_clip: this analysis clips each patient's gradient to 1e+09" in str(refused)


def test_where_noise_is_asked_what_cannot_be_noised_is_refused_by_the_site_too(sites: list[SiteSamples]) -> None:
    proposal = Proposal.of_plan(plan_of(_asked()))
    for strategy in ("ditto", "moon", "fedbn"):
        with pytest.raises(PolicyRefusal, match="sends more than follows from a noised model"):
            _guard({"privacy": PRIVATE}).examine(Proposal(**{**vars(proposal), "strategy": strategy}), TERMS_20)


OWN = """
from dataclasses import replace
from fedcore.models.logistic import MODEL
from own_part import NAME
LOUD = replace(MODEL, name=NAME)
open("imported", "w").close()
"""


def test_own_code_is_refused_unless_its_hash_is_listed_and_is_not_even_imported(
    sites: list[SiteSamples], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_models.py").write_text(OWN)
    (tmp_path / "own_part.py").write_text('NAME = "loud"\n')
    told = Proposal(**{**vars(Proposal.of_plan(plan_of(_asked()))), "model": "own_models:LOUD"})
    with pytest.raises(PolicyRefusal, match="own_models:LOUD is no code of FedWard's") as refused:
        _guard({"privacy": PRIVATE}).examine(told, TERMS_20)
    assert not (tmp_path / "imported").exists()
    listed = str(refused.value).rpartition("list it as ")[2]
    monkeypatch.syspath_prepend(str(tmp_path))
    guard = _guard({"models": [listed], "privacy": PRIVATE})
    guard.examine(told, TERMS_20)
    assert (tmp_path / "imported").exists()
    (tmp_path / "own_part.py").write_text('NAME = "louder"\n')
    with pytest.raises(PolicyRefusal, match="models: the model own_models:LOUD has another definition"):
        guard.examine(told, TERMS_20)


def test_own_tasks_need_their_hash(sites: list[SiteSamples]) -> None:
    own = Named("mine", "a" * 64)
    told = Proposal.of_plan(plan_of(_asked()))
    for listed, allowed in (("mine", False), (f"mine@{'b' * 64}", False), (f"mine@{'a' * 64}", True)):
        guard = Guard(Policy.parse({"tasks": [listed]}, "mercy.yaml"), "mercy.yaml", "quickstart", own)
        if allowed:
            guard.examine(told, TERMS_20)
        else:
            with pytest.raises(PolicyRefusal, match="tasks: the task mine has another definition"):
                guard.examine(told, TERMS_20)


def test_counts_below_the_smallest_do_not_leave(sites: list[SiteSamples], left: dict[str, list[Any]]) -> None:
    _run(sites, _guard({}), privacy=None)
    (plain,) = left["query.site"]
    assert 10 <= plain.numbers["tuning"] < 40
    left.clear()
    result = _run(sites, _guard({"smallest_count": 40}), privacy=None)
    (told,) = left["query.site"]
    assert told.numbers == {**plain.numbers, "tuning": 0, "tuning-events": 0, "tuning-non-events": 0}
    assert all(one.numbers == {"num-examples": 0, "loss-sum": 0.0} for one in left["evaluate"])
    assert not result.skipped


def test_sketches_of_fewer_than_the_smallest_count_do_not_leave(sites: list[SiteSamples]) -> None:
    proposal = Proposal.of_plan(plan_of(_asked(privacy=None))).texts()
    fewest = {}
    for smallest in (10, 40):
        desk = Desk(sites[1], SiteMemory(None, "bern"), guard=_guard({"smallest_count": smallest}))
        refused, sent = _told(desk, "query.statistics", {**proposal, "representation": "tabular"})
        assert refused is None
        drawn = unpack(sent.arrays)
        assert {one.minimum for one in drawn.values()} == {smallest}
        counts = np.concatenate([np.ravel(one.counts) for one in drawn.values()])
        fewest[smallest] = int(counts[counts > 0].min())
    assert 10 <= fewest[10] < 40 <= fewest[40]


@pytest.mark.parametrize(("strategy", "out"), [("pooled", {"bern"}), ("external", {"bern"}), ("local", set())])
def test_rows_and_models_do_not_leave_for_a_comparison_either(
    strategy: str, out: set[str], sites: list[SiteSamples]
) -> None:
    result = _run(sites, _guard({"privacy": PRIVATE}), strategy=strategy, privacy=None)
    assert result.refused == out
    assert ("bern" in result.predictions) == (not out)


def test_if_all_refuse_the_reasons_are_told(sites: list[SiteSamples]) -> None:
    guard = _guard({"models": ["mlp"]})
    with pytest.raises(InputError, match=r"site amman: mercy.yaml, models: .*; site bern: mercy.yaml, models"):
        run_federation(sites, _asked(), guards=dict.fromkeys(("amman", "bern", "cairo"), guard))


def _totalled(tmp_path: Path, analysis: str, epsilon: float = 40.0) -> Guard:
    limits = {"per_analysis": {"epsilon": 20.0, "delta": 1e-4}, "total": {"epsilon": epsilon, "delta": 1e-3}}
    total = Total(tmp_path / "totals" / "bern.ledger", tmp_path / "ledgers")
    return _guard({"privacy": {**PRIVATE, **limits}}, total=total, analysis=analysis)


def test_the_total_of_all_analyses_is_kept_and_runs_of_one_count_once(
    sites: list[SiteSamples], tmp_path: Path, left: dict[str, list[Any]]
) -> None:
    first = _totalled(tmp_path, "first")
    assert first.total is not None
    untold = _run(sites, first, ledgers=tmp_path / "ledgers" / "first")
    said = "mercy.yaml, privacy.total: bern.ledger: what all analyses of this site have spent is not there"
    assert untold.skipped["bern"].startswith(said), "never from zero"
    first.total.begin()
    for name in ("first", "second", "first", "second"):
        result = _run(sites, _totalled(tmp_path, name), ledgers=tmp_path / "ledgers" / name)
        assert not result.skipped
    assert first.total.reserved().keys() == {"first", "second"}
    left.clear()
    result = _run(sites, _totalled(tmp_path, "third"), ledgers=tmp_path / "ledgers" / "third")
    said = "mercy.yaml, privacy.total: epsilon of all analyses is at most 40, 40 is reserved, and this one asks for 20"
    assert result.skipped["bern"] == f"{said} more"
    assert left.keys() == {"query.site"}
    assert not (tmp_path / "ledgers" / "third" / "bern.ledger").exists()
    result = _run(sites, _totalled(tmp_path, "third", 60.0), ledgers=tmp_path / "ledgers" / "third")
    assert not result.skipped, "a hospital may raise it"


def test_what_was_reserved_stays_so_when_the_site_is_killed_before_it_released(
    sites: list[SiteSamples], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = _totalled(tmp_path, "first")
    assert guard.total is not None
    guard.total.begin()

    def killed(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("fedcore.protection.Protection.statistics", killed)
        with pytest.raises(KeyboardInterrupt):
            _run(sites[1:], guard, ledgers=tmp_path / "ledgers" / "first")
    assert guard.total.reserved().keys() == {"first"}
    assert not _run(sites, _totalled(tmp_path, "first"), ledgers=tmp_path / "ledgers" / "first").skipped
    (tmp_path / "ledgers" / "first" / "bern.ledger").unlink()
    lost = _run(sites, _totalled(tmp_path, "first"), ledgers=tmp_path / "ledgers" / "first")
    assert lost.skipped["bern"].startswith("bern.ledger: the ledger of what this site has spent is lost")


def test_a_total_that_vanishes_meanwhile_stops_the_site(sites: list[SiteSamples], tmp_path: Path) -> None:
    guard = _totalled(tmp_path, "first")
    assert guard.total is not None
    guard.total.begin()
    desk = Desk(sites[1], SiteMemory(None, "bern"), TERMS_20, 1, tmp_path / "ledgers" / "first", guard)
    honest = Proposal.of_plan(plan_of(_asked())).texts()
    assert _told(desk, "query.site", honest)[0] is None
    guard.total.path.unlink()
    refused, sent = _told(desk, "query.statistics", {**honest, "representation": "tabular"})
    assert "is not there" in str(refused)
    assert sent is None
    with pytest.raises(LedgerError):
        guard.total.reserved()
