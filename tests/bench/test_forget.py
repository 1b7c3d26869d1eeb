"""Patient data has one place, and forgetting a site empties it."""

from pathlib import Path

import pytest

from bench.forget import DERIVED, forget_site
from sites.errors import InputError
from sites.site import register
from sites.spec import SiteSpec


@pytest.fixture
def ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that knows a site, with something derived of every kind and something that is nobody's."""
    home, export = tmp_path / "a home of its own", tmp_path / "export"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("FEDWARD_HOME", str(home))
    export.mkdir()
    register(SiteSpec.parse(f"ward=mimic4:{export}"), home)
    for name in (*DERIVED, "downloads"):
        (home / name / "one").mkdir(parents=True)
    return home


def test_forgetting_a_site_deletes_all_that_was_derived_of_patients(ward: Path) -> None:
    lines = forget_site("ward")
    assert lines == ["forgot the name ward", *(f"deleted {ward / name}" for name in DERIVED)]
    assert not any((ward / name).exists() for name in DERIVED)
    assert (ward / "downloads" / "one").is_dir()


def test_a_site_nobody_knows_deletes_nothing(ward: Path) -> None:
    with pytest.raises(InputError, match="no site 'wrad' is remembered"):
        forget_site("wrad")
    assert all((ward / name / "one").is_dir() for name in DERIVED)
