"""What must be set before Flower, Ray or torch load, here and in every worker: nothing calls out, one thread a cell."""

import os
import sys
from pathlib import Path

SETTINGS = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}

CLOSED_PROXY = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
"""Set for a Ray of our own: it asks the cloud's metadata service (169.254.169.254) where it runs, whatever
RAY_USAGE_STATS_ENABLED says. Nothing listens at this proxy, so such a question never leaves the machine; Ray's own
connections (gRPC) take no proxy."""


def prepare() -> None:
    """Set the environment and let modules of the current folder be imported, as `python -m` would."""
    for name, value in SETTINGS.items():
        os.environ[name] = value
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


def for_workers() -> dict[str, str]:
    """The environment of a worker process: the settings, where data lies, and where a user's modules are."""
    home = {"FEDWARD_HOME": os.environ["FEDWARD_HOME"]} if "FEDWARD_HOME" in os.environ else {}
    paths = [str(Path.cwd()), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**SETTINGS, **home, "POLARS_MAX_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
