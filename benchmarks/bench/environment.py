"""The environment of a command and of its workers (`fedcore.environment`)."""

import os
import sys
from pathlib import Path

from fedcore.environment import CLOSED_PROXY, SETTINGS

__all__ = ["CLOSED_PROXY", "SETTINGS", "for_workers", "prepare"]


def prepare() -> None:
    """Set the environment and let modules of the current folder be imported, as `python -m` would."""
    for name, value in SETTINGS.items():
        os.environ[name] = value
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


def for_workers() -> dict[str, str]:
    """The environment of a worker process: the settings, where data lies, and where a user's modules are."""
    home = {name: os.environ[name] for name in ("FEDWARD_HOME", "FEDWARD_DEVICE") if name in os.environ}
    paths = [str(Path.cwd()), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**SETTINGS, **home, "POLARS_MAX_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
