"""What happens in a round when sites fail, send what does not count, or keep models of their own."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from flwr.serverapp.strategy import FedAvg

from fedcore.errors import FederationError, StorageError
from fedcore.faults.plan import FaultPlan
from fedcore.federation import FederationRequest, FederationResult, run_federation
from fedcore.learner import Arrays, TrainingError, log_loss
from fedcore.local import Plain, Update, Visit
from fedcore.rounds import RoundReport
from fedcore.rule import Averaging, Reply, ruled
from fedcore.samples import SiteSamples
from fedcore.strategies import strategy
from fedcore.strategies.strategy import StrategySpec
from sites.errors import InputError

Deed = Callable[[Update], Update]


@dataclass
class Odd(Plain):
    """FedAvg's half of a site, but that some do something else in some rounds."""

    deeds: Mapping[tuple[str, int], Deed] = field(default_factory=dict)
    seen: list[tuple[str, int, bytes]] = field(default_factory=list)

    def train(self, visit: Visit) -> Update:
        self.seen.append((visit.site, visit.round, b"".join(value.tobytes() for value in visit.arrays.values())))
        return self.deeds.get((visit.site, visit.round), lambda update: update)(super().train(visit))


class Keeps(Odd):
    """Each site keeps what it trained, and predicts with it; it sends what FedAvg sends."""

    def train(self, visit: Visit) -> Update:
        update = super().train(visit)
        visit.memory["own"] = {name: value + np.float32(0.01) for name, value in visit.arrays.items()}
        return update

    def personal(self, visit: Visit) -> Arrays:
        return visit.memory.get("own", visit.arrays)


Register = Callable[..., str]


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Register:
    """Makes a strategy of parts, by default FedAvg's; returns its name."""
    fedavg = strategy.load("fedavg")

    def make(**parts: Any) -> str:
        module = ModuleType("toy")
        module.STRATEGY = StrategySpec(  # type: ignore[attr-defined]
            **{"build": fedavg.build, "title": "Toy", "paper": "none", "when": "never", **parts}
        )
        monkeypatch.setitem(sys.modules, "toy", module)
        return "toy:STRATEGY"

    return make


@pytest.fixture
def sites(make_hospital: Any) -> list[SiteSamples]:
    return [make_hospital(name, n=n) for name, n in (("alpha", 500), ("beta", 300), ("gamma", 400))]


STEPS = {"step_size": 0.01, "epochs": 1}


def _run(sites: list[SiteSamples], strategy: str, rounds: int = 3, **more: Any) -> FederationResult:
    settings = more.pop("settings", (STEPS,))
    request = FederationRequest(model="logistic", strategy=strategy, rounds=rounds, settings=settings, **more)
    return run_federation(sites, request)


def _bits(result: FederationResult) -> dict[str, bytes]:
    return {name: value.tobytes() for name, value in result.arrays.items()}


def _rounds(result: FederationResult) -> list[RoundReport]:
    return [replace(report, seconds=0.0) for report in result.rounds]


def _raises(error: Exception) -> Deed:
    def deed(update: Update) -> Update:
        raise error

    return deed


def _sends(name: str, value: Callable[[np.ndarray], np.ndarray]) -> Deed:
    return lambda update: replace(update, arrays={**update.arrays, name: value(update.arrays[name])})


BAD: dict[str, tuple[Deed, str]] = {
    "raises": (
        _raises(ValueError("patient 5000017 of 2180-05-06")),
        "ValueError in 'train'; the site's log has the details at level DEBUG",
    ),
    "diverges": (_raises(TrainingError("the loss is not a number")), "the loss is not a number"),
    "nan": (_sends("weight", lambda w: w * np.float32(np.nan)), "the array 'weight' with NaN or infinity"),
    "infinity": (_sends("bias", lambda w: w + np.float32(np.inf)), "the array 'bias' with NaN or infinity"),
    "shape": (_sends("weight", lambda w: w[:, :-1]), "'weight' as float32 (1, 7); expected float32 (1, 8)"),
    "type": (_sends("weight", lambda w: w.astype(np.float64)), "'weight' as float64 (1, 8)"),
    "lacks": (lambda u: replace(u, arrays={"weight": u.arrays["weight"]}), "no array 'bias'"),
    "surplus": (lambda u: replace(u, arrays={**u.arrays, "rows": np.zeros(3)}), "'rows', which may not leave"),
    "beside": (lambda u: replace(u, beside={"control": dict(u.arrays)}), "which may not leave"),
    "loss": (lambda u: replace(u, loss=float("nan")), "'loss-sum': expected one finite number"),
    "steps": (lambda u: replace(u, steps=float("inf")), "'steps': expected one finite number"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_answer_is_left_out_of_its_round_which_goes_on(
    kind: str, sites: list[SiteSamples], register: Register
) -> None:
    deed, reason = BAD[kind]
    result = _run(sites, register(local=Odd({("beta", 2): deed})))
    assert [entry[:4] for entry in result.dropped] == [(0, 2, "beta", "train")]
    assert reason in result.dropped[0].reason
    assert "5000017" not in result.dropped[0].reason
    assert [report.answered for report in result.rounds] == [3, 2, 3]
    away = FaultPlan.model_validate({"faults": [{"kind": "leave", "sites": ["beta"], "rounds": {"from": 2, "to": 2}}]})
    without = _run(sites, "fedavg", faults=away)
    assert result.trials[0].best_round == without.trials[0].best_round == 3
    assert _bits(result) == _bits(without)
    assert [report.train_loss for report in result.rounds] == [report.train_loss for report in without.rounds]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(28, "No space left on device"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_machine_that_runs_short_is_no_hospital_that_fails(
    error: Exception, sites: list[SiteSamples], register: Register, tmp_path: Path
) -> None:
    """Else the cell would end well, with another result than on a larger machine; it is kept, and goes on."""
    deeds = {("beta", 2): _raises(error)}
    toy = register(local=Odd(deeds))
    request = FederationRequest(model="logistic", strategy=toy, rounds=3, settings=(STEPS,))
    with pytest.raises(StorageError, match=r"site beta: the machine has run short \(\w+ in 'train'\); make room"):
        run_federation(sites, request, folder=tmp_path)
    deeds.clear()
    assert _bits(run_federation(sites, request, folder=tmp_path)) == _bits(_run(sites, toy))


def test_a_round_of_too_few_changes_nothing_and_the_next_begins(sites: list[SiteSamples], register: Register) -> None:
    fails = _raises(RuntimeError("no"))
    local = Odd({("alpha", 2): fails, ("beta", 2): fails})
    result = _run(sites, register(local=local), min_sites=2)
    sent = {number: {arrays for _, n, arrays in local.seen if n == number} for number in (1, 2, 3)}
    assert {number: len(models) for number, models in sent.items()} == {1: 1, 2: 1, 3: 1}
    assert sent[2] == sent[3] != sent[1]
    assert [report.answered for report in result.rounds] == [3, 0, 3]
    assert result.rounds[1].train_loss is None
    assert result.rounds[1].tuning_loss == result.rounds[0].tuning_loss
    assert [(entry.round, entry.site) for entry in result.dropped] == [(2, "alpha"), (2, "beta")]


def test_a_round_without_effect_is_never_the_best(sites: list[SiteSamples], register: Register) -> None:
    fails = _raises(RuntimeError("no"))
    local = Odd({(site, number): fails for site in ("alpha", "beta") for number in (1, 3)})
    result = _run(sites, register(local=local), min_sites=2)
    assert [report.answered for report in result.rounds] == [0, 3, 0]
    assert result.trials[0].best_round == 2


def test_rounds_that_are_all_of_too_few_come_to_no_model(sites: list[SiteSamples], register: Register) -> None:
    local = Odd({(site, number): _raises(RuntimeError("no")) for site in ("alpha", "beta") for number in (1, 2, 3)})
    with pytest.raises(FederationError, match=r"came to a model: in none of 3 rounds did 2 sites answer$"):
        _run(sites, register(local=local), min_sites=2)


def test_too_few_tuning_answers_do_not_undo_a_round(sites: list[SiteSamples], register: Register) -> None:
    class Silent(Plain):
        def personal(self, visit: Visit) -> Arrays:
            if visit.round == 2:
                raise RuntimeError("no")
            return visit.arrays

    result = _run(sites, register(local=Silent()), rounds=2, min_sites=3)
    assert [report.answered for report in result.rounds] == [3, 3]
    assert [entry[:4] for entry in result.dropped] == [(0, 2, s, "evaluate") for s in ("alpha", "beta", "gamma")]
    assert result.rounds[1].tuning_loss == result.rounds[0].tuning_loss
    assert result.trials[0].best_round == 1


def test_more_sites_than_there_are_cannot_be_asked_for(sites: list[SiteSamples]) -> None:
    with pytest.raises(InputError, match=r"needs 4 sites .*; found 3 that can train \(alpha, beta, gamma\)"):
        _run(sites, "fedavg", min_sites=4)


def test_a_strategy_is_refused_below_the_number_of_sites_its_paper_requires(
    sites: list[SiteSamples], register: Register
) -> None:
    toy = register(options={"byzantine": 1}, min_sites=lambda setting: 2 * int(setting["byzantine"]) + 3)
    with pytest.raises(InputError, match=r"'toy:STRATEGY' needs 5 sites with byzantine 1; found 3 that can train"):
        _run(sites, toy)
    assert _run(sites, toy, config={"byzantine": 0}).rounds[0].answered == 3


def test_a_strategy_that_would_wait_for_ever_is_refused(sites: list[SiteSamples], register: Register) -> None:
    toy = register(build=lambda roster, setting: FedAvg(min_available_nodes=4))
    with pytest.raises(InputError, match=r"'toy:STRATEGY' waits for 4 sites .*; found 3 that can train .*; make it"):
        _run(sites, toy)


def test_a_round_without_the_sites_a_strategy_waits_for_changes_nothing(
    sites: list[SiteSamples], register: Register
) -> None:
    toy = register(build=lambda roster, setting: FedAvg(min_available_nodes=3))
    away = FaultPlan.model_validate({"faults": [{"kind": "leave", "sites": ["beta"], "rounds": {"from": 2, "to": 2}}]})
    assert [report.answered for report in _run(sites, toy, faults=away).rounds] == [3, 0, 3]


def test_a_round_of_fewer_than_its_paper_requires_changes_nothing(sites: list[SiteSamples], register: Register) -> None:
    local = Odd({("alpha", 2): _raises(RuntimeError("no"))})
    result = _run(sites, register(local=local, min_sites=lambda _: 3))
    assert [report.answered for report in result.rounds] == [3, 0, 3]


def test_every_site_failing_ends_the_trial_at_once_with_a_sites_reason(
    sites: list[SiteSamples], register: Register
) -> None:
    local = Odd({(site.site, 2): _raises(TrainingError(f"no more at {site.site}")) for site in sites})
    toy = register(local=local, options={"twist": 0.0})
    with pytest.raises(FederationError, match="every site failed by round 2; alpha: no more at alpha"):
        _run(sites, toy, rounds=5)
    assert max(number for _, number, _ in local.seen) == 2


def test_the_next_setting_is_tried_when_one_has_failed(sites: list[SiteSamples], register: Register) -> None:
    class Picky(Plain):
        def train(self, visit: Visit) -> Update:
            if visit.setting["step_size"] > 0.05:
                raise TrainingError("too long a step")
            return super().train(visit)

    result = _run(sites, register(local=Picky()), settings=({**STEPS, "step_size": 0.1}, STEPS))
    assert result.trials[0].rounds == 1
    assert str(result.trials[0].error).endswith("every site failed by round 1; alpha: too long a step")
    assert result.chosen == 1


class OneByOne(Averaging):
    """Asks one site a round."""

    def ask(self, number: int, sites: Any) -> Any:
        return [sites[(number - 1) % len(sites)]]


def test_one_site_asked_alone_may_fail_without_ending_the_trial(sites: list[SiteSamples], register: Register) -> None:
    build = ruled(lambda roster, setting: OneByOne())
    local = Odd({("alpha", 1): _raises(RuntimeError("no")), ("alpha", 4): _raises(RuntimeError("no"))})
    result = _run(sites, register(build=build, local=local), rounds=5)
    assert [report.answered for report in result.rounds] == [0, 1, 1, 0, 1]
    local = Odd({(site.site, n): _raises(RuntimeError("no")) for site in sites for n in range(1, 6)})
    with pytest.raises(FederationError, match="every site failed by round 3; alpha: RuntimeError in 'train'"):
        _run(sites, register(build=build, local=local), rounds=5)


def test_it_is_known_which_actions_each_site_ever_answered(sites: list[SiteSamples], register: Register) -> None:
    build = ruled(lambda roster, setting: OneByOne())
    tiny = replace(sites[0], site="delta", split=np.full(len(sites[0]), "held_out"))
    local = Odd({("beta", 2): _raises(RuntimeError("no"))})
    result = _run([*sites, tiny], register(build=build, local=local), rounds=2)
    agreed = {"query.site", "query.statistics"}
    assert result.answered["alpha"] == agreed | {"train", "evaluate"}
    assert "train" not in result.answered["beta"] | result.answered["gamma"]
    assert result.answered["delta"] == {"query.site"}


@pytest.mark.parametrize("where", ["beside", "ask", "combine"])
def test_a_strategy_that_fails_ends_the_trial_with_a_sentence(
    where: str, sites: list[SiteSamples], register: Register
) -> None:
    class Broken(Averaging):
        def __getattribute__(self, name: str) -> Any:
            if name == where:
                raise KeyError("weight")
            return super().__getattribute__(name)

    toy = register(build=ruled(lambda roster, setting: Broken()))
    with pytest.raises(FederationError, match=r"strategy 'toy:STRATEGY' failed in round 1: KeyError: 'weight'"):
        _run(sites, toy)


def test_a_share_of_the_sites_is_asked_and_the_seed_says_which(make_hospital: Any, register: Register) -> None:
    four = [make_hospital(name, n=200) for name in ("alpha", "beta", "delta", "gamma")]
    asked = []
    for seed in (0, 0, 1):
        local = Odd()
        result = _run(four, register(local=local), rounds=6, fraction=0.5, seed=seed)
        assert {report.answered for report in result.rounds} == {2}
        asked.append([(site, number) for site, number, _ in local.seen])
    assert asked[0] == asked[1] != asked[2]
    assert {site for site, _ in asked[0]} == {"alpha", "beta", "delta", "gamma"}


def test_multikrum_keeps_the_liar_out_also_when_others_are_away(make_hospital: Any) -> None:
    """With five of eight answering the paper selects two; as many as of eight would be all, the liar among them."""
    eight = [make_hospital(name, n=200) for name in "abcdefgh"]
    faults = {
        "faults": [{"kind": "leave", "sites": ["a", "b", "c"]}, {"kind": "sign-flip", "sites": ["h"], "factor": -10}]
    }
    plan = FaultPlan.model_validate(faults)
    losses = {
        name: [r.tuning_loss for r in _run(eight, name, 5, faults=plan).rounds] for name in ("fedavg", "multikrum")
    }
    assert losses["multikrum"][-1] < losses["multikrum"][0] < losses["fedavg"][-1]  # type: ignore[operator]


def test_faults_are_noted_with_their_reasons_and_the_wait_is_counted(sites: list[SiteSamples]) -> None:
    faults = [
        {"kind": "leave", "sites": ["alpha"], "rounds": [1]},
        {"kind": "nan", "sites": ["beta"], "rounds": [2]},
        {"kind": "slow", "sites": ["gamma"], "rounds": [1, 3], "seconds": 20},
        {"kind": "slow", "sites": ["beta"], "rounds": [3], "seconds": 90},
    ]
    result = _run(sites, "fedavg", faults=FaultPlan.model_validate({"faults": faults, "timeout_s": 60}))
    late = "answers after 90 s; the coordinator waits 60 s"
    assert [tuple(entry) for entry in result.dropped] == [
        (0, 2, "beta", "train", "'train' would send the array 'weight' with NaN or infinity; expected finite numbers"),
        (0, 3, "beta", "train", late),
        (0, 3, "beta", "evaluate", late),
    ]
    assert [report.answered for report in result.rounds] == [2, 2, 2]
    assert [report.waited_s for report in result.rounds] == [40, 0, 120]


# --- models of the sites' own


@pytest.fixture
def all_sites(sites: list[SiteSamples], make_hospital: Any) -> list[SiteSamples]:
    """With one that is only scored, and one that may not train."""
    idle = make_hospital("idle", n=60)
    outside = make_hospital("outside", n=100, external=True)
    return [*sites, replace(idle, split=np.full(60, "held_out")), outside]


def _tuning_loss(sites: list[SiteSamples], result: FederationResult) -> float:
    """Of the predictions, over all tuning samples."""
    tuning = {site.site: site.split == "tuning" for site in sites}
    losses = [log_loss(s.label[tuning[s.site]], result.predictions[s.site][tuning[s.site]]) for s in sites]
    return float(np.concatenate(losses).mean())


def test_a_site_predicts_with_its_own_model_and_others_with_what_is_shared(
    all_sites: list[SiteSamples], register: Register
) -> None:
    own, shared = _run(all_sites, register(local=Keeps())), _run(all_sites, "fedavg")
    assert _bits(own) == _bits(shared)
    for site in ("idle", "outside"):
        np.testing.assert_array_equal(own.predictions[site], shared.predictions[site])
    for site in ("alpha", "beta", "gamma"):
        assert not np.allclose(own.predictions[site], shared.predictions[site], atol=1e-6)
    assert np.isclose(_tuning_loss(all_sites, own), own.trials[0].tuning_loss, rtol=1e-12)
    assert np.isclose(_tuning_loss(all_sites, shared), shared.trials[0].tuning_loss, rtol=1e-12)
    assert own.trials[0].tuning_loss != shared.trials[0].tuning_loss


def test_a_site_predicts_with_what_it_remembered_in_the_best_round(
    sites: list[SiteSamples], register: Register
) -> None:
    class Worsens(Keeps):
        def personal(self, visit: Visit) -> Arrays:
            return (
                {name: value * np.float32(-9) for name, value in visit.memory["own"].items()}
                if (visit.round > 3)
                else visit.memory["own"]
            )

    result = _run(sites, register(local=Worsens()), rounds=6)
    assert result.trials[0].best_round == 3
    assert np.isclose(_tuning_loss(sites, result), result.trials[0].tuning_loss, rtol=1e-12)


@pytest.mark.parametrize("rounds", [4, 6])
def test_what_a_site_remembers_of_refused_rounds_is_as_if_it_had_not_been(
    rounds: int, sites: list[SiteSamples], register: Register
) -> None:
    """Beta's answers of rounds 3 and 4 are refused while what it keeps changes; with four rounds the last is best."""

    class Spoils(Keeps):
        def train(self, visit: Visit) -> Update:
            update = super().train(visit)
            if visit.site == "beta" and visit.round in (3, 4):
                visit.memory["own"] = {name: value * np.float32(-9) for name, value in visit.arrays.items()}
            return update

    refused = {("beta", number): _sends("bias", lambda b: b * np.float32(np.nan)) for number in (3, 4)}
    result = _run(sites, register(local=Spoils(refused)), rounds=rounds)
    assert [entry[1:4] for entry in result.dropped] == [(3, "beta", "train"), (4, "beta", "train")]
    assert result.trials[0].best_round == rounds
    assert np.isclose(_tuning_loss(sites, result), result.trials[0].tuning_loss, rtol=1e-12)


def test_a_site_that_never_came_predicts_as_it_was_told(sites: list[SiteSamples], register: Register) -> None:
    away = FaultPlan.model_validate({"faults": [{"kind": "leave", "sites": ["beta"]}]})
    own, shared = _run(sites, register(local=Keeps()), faults=away), _run(sites, "fedavg", faults=away)
    np.testing.assert_array_equal(own.predictions["beta"], shared.predictions["beta"])
    assert not np.allclose(own.predictions["alpha"], shared.predictions["alpha"], atol=1e-6)


def test_what_goes_beside_the_model_comes_back_by_name(sites: list[SiteSamples], register: Register) -> None:
    """A rule's records reach each site, and its answers the rule, in float64 only where the model is meant."""
    met: list[dict[str, Any]] = []

    class Beside(Averaging):
        def beside(self, arrays: Arrays) -> Mapping[str, Arrays]:
            return {"control": {"c": np.arange(3, dtype=np.float32)}}

        def combine(self, arrays: Arrays, replies: Any) -> Arrays:
            reply: Reply
            for reply in replies:
                met.append({"c": reply.beside["control"]["c"].tolist(), "steps": reply.steps, "n": reply.samples})
            return super().combine(arrays, replies)

    class Adds(Plain):
        def train(self, visit: Visit) -> Update:
            update = super().train(visit)
            return replace(update, beside={"control": {"c": visit.beside["control"]["c"] + np.float32(visit.round)}})

    _run(sites, register(build=ruled(lambda roster, setting: Beside()), local=Adds()), rounds=2)
    train = {site.site: int((site.split == "train").sum()) for site in sites}
    assert met == [
        {"c": [0.0 + n, 1.0 + n, 2.0 + n], "steps": -(-train[site.site] // 64), "n": train[site.site]}
        for n in (1, 2)
        for site in sites
    ]
