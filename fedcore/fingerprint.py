"""A hash of the code that a result rests on: part of every cache key, so that changed code never answers from a cache.

The closure of `import` statements is read from the sources, not by importing: a warm start must not load torch. It
follows the rooms of FedWard and a user's own modules (whatever lies in the current folder, and the installed packages
of which a module is named), and takes in the tables (.yaml) that lie beside a module of ours and the versions of the
numerical libraries.
"""

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

ROOMS = ("bench", "fedcore", "leaderboard", "privacy", "sites")
LIBRARIES = ("es-aces", "flwr", "numpy", "opacus", "polars", "scikit-learn", "torch", "xgboost", "xgboost-cpu")


@cache
def libraries() -> tuple[tuple[str, str], ...]:
    """Name and version of each numerical library that is installed."""
    found = []
    for name in LIBRARIES:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return tuple(found)


@cache
def _source(module: str, *, named: bool) -> Path | None:
    """The source file of one of our rooms' or the user's modules, without importing it or its parents.

    Args:
        module: its name.
        named: whether it is of a package of which a module was named: it may then be installed as well.
    """
    parts = module.split(".")
    bases = [] if parts[0] in ROOMS else [Path.cwd()]
    if named or parts[0] in ROOMS:
        bases += _folders(parts[0])
    for base in (folder.joinpath(*parts) for folder in bases):
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path
    return None


@cache
def _folders(name: str) -> tuple[Path, ...]:
    """The folders in which a package or module of one name is installed."""
    spec = find_spec(name)
    if spec is None:
        return ()
    if spec.submodule_search_locations is not None:
        return tuple(Path(folder).parent for folder in spec.submodule_search_locations)
    return () if spec.origin is None else (Path(spec.origin).parent,)


@cache
def _imports(path: Path, module: str) -> frozenset[str]:
    """The modules that a source file names; it is itself of this name, for what it imports relatively."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names: set[str] = set()
    statements: list[ast.AST] = [ast.parse(path.read_bytes())]
    while statements:  # expressions, nine nodes of ten, hold no import
        node = statements.pop()
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                above = package.split(".")[: max(package.count(".") + 2 - node.level, 0)]
                source = ".".join([*above, *filter(None, [source])])
            names.update({source, *(f"{source}.{alias.name}" for alias in node.names)} if source else ())
        elif isinstance(node, (ast.Module, ast.stmt, ast.excepthandler, ast.match_case)):
            for held in ("body", "orelse", "finalbody", "handlers", "cases"):
                statements.extend(getattr(node, held, ()))
    return frozenset(names)


def reached(modules: Iterable[str]) -> dict[str, Path]:
    """Every module of ours or the user's that these modules import, directly or not, with its source file."""
    found: dict[str, Path] = {}
    queue = list(modules)
    named = {module.partition(".")[0] for module in queue}
    while queue:
        module = queue.pop()
        path = _source(module, named=module.partition(".")[0] in named)
        if path is None or module in found:
            continue
        found[module] = path
        queue.extend(_imports(path, module))
        if module.partition(".")[0] not in ROOMS and "." in module:
            queue.append(module.rpartition(".")[0])  # a user's package runs its __init__ too
    return found


def fingerprint(*modules: str) -> str:
    """sha256 over the sources that these modules reach, the tables beside them and the libraries' versions."""
    digest = hashlib.sha256()
    found = reached(modules)
    for module, path in sorted(found.items()):
        digest.update(f"{module}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    folders = {path.parent for module, path in found.items() if module.partition(".")[0] in ROOMS}
    for path in sorted(table for folder in folders for table in folder.glob("*.yaml")):
        digest.update(f"{path.name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    digest.update(repr(libraries()).encode())
    return digest.hexdigest()
