"""FLamby's heart benchmark: its patients, its random stream, its updates, and the cells that it published."""

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fedcore.cohort import CannotServe, load_task
from fedcore.federation import FederationRequest, run_federation
from fedcore.learner import TrainingError
from fedcore.protocols import flamby, flamby_data, protocol
from fedcore.rule import Reply, Roster
from fedcore.samples import SiteSamples
from fedcore.strategies import strategy
from sites.errors import InputError

PUBLISHED = Path(__file__).parents[2] / "benchmarks" / "verify" / "flamby_heart.csv"
ROSTER = Roster(sites=4, samples=486)


@pytest.fixture(scope="session")
def hospitals(real_sites: Callable[[str], list[Any]]) -> list[Any]:
    return real_sites("heart=uci_heart,by=hospital:uci_heart_disease")


@pytest.fixture
def benchmark(hospitals: list[Any]) -> list[SiteSamples]:
    rules, task = protocol.load("flamby"), load_task("heart/disease")
    return rules.gather([rules.prepare(site, task, 0).samples for site in hospitals])


def loader(patients: int) -> DataLoader[int]:
    return DataLoader(range(patients), batch_size=4, shuffle=True)  # type: ignore[arg-type]


def replayed(seed: int, turns: list[list[int]], steps: int) -> list[dict[int, list[list[int]]]]:
    """The same draws by torch's own data loaders over its global generator, as FLamby made them."""
    with torch.random.fork_rng():
        loaders = [loader(patients) for patients in flamby.PATIENTS]
        torch.manual_seed(seed)
        passes = [iter(one) for one in loaders]
        torch.manual_seed(seed)
        rounds = []
        for turn in turns:
            rounds.append({})
            for centre in turn:
                batches = rounds[-1].setdefault(centre, [])
                while len(batches) < steps:
                    batch = next(passes[centre], None)
                    if batch is None:
                        passes[centre] = iter(loaders[centre])
                    else:
                        batches.append(batch.tolist())
        return rounds


def listed(batches: Any) -> list[list[int]]:
    return [batch.tolist() for batch in batches]


def test_batches_are_those_of_data_loaders_that_share_torchs_global_generator() -> None:
    own = flamby.Batches(42, flamby.everyone)
    expected = replayed(42, [[0, 1, 2, 3]] * 3, flamby.STEPS)
    for number, centres in enumerate(expected, start=1):
        assert {centre: listed(batches) for centre, batches in own.of(number).items()} == centres


def test_in_cyclic_turns_a_pass_goes_on_when_the_centre_comes_again() -> None:
    own, order = flamby.Batches(43, flamby.in_turn), flamby.in_turn(43)
    turns = [list(next(order)) for _ in range(9)]
    assert [len({centre for (centre,) in turns[start : start + 4]}) for start in (0, 4)] == [4, 4]
    for number, centres in enumerate(replayed(43, turns, flamby.STEPS), start=1):
        assert {centre: listed(batches) for centre, batches in own.of(number).items()} == centres


def test_an_anchors_epochs_are_those_of_a_data_loader() -> None:
    with torch.random.fork_rng():
        one = loader(30)
        torch.manual_seed(44)
        expected = [[batch.tolist() for batch in one] for _ in range(3)]
    assert [listed(batches) for batches in flamby.epochs(44, 30)[:3]] == expected


def test_the_initial_model_is_the_one_that_torch_makes_right_after_seeding() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(45)
        layer = torch.nn.Linear(13, 1)
    found = flamby.Linear().initial(45)
    assert np.array_equal(found["weight"], layer.weight.detach().numpy())
    assert np.array_equal(found["bias"], layer.bias.detach().numpy())


def test_no_global_stream_is_touched() -> None:
    before = torch.random.get_rng_state()
    flamby.Batches(1, flamby.everyone).of(2)
    flamby.epochs(1, 85)
    flamby.Linear().initial(1)
    assert torch.equal(before, torch.random.get_rng_state())


def combined(name: str, changes: list[float]) -> list[float]:
    """Where a server optimiser takes a model of one weight, the sites' average moving by these changes in turn."""
    spec = strategy.load(protocol.load("flamby").strategy(name))
    rule: Any = spec.build(ROSTER, spec.options)
    at, path = np.array([0.0]), []
    for change in changes:
        replies = [Reply(1, {"w": at + 2 * change}, samples=100), Reply(2, {"w": at - change}, samples=50)]
        at = np.asarray(rule._rule.combine({"w": at}, replies)["w"])
        path.append(float(at[0]))
    return path


def test_server_optimisers_follow_their_formulas_without_bias_correction() -> None:
    rate, first = 0.01, 0.1 / np.sqrt(0.001)  # m = 0.1 d, v = 0.001 d^2, whatever d is
    assert combined("fedadam", [0.5]) == pytest.approx([rate * first], rel=1e-5)
    m, v = 0.9 * 0.05 + 0.1 * -0.2, 0.999 * 0.00025 + 0.001 * 0.04
    assert combined("fedadam", [0.5, -0.2])[1] == pytest.approx(rate * (first + m / np.sqrt(v)), rel=1e-5)
    v = 0.00025 + 0.001 * 0.04  # Yogi's v grows where the square is above it
    assert combined("fedyogi", [0.5, -0.2])[1] == pytest.approx(rate * (first + m / np.sqrt(v)), rel=1e-5)
    v = 0.25 + 0.04
    assert combined("fedadagrad", [0.5, -0.2]) == pytest.approx(
        [0.316228 * 0.1, 0.316228 * (0.1 + m / np.sqrt(v))], rel=1e-5
    )


def test_fedyogi_and_fedadagrad_publish_the_same_cells_because_they_are_the_same_steps() -> None:
    # v of Yogi is a thousandth of Adagrad's while squares stay above it, and the rates differ by sqrt(1000)
    changes = [0.5, -0.2, 0.3, 0.1]
    assert combined("fedyogi", changes) == pytest.approx(combined("fedadagrad", changes), rel=1e-5)


def test_a_strategy_that_takes_one_centres_model_takes_no_others() -> None:
    rule = flamby.TakenFrom(2, alone=True)
    assert rule.ask(1, [11, 12, 13, 14]) == [13]
    mine, other = (Reply(n, {"w": np.array([float(n)])}, samples=n) for n in (30, 85))
    assert rule.combine({"w": np.array([0.0])}, [other, mine])["w"] == [30.0]
    assert rule.combine({"w": np.array([0.0])}, [other])["w"] == [0.0]


def test_a_strategy_that_is_not_flambys_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match="no strategy 'fednova'; it has: pooled, local_cleveland"):
        protocol.load("flamby").strategy("fednova")
    with pytest.raises(InputError, match=r"unknown protocol 'leaf'; expected one of flamby, flamby_data"):
        protocol.load("leaf")
    with pytest.raises(TrainingError, match="flamby_data"):
        flamby.Linear().fit({}, {}, np.array([True]), 0, {})


@pytest.mark.real
def test_the_patients_and_splits_are_flambys(hospitals: list[Any]) -> None:
    task = load_task("heart/disease")
    counts = {}
    for site in hospitals:
        prepared = flamby_data.prepare_whole(site, task)
        train, held_out = (prepared.samples.in_split(name) for name in ("train", "held_out"))
        counts[site.name] = (len(train), train.label.mean().round(3), len(held_out), held_out.label.mean().round(3))
        assert prepared.cohort.attrition[-1].samples == len(prepared.samples)
    assert counts == {
        "heart-cleveland": (199, 0.457, 104, 0.462),
        "heart-hungarian": (172, 0.378, 89, 0.371),
        "heart-switzerland": (30, 1.0, 16, 0.938),
        "heart-va": (85, 0.776, 45, 0.778),
    }


@pytest.mark.real
def test_features_are_the_rows_of_the_files_scaled_by_their_hospitals_training_patients(
    hospitals: list[Any], real_data: Path
) -> None:
    samples = flamby_data.prepare_whole(hospitals[3], load_task("heart/disease")).samples
    lines = (real_data / "uci_heart_disease" / "processed.va.data").read_text().splitlines()
    rows = [line.split(",") for line in lines]
    whole = np.array([row[:10] for row in rows if "?" not in row[:10]], np.float32)
    assert np.array_equal(samples.raw["unscaled"][:, :8], whole[:, [0, 1, 3, 4, 5, 7, 8, 9]])
    assert np.array_equal(samples.raw["unscaled"][:, 8:], whole[:, [2, 2, 2, 6, 6]] == np.array([2, 3, 4, 1, 2]))
    assert np.array_equal(samples.label, [row[13] != "0" for row in rows if "?" not in row[:10]])
    trained = samples.raw["x"][samples.split == "train"]
    assert np.allclose(trained.mean(axis=0), 0, atol=1e-5) and np.allclose(trained.std(axis=0, ddof=1), 1, atol=1e-5)


@pytest.mark.real
def test_the_tuning_split_takes_a_fifth_of_each_class_from_training_alone(hospitals: list[Any]) -> None:
    task = load_task("heart/disease")
    whole = flamby_data.prepare_whole(hospitals[0], task).samples
    one, other = (flamby_data.prepare(hospitals[0], task, seed).samples for seed in (0, 1))
    for samples in (one, other):
        assert np.array_equal(samples.split == "held_out", whole.split == "held_out")
        tuning = samples.in_split("tuning")
        assert (int(tuning.label.sum()), int((~tuning.label).sum())) == (18, 22)
        assert np.array_equal(samples.raw["x"], whole.raw["x"])
    assert not np.array_equal(one.split, other.split)


@pytest.mark.real
def test_flambys_pooled_test_is_all_test_patients_scaled_together(benchmark: list[SiteSamples]) -> None:
    pooled = benchmark[-1]
    assert (pooled.site, pooled.external, len(pooled)) == ("pooled_test", True, 254)
    together = flamby.pool(benchmark[:4])
    assert len(together.in_split("train")) == 486
    assert np.allclose(together.raw["x"][together.split == "train"].mean(axis=0), 0, atol=1e-5)
    order = [int(subject) // 1_000_000 for subject in together.subject_id]
    assert list(dict.fromkeys(order)) == [1, 3, 2, 4]  # as FLamby read the files


@pytest.mark.real
def test_another_set_of_hospitals_is_refused(
    hospitals: list[Any], real_sites: Callable[[str], list[Any]], meds_site: Callable[..., Any]
) -> None:
    task, rules = load_task("heart/disease"), protocol.load("flamby")
    with pytest.raises(CannotServe, match=re.escape("write uci_heart,by=hospital")):
        rules.prepare(real_sites("h=uci_heart:uci_heart_disease")[0], task, 0)
    with pytest.raises(CannotServe, match="found mimic4, expected a uci_heart export"):
        rules.prepare(meds_site([(1, 0, "HOSPITAL_ADMISSION//ED")]), task, 0)
    three = [rules.prepare(site, task, 0).samples for site in hospitals[:3]]
    with pytest.raises(InputError, match="of four hospitals that all train; found heart-cleveland"):
        rules.gather(three)


@pytest.mark.real
@pytest.mark.parametrize("name", list(protocol.load("flamby").strategies or ()))
def test_every_cell_that_flamby_published_for_seed_42_comes_out(name: str, benchmark: list[SiteSamples]) -> None:
    with PUBLISHED.open(encoding="utf-8") as file:
        (row,) = [r for r in csv.DictReader(file) if (r["method"], r["seed"]) == (name, "42")]
    request = FederationRequest(model="logistic", strategy=name, seed=42, protocol="flamby")
    predictions = run_federation(benchmark, request).predictions
    right = {}
    for samples in benchmark:
        held_out = samples.split == "held_out"
        right[samples.site.removeprefix("heart-")] = int(
            np.sum((predictions[samples.site] > 0.5)[held_out] == samples.label[held_out])
        )
    assert right == {site: int(row[site]) for site in (*flamby.CENTRES, flamby.POOLED_TEST)}


@pytest.mark.real
def test_any_model_and_strategy_trains_on_flambys_data(hospitals: list[Any]) -> None:
    rules, task = protocol.load("flamby_data"), load_task("heart/disease")
    samples = rules.gather([rules.prepare(site, task, 0).samples for site in hospitals])
    request = FederationRequest(model="logistic", strategy="fedavg", protocol="flamby_data")
    result = run_federation(samples, request)
    assert result.space is not None and result.space.columns == flamby_data.FEATURES
    assert "lowest tuning log loss" in result.selection
