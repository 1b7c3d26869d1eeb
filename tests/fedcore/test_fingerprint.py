import sys
from pathlib import Path

import pytest

from fedcore import fingerprint as module
from fedcore.fingerprint import fingerprint, reached


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with a model that imports a layer, and a module that nothing imports."""
    (tmp_path / "mymodel.py").write_text("from mylayers import layer\nimport sites.errors\n")
    (tmp_path / "mylayers.py").write_text("layer = 1\n")
    (tmp_path / "unrelated.py").write_text("x = 1\n")
    monkeypatch.chdir(tmp_path)
    for cached in (module._source, module._imports, module._folders):
        cached.cache_clear()
    return tmp_path


def changed(project: Path, name: str) -> bool:
    before = fingerprint("mymodel")
    (project / name).write_text("changed = True\n")
    module._source.cache_clear()
    module._imports.cache_clear()
    return fingerprint("mymodel") != before


def test_code_reached_through_a_users_module_counts(project: Path) -> None:
    assert set(reached(["mymodel"])) == {"mymodel", "mylayers", "sites.errors"}
    assert changed(project, "mylayers.py")


def test_code_that_is_not_reached_does_not_count(project: Path) -> None:
    assert not changed(project, "unrelated.py")


def test_the_tables_beside_a_module_of_ours_count(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "sites").mkdir()
    (project / "sites" / "errors.py").write_text("x = 1\n")
    table = project / "sites" / "concepts.yaml"
    table.write_text("a: 1")
    monkeypatch.setattr(module, "_folders", lambda _name: [project])
    module._source.cache_clear()
    before = fingerprint("mymodel")
    table.write_text("a: 2")
    assert fingerprint("mymodel") != before


def test_a_library_version_counts(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint("mymodel")
    monkeypatch.setattr(module, "libraries", lambda: (("torch", "0.0"),))
    assert fingerprint("mymodel") != before


def test_a_users_package_counts_with_its_init_and_what_it_imports_relatively(project: Path) -> None:
    package = project / "mylab" / "deep"
    package.mkdir(parents=True)
    (project / "mylab" / "__init__.py").write_text("from .started import x\n")
    (project / "mylab" / "started.py").write_text("x = 1\n")
    (project / "mylab" / "rules.py").write_text("x = 1\n")
    (package / "__init__.py").write_text("")
    (package / "mine.py").write_text("from .beside import x\nfrom ..rules import x as y\nfrom . import other\n")
    (package / "beside.py").write_text("x = 1\n")
    (package / "other.py").write_text("x = 1\n")
    names = {"mylab", "mylab.started", "mylab.rules", "mylab.deep", "mylab.deep.beside", "mylab.deep.other"}
    assert set(reached(["mylab.deep.mine"])) == {*names, "mylab.deep.mine"}


def test_an_installed_package_counts_where_a_module_of_it_is_named_and_only_then(
    project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path_factory.mktemp("installed")
    (installed / "mylab").mkdir()
    (installed / "mylab" / "__init__.py").write_text("")
    (installed / "mylab" / "strategies.py").write_text("from mylab.rules import RULE\nimport numpy\n")
    (installed / "mylab" / "rules.py").write_text("RULE = 1\n")
    (project / "mymodel.py").write_text("import mylab.rules\n")
    monkeypatch.syspath_prepend(str(installed))
    assert set(reached(["mylab.strategies"])) == {"mylab", "mylab.strategies", "mylab.rules"}
    assert set(reached(["mymodel"])) == {"mymodel"}
    assert "mylab" not in sys.modules, "nothing of it is imported"
