"""The models at hand and how they are found."""

import subprocess
import sys

import pytest

from fedcore.models import model
from sites.errors import InputError


def test_a_model_is_there_because_its_file_is() -> None:
    assert model.names() == ["gru", "logistic", "trees"]
    assert [model.load(name).name for name in model.names()] == model.names()


def test_an_unknown_model_is_named_with_what_there_is() -> None:
    with pytest.raises(InputError, match=r"unknown model 'gpt'; expected one of gru, .*trees.*, or module:NAME"):
        model.load("gpt")


def test_registry_helpers_are_no_models() -> None:
    with pytest.raises(InputError):
        model.load("model")


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
