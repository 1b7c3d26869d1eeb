"""Noise that sites share, through whole federations: the central step, what is left to an insider, what it costs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Error, Message, RecordDict
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedcore.distributed import noised_step
from fedcore.engines.grid import SITE_FAILED
from fedcore.engines.inline import InlineGrid
from fedcore.engines.parcels import parcel
from fedcore.faults.plan import FaultPlan
from fedcore.federation import FederationError, FederationRequest, FederationResult, run_federation
from fedcore.guard import Guard, Named
from fedcore.local import Split, Visit
from fedcore.memory import SiteMemory
from fedcore.models import model
from fedcore.plan import plan_of
from fedcore.protection import TRAINING, Protection
from fedcore.samples import SiteSamples
from fedcore.secure import SECURE
from fedcore.streams import stream
from privacy.accounting import epsilon
from privacy.distributed import SharedNoise
from privacy.dpsgd import DPSGD
from privacy.ledger import Budget
from privacy.noise import Floats
from privacy.policy import Policy
from privacy.secagg.fixed_point import FixedPoint
from privacy.terms import Terms
from sites.errors import InputError

TERMS = Terms(epsilon=8.0, delta=0.1 / 128, statistics=0.8, noise="seeded", place="distributed")
ROUNDS = 2


def _request(name: str = "fedavg", **more: Any) -> FederationRequest:
    asked = {"model": "logistic", "rounds": ROUNDS, "seed": 1, "privacy": TERMS, "secure_aggregation": True, **more}
    return FederationRequest(strategy=name, **asked)


def _run(sites: list[SiteSamples], *, folder: Path | None = None, **more: Any) -> FederationResult:
    return run_federation(sites, _request(**more), folder=folder)


@pytest.fixture
def sites(clinics: list[SiteSamples]) -> list[SiteSamples]:
    return clinics[:4]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[SharedNoise]]:
    """The shares of noise that were drawn."""
    found: list[SharedNoise] = []
    draw = SharedNoise.draw

    def noted(self: SharedNoise, source: Any) -> np.ndarray:
        found.append(self)
        return draw(self, source)

    monkeypatch.setattr(SharedNoise, "draw", noted)
    return found


def test_without_noise_a_round_is_the_step_of_dp_sgd_on_pooled_patients(
    sites: list[SiteSamples], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: patients' gradients one by one, clipped, summed over all sites, divided by all patients."""
    met: list[tuple[str, Split]] = []
    training = Protection.training

    def noted(self: Protection, *arguments: Any, **named: Any) -> DPSGD:
        met.append((self._site, arguments[-1]))
        return training(self, *arguments, **named)

    monkeypatch.setattr(Protection, "training", noted)
    monkeypatch.setattr(SharedNoise, "draw", lambda self, _: np.zeros(self.coordinates, np.int64))
    result = _run(sites)
    setting = result.setting
    assert result.space is not None
    private = plan_of(_request()).model.recipe("private")
    now = {name: value.astype(float) for name, value in private.learner(result.space.sizes, setting).initial(0).items()}
    patients = sum(split.patients for _, split in met[: len(sites)])
    for number, (site, split) in enumerate(met):
        if number % len(sites) == 0:
            total = {name: np.zeros(value.shape) for name, value in now.items()}
        drawn = stream(1, "noise", site, TRAINING, 0, 1 + number // len(sites), "train").random(split.patients)
        chosen = np.flatnonzero(drawn < setting["sampling_rate"])
        assert 0 < len(chosen) < split.patients
        for patient in chosen:
            x = split.encoded["x"][split.patient == patient].astype(float)
            x = x * (4.0 / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 4.0))
            logit = x @ now["output.weight"][0] + now["output.bias"]
            error = 1 / (1 + np.exp(-logit)) - split.label[split.patient == patient]
            own = {"output.weight": (error @ x)[None], "output.bias": np.array([error.sum()])}
            length = np.sqrt(sum(float((value**2).sum()) for value in own.values()))
            for name, value in own.items():
                total[name] += value * min(1.0, setting["clip"] * (1 - 1e-5) / length)
        if number % len(sites) == len(sites) - 1:
            step = setting["step_size"] / (setting["sampling_rate"] * patients)
            now = {name: value - step * total[name] for name, value in now.items()}
    for name, value in now.items():
        assert np.abs(result.arrays[name] - value).max() < 1e-6 * max(1.0, np.abs(value).max())
    assert max(np.abs(value).max() for value in result.arrays.values()) > 0.01


def test_every_share_is_what_an_insider_leaves_over(sites: list[SiteSamples], drawn: list[SharedNoise]) -> None:
    """Of four one is lost in round 2 before its vector is: three shares, of which two are what the ledger says."""
    away = FaultPlan.model_validate({"faults": [{"kind": "leave", "sites": ["amman"], "rounds": [2]}]})
    result = _run(sites, faults=away)
    assert [report.answered for report in result.rounds] == [4, 3]
    assert len(drawn) == 7
    assert result.secured is not None
    for one in drawn:
        others = result.secured.fewest - 1  # an insider has subtracted its own
        accounted = {ledger.mechanisms(TRAINING)[0].noise_multiplier for ledger in result.ledgers.values()}
        assert accounted == {one.noise_multiplier}
        assert others * one.deviation**2 == pytest.approx((one.noise_multiplier * one.sensitivity) ** 2)


def test_the_ledger_counts_each_step_once_at_the_noise_that_the_largest_site_needs(sites: list[SiteSamples]) -> None:
    result = _run(sites, privacy=TERMS.model_copy(update={"delta": None}))
    assert len({ledger.mechanisms(TRAINING) for ledger in result.ledgers.values()}) == 1
    assert len({ledger.budget.delta for ledger in result.ledgers.values()}) == 2
    for ledger in result.ledgers.values():
        (told,) = ledger.mechanisms(TRAINING)
        assert (told.sampling_rate, told.count) == (result.setting["sampling_rate"], ROUNDS)
        kept = ledger.budget.delta * (1 - 1e-3)
        assert epsilon(ledger.mechanisms(), kept) <= TERMS.epsilon
    assert max(ledger.spent() for ledger in result.ledgers.values()) > 0.98 * TERMS.epsilon


def test_recipes_take_as_many_steps_as_ever() -> None:
    recipe = model.load("logistic").private
    assert recipe is not None
    plan = plan_of(_request(rounds=None))
    assert plan.untuned_rounds == recipe.untuned_rounds * int(recipe.untuned["steps"])
    assert plan.untuned["steps"] == 1
    assert plan_of(_request(rounds=333)).untuned_rounds == 333


def test_below_the_threshold_nothing_is_learnt_and_the_spend_stays(sites: list[SiteSamples]) -> None:
    inner = InlineGrid._delivered

    def lost(self: InlineGrid, message: Message) -> Message:
        second = message.content["fedward"].get("round") == 2 and message.metadata.dst_node_id <= 2
        action = message.metadata.message_type
        reply = inner(self, message)
        unheard = second and action in ("train.masked", "query.unmask")
        return Message(Error(SITE_FAILED, "gone"), reply_to=message) if unheard else reply

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InlineGrid, "_delivered", lost)
        result = _run(sites)
    assert [report.answered for report in result.rounds] == [4, 0]
    assert {ledger.mechanisms(TRAINING)[0].count for ledger in result.ledgers.values()} == {2}


def test_a_model_leaves_only_masked_and_noised(sites: list[SiteSamples], drawn: list[SharedNoise]) -> None:
    """Whatever the coordinator agreed on with the site, it answers no plain `train`."""
    inner, refused = InlineGrid._delivered, []

    def unmasked(self: InlineGrid, message: Message) -> Message:
        if message.metadata.message_type == "train.masked":
            content = RecordDict({key: entry for key, entry in message.content.items() if key != SECURE})
            plain = Message(content, dst_node_id=message.metadata.dst_node_id, message_type="train")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(SiteMemory, "agreed", {"model": "logistic", "strategy": "fedavg"})
                refused.append(inner(self, plain).error.reason)
        return inner(self, message)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InlineGrid, "_delivered", unmasked)
        _run(sites)
    said = "the site shares its noise with others; none of its models leaves but in a secure sum"
    assert refused == [said] * 8
    assert len(drawn) == 8


def test_a_killed_round_goes_on_with_the_same_vector_and_spends_nothing_twice(
    sites: list[SiteSamples], tmp_path: Path, drawn: list[SharedNoise]
) -> None:
    """Cryptographic noise drawn anew would tell the difference of two vectors under the same masks."""
    inner, seen = InlineGrid._delivered, []

    def dying(self: InlineGrid, message: Message) -> Message:
        reply = inner(self, message)
        if message.metadata.message_type == "train.masked":
            seen.append(parcel(reply.content).arrays["masked"].copy())
            if len(seen) == 2:
                raise KeyboardInterrupt
        return reply

    more: dict[str, Any] = {"privacy": TERMS.model_copy(update={"noise": "cryptographic"}), "folder": tmp_path}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InlineGrid, "_delivered", dying)
        with pytest.raises(KeyboardInterrupt):
            _run(sites, **more)
        result = _run(sites, **more)
    assert [report.answered for report in result.rounds] == [4, 4]
    assert any((seen[1] == again).all() for again in seen[2:])
    assert len(drawn) == 8
    assert {ledger.mechanisms(TRAINING)[0].count for ledger in result.ledgers.values()} == {2}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"secure_aggregation": False}, "distributed noise protects nobody unless sums are secure"),
        ({"name": "feddyn"}, "strategy 'feddyn' cannot be trained with distributed noise"),
        ({"name": "finetuning"}, "strategy 'finetuning' cannot be trained with patient-level privacy"),
        ({"name": "moon", "model": "mlp"}, "cannot be trained with patient-level privacy|with distributed noise"),
        ({"config": {"steps": 5}}, "option 'steps' is 5; expected 1 with distributed noise"),
        ({"config": {"quantile": 0.5}}, r"option 'quantile' is 0\.5; expected 0 with distributed noise"),
    ],
)
def test_what_cannot_share_noise_is_a_sentence(more: dict[str, Any], said: str, sites: list[SiteSamples]) -> None:
    with pytest.raises(InputError, match=said):
        _run(sites, **more)


def test_a_site_that_needs_more_noise_than_was_agreed_on_says_so(
    sites: list[SiteSamples], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedcore.server.agreed_noise", lambda *_: 0.2)
    with pytest.raises(FederationError, match=r"the sites agreed on a noise multiplier of 0\.2; this site needs"):
        _run(sites)


def test_a_hospital_whose_policy_asks_for_privacy_has_to_allow_that_noise_is_shared(sites: list[SiteSamples]) -> None:
    for allowed in (False, True):
        rules = {"required": True, "noise": "any", **({"shared_noise": True} if allowed else {})}
        policy = Policy.parse({"privacy": rules}, "mercy.yaml")
        guards = {"bern": Guard(policy, "mercy.yaml", "suite", Named("task", "0" * 64))}
        result = run_federation(sites, _request(), guards=guards)
        said = "mercy.yaml, privacy.shared_noise: this analysis lets sites share their noise, each release bears a part"
        assert dict(result.skipped) == ({} if allowed else {"bern": said})


class _Chosen:
    """Draws whom it is told to, and no noise."""

    claim = False

    def __init__(self, drawn: np.ndarray) -> None:
        self._drawn = drawn

    def uniform(self, size: int) -> Floats:
        return np.where(self._drawn, 0.0, 0.999)

    def normal(self, shape: tuple[int, ...]) -> Floats:
        return np.zeros(shape)


def _integers(split: Split, arrays: dict[str, np.ndarray], chosen: np.ndarray, setting: dict[str, Any]) -> np.ndarray:
    """What the site would mask, were its noise silent."""
    spec = model.load("logistic")

    def protect(_stream: str, _setting: Any, split: Split) -> DPSGD:
        rate, clip = float(setting["sampling_rate"]), float(setting["clip"])
        return DPSGD(1.0, rate, 1, clip, split.patient, split.patients, _Chosen(chosen))

    visit = Visit(
        site="bern",
        round=1,
        cell_seed=0,
        arrays=arrays,
        beside={},
        config={},
        setting=setting,
        model=spec,
        make=lambda s: spec.recipe("private").learner({"x": arrays["output.weight"].size}, s),
        open_split=lambda: split,
        memory={},
        protect=protect,
    )
    fixed = FixedPoint(sites=8, weight=10_000, bound=2.0**20)
    words = noised_step(visit, Budget(8.0, 1e-3), 100, split.patients, 5, fixed)
    return words.view(np.int64)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([12, 200, 6000]),
    st.sampled_from([0.1, 3.0, 1000.0]),
    st.sampled_from([0.0, 1.0, 20.0]),
    st.sampled_from([0.1, 2.0]),
)
@example(0, 6000, 3.0, 20.0, 0.1)
def test_one_patient_moves_a_sites_integers_by_no_more_than_is_noised(
    seed: int, n: int, far: float, long: float, clip: float
) -> None:
    rng = np.random.default_rng(seed)
    width = int(rng.integers(1, 30))
    patient = np.sort(np.concatenate([np.arange(n), rng.integers(n, size=n // 3)]))
    x = (far * rng.standard_normal((len(patient), width))).astype(np.float32)
    split = Split({"x": x}, rng.random(len(patient)) < 0.3, patient)
    arrays = {
        "output.weight": rng.standard_normal((1, width)).astype(np.float32) * np.float32(long),
        "output.bias": rng.standard_normal(1).astype(np.float32),
    }
    setting = {"step_size": 0.7, "l2": 0.01, "sampling_rate": 0.2, "steps": 1, "clip": clip}
    chosen = rng.random(n) < rng.choice([0.2, 0.9])
    one = int(rng.integers(n))
    pair = []
    for there in (False, True):
        chosen[one] = there
        pair.append(_integers(split, arrays, chosen, setting))
    scale = FixedPoint(sites=8, weight=10_000, bound=2.0**20).scale
    noise = SharedNoise(1.0, 0.7, clip, 0.2, scale, width + 1, 5)
    moved = (pair[1] - pair[0])[:-3].astype(np.float64)
    assert np.linalg.norm(moved) <= noise.sensitivity
    assert (pair[0][-3:] == [0, 0, n]).all()
