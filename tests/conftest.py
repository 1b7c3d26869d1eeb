"""What every test may use."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("fedward", deadline=None)  # a busy machine is no defect
settings.load_profile("fedward")


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


@pytest.fixture(scope="session")
def real_sites(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Any]]:
    """`real_sites("usa=eicu,by=region:eicu_demo_2.0.1")`: the sites of a real export, ingested once for all tests.

    The path lies in the folder of real data; one inside a zip file is written `FILE.zip`.
    """
    # Here, for the rooms whose tests must not load it.
    from sites.site import Site, SiteSpec, open_sites

    shared = tmp_path_factory.mktemp("real")
    (shared / "home").mkdir(mode=0o700)
    found: dict[str, list[Site]] = {}

    def sites(text: str) -> list[Site]:
        if text not in found:
            head, _, path = text.partition(":")
            place = real_data / path
            if place.suffix == ".zip":
                unpacked = shared / place.stem
                with zipfile.ZipFile(place) as archive:
                    archive.extractall(unpacked)
                place = unpacked
            found[text] = open_sites([SiteSpec.parse(f"{head}:{place}")], home=shared / "home")
        return found[text]

    return sites
