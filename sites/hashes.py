"""What a dataset was made from, as one hash: the export's files, the options, and the code that reads them.

A file is hashed once: its hash is remembered by path, size, inode and the times of its last modification and last
change (`touch` can set the first back, nothing sets the second), so that asking again costs a `stat` for each file.
"""

import hashlib
import importlib.util
import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

from sites.errors import InputError
from sites.home import write_whole

_CHUNK = 1 << 22
_CORE = ("blocks", "events", "ingest", "metadata", "shards", "source", "splits", "tables", "typed")


def file_hashes(
    files: Mapping[str, Path], home: Path, progress: Callable[[float], None] | None = None
) -> dict[str, str]:
    """The SHA-256 of each file's bytes, by the same names.

    Args:
        files: Name to path.
        home: Where the remembered hashes lie (`hashes.json`).
        progress: Told the share of bytes hashed, in [0, 1].

    Raises:
        InputError: A file cannot be read.
    """
    store = home / "hashes.json"
    known = _load(store)
    keys = {name: _key(path) for name, path in files.items()}
    missing = [name for name in files if keys[name] not in known]
    total = max(sum(files[name].stat().st_size for name in missing), 1)
    done = 0
    fresh: dict[str, str] = {}
    for name in missing:
        digest = hashlib.sha256()
        try:
            with files[name].open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
                    done += len(chunk)
                    if progress is not None:
                        progress(done / total)
        except OSError as error:
            raise _unreadable(files[name], error) from None
        fresh[keys[name]] = digest.hexdigest()
    if fresh:
        known = _load(store) | fresh  # another process may have added some meanwhile
        write_whole(store, json.dumps(known))
    return {name: known[keys[name]] for name in files}


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: the file cannot be read ({error.strerror}); see its permissions")


def _load(store: Path) -> dict[str, str]:
    try:
        loaded = json.loads(store.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _key(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from None
    return f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}|{stat.st_ino}"


def source_sha256(kind: str, options: Mapping[str, str], hashes: Mapping[str, str]) -> str:
    """One hash of what a dataset is made from.

    Args:
        kind: The export kind.
        options: The options that change what is read.
        hashes: The hash of each file, by table or by path below the export's root.
    """
    told = {"kind": kind, "options": dict(options), "files": dict(hashes), "code": code_sha256(kind)}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


@lru_cache
def code_sha256(kind: str) -> str:
    """The hash of the code that reads a kind: the reading core, the export's module, and the modules that it names.

    A user's module counts with those of its own top-level package; YAML files beside the module count if their names
    begin with its name.
    """
    module = kind if "." in kind else f"sites.exports.{kind}"
    seen: dict[str, bytes] = {}
    for name in _CORE:
        _reach(f"sites.{name}", "sites.exports", seen)
    origin = _reach(module, module.partition(".")[0] if "." in kind else "sites.exports", seen)
    if origin is not None:
        for path in origin.parent.glob(f"{origin.stem}*.yaml"):
            seen[path.name] = path.read_bytes()
    digest = hashlib.sha256()
    for name in sorted(seen):
        digest.update(name.encode() + b"\0" + seen[name] + b"\0")
    return digest.hexdigest()


def _reach(name: str, package: str, seen: dict[str, bytes]) -> Path | None:
    """Add a module's source, and that of every module of `package` whose dotted name stands in it; return its file."""
    try:
        spec = importlib.util.find_spec(name)
    except (ModuleNotFoundError, ValueError):
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    seen[name] = Path(spec.origin).read_bytes()
    for named in set(re.findall(rb"\b" + re.escape(package).encode() + rb"(?:\.\w+)+", seen[name])):
        if (other := named.decode()) not in seen and other != "sites.exports.registry":  # which imports every kind
            _reach(other, package, seen)
    return Path(spec.origin)
