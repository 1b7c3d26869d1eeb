"""The strategies at hand: how they are found, and which models they go with."""

from pathlib import Path
from typing import Any

import pytest

from fedcore.models import model
from fedcore.strategies import strategy
from sites.errors import InputError


def test_a_strategy_is_there_because_its_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fedcore.strategies
    from bench.plan import Choice, check_names
    from bench.suite import SuiteSpec

    before = strategy.names()
    (tmp_path / "fedtwin.py").write_text(strategy.STRATEGIES.files()["fedavg"].read_text())
    monkeypatch.setattr(fedcore.strategies, "__path__", [*fedcore.strategies.__path__, str(tmp_path)])
    assert before[:3] == ["local", "pooled", "external"]
    assert set(strategy.names()) - set(before) == {"fedtwin"}
    assert strategy.module("fedtwin") == "fedcore.strategies.fedtwin"
    assert strategy.load("fedtwin").title == "FedAvg"
    suite = SuiteSpec(
        name="s",
        version="1",
        description="d",
        tasks=("mortality/in_hospital/first_24h",),
        entries=[{"model": "logistic", "strategies": ["fedtwin"]}],
        seeds=(0,),
    )
    check_names(suite, Choice())


def test_an_unknown_strategy_is_named_with_what_there_is() -> None:
    with pytest.raises(
        InputError, match=r"unknown strategy 'fedbest'; expected one of local, pooled, external, .*fedavg"
    ):
        strategy.load("fedbest")


def test_the_registry_is_no_strategy_of_its_own() -> None:
    with pytest.raises(InputError):
        strategy.load("strategy")


@pytest.mark.parametrize("name", strategy.names())
def test_every_strategy_says_what_it_is_and_declares_options_within_their_ranges(name: str) -> None:
    spec = strategy.load(name)
    assert spec.title
    assert spec.when
    assert (spec.paper == "") is (name in strategy.ANCHORS)
    assert set(spec.ranges) <= set(spec.options)
    for option, values in spec.ranges.items():
        assert values.low <= spec.options[option] <= values.high
    assert spec.min_sites(dict(spec.options)) >= 1


@pytest.mark.parametrize("name", strategy.federated())
def test_every_strategy_goes_with_a_model_at_hand(name: str) -> None:
    assert [m for m in model.names() if strategy.load(name).lacks(model.load(m)) is None]


@pytest.mark.parametrize("name", strategy.federated())
def test_no_strategys_option_bears_the_name_of_a_hyperparameter_of_its_models(name: str) -> None:
    """They stand in one setting."""
    spec = strategy.load(name)
    for other in model.names():
        recipe = model.load(other).federated
        if recipe is not None and spec.lacks(model.load(other)) is None:
            assert not set(spec.options) & set(recipe.untuned)


@pytest.mark.parametrize(
    ("needs", "changes", "lacking"),
    [
        ("network", {}, None),
        ("network", {"kind": "trees"}, "a network"),
        ("trees", {}, "trees"),
        ("trees", {"kind": "trees"}, None),
        ("head", {"head": ()}, "a head of its own"),
        ("head", {"head": ("output.",)}, None),
        ("head", {"head": ("output.",), "kind": "trees"}, "a network"),
        ("norms", {"norms": ()}, "batch normalisation"),
        ("norms", {"norms": ("norm.",)}, None),
        ("embedding", {"embeds": False}, "an embedding"),
        ("embedding", {"embeds": True}, None),
    ],
)
def test_what_a_model_lacks_for_a_strategy_is_said(needs: Any, changes: dict[str, Any], lacking: str | None) -> None:
    base = model.load("logistic")
    made = model.ModelSpec(**{**{f: getattr(base, f) for f in base.__dataclass_fields__}, **changes})
    spec = strategy.StrategySpec(build=strategy.load("fedavg").build, title="t", paper="p", when="w", needs=needs)
    assert spec.lacks(made) == lacking
