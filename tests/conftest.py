"""What every test may use."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of openly licensed hospital data; tests that need it skip where it is absent."""
    root = Path(__file__).parent.parent
    path = (root / os.environ.get("FEDWARD_REAL_DATA", "../shared/data")).resolve()
    if not path.is_dir():
        pytest.skip(f"no real data at {path}; set FEDWARD_REAL_DATA to the folder that holds it")
    return path


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A FEDWARD_HOME of its own for every test."""
    path = tmp_path / "home"
    monkeypatch.setenv("FEDWARD_HOME", str(path))
    return path
