"""A suite with attacks: what is played, what is attacked, and what is found where something is to be found."""

import json
from pathlib import Path

import numpy as np
import pytest

from bench.attacks.attack import SCORES, curves
from bench.game import ASIDE, candidates, play
from bench.suite import load_suite
from fedcore.samples import SiteSamples
from privacy.attacks.outcome import auroc
from sites.errors import InputError

SUITE = """
name: attacked
version: 1.0.0
description: A memorising model
tasks: [mortality/in_hospital/first_24h]
entries:
  - {model: logistic, strategies: [fedavg], config: {epochs: 10, step_size: 0.3, l2: 0}, patients: 80}
attacks: {kinds: [membership], shadows: 6}
seeds: [0]
rounds: 6
evaluation: {replicates: 100}
"""


def site(patients: int = 400) -> SiteSamples:
    n = 2 * patients
    split = np.array(["train", "tuning", "held_out", "conformal"])[np.arange(n) // 2 % 4]
    return SiteSamples(
        site="boston",
        external=False,
        subject_id=np.arange(n),
        patient_id=np.arange(n) // 2,
        prediction_time=np.zeros(n, "M8[us]"),
        label=np.zeros(n, np.bool_),
        split=split,
    )


def test_a_coin_decides_of_each_patient_with_all_their_stays() -> None:
    own = site()
    (first,), (turned,) = play([own], 0), play([own], 0, turned=True)
    trained, other = (set(one.patient_id[one.split == "train"].tolist()) for one in (first, turned))
    assert trained | other == set(own.patient_id[own.split == "train"].tolist()) and not trained & other
    assert 30 < len(trained) < 70, "a fair coin of 100"
    assert not trained & set(first.patient_id[first.split != "train"].tolist())
    kept = np.isin(own.split, ["held_out", "conformal"])
    assert (first.split[kept] == own.split[kept]).all() and (first.split[own.split == "tuning"] == ASIDE).all()
    assert len(candidates(own, 0, patients=40)) == 40 and set(candidates(own, 0, patients=40)) <= trained | other
    assert set(play([own], 0, "shadow", 1)[0].split[own.split == "train"].tolist()) == {"train", ASIDE}


def records(folder: Path) -> list[dict]:
    return [json.loads(path.read_bytes()) for path in sorted(folder.rglob("*.json"))]


def found(record: dict) -> dict:
    return {m["name"]: m for m in record["metrics"] if m["name"].startswith("attack.")}


@pytest.fixture
def options(tmp_path: Path, hospitals: list[str]) -> list[str]:
    path = tmp_path / "attacked.yaml"
    path.write_text(SUITE)
    sites = [text for name in hospitals[:2] for text in ("--site", name)]
    return ["run", "--suite", str(path), *sites, "--jobs", "1", "--json"]


def test_a_memorising_model_gives_its_patients_away_and_always_the_same(bench, options, tmp_path, home) -> None:
    ended = bench(*options, "--out", tmp_path / "records")
    assert ended.code == 0, ended.err
    (record,) = [record for record in records(tmp_path / "records") if record["spec"]["attack"]]
    metrics = found(record)
    for attack in ("lira-offline.model", "lira-online.model", "rmia.model", "lira-online.updates"):
        assert metrics[f"attack.membership.{attack}.auroc"]["ci"]["low"] > 0.51, attack
    rate = metrics["attack.membership.rmia.model.tpr_at_0.01"]
    assert rate["value"] is None and "non-members" in rate["suppressed"]
    assert {m["n"] for m in metrics.values()} == {160} and metrics["attack.membership.rmia.model.auroc"]["n_pos"] < 120
    (scores,) = (home / "trained").rglob(SCORES)
    score, member = curves(scores)["membership.rmia.model"]
    assert auroc(score, member).value == metrics["attack.membership.rmia.model.auroc"]["value"]

    told = json.loads(ended.out)
    assert [Path(path).suffix for path in told["pictures"]] == [".svg", ".png"]
    assert all(Path(path).is_file() for path in told["pictures"])
    hashes = {cell["cell_id"]: cell["result_sha256"] for cell in told["cells"]}
    again = json.loads(bench(*options, "--cache", "ignore", "--out", tmp_path / "again").out)
    assert {cell["cell_id"]: cell["result_sha256"] for cell in again["cells"]} == hashes


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("[membership]", "[guessing]"), "unknown attack 'guessing'; expected one of"),
        (("shadows: 6", "shadows: 3"), "attacks.shadows"),
        (("logistic, strategies: [fedavg]", "mlp, strategies: [fedper]"), "has no model in common"),
        (("rounds: 6", "rounds: 6\nprotocol: flamby"), "found beside protocol"),
        (("patients: 80", "patients: 80, epsilon: [3]"), "names 3.0, which the suite's epsilon does not"),
    ],
)
def test_what_cannot_be_attacked_is_refused_with_a_sentence(change, says, bench, options, tmp_path) -> None:
    path = Path(options[2])
    path.write_text(SUITE.replace(*change))
    try:
        load_suite(str(path))
    except InputError as error:
        assert says in str(error)
        return
    ended = bench(*options, "--out", tmp_path / "records")
    assert ended.code == 2 and says in ended.err, ended.err


def test_what_the_other_attacks_find_on_what_passes(bench, options, tmp_path) -> None:
    kinds = "kinds: [inversion, attribute, property, backdoor]"
    text = SUITE.replace("kinds: [membership]", kinds).replace(", patients: 80", "").replace("rounds: 6", "rounds: 2")
    Path(options[2]).write_text(text.replace("attacked", "attacked-too"))
    ended = bench(*[part for part in options if part != "--json"], "--out", tmp_path / "records")
    assert ended.code == 0, ended.err
    (record,) = [record for record in records(tmp_path / "records") if record["spec"]["attack"]]
    assert record["spec"]["attack"]["shadows"] == 0
    metrics = {name.removeprefix("attack."): metric for name, metric in found(record).items()}
    alone = "inversion.closed form.update of one patient, which no site sends"
    assert metrics[f"{alone}.recovered"]["value"] == 1 and metrics[f"{alone}.relative_error"]["value"] < 1e-4
    assert metrics["inversion.cosine.update of ten patients.relative_error"]["n"] == 50
    assert metrics["property.classifier.updates.auroc"]["value"] > 0.7
    by_property = metrics["property.classifier.updates.accuracy"]
    assert (by_property["n"], by_property["n_patients"], by_property["ci"]["cluster"]) == (40, 0, "hospital")
    by_model, imputed = (metrics[f"attribute.{way}.members.auroc"] for way in ("with the model", "imputed"))
    assert by_model["n"] == imputed["n"] > 0 and by_model["value"] != imputed["value"]
    with_it = metrics["backdoor.taken for the target.model.with_the_trigger"]
    assert with_it["n"] == with_it["n_patients"] > 50 and with_it["ci"]["cluster"] == "patient"
    assert with_it["ci"]["method"] == "clopper-pearson"
    for title in ("gradient inversion", "attribute inference", "property inference", "backdoor"):
        assert f"Attack: {title}" in ended.out
