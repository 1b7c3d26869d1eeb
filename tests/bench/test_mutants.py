"""Each mutant of the privacy code can be made, and the test that has to notice it exists."""

import ast
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def mutants(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "mutation"))
    from mutants import MUTANTS

    yield MUTANTS
    for name in ("mutants", "mutant", "guarding"):
        sys.modules.pop(name, None)


@cache
def _text(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


@cache
def _functions(file: str) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(_text(file))) if isinstance(node, ast.FunctionDef)}


def test_each_mutants_text_stands_in_its_file_once(mutants: Any) -> None:
    found = {f"{one.file}: {one.name}": _text(one.file).count(one.find) for one in mutants}
    assert {name: times for name, times in found.items() if times != 1} == {}
    assert len(found) == len(mutants), "two of one file have one name"
    assert all(one.replacement not in (one.find, "") for one in mutants)


def test_each_mutants_tests_exist(mutants: Any) -> None:
    tests = {test for one in mutants for test in one.tests}
    assert [test for test in tests if test.partition("::")[2] not in _functions(test.partition("::")[0])] == []
