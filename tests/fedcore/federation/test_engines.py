"""`inline` and `simulation`: the same federation, bit for bit."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedcore.engines import simulation
from fedcore.faults.plan import FaultPlan
from fedcore.federation import FederationRequest, FederationResult, run_federation
from fedcore.learner import log_loss
from fedcore.models import model
from fedcore.samples import SiteSamples
from fedcore.strategies import strategy
from privacy.terms import Terms

MINE = '''
from flwr.serverapp.strategy import FedAvg

class Damped(FedAvg):
    """Goes half of the way."""

    def configure_train(self, server_round, arrays, config, grid):
        self.sent = arrays.to_numpy_ndarrays()
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round, replies):
        arrays, metrics = super().aggregate_train(server_round, replies)
        half = [(a + b) / 2 for a, b in zip(self.sent, arrays.to_numpy_ndarrays())]
        return type(arrays)({name: type(arrays[name])(v) for name, v in zip(arrays, half)}), metrics

class OwnStart(FedAvg):
    """Runs its rounds itself."""

    def start(self, grid, initial_arrays, num_rounds=3, timeout=3600, **more):
        return super().start(grid, initial_arrays, num_rounds, timeout, **more)
'''

SITES = 5

FAULTS = {
    "timeout_s": 60,
    "faults": [
        {"kind": "leave", "sites": ["amman"], "rounds": [2]},
        {"kind": "nan", "sites": 1, "rate": 0.5},
        {"kind": "stale", "sites": ["cairo"], "rounds": [2, 3], "age": 1},
        {"kind": "slow", "share": 0.3, "seconds": 45, "rate": 0.7},
        {"kind": "noise", "sites": ["essen"], "deviation": 0.5},
    ],
}


def _first(names: list[str], goes: Callable[[str], bool]) -> str:
    return next(name for name in names if goes(name))


def _goes(model_name: str, strategy_name: str) -> bool:
    return strategy.load(strategy_name).lacks(model.load(model_name)) is None


def _requests() -> dict[str, FederationRequest]:
    """Each strategy with one model, each model with one strategy, and what else may differ between engines."""

    def ask(model_name: str, strategy_name: str, **more: Any) -> FederationRequest:
        settings = more.pop("settings", ({},))
        spec = strategy.load(strategy_name)
        if spec.min_sites(spec.options) > SITES:  # Bulyan bears one liar among seven
            more["config"] = {"byzantine": 0}
        return FederationRequest(
            model=model_name, strategy=strategy_name, settings=settings, **{"rounds": 2, "seed": 3, **more}
        )

    models = ["mlp", *model.names()]
    pairs = [(_first(models, lambda m, s=name: _goes(m, s)), name) for name in strategy.federated()]  # type: ignore[misc]
    strategies = ["fedavg", *strategy.federated()]
    pairs += [(name, _first(strategies, lambda s, m=name: _goes(m, s))) for name in model.names()]  # type: ignore[misc]
    faults = FaultPlan.model_validate(FAULTS)
    return {
        **{f"{name} with {how}": ask(name, how) for name, how in dict.fromkeys(pairs)},
        "faults": ask("logistic", "fedavg", faults=faults, rounds=3, settings=({}, {"step_size": 0.03})),
        "half of the sites": ask("logistic", "fedavg", fraction=0.5, rounds=3),
        "a class of the user's": ask("logistic", "mylab_engines:Damped"),
        "with privacy": ask("logistic", "scaffold", settings=None, privacy=Terms(epsilon=30, noise="seeded")),
        "noise that sites share": ask(
            "logistic",
            "fedavg",
            settings=None,
            secure_aggregation=True,
            privacy=Terms(epsilon=4, delta=0.1 / 128, noise="seeded", place="distributed"),
        ),
        "sums only": ask("mlp", "fedadam", secure_aggregation=True),
        "a start of its own": ask("logistic", "mylab_engines:OwnStart"),
    }


@pytest.fixture
def mylab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the user's in a folder that is on the path of this process, and nowhere else."""
    (tmp_path / "mylab").mkdir()
    (tmp_path / "mylab" / "mylab_engines.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path / "mylab"))


def _tuning_loss(sites: list[SiteSamples], result: FederationResult) -> float:
    """Of the predictions, over all tuning samples."""
    tuning = {site.site: site.split == "tuning" for site in sites}
    losses = [log_loss(s.label[tuning[s.site]], result.predictions[s.site][tuning[s.site]]) for s in sites]
    return float(np.concatenate(losses).mean())


def test_flowers_simulation_comes_to_what_the_process_alone_comes_to(
    clinics: list[SiteSamples], told: Any, mylab: None, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All federations in one simulation, each held against its twin: models, predictions, trials, rounds, bytes."""
    requests = _requests()
    sites, training = [*clinics[:SITES], clinics[-1]], clinics[:SITES]
    with ThreadPoolExecutor(1) as aside:
        simulating = aside.submit(simulation.run, training, list(requests.values()), lambda report: None)
        alone = {name: run_federation(sites, request) for name, request in requests.items()}
        outcomes, memories, ledgers = simulating.result()
    assert list((home / "checkpoints").iterdir()) == []
    differ: dict[str, list[str]] = {}
    for (name, request), *found in zip(requests.items(), outcomes, memories, ledgers, strict=True):
        there = tuple([one] for one in found)
        monkeypatch.setattr(simulation, "run", lambda *_, there=there: there)
        simulated = run_federation(sites, request.model_copy(update={"engine": "simulation"}))
        inline = alone[name]
        ours, theirs = told(inline), told(simulated)
        different = [key for key in ours if ours[key] != theirs[key]]
        loss = inline.trials[inline.chosen or 0].tuning_loss
        assert (loss is None) == (request.privacy is not None)
        if loss is not None and not np.isclose(_tuning_loss(training, inline), loss, rtol=1e-6):
            different.append("the chosen round's tuning loss is not that of the predictions")
        if different:
            differ[name] = different
    assert differ == {}, differ
