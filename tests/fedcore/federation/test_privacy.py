"""A federation whose sites take part on terms: what leaves them, what it costs, and who stops when it is spent."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from fedcore.engines.inline import InlineGrid
from fedcore.engines.parcels import parcel
from fedcore.errors import FederationError
from fedcore.features import representation
from fedcore.federation import FederationRequest, FederationResult, run_federation
from fedcore.models import model
from fedcore.models.recurrence import Recurrence
from fedcore.protection import STATISTICS, TRAINING, Protection
from fedcore.samples import SiteSamples
from fedcore.streams import stream
from privacy.accounting import epsilon
from privacy.clipping import Clipping, by_layers
from privacy.dpsgd import refuse
from privacy.ledger import LedgerError
from privacy.noise import Seeded
from privacy.releases.sketches import NoisyHistogram, unpack
from privacy.terms import Terms
from sites.errors import InputError

ROUNDS = 3
TERMS = Terms(epsilon=20.0, noise="seeded")


def _run(sites: list[SiteSamples], terms: Terms = TERMS, folder: Path | None = None, **more: Any) -> FederationResult:
    asked = {"model": "logistic", "strategy": "fedavg", "rounds": ROUNDS, "seed": 1, "privacy": terms, **more}
    return run_federation(sites, FederationRequest(**asked), folder=folder)


@pytest.fixture
def sites(clinics: list[SiteSamples]) -> list[SiteSamples]:
    return [*clinics[:3], clinics[-1]]


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What sites sent, by action."""
    sent: dict[str, list[Any]] = {}
    inner = InlineGrid._delivered

    def delivered(self: InlineGrid, message: Any) -> Any:
        reply = inner(self, message)
        sent.setdefault(message.metadata.message_type, []).append(None if reply.has_error() else parcel(reply.content))
        return reply

    monkeypatch.setattr(InlineGrid, "_delivered", delivered)
    return sent


def _patients(samples: SiteSamples) -> int:
    return len(np.unique(samples.patient_id[samples.split == "train"]))


def test_nothing_leaves_but_with_noise_and_the_number_of_patients(
    sites: list[SiteSamples], left: dict[str, list[Any]]
) -> None:
    first, second = sites[0].patient_id[sites[0].split == "train"][:2]  # one patient has the stays of another as well
    twice = replace(sites[0], patient_id=np.where(sites[0].patient_id == second, first, sites[0].patient_id))
    result = _run([twice, *sites[1:]])
    expected = [_patients(site) for site in (twice, *sites[1:3])]
    assert [one.numbers for one in left["query.site"]] == [
        {"train": n, "tuning": 0, "tuning-events": 0, "tuning-non-events": 0} for n in expected
    ]
    for one in left["query.statistics"]:
        assert [type(sketch) for sketch in unpack(one.arrays).values()] == [NoisyHistogram]
    for one, n in zip(left["train"], expected * ROUNDS, strict=True):
        assert one.numbers["num-examples"] == n
        assert (one.numbers["loss-weight"], one.numbers["loss-sum"]) == (0, 0.0)
    assert all(one.numbers == {"num-examples": 0, "loss-sum": 0.0} for one in left["evaluate"])
    assert [report.train_loss for report in result.rounds] == [None] * ROUNDS
    assert result.selection.startswith("declared defaults: with patient-level privacy")


def test_what_is_claimed_is_all_that_was_released_and_within_the_terms(sites: list[SiteSamples]) -> None:
    result = _run(sites)
    assert result.ledgers.keys() == {"amman", "bern", "cairo"}
    for site, ledger in result.ledgers.items():
        assert [entry.phase for entry in ledger.entries] == [STATISTICS] + [TRAINING] * ROUNDS
        released = [entry.mechanism for entry in ledger.entries]
        assert ledger.spent() == epsilon(released, ledger.budget.delta)
        assert 0.99 * TERMS.epsilon <= ledger.spent() <= TERMS.epsilon
        assert ledger.spent(phase=STATISTICS) == pytest.approx(TERMS.statistics * TERMS.epsilon, rel=0.01)
        patients = _patients(next(one for one in sites if one.site == site))
        assert 1 / (20 * patients) < ledger.budget.delta <= 1 / (10 * patients)


def test_it_learns_and_repeats_bit_by_bit(sites: list[SiteSamples], told: Any) -> None:
    result = _run(sites, Terms(epsilon=60.0, noise="seeded"), rounds=20)
    y = np.concatenate([site.label[site.split == "held_out"] for site in sites])
    p = np.concatenate([result.predictions[site.site][site.split == "held_out"] for site in sites])
    assert roc_auc_score(y, p) > 0.65
    assert told(_run(sites[::-1], Terms(epsilon=60.0, noise="seeded"), rounds=20)) == told(result)


PRIVATE = [name for name in model.names() if model.load(name).private is not None]
SIZES = {"x": 5, "vocabulary": 12, "length": 6}


def _rows(representation: str, n: int) -> dict[str, torch.Tensor]:
    """Samples as a representation encodes them."""
    draw = torch.Generator().manual_seed(n)
    if representation == "tabular":
        return {"x": torch.randn(n, 5, generator=draw)}
    if representation == "series":
        x = torch.randn(n, 7, 5, generator=draw)
        mask = (torch.rand(n, 7, 5, generator=draw) < 0.5).float()
        return {"x": x, "mask": mask, "delta": torch.rand(n, 7, 5, generator=draw) * 6}
    length = torch.arange(n) * 3 % 7
    there = torch.arange(6) < length[:, None]
    code = torch.where(there, torch.randint(1, 12, (n, 6), generator=draw), 0).int()
    value = torch.where(there, torch.randn(n, 6, generator=draw), 0)
    return {"code": code, "gap_hours": there * 2.0, "value": value, "length": length.int()}


@pytest.mark.parametrize("name", PRIVATE)
def test_each_model_with_a_private_recipe_is_clipped_by_its_layers_and_exactly(name: str) -> None:
    spec = model.load(name)
    recipe = spec.recipe("private")
    network = recipe.learner(SIZES, recipe.untuned)._built(torch.device("cpu")).train()  # type: ignore[attr-defined]
    rows, truth = _rows(spec.representation, 9), torch.arange(9) % 2.0
    assert by_layers(network)
    refuse(copy.deepcopy(network), rows)
    for value in rows.values():  # four patients, of whom one has more rows than another
        assert len(value) == 9
    patient = torch.tensor([0, 1, 0, 2, 1, 0, 3, 0, 2])
    whole = Clipping(network).sum(rows, truth, patient, 0.05).total
    others = patient < 3
    without = Clipping(network).sum({k: v[others] for k, v in rows.items()}, truth[others], patient[others], 0.05).total
    moved = sum(float((whole[key] - without[key]).square().sum()) for key in whole) ** 0.5
    assert 0 < moved <= 0.05
    assert {"sampling_rate", "steps", "clip", "step_size", "l2", "per_layer", "quantile"} == set(recipe.untuned)


def test_the_private_recurrence_is_torchs() -> None:
    ours, theirs = Recurrence(3, 4), torch.nn.GRU(3, 4, batch_first=True)
    pairs = {"weight_ih_l0": ours.seen.weight, "bias_ih_l0": ours.seen.bias}
    pairs |= {"weight_hh_l0": ours.state.weight, "bias_hh_l0": ours.state.bias}
    theirs.load_state_dict(pairs)
    x = torch.randn(5, 6, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(x)[0], theirs(x)[0])


@pytest.mark.parametrize("name", [name for name in PRIVATE if name != "logistic"])
def test_every_model_learns_privately(sites: list[SiteSamples], name: str) -> None:
    result = _run(sites, Terms(epsilon=60.0, noise="seeded"), model=name, rounds=2)
    assert result.dropped == []
    assert all(59 < ledger.spent() <= 60 for ledger in result.ledgers.values())
    assert all(np.isfinite(p).all() for p in result.predictions.values())


@pytest.mark.parametrize("name", ["tabular", "series", "sequence"])
def test_one_patient_moves_the_statistics_by_one_cell_a_concept_however_many_stays(
    sites: list[SiteSamples], name: str
) -> None:
    """Without noise, at the site: its sensitivity is the root of the number of concepts."""

    class Silent(Seeded):
        def normal(self, shape: tuple[int, ...]) -> np.ndarray:
            return np.zeros(shape)

    def counted(samples: SiteSamples) -> np.ndarray:
        (sketch,) = representation.load(name).sketch_privately(samples, 1.0, Silent(stream(0))).values()
        assert isinstance(sketch, NoisyHistogram)
        assert sketch.variance == pytest.approx(len(sketch.names))
        return sketch.counts

    first = sites[0].patient_id[0]
    many = replace(sites[0], patient_id=np.where(np.arange(len(sites[0])) < 50, first, sites[0].patient_id))
    without = many.take(many.patient_id != first)
    moved = counted(many) - counted(without)
    assert set(np.unique(moved)) == {0.0, 1.0}
    assert moved.sum(axis=1).max() == 1


def test_cryptographic_noise_is_the_default_and_never_the_same(sites: list[SiteSamples]) -> None:
    terms = Terms(epsilon=20.0)
    assert terms.noise == "cryptographic"
    one, other = _run(sites, terms), _run(sites, terms)
    assert not np.array_equal(one.arrays["output.weight"], other.arrays["output.weight"])
    assert [ledger.entries for ledger in one.ledgers.values()] == [ledger.entries for ledger in other.ledgers.values()]


GREEDY = """
from flwr.serverapp.strategy import FedAvg

class Greedy(FedAvg):
    def start(self, grid, initial_arrays, num_rounds=3, timeout=3600, **more):
        return super().start(grid, initial_arrays, num_rounds + 4, timeout, **more)
"""


def test_a_site_whose_budget_is_spent_stops_and_says_so(
    sites: list[SiteSamples], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The coordinator agrees on three rounds and asks for seven."""
    (tmp_path / "greedy_lab.py").write_text(GREEDY)
    monkeypatch.syspath_prepend(str(tmp_path))
    result = _run(sites, strategy="greedy_lab:Greedy")
    refused = [one for one in result.dropped if one.action == "train"]
    assert {(one.site, one.round) for one in refused} == {
        (site, number) for site in ("amman", "bern", "cairo") for number in range(ROUNDS + 1, ROUNDS + 5)
    }
    assert all("the site's budget of epsilon 20 at delta" in one.reason for one in refused)
    for ledger in result.ledgers.values():
        assert len(ledger.entries) == 1 + ROUNDS
        assert ledger.spent() <= 20.0


def test_a_round_done_again_is_a_spend_of_its_own_and_none_is_lost(
    sites: list[SiteSamples], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after a site has answered and before anybody wrote its answer down."""
    inner, left = (
        InlineGrid._delivered,
        [3 + 3 + 3 + 3 + 2],
    )  # introduction, statistics, space, a round; two of the next

    def deadly(self: InlineGrid, message: Any) -> Any:
        reply = inner(self, message)
        left[0] -= message.metadata.message_type != "evaluate"
        if left[0] == 0:
            raise KeyboardInterrupt
        return reply

    monkeypatch.setattr(InlineGrid, "_delivered", deadly)
    terms = Terms(epsilon=20.0)
    with pytest.raises(KeyboardInterrupt):
        _run(sites, terms, tmp_path)
    result = _run(sites, terms, tmp_path)
    keys = {site: [entry.key for entry in ledger.entries] for site, ledger in result.ledgers.items()}
    whole = ["statistics", *(f"training/0/{number}/train" for number in range(1, ROUNDS + 1))]
    assert keys["cairo"] == whole
    for site in ("amman", "bern"):  # they have paid twice for round two, so that nothing is left for round three
        assert keys[site] == ["statistics", "training/0/1/train", "training/0/2/train", "training/0/2/train#2"]
        assert result.ledgers[site].spent() <= 20.0
    assert {(one.site, one.round) for one in result.dropped} == {("amman", 3), ("bern", 3)}


def test_a_ledger_that_is_lost_is_not_begun_anew(tmp_path: Path) -> None:
    one = Protection(TERMS, "amman", 100, 0, tmp_path / "ledger")
    setting = model.load("logistic").recipe("private").untuned
    one.statistics(setting, ROUNDS)
    (tmp_path / "ledger").unlink()
    with pytest.raises(LedgerError, match="is lost"):
        Protection(TERMS, "amman", 100, 0, tmp_path / "ledger", expected=True).statistics(setting, ROUNDS)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"model": "trees", "strategy": "fedxgbbagging"}, "model 'trees' cannot be trained with patient-level privacy"),
        ({"model": "mlp", "strategy": "fedper"}, "strategy 'fedper' cannot be trained with patient-level privacy"),
        ({"strategy": "pooled"}, "anchor 'pooled' is no federation and knows no privacy"),
        ({"settings": ({},)}, "settings cannot be tuned with patient-level privacy yet"),
    ],
)
def test_what_cannot_be_private_is_refused(sites: list[SiteSamples], asked: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        _run(sites, **asked)


def test_a_delta_of_more_than_a_tenth_of_a_patient_is_refused_by_the_site(sites: list[SiteSamples]) -> None:
    with pytest.raises(Exception, match=r"amman: delta: found 0.01, expected above 0 and at most 1/\(10 x \d+\)"):
        _run(sites, Terms(epsilon=20.0, delta=0.01, noise="seeded"))


def test_the_same_federation_run_again_spends_from_what_is_left(sites: list[SiteSamples], tmp_path: Path) -> None:
    """Else a budget could be spent as often as somebody likes to run it."""
    asked = FederationRequest(model="logistic", strategy="fedavg", rounds=ROUNDS, seed=1, privacy=Terms(epsilon=20.0))
    first = run_federation(sites, asked, folder=tmp_path / "first", ledgers=tmp_path / "ledgers")
    with pytest.raises(FederationError, match="the site's budget of epsilon 20 at delta"):
        run_federation(sites, asked, folder=tmp_path / "second", ledgers=tmp_path / "ledgers")
    seeded = asked.model_copy(update={"privacy": TERMS})
    again = [run_federation(sites, seeded, ledgers=tmp_path / "seeded") for _ in range(2)]
    assert np.array_equal(again[0].arrays["output.weight"], again[1].arrays["output.weight"]), (
        "the same noise is the same release"
    )
    for ledger in first.ledgers.values():
        assert ledger.spent() <= 20.0
