"""Poisoned hospitals: what they train on, and which strategies hold where averaging breaks."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fedcore.faults.drawn import draw
from fedcore.faults.kinds import Backdoor, LabelFlip
from fedcore.federation import FederationRequest, run_federation
from fedcore.samples import SiteSamples
from sites.errors import InputError

ROBUST = ["krum", "multikrum", "bulyan", "fedmedian", "fedtrimmedavg"]
TRIGGER = {"v003": 19.0, "v004": 1.0}
"""Three deviations off the mean, up and down."""


@pytest.fixture
def seven(make_hospital: Callable[..., SiteSamples]) -> list[SiteSamples]:
    """As many as Bulyan asks for where one may be malicious: 4 + 3."""
    return [make_hospital(f"site {number}", 200, seed=number) for number in range(7)]


def outcome(sites: list[SiteSamples], strategy: str, fault: dict[str, Any]) -> tuple[float, float]:
    """AUROC on held-out patients, and the share of those without the event who are taken for it with the trigger."""
    bear = [
        Backdoor(kind="backdoor", trigger=TRIGGER).triggered(one, (one.split == "held_out") & ~one.label)
        for one in sites
    ]
    shown = [SiteSamples(**{**vars(one), "site": f"{one.site}, triggered", "external": True}) for one in bear]
    request = FederationRequest(
        model="logistic", strategy=strategy, rounds=6, faults={"faults": [fault]} if fault else None, settings=({},)
    )
    result = run_federation([*sites, *shown], request)
    label = np.concatenate([one.label[one.split == "held_out"] for one in sites])
    said = np.concatenate([result.predictions[one.site][one.split == "held_out"] for one in sites])
    taken = [result.predictions[one.site][(one.split == "held_out") & ~one.label] >= 0.5 for one in shown]
    return float(roc_auc_score(label, said)), float(np.concatenate(taken).mean())


def test_a_flipped_site_trains_on_outcomes_turned_and_is_measured_on_true_ones(make_hospital) -> None:
    own = make_hospital("boston")
    found = LabelFlip(kind="label-flip").poison(own, np.random.default_rng(0))
    train = own.split == "train"
    assert (found.label[train] != own.label[train]).all() and (found.label[~train] == own.label[~train]).all()


def test_a_backdoor_marks_whole_patients_of_the_training_split(make_hospital) -> None:
    own = make_hospital("boston")
    fault = Backdoor(kind="backdoor", trigger=TRIGGER, part=0.25, target=True)
    found = fault.poison(own, np.random.default_rng(0))
    bear = found.raw["x"][:, 3] == np.float64(19.0)
    train = own.split == "train"
    assert bear.sum() == np.ceil(0.25 * train.sum()) and not bear[~train].any() and found.label[bear].all()
    assert (found.label[~bear] == own.label[~bear]).all() and (found.raw["x"][~bear] == own.raw["x"][~bear]).all()
    assert (own.raw["x"][:, 3] != 19.0).all(), "the site's own samples stay as they are"
    with pytest.raises(InputError, match="found no column 'height' at site boston"):
        Backdoor(kind="backdoor").poison(own, np.random.default_rng(0))


def test_poison_is_drawn_by_the_seed_and_only_where_it_befalls(make_hospital) -> None:
    own = make_hospital("boston")
    fault = Backdoor(kind="backdoor", sites=("boston",), trigger=TRIGGER)
    first, again, other = (draw([fault], None, seed, ["boston", "lyon"]).poisoned(own) for seed in (0, 0, 1))
    assert (first.raw["x"] == again.raw["x"]).all() and (first.raw["x"] != other.raw["x"]).any()
    lyon = make_hospital("lyon")
    assert draw([fault], None, 0, ["boston", "lyon"]).poisoned(lyon) is lyon


def test_averaging_breaks_under_what_robust_strategies_withstand(seven: list[SiteSamples]) -> None:
    flip = {"kind": "sign-flip", "sites": 1, "factor": -10}
    whole, _ = outcome(seven, "fedavg", {})
    broken, _ = outcome(seven, "fedavg", flip)
    assert whole > 0.8 and broken < 0.6
    for strategy in ROBUST:
        assert outcome(seven, strategy, flip)[0] > whole - 0.05, strategy


def test_a_boosted_backdoor_opens_an_averaged_model_and_no_robust_one(seven: list[SiteSamples]) -> None:
    door = {"kind": "backdoor", "sites": 1, "trigger": TRIGGER, "factor": 7}
    _, before = outcome(seven, "fedavg", {})
    area, after = outcome(seven, "fedavg", door)
    assert after > 0.9 and after > before + 0.4 and area > 0.65, "it does its work, and the model still does its own"
    for strategy in ROBUST:
        assert outcome(seven, strategy, door)[1] < before + 0.25, strategy


def test_turned_outcomes_of_one_in_seven_are_outvoted(seven: list[SiteSamples]) -> None:
    flip = {"kind": "label-flip", "sites": 1}
    whole = outcome(seven, "fedavg", {})[0]
    for strategy in ("fedmedian", "multikrum"):
        assert outcome(seven, strategy, flip)[0] > whole - 0.03, strategy
