"""The models at hand and how they are found."""

import subprocess
import sys
from pathlib import Path

import pytest

from fedcore.models import model
from fedcore.strategies import strategy
from sites.errors import InputError


def test_a_model_is_there_because_its_file_is() -> None:
    assert model.names() == ["gru", "logistic", "trees"]
    assert [model.load(name).name for name in model.names()] == model.names()


def test_a_strategy_is_there_because_its_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fedcore.strategies
    from bench.plan import Choice, check_names
    from bench.suite import SuiteSpec

    (tmp_path / "fedtwin.py").write_text((strategy.FOLDER / "fedavg.py").read_text())
    monkeypatch.setattr(strategy, "FOLDER", tmp_path)
    monkeypatch.setattr(fedcore.strategies, "__path__", [*fedcore.strategies.__path__, str(tmp_path)])
    assert strategy.names() == ["local", "pooled", "fedtwin"]
    assert strategy.load("fedtwin").__module__ == strategy.module("fedtwin") == "fedcore.strategies.fedtwin"
    suite = SuiteSpec(
        name="s",
        version="1",
        description="d",
        tasks=("mortality/in_hospital/first_24h",),
        entries=[{"model": "logistic", "strategies": ["fedtwin"]}],
        seeds=(0,),
    )
    check_names(suite, Choice())


def test_unknown_model_and_strategy_are_named_with_what_there_is() -> None:
    with pytest.raises(InputError, match="unknown model 'gpt'; expected one of gru, logistic, trees"):
        model.load("gpt")
    with pytest.raises(InputError, match="unknown strategy 'fedsomething'; expected one of local, pooled, fedavg"):
        strategy.load("fedsomething")


def test_registry_helpers_are_no_models() -> None:
    with pytest.raises(InputError):
        model.load("model")
    with pytest.raises(InputError):
        strategy.load("strategy")


def test_trees_are_an_anchor_only() -> None:
    with pytest.raises(InputError, match="'trees' is an anchor only; use strategy pooled or local"):
        model.load("trees").recipe("federated")


@pytest.mark.parametrize("name", ["gru", "logistic", "trees"])
def test_every_setting_of_a_recipe_names_the_same_hyperparameters(name: str) -> None:
    spec = model.load(name)
    for recipe in (spec.federated, spec.alone):
        if recipe is not None:
            assert {frozenset(setting) for setting in (*recipe.settings, recipe.untuned)} == {frozenset(recipe.untuned)}


def test_listing_models_and_reading_their_recipes_loads_no_torch() -> None:
    code = (
        "import sys; from fedcore.models import model; from fedcore.strategies import strategy;"
        "[model.load(n).representation for n in model.names()]; strategy.names();"
        "print([m for m in ('torch', 'flwr', 'xgboost') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
