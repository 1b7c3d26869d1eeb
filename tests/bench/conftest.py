"""Small federations for tests of the command line."""

import io
import json
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest

SUITE = """
name: small
version: 1.0.0
description: Two strategies on small simulated hospitals
tasks: [mortality/in_hospital/first_24h]
entries:
  - {model: logistic, strategies: [local, pooled, fedavg]}
seeds: [0]
rounds: 2
evaluation: {replicates: 100}
"""


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Bench = Callable[..., Ended]


@pytest.fixture
def bench() -> Bench:
    """Runs a command line in this process: `bench("run", "--suite", path)`."""
    from bench import cli, output

    def run(*arguments: str) -> Ended:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            for console, file in ((output.out, out), (output.err, err)):
                console.file = file
            try:
                code = cli.run([str(argument) for argument in arguments])
            finally:
                for console in (output.out, output.err):
                    console.file = None  # type: ignore[assignment]
        return Ended(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every test here may find ready: datasets, cohorts and features, but no predictions."""
    return tmp_path_factory.mktemp("ingested")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, ingested: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A FEDWARD_HOME of its own for every test, with what is costly to make shared."""
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    for shared in ("datasets", "cohorts", "features"):
        (ingested / shared).mkdir(exist_ok=True)
        (path / shared).symlink_to(ingested / shared)
    monkeypatch.setenv("FEDWARD_HOME", str(path))
    return path


@pytest.fixture(scope="session")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three small simulated exports, as `--site` takes them: MIMIC-IV, OMOP and eICU formats."""
    from sites.simulate.federation import simulate

    written = simulate(
        tmp_path_factory.mktemp("hospitals") / "simulated", hospitals=6, patients_per_hospital=400, seed=3
    )
    by_kind = {site.kind: str(site.spec) for site in written}
    return [by_kind["mimic4"], by_kind["omop"], by_kind["eicu"]]


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A suite of three cells (and the oracle's)."""
    path = tmp_path / "small.yaml"
    path.write_text(SUITE)
    return path


@pytest.fixture
def asked(suite: Path, hospitals: list[str], tmp_path: Path) -> list[str]:
    """The options of a small run, its records under the test's own folder."""
    sites = [text for site in hospitals for text in ("--site", site)]
    return ["--suite", str(suite), *sites, "--out", str(tmp_path / "records")]
