"""One measurement in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def measured(home: Path, script: str, *arguments: str, python: str = sys.executable) -> dict[str, Any]:
    """What a script of this folder prints on its last line, as JSON.

    Args:
        home: its FEDWARD_HOME.
        script: its name.
        arguments: its command line.
        python: what runs it.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    environment = {**os.environ, "FEDWARD_HOME": str(home), "PYTHONPATH": str(HERE)}
    done = subprocess.run(
        [python, str(HERE / script), *arguments], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    last = done.stdout.strip().splitlines()[-1]
    print(script, *arguments, last, flush=True)
    result: dict[str, Any] = json.loads(last)
    return result


def bench(home: Path, folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """`bench` as a user runs it, started."""
    command = [str(Path(sys.executable).parent / "bench"), *arguments]
    return subprocess.Popen(
        command, env={**os.environ, "FEDWARD_HOME": str(home)}, cwd=folder, stdout=subprocess.DEVNULL
    )
