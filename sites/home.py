"""Where patient data lies: one folder that only its owner may read."""

import os
from pathlib import Path


def home() -> Path:
    """Return `$FEDWARD_HOME` or `~/.local/share/fedward`, created with mode 0700."""
    named = os.environ.get("FEDWARD_HOME")
    path = Path(named).expanduser() if named else Path.home() / ".local" / "share" / "fedward"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path
