"""A budget of privacy, from the command line to the record."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.training import predict, request_of
from leaderboard.record import Spec
from leaderboard.spec import Configured, EvaluationPlan, FederationPlan, PrivacyPlan, SiteRef, Suite, TaskRef
from leaderboard.store import Store
from privacy.accounting import Mechanism, epsilon
from sites.errors import InputError

ASKED = ("--only", "strategy=fedavg,strategy=pooled", "--rounds", "2", "--epsilon", "30", "--jobs", "1")


def test_a_budget_is_asked_planned_spent_and_told(bench, asked, tmp_path: Path) -> None:
    planned = bench("privacy", "plan", *asked[:-2], "--only", "strategy=fedavg", "--epsilon", "30", "--json")
    assert planned.code == 0, planned.err
    assert {(s["phase"], s["releases"]) for s in planned.json["spends"]} == {("statistics", 1), ("training", 10)}
    ended = bench("run", *asked, *ASKED, "--json")
    assert ended.code == 0, ended.err
    told = {(cell["strategy"], cell["epsilon"], cell["status"]) for cell in ended.json["cells"]}
    assert told == {("pooled", None, "ok"), ("fedavg", 30.0, "ok"), ("truth", None, "ok")}
    drawn = [Path(path) for path in ended.json["pictures"]]
    assert [path.name.partition("-")[0] + path.suffix for path in drawn] == [
        "privacy.svg", "privacy.png", "spent.svg", "spent.png"
    ]  # fmt: skip
    assert "no information" in drawn[0].read_text(encoding="utf-8")
    assert all(path.stat().st_size > 1000 for path in drawn)
    (record,) = [r for r in Store(tmp_path / "records").records() if r.spec.privacy is not None]
    assert record.training is not None and record.training.trials[0].tuning_loss is None
    assert {one.site for one in record.privacy} == {site.name for site in record.spec.sites}
    for one in record.privacy:
        assert one.noise == "seeded, no privacy claim"
        assert 0 < one.epsilon <= 30
        assert [(spend.phase, spend.count) for spend in one.spends] == [("statistics", 1), ("training", 10)]
        assert one.opinions["prv"] == pytest.approx(one.epsilon, abs=0.02 + 0.01 * one.epsilon)
        assert one.opinions["rdp"] >= one.epsilon  # type: ignore[operator]
    noised = {release.what for release in record.releases if release.epsilon is not None}
    plain = {release.what for release in record.releases if release.public is not None}
    assert noised == {"feature statistics", "model updates"}
    assert plain == {"the number of its training patients"}
    ledger = bench("privacy", "ledger", "small", "--out", str(tmp_path / "records"), "--json")
    assert {(s["site"], s["claim"]) for s in ledger.json["spent"]} == {(one.site, False) for one in record.privacy}
    assert all(s["left"] == pytest.approx(30 - s["epsilon"]) for s in ledger.json["spent"])


def test_noise_that_hides_hospitals_is_told_apart_and_counts_every_model_of_every_setting(
    bench, asked, tmp_path: Path
) -> None:
    suite = Path(asked[1]).read_text(encoding="utf-8").replace("fedavg", "dpfedavg")
    (tmp_path / "hidden.yaml").write_text(suite, encoding="utf-8")
    more = ("--only", "strategy=dpfedavg", "--rounds", "3", "--json")
    ended = bench("run", "--suite", str(tmp_path / "hidden.yaml"), *asked[2:], *more)
    assert ended.code == 0, ended.err
    (record,) = [r for r in Store(tmp_path / "records").records() if r.spec.strategy.name == "dpfedavg"]
    assert record.training is not None and record.training.site_level is not None
    told, sites, models = record.training.site_level, len(record.spec.sites), 3 * len(record.training.trials)
    assert (told.models, told.delta, told.unit) == (models, 1 / (10 * sites), "hospital")
    assert told.epsilon == pytest.approx(epsilon([Mechanism(1.0, count=models)], told.delta))
    assert record.privacy == ()


def _sites_of(*kinds: str) -> Any:
    return [SimpleNamespace(dataset=SimpleNamespace(manifest=SimpleNamespace(data_kind=kind))) for kind in kinds]


def test_seeded_noise_hides_no_real_hospital() -> None:
    spec = SimpleNamespace(strategy=SimpleNamespace(name="dpfedavg"))
    with pytest.raises(InputError, match="hides nothing; it runs on simulated and open data only"):
        request_of(spec, _sites_of("simulated", "real"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "--suite", "quickstart", "--epsilon", "0"), "--epsilon: found 0, expected a number above 0"),
        (
            ("run", "--suite", "quickstart", "--epsilon", "1", "--only", "model=trees"),
            "none of its cells can be trained",
        ),
        (("privacy", "plan", "--suite", "quickstart", "--only", "model=logistic"), "has a budget of epsilon"),
        (("privacy", "ledger", "nothing"), "has no record of suite or cell 'nothing'"),
    ],
)
def test_what_is_no_budget_is_a_sentence(bench, arguments: tuple[str, ...], said: str) -> None:
    ended = bench(*arguments)
    assert ended.code == 2
    assert said in " ".join(ended.err.split())


@pytest.mark.parametrize(("kinds", "noise"), [(("simulated", "demo"), "seeded"), (("demo", "real"), "cryptographic")])
def test_noise_on_real_patients_is_always_cryptographic(
    kinds: tuple[str, ...], noise: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the federation is asked for, where one of its sites has real patients."""

    class Asked(Exception):
        pass

    def asked(samples: Any, request: Any, *_: Any) -> Any:
        raise Asked(request.privacy.noise)

    monkeypatch.setattr("bench.training._federation", asked)
    monkeypatch.setattr("bench.training.prepared_sites", lambda *_: ([], ()))
    monkeypatch.setattr("bench.training.trained_folder", lambda *_: tmp_path / "folder")
    hashed = "0" * 64
    spec = Spec(
        suite=Suite(name="any", version="1"),
        task=TaskRef(name="any", sha256=hashed),
        sites=(SiteRef(name="any", kind="omop", role="train", content_sha256=hashed),),
        model=Configured(name="logistic"),
        strategy=Configured(name="fedavg"),
        federation=FederationPlan(),
        privacy=PrivacyPlan(mechanism="DP-SGD", unit="patient", epsilon=4.0, budget={"statistics": 0.15}),
        evaluation=EvaluationPlan(b=0, level=0.95),
        seed=0,
        split_seed=0,
    )
    with pytest.raises(Asked, match=noise):
        predict(spec, None, _sites_of(*kinds), lambda _: None, reuse=True, engine="inline")  # type: ignore[arg-type]


def test_seeds_are_the_suites_and_go_on_from_its_last(bench, suite: Path, asked) -> None:
    suite.write_text(suite.read_text().replace("seeds: [0]", "seeds: [42]"))
    cells = bench("plan", *asked, "--only", "strategy=fedavg", "--seeds", "3", "--json").json["cells"]
    assert {cell["seed"] for cell in cells} == {42, 43, 44}


def test_an_engine_asked_for_cells_that_are_there_is_told_so(bench, asked) -> None:
    command = ("run", *asked, "--only", "strategy=pooled", "--jobs", "1")
    assert bench(*command).code == 0
    again = bench(*command, "--engine", "simulation")
    assert "which does not depend on the engine; --cache ignore runs them anew" in " ".join(again.err.split())
