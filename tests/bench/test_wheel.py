"""What is installed is whole: a wheel runs from another folder, with its suites, tasks and tables."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of what git tracks, so that no leftover of a build gets in."""
    folder = tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / name).write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, folder / "source", cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_every_table_and_no_test(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for room in ("sites", "fedcore", "privacy", "leaderboard", "benchmarks/bench"):
        for path in (ROOT / room).rglob("*.yaml"):
            inside = path.relative_to(ROOT / "benchmarks" if room.startswith("benchmarks") else ROOT)
            assert inside.as_posix() in names
    assert not any(name.startswith(("tests", "perf", "benchmarks/")) for name in names)


@pytest.mark.slow
def test_the_wheel_runs_the_suite_in_an_environment_of_its_own_from_another_folder(
    wheel: Path, hospitals: list[str], tmp_path: Path
) -> None:
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    inside = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    # The libraries come from this environment; a plain path, so that its editable install of FedWard does not.
    (inside / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--force-reinstall")
    run(*pip, "--target", inside, wheel, cwd=tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    bench = "import sys; from bench.cli import main; sys.argv[0] = 'bench'; main()"
    where = run(python, "-c", "import bench, sites; print(bench.__file__, sites.__file__)", cwd=elsewhere)
    assert all(path.startswith(str(inside)) for path in where.split())
    assert "mortality" in run(python, "-c", bench, "list", "suites", cwd=elsewhere)
    task = ("--task", "mortality/in_hospital/first_24h", "--seeds", "1", "--rounds", "2", "--jobs", "1")
    sites = [text for site in hospitals for text in ("--site", site)]
    only = ("--only", "model=logistic,strategy=fedavg")
    run(python, "-c", bench, "run", "--suite", "quickstart", *sites, *task, *only, cwd=elsewhere)
    assert list(elsewhere.glob("results/runs/quickstart/*/*/*.json"))
