"""A hash of the code that a cell reaches: part of its cache key, so that changed code never answers from the cache.

The closure of `import` statements is read from the sources, not by importing: a warm start must not load torch. It
follows the rooms of FedWard and a user's own modules (whatever lies in the current folder), and takes in the versions
of the numerical libraries.
"""

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

ROOMS = ("bench", "fedcore", "leaderboard", "privacy", "sites")
LIBRARIES = ("es-aces", "flwr", "numpy", "opacus", "polars", "scikit-learn", "torch", "xgboost-cpu")


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
def _source(module: str) -> Path | None:
    """The source file of one of our rooms' or the user's modules, without importing it or its parents."""
    parts = module.split(".")
    base = (_room(parts[0]) if parts[0] in ROOMS else Path.cwd()).joinpath(*parts)
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


@cache
def _room(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ImportError(f"the package {name} is not installed")
    return Path(spec.origin).parents[1]


@cache
def _imports(path: Path) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(names)


def reached(modules: Iterable[str]) -> dict[str, Path]:
    """Every module of ours or the user's that these modules import, directly or not, with its source file."""
    found: dict[str, Path] = {}
    queue = list(modules)
    while queue:
        module = queue.pop()
        path = _source(module)
        if path is None or module in found:
            continue
        found[module] = path
        queue.extend(_imports(path))
    return found


def fingerprint(modules: Iterable[str], files: Iterable[Path] = ()) -> str:
    """sha256 over the sources reached, the data files named (task files, concepts.yaml) and the libraries' versions."""
    digest = hashlib.sha256()
    for module, path in sorted(reached(modules).items()):
        digest.update(f"{module}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    for path in sorted(files):
        digest.update(f"{path.name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    digest.update(repr(libraries()).encode())
    return digest.hexdigest()
