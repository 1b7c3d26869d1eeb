"""docs/strategies.md says what the strategies' files say."""

import importlib
from pathlib import Path

from fedcore.local import Plain
from fedcore.models.model import Range
from fedcore.strategies import strategy
from fedcore.strategies.strategy import StrategySpec

PAGE = Path(__file__).parents[3] / "docs" / "strategies.md"


def _option(name: str, value: float, span: Range | None) -> str:
    return f"`{name}` {value:g}" + (f" ({span.low:g} to {span.high:g})" if span else "")


def _row(name: str, spec: StrategySpec) -> str:
    """A strategy as the table has it; what it is stands in the first line of its file."""
    first = str(importlib.import_module(strategy.module(name)).__doc__).partition("\n")[0]
    what = first.partition(": ")[2].rstrip(".")
    options = ", ".join(_option(key, value, spec.ranges.get(key)) for key, value in spec.options.items())
    cells = [f"`{name}`", spec.title, what, spec.paper, spec.when, str(spec.min_sites(spec.options)), options]
    return f"| {' | '.join(cells)} |"


def test_the_tables_are_the_registry() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    found = [line for line in lines if line.startswith("| `") and line.count(" | ") == 6]
    specs = [(name, strategy.load(name)) for name in strategy.federated()]
    specs.sort(key=lambda entry: type(entry[1].local).personal is not Plain.personal)  # the personalised ones last
    expected = [_row(name, spec) for name, spec in specs]
    assert found == expected, "\n".join(expected)


def test_options_are_no_models_hyperparameters_and_ranges_hold_their_defaults() -> None:
    taken = {"step_size", "epochs", "batch_size", "l2", "dropout", "depth", "trees", "subsample", "colsample"}
    for name in strategy.federated():
        spec = strategy.load(name)
        assert not taken & set(spec.options), name
        assert set(spec.ranges) <= set(spec.options), name
        for option, span in spec.ranges.items():
            assert span.low <= spec.options[option] <= span.high, (name, option)
