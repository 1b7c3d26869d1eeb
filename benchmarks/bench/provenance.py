"""Where a record comes from: the code, the machine, the libraries."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path

from fedcore.fingerprint import libraries
from leaderboard.measured import Code, Hardware, Provenance

DEVICE = "FEDWARD_DEVICE"

_HERE = Path(__file__).parent


def now() -> str:
    """This moment in UTC, as records write it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@cache
def code() -> Code:
    """The commit of the checkout that this very file belongs to; none for an installed package."""
    version = metadata.version("fedward")
    top = _git("rev-parse", "--show-toplevel")
    if top is None or Path(top) / "benchmarks" / "bench" / "provenance.py" != Path(__file__):
        return Code(package_version=version)
    status = _git("status", "--porcelain")
    return Code(commit=_git("rev-parse", "HEAD"), dirty=bool(status), package_version=version)


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603
            ["git", "-C", str(_HERE), *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@cache
def hardware() -> Hardware:
    """This machine."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Hardware(
        cpu=_cpu(), cores=len(os.sched_getaffinity(0)), ram_gb=round(pages / 2**30, 1), os=platform.platform()
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def provenance(
    started_at: str, command: str, engine: str, device: str | None = None, traceback: str | None = None
) -> Provenance:
    """Everything about this run that is no part of its result.

    Args:
        started_at: when.
        command: the command line.
        engine: where the federation ran, or was to run.
        device: what its networks trained on; None: what was asked for, since it never came to training.
        traceback: of what ended it.
    """
    return Provenance(
        code=code(),
        python=sys.version.split()[0],
        packages=dict(libraries()),
        hardware=hardware(),
        determinism={"threads": 1, "engine": engine, "device": device or os.environ.get(DEVICE, "auto")},
        started_at=started_at,
        finished_at=now(),
        command=command,
        traceback=traceback,
    )
