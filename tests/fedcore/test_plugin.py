"""What a user names as `module:NAME`: found in the current folder, or refused with one sentence."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedcore.models import model
from fedcore.plugin import is_plugin, named, plugin_module
from fedcore.rule import Roster
from fedcore.strategies import strategy
from sites.errors import InputError

Write = Callable[[str], str]

STRATEGIES = '''
from flwr.serverapp.strategy import FedAvg, FedProx, Strategy
from fedcore.strategies.strategy import StrategySpec, load

class Mine(FedAvg):
    """Mine: as FedAvg, with a twist.

    More of it.
    """

class Half(Strategy):
    def summary(self): ...
    def configure_train(self, server_round, arrays, config, grid): ...

class Asks(FedAvg):
    def __init__(self, what):
        super().__init__()

class Few(FedAvg):
    def __init__(self, fraction_train=1.0):
        super().__init__(fraction_train=fraction_train)

class NoStrategy: ...

def function(): ...

number = 5
spec = StrategySpec(build=load("fedavg").build, title="Spec", paper="p", when="w", options={"twist": 0.5})
instance = FedAvg()
'''


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module of the user's into a folder on the path; returns its name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def make(text: str) -> str:
        name = f"mylab{len(list(tmp_path.iterdir()))}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    yield make
    for name in set(sys.modules) - before:
        if name.startswith("mylab"):
            del sys.modules[name]


def _sentence(refusal: "pytest.ExceptionInfo[InputError]") -> str:
    text = str(refusal.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


@pytest.mark.parametrize("name", ["fedavg", "local", ""])
def test_a_name_without_a_colon_is_no_plugin(name: str) -> None:
    assert not is_plugin(name)


@pytest.mark.parametrize("name", [":", "a:", ":B", "a b:C", "a.:C", "a:B:C", "a:B.C", "../a:B", "a:B()", "a-b:C"])
def test_what_is_not_written_module_and_name_is_refused_before_anything_is_imported(name: str) -> None:
    assert is_plugin(name)
    for use in (plugin_module, strategy.load, model.load):
        with pytest.raises(InputError, match=r"expected module:NAME, as mylab\.strategies:MyStrategy") as refusal:
            use(name)
        _sentence(refusal)


def test_a_missing_module_is_told_with_where_it_was_looked_for(write: Write, tmp_path: Path) -> None:
    for name in ("mylab_absent:Mine", "mylab_absent.deep:Mine"):
        with pytest.raises(InputError, match="cannot be imported: found no such module in") as refusal:
            named(name, "strategy")
        assert str(tmp_path) in _sentence(refusal)
        assert f"the strategy {name}" in str(refusal.value)


def test_a_module_that_misses_another_is_told_which(write: Write) -> None:
    module = write("import mylab_needs_this\n")
    with pytest.raises(InputError, match="No module named 'mylab_needs_this'") as refusal:
        named(f"{module}:Mine", "strategy")
    assert "no such module in" not in _sentence(refusal)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("def f(:\n", "SyntaxError"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        ("raise ValueError('two\\nlines')\n", "ValueError: two lines"),
    ],
)
def test_a_module_that_fails_is_told_with_its_reason(text: str, reason: str, write: Write) -> None:
    module = write(text)
    with pytest.raises(InputError, match="cannot be imported") as refusal:
        named(f"{module}:Mine", "strategy")
    assert reason in _sentence(refusal)


def test_a_missing_name_is_told_with_what_the_module_has(write: Write) -> None:
    module, empty = write("class Mine: ...\nclass Yours: ...\n_hidden = 1\n"), write("")
    with pytest.raises(InputError, match=f"the module {module} has no Ours; it has Mine, Yours$") as refusal:
        named(f"{module}:Ours", "strategy")
    _sentence(refusal)
    with pytest.raises(InputError, match="has no Ours; it has nothing"):
        named(f"{empty}:Ours", "strategy")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("NoStrategy", "is NoStrategy; expected a class that extends flwr.serverapp.strategy.Strategy"),
        ("function", "is function; expected a class"),
        ("number", "is int; expected a class"),
        ("instance", "is FedAvg; expected a class"),
        ("Half", "lacks aggregate_evaluate, aggregate_train, configure_evaluate; a Flower strategy defines them"),
    ],
)
def test_what_is_no_strategy_is_refused(name: str, sentence: str, write: Write) -> None:
    module = write(STRATEGIES)
    with pytest.raises(InputError, match=sentence) as refusal:
        strategy.load(f"{module}:{name}")
    assert _sentence(refusal).startswith(f"{module}:{name} ")


def test_a_flower_class_is_a_strategy_unchanged(write: Write) -> None:
    module = write(STRATEGIES)
    spec = strategy.load(f"{module}:Mine")
    assert (spec.title, spec.paper) == (f"{module}:Mine", "Mine: as FedAvg, with a twist.")
    made = spec.build(Roster(sites=3, samples=100, min_sites=2, fraction=0.5), {})
    assert type(made).__name__ == "Mine"
    assert (made.fraction_train, made.min_train_nodes, made.min_available_nodes) == (0.5, 2, 2)  # type: ignore[attr-defined]
    assert strategy.load("flwr.serverapp.strategy:FedProx").lacks(model.load("logistic")) is None


def test_a_flower_class_of_few_arguments_is_given_those_it_takes(write: Write) -> None:
    made = strategy.load(f"{write(STRATEGIES)}:Few").build(Roster(sites=3, samples=100, fraction=0.5), {})
    assert made.fraction_train == 0.5  # type: ignore[attr-defined]


def test_a_flower_class_that_wants_more_is_refused_when_it_is_made(write: Write) -> None:
    spec = strategy.load(f"{write(STRATEGIES)}:Asks")
    with pytest.raises(InputError, match=r"Asks cannot be made: .*'what'") as refusal:
        spec.build(Roster(sites=3, samples=100), {})
    _sentence(refusal)


def test_a_spec_of_the_users_own_is_taken_as_it_is(write: Write) -> None:
    module = write(STRATEGIES)
    assert strategy.load(f"{module}:spec").options == {"twist": 0.5}


def test_what_is_no_model_is_refused(write: Write) -> None:
    module = write("from fedcore.models.logistic import MODEL\nnumber = 5\n")
    assert model.load(f"{module}:MODEL").name == "logistic"
    with pytest.raises(InputError, match=r"number is a int; expected a fedcore\.models\.model\.ModelSpec") as refusal:
        model.load(f"{module}:number")
    _sentence(refusal)
