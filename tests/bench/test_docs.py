"""Every command in docs/ and README.md runs as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)(?: name=(\S+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str | None, str]]:
    return [(kind, name, text) for kind, name, text in BLOCK.findall(page.read_text(encoding="utf-8"))]


def commands(page: Path) -> list[str]:
    return [
        line.removeprefix("$ ")
        for kind, _, text in blocks(page)
        if kind == "console"
        for line in text.splitlines()
        if line.startswith("$ ")
    ]


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages share what they ingest, as a reader's shell would."""
    return tmp_path_factory.mktemp("docs") / "home"


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.stem)
def test_every_command_of_the_page_runs(page: Path, tmp_path: Path, shared_home: Path) -> None:
    data = Path(os.environ.get("FEDWARD_REAL_DATA", "../shared/data"))
    data = (ROOT / data).resolve()
    for _, name, text in blocks(page):
        if name:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
    environment = {
        **os.environ,
        "FEDWARD_HOME": str(shared_home),
        "DATA": str(data),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    for command in commands(page):
        if "$DATA" in command and not data.is_dir():
            pytest.skip(f"no real data at {data}; set FEDWARD_REAL_DATA to the folder that holds it")
        expected = int(match[1]) if (match := re.search(r"# exit (\d+)$", command)) else 0
        done = subprocess.run(
            ["bash", "-c", command], check=False, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == expected, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
