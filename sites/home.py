"""Where patient data lies: one folder that only its owner may read."""

import os
import tempfile
from pathlib import Path


def home() -> Path:
    """Return `$FEDWARD_HOME` or `~/.local/share/fedward`, created with mode 0700."""
    named = os.environ.get("FEDWARD_HOME")
    path = Path(named).expanduser().absolute() if named else Path.home() / ".local" / "share" / "fedward"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def write_whole(path: Path, text: str) -> None:
    """Write a small file at once: who reads it meanwhile, in this process or another, sees the old one or the new."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "w", encoding="utf-8") as file:  # noqa: PTH123 - the handle is open already
            file.write(text)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
