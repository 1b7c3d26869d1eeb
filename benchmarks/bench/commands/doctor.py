"""`bench doctor`: whether this machine can run FedWard."""

import os
import shutil
import sys
from importlib import metadata

from bench import output
from bench.commands.options import Json


class CheckedThing(output.Report):
    """One line of `bench doctor`."""

    name: str
    ok: bool
    found: str
    remedy: str = ""


class Doctor(output.Report):
    """What `bench doctor` prints."""

    ok: bool
    checks: tuple[CheckedThing, ...]


def _checks() -> list[CheckedThing]:
    version = ".".join(str(part) for part in sys.version_info[:3])
    checks = [
        CheckedThing(
            name="Python", ok=(3, 11) <= sys.version_info[:2] < (3, 14), found=version, remedy="use 3.11 to 3.13"
        )
    ]
    for name in ("torch", "flwr", "ray", "polars", "numpy", "es-aces", "meds", "opacus"):
        try:
            checks.append(CheckedThing(name=name, ok=True, found=metadata.version(name)))
        except metadata.PackageNotFoundError:
            checks.append(CheckedThing(name=name, ok=False, found="missing", remedy="pip install fedward"))
    try:
        checks.append(CheckedThing(name="trees (optional)", ok=True, found=metadata.version("xgboost-cpu")))
    except metadata.PackageNotFoundError:
        checks.append(
            CheckedThing(name="trees (optional)", ok=True, found="missing", remedy="pip install 'fedward[trees]'")
        )
    checks.extend(_places())
    checks.append(CheckedThing(name="cores", ok=True, found=str(len(os.sched_getaffinity(0)))))
    return checks


def _places() -> list[CheckedThing]:
    from sites.home import home

    try:
        place = home()
    except OSError as error:
        found = f"{error.filename}: {error.strerror}"
        return [CheckedThing(name="FEDWARD_HOME", ok=False, found=found, remedy="set it to a folder of your own")]
    mode = place.stat().st_mode & 0o777
    free = shutil.disk_usage(place).free
    return [
        CheckedThing(
            name="FEDWARD_HOME", ok=mode == 0o700, found=f"{place} (mode {mode:o})", remedy=f"chmod 700 {place}"
        ),
        CheckedThing(
            name="free disk", ok=free > 2**31, found=f"{free / 2**30:.1f} GB", remedy="free 2 GB or move FEDWARD_HOME"
        ),
    ]


def doctor(json_: Json = False) -> int:
    """Check that this machine can run FedWard."""
    checks = _checks()
    report = Doctor(ok=all(check.ok for check in checks), checks=tuple(checks))
    if json_:
        output.print_json(report)
    else:
        rows = [(c.name, "ok" if c.ok else "NOT OK", c.found, "" if c.ok else c.remedy) for c in checks]
        output.print_table("bench doctor", ["what", "", "found", "what to do"], rows)
    return 0 if report.ok else 2
