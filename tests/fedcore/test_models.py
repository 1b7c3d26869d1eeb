"""The models at hand and how they are found."""

import subprocess
import sys
from dataclasses import replace

import pytest

from fedcore.models import model
from sites.errors import InputError


def test_a_model_is_there_because_its_file_is() -> None:
    assert model.names() == ["gru", "logistic", "mlp", "retain", "transformer", "trees"]
    assert [model.load(name).name for name in model.names()] == model.names()


def test_an_unknown_model_is_named_with_what_there_is() -> None:
    with pytest.raises(InputError, match=r"unknown model 'gpt'; expected one of gru, .*trees.*, or module:NAME"):
        model.load("gpt")


def test_registry_helpers_are_no_models() -> None:
    with pytest.raises(InputError):
        model.load("model")


def test_a_model_without_a_federated_recipe_is_an_anchor_only() -> None:
    anchor = replace(model.load("trees"), federated=None)
    with pytest.raises(InputError, match="'trees' is an anchor only; use strategy pooled or local"):
        anchor.recipe("federated")


def test_trees_train_across_sites_and_are_no_network() -> None:
    spec = model.load("trees")
    assert spec.kind == "trees"
    assert spec.recipe("federated").rounds > 0
    assert not spec.embeds
    assert spec.head == spec.norms == ()


@pytest.mark.parametrize("kind", ["federated", "alone"])
@pytest.mark.parametrize("name", model.names())
def test_every_setting_of_a_recipe_names_the_same_hyperparameters(name: str, kind: str) -> None:
    recipe = model.load(name).recipe(kind)
    assert {frozenset(setting) for setting in (*recipe.settings, recipe.untuned)} == {frozenset(recipe.untuned)}
    assert recipe.untuned_rounds <= recipe.rounds


@pytest.mark.parametrize("name", model.names())
def test_a_federation_tries_as_many_settings_as_one_body_of_data(name: str) -> None:
    spec = model.load(name)
    assert len(spec.recipe("federated").settings) == len(spec.recipe("alone").settings)


@pytest.mark.parametrize("kind", ["federated", "alone"])
@pytest.mark.parametrize("name", model.names())
def test_the_declared_settings_lie_in_the_ranges_a_tuner_draws_from(name: str, kind: str) -> None:
    recipe = model.load(name).recipe(kind)
    assert "l2" in recipe.ranges
    assert set(recipe.ranges) <= set(recipe.untuned)
    for key, choice in recipe.ranges.items():
        assert all(choice.low <= setting[key] <= choice.high for setting in (*recipe.settings, recipe.untuned)), key
        assert choice.low <= choice.at(0.0) <= choice.at(0.999) <= choice.high


def test_listing_models_and_reading_their_recipes_loads_no_torch() -> None:
    code = (
        "import sys; from fedcore.models import model; from fedcore.strategies import strategy;"
        "[model.load(n).representation for n in model.names()]; strategy.names();"
        "print([m for m in ('torch', 'flwr', 'xgboost') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
