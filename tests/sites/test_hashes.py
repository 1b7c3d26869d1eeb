"""What a dataset was made from: files, options and the code that reads them."""

import importlib
import os
import time
import uuid
from pathlib import Path

import pytest

from sites.errors import InputError
from sites.hashes import code_sha256, file_hashes, source_sha256


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "modules" / f"hashlab_{uuid.uuid4().hex}"  # a module that was found once is found again
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "ward.py").write_text(f"from {package.name}.rules import RULE\n")
    (package / "rules.py").write_text("RULE = 1\n")
    (package / "other.py").write_text("X = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    importlib.invalidate_caches()
    return package


@pytest.mark.parametrize(
    ("name", "counts"), [("ward.py", True), ("rules.py", True), ("ward_codes.yaml", True), ("other.py", False)]
)
def test_the_code_that_reads_counts_and_no_other(module: Path, name: str, counts: bool) -> None:
    code_sha256.cache_clear()
    before = code_sha256(f"{module.name}.ward")
    with (module / name).open("a") as file:
        file.write("# changed\n")
    code_sha256.cache_clear()
    assert (code_sha256(f"{module.name}.ward") != before) == counts


def test_an_export_s_own_parts_are_reached() -> None:
    import sites.hashes as hashes

    seen: dict[str, bytes] = {}
    hashes._reach("sites.exports.mimic4", "sites.exports", seen)
    assert {"sites.exports.mimic4", "sites.exports.mimic4_stays", "sites.exports.export"} <= set(seen)
    assert "sites.exports.eicu" not in seen


def test_a_changed_file_is_hashed_anew_and_others_are_remembered(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("a", "b")}
    for path in files.values():
        path.write_text("one")
    first = file_hashes(files, tmp_path)
    assert first["a"] == first["b"]
    files["a"].write_text("two")
    shares: list[float] = []
    second = file_hashes(files, tmp_path, shares.append)
    assert second["a"] != first["a"]
    assert second["b"] == first["b"]
    assert shares == [1.0]  # only the changed file's bytes were read
    (tmp_path / "hashes.json").write_text("not json")
    assert file_hashes(files, tmp_path) == second


def test_a_file_of_the_same_size_and_modification_time_is_hashed_anew_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "admissions.csv"
    path.write_text("hospital_expire_flag\n1\n")
    before, stamp = file_hashes({"a": path}, tmp_path), path.stat()
    time.sleep(0.02)  # a clock tick of the file system
    path.write_text("hospital_expire_flag\n0\n")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stamp.st_size, stamp.st_mtime_ns)
    assert file_hashes({"a": path}, tmp_path) != before


def test_kind_options_and_files_all_count() -> None:
    base = source_sha256("mimic4", {}, {"patients": "x"})
    assert source_sha256("mimic4", {"demo": ""}, {"patients": "x"}) != base
    assert source_sha256("mimic4", {}, {"patients": "y"}) != base
    assert source_sha256("eicu", {}, {"patients": "x"}) != base


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gone: the file cannot be read"):
        file_hashes({"x": tmp_path / "gone"}, tmp_path)
