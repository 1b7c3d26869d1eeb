"""`make mutation-privacy`: each line that privacy rests on is broken in turn, and the test that has to notice is run.

A mutant (`mutants.py`, `guarding.py`) is a text in a file, what it is replaced by, and the tests that must fail then.
It is applied to a copy of the tree. The exit code is 1 if one survives, if its text does not stand in its file exactly
once, or if the tests fail without any mutant. `--only WORD` runs the mutants whose name or file has that word, and
writes no page.
"""

import argparse
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from mutant import Mutant
from mutants import MUTANTS

os.environ["OMP_NUM_THREADS"] = "1"
HEAVY = (
    "torch",
    "opacus",
    "dp_accounting.pld.privacy_loss_distribution",
    "flwr.serverapp",
    "flwr.clientapp",
    "scipy.stats",
    "sklearn.metrics",
    "polars",
    "pydantic",
    "hypothesis.strategies",
)
"""What takes long to load, and is not ours."""

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "verification.md"
RESULTS = HERE / "results.json"
BEGIN, END = "<!-- mutants -->", "<!-- end of mutants -->"
COPIED = ("privacy", "fedcore", "sites", "leaderboard", "benchmarks", "tests", "pyproject.toml")
LIMIT_S = 120
FAILED = 1
"""How pytest ends where a test failed; other codes than this and 0 say that it could not run."""
NOT_THE_COPY = 97


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: `killed`, `survived`, or why it could not be tried."""

    name: str
    file: str
    tests: tuple[str, ...]
    became: str
    seconds: float


def ended(tree: Path, tests: tuple[str, ...]) -> int:
    """The exit code of pytest for these tests in that tree; a test that hangs has failed.

    It runs in a fork of this process, which has loaded what takes long to load.
    """
    child = os.fork()
    if child == 0:
        signal.alarm(LIMIT_S)
        os._exit(_in_child(tree, tests))
    status = os.waitpid(child, 0)[1]
    return FAILED if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)


def _in_child(tree: Path, tests: tuple[str, ...]) -> int:
    os.chdir(tree)
    own = [str(tree), str(tree / "benchmarks")]
    sys.path[:0], sys.dont_write_bytecode = own, True
    os.environ |= {"PYTHONPATH": os.pathsep.join(own), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    privacy = importlib.import_module("privacy")
    if not str(privacy.__file__).startswith(str(tree)):
        return NOT_THE_COPY
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]))


def tried(tree: Path, mutant: Mutant) -> Outcome:
    """Apply it, run its tests, take it back."""
    path, started = tree / mutant.file, time.perf_counter()
    whole = path.read_text(encoding="utf-8")
    if (times := whole.count(mutant.find)) != 1:
        return Outcome(mutant.name, mutant.file, mutant.tests, f"its text stands there {times} times", 0.0)
    path.write_text(whole.replace(mutant.find, mutant.replacement), encoding="utf-8")
    try:
        code = ended(tree, mutant.tests)
    finally:
        path.write_text(whole, encoding="utf-8")
    became = {FAILED: "killed", 0: "survived"}.get(code, f"pytest ended with {code}")
    return Outcome(mutant.name, mutant.file, mutant.tests, became, round(time.perf_counter() - started, 1))


def page(outcomes: list[Outcome]) -> list[str]:
    """What docs/verification.md says of it."""
    killed = sum(one.became == "killed" for one in outcomes)
    lines = [
        f"{killed} of {len(outcomes)} mutants are killed; {datetime.now(UTC):%Y-%m-%d}.",
        "",
        "| file | what is broken | test | |",
        "|---|---|---|---|",
    ]
    for one in outcomes:
        tests = ", ".join(f"`{test.rpartition('::')[2]}`" for test in one.tests)
        state = one.became if one.became == "killed" else f"**{one.became}**"
        lines.append(f"| `{one.file}` | {one.name} | {tests} | {state} |")
    return lines


def main() -> None:
    """Try the mutants, and write what became of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    only = parser.parse_args().only
    chosen = [one for one in MUTANTS if only in one.name or only in one.file]
    for name in HEAVY:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
            else:
                shutil.copy(source, tree / name)
        if ended(tree, tuple(dict.fromkeys(test for one in chosen for test in one.tests))):
            sys.exit("the tests fail without a mutant; mend them first")
        outcomes = []
        for one in chosen:
            outcomes.append(tried(tree, one))
            print(f"{outcomes[-1].became}: {one.file}: {one.name} ({outcomes[-1].seconds} s)", flush=True)
    if not only:
        found = [vars(one) for one in outcomes]
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        tail = rest.partition(END)[2]
        PAGE.write_text(head + BEGIN + "\n\n" + "\n".join(page(outcomes)) + "\n\n" + END + tail, encoding="utf-8")
    sys.exit(0 if all(one.became == "killed" for one in outcomes) else 1)


if __name__ == "__main__":
    main()
