from pathlib import Path

import pytest

from bench.commands.grid import Asked, cells_of
from bench.plan import Choice, check_names
from bench.suite import load_suite, names
from sites.errors import InputError

GOOD = """
name: mine
version: 1.0.0
description: d
tasks: [mortality/in_hospital/first_24h]
entries: [{model: logistic, strategies: [fedavg]}]
seeds: [0]
"""


def test_the_suites_that_come_with_fedward_load_under_their_own_name() -> None:
    assert "mortality" in names()
    assert all(load_suite(name).name == name for name in names())


def test_an_unknown_suite_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(InputError, match=r"no suite 'mortalty'.*mortality"):
        load_suite("mortalty")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD.replace("seeds: [0]", "seeds: []"), "seeds"),
        (GOOD.replace("[fedavg]", "fedavg"), "entries.0.strategies"),
        (GOOD + "colour: red\n", "colour"),
        (GOOD.replace("[fedavg]", "[fedavg], config: {epochs: many}"), "entries.0.config.epochs"),
        (GOOD.replace("[fedavg]", "[fedavg], config: {epochs: true}"), "entries.0.config.epochs"),
        ("name: [", "not YAML"),
        ("", "the file"),
    ],
)
def test_a_broken_suite_file_gets_one_sentence_with_the_place(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_suite(str(path))
    assert str(path) in str(caught.value) and says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("{model: gpt, strategies: [fedavg]}", "unknown model 'gpt'; expected one of gru, logistic"),
        ("{model: gru, strategies: [fedbest]}", "unknown strategy 'fedbest'; expected one of local, pooled, external"),
        ("{model: trees, strategies: [fedavg]}", "strategy 'fedavg' needs"),
        (
            "{model: logistic, strategies: [fedprox], config: {mu: -1}}",
            "option 'mu' is -1; expected a number of at least 0",
        ),
        ("{model: gru, strategies: [fedavg], config: {lr: 1}}", "unknown hyperparameter 'lr' of gru"),
        ("{model: gru, strategies: [fedavg], config: {epochs: 0}}", "option 'epochs' is 0; expected a whole number"),
        (
            "{model: gru, strategies: [fedavg], config: {dropout: 1.0}}",
            "option 'dropout' is 1.0; expected a number of at least 0 and below 1",
        ),
        (
            "{model: logistic, strategies: [pooled], config: {epochs: 2}}",
            "unknown hyperparameter 'epochs' of logistic with pooled; expected l2",
        ),
    ],
)
def test_what_no_cell_could_run_is_refused_before_any_does(tmp_path: Path, entry: str, says: str) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(GOOD.replace("{model: logistic, strategies: [fedavg]}", entry))
    with pytest.raises(InputError) as caught:
        check_names(load_suite(str(path)), Choice())
    assert says in str(caught.value) and "suite mine" in str(caught.value)


def test_a_range_of_what_nothing_draws_is_refused_with_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(GOOD + "tune: {settings: 2, ranges: {stepsize: [0.1, 1]}}\n")
    with pytest.raises(InputError, match=r"tune.ranges: found 'stepsize'.*step_size"):
        check_names(load_suite(str(path)), Choice())


def test_every_strategy_tries_as_many_settings_and_the_same_step_sizes(tmp_path: Path) -> None:
    from bench import tuning
    from fedcore.models import model
    from fedcore.strategies import strategy

    logistic = model.load("logistic")
    drawn = {
        name: tuning.settings(logistic, strategy.load(name), "federated", 5, {}, {"l2": 0.1})
        for name in ("fedavg", "fedprox", "ditto")
    }
    assert {len(settings) for settings in drawn.values()} == {5}
    steps = {tuple(setting["step_size"] for setting in settings) for settings in drawn.values()}
    assert len(steps) == 1 and len(set(next(iter(steps)))) == 5


def test_a_users_strategy_that_cannot_be_made_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lab_needs.py").write_text(
        "from flwr.serverapp.strategy import FedAvg\n"
        "class NeedsAlpha(FedAvg):\n    def __init__(self, alpha):\n        super().__init__()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "suite.yaml"
    path.write_text(GOOD.replace("fedavg", "'lab_needs:NeedsAlpha'"))
    with pytest.raises(InputError, match=r"NeedsAlpha cannot be made: .* 'alpha'"):
        check_names(load_suite(str(path)), Choice())


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("epsilon: [0]", "epsilon.0"),
        ("epsilon: [.inf]", "epsilon.0"),
        ("evaluation: {columns: [auprc, acuracy]}", "evaluation.columns: found 'acuracy', expected "),
    ],
)
def test_what_is_no_budget_and_no_column_is_refused(tmp_path: Path, more: str, says: str) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(GOOD + more + "\n")
    with pytest.raises(InputError, match=says):
        check_names(load_suite(str(path)), Choice())


def test_a_budget_that_no_cell_can_keep_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(GOOD.replace("logistic, strategies: [fedavg]", "mlp, strategies: [fedper]") + "epsilon: [4]\n")
    with pytest.raises(InputError, match="none of its cells can be trained with patient-level privacy"):
        check_names(load_suite(str(path)), Choice())


def test_an_option_that_takes_the_place_of_a_suites_axis_does_so_for_entries_that_chose_of_it_and_anchors_stay(
    tmp_path: Path,
) -> None:
    path = tmp_path / "suite.yaml"
    chosen = "[{model: logistic, strategies: [fedavg, pooled], epsilon: [8]}]"
    path.write_text(GOOD.replace("[{model: logistic, strategies: [fedavg]}]", chosen) + "epsilon: [8, 2, null]\n")

    def budgets(epsilon: list[float] | None) -> set[tuple[str, float | None]]:
        cells, _, _ = cells_of(Asked(suite=str(path), epsilon=epsilon), tmp_path / "out", quiet=True)
        return {(cell.spec.strategy.name, cell.spec.privacy and cell.spec.privacy.epsilon) for cell in cells}

    assert budgets(None) == {("fedavg", 8), ("pooled", None), ("truth", None)}
    assert budgets([4.0]) == {("fedavg", 4), ("pooled", None), ("truth", None)}
