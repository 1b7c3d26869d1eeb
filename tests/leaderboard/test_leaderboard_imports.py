"""The leaderboard can be built, read and checked where nothing that trains is installed."""

from __future__ import annotations

import json
import subprocess
import sys

EVERY_MODULE = """
import importlib, json, pkgutil, sys
import leaderboard
for module in pkgutil.walk_packages(leaderboard.__path__, "leaderboard."):
    importlib.import_module(module.name)
from leaderboard.evaluators import registry
registry.names()
print(json.dumps(sorted(sys.modules)))
"""


def test_no_module_of_the_leaderboard_loads_what_trains():
    done = subprocess.run([sys.executable, "-c", EVERY_MODULE], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert {"leaderboard.record", "leaderboard.statistics", "leaderboard.evaluators.calibration"} <= loaded
    heavy = {"torch", "flwr", "ray", "opacus", "sklearn", "scipy", "polars", "pandas", "transformers"}
    assert not loaded & heavy
    assert not {name for name in loaded if name.split(".")[0] in {"sites", "fedcore", "bench"}}
