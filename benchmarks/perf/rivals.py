"""Federated training beside a plain loop, Flower's simulation engine and pfl-research; its cost as it grows."""

import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from process import measured

PFL = "0.6.0"
PAIRS = 11
SITES = (4, 16, 64, 400)
PARAMETERS = (100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)
NOISE_MS = 10.0
"""Below, a round's cost is what does not grow: no slope is told of it."""


def section(folder: Path, home: Path) -> dict[str, Any]:
    """All measurements of this kind."""
    jobs = ("heart", "logistic", "perceptron")
    return {
        "pairs": [measured(home, "federated.py", "pairs", job, str(PAIRS)) for job in jobs],
        "flower": _flower(folder, home),
        "pfl": [one for job in ("heart", "perceptron") if (one := _pfl(job, folder, home)) is not None],
        "by_sites": [measured(home, "federated.py", "grown", str(k), "10000", "5") for k in SITES],
        "by_parameters": [measured(home, "federated.py", "grown", "8", str(p), "5") for p in PARAMETERS],
    }


def lines(report: dict[str, Any]) -> list[str]:
    """The tables of the page."""
    out = [
        "| FedAvg | ours, s | plain loop, s | ratio | gathered, s | ratio | `torch.optim.SGD`, s | whole run, ratio |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    out += [
        f"| {p['job']}: {p['sites']} sites, {p['features']} features, {p['rounds']} rounds | {p['ours_s']:.2f} "
        f"| {p['plain_s']:.2f} | {p['ratio']:.2f} | {p['gathered_s']:.2f} | {p['gathered_ratio']:.2f} "
        f"| {p['plain_torch_optimizer_s']:.2f} | {p['whole_ratio']:.2f} |"
        for p in report["pairs"]
    ]
    f = report["flower"]
    out += [
        "",
        "| heart | ours, s | Flower's simulation, s | times faster |",
        "|---|---:|---:|---:|",
        f"| the rounds | {f['ours_s']:.1f} | {f['flower_s']:.1f} | {f['flower_s'] / f['ours_s']:.1f} |",
        f"| with start-up | {f['ours_process_s']:.1f} | {f['flower_process_s']:.1f} "
        f"| {f['flower_process_s'] / f['ours_process_s']:.1f} |",
        "",
    ]
    if report["pfl"]:
        out += ["| a round | ours, ms | pfl, ms | times faster |", "|---|---:|---:|---:|"]
        out += [
            f"| {p['job']} | {p['ours_ms']:.0f} | {p['pfl_ms']:.0f} | {p['pfl_ms'] / p['ours_ms']:.2f} |"
            for p in report["pfl"]
        ]
    else:
        out += ["pfl-research could not be installed here; it was not measured."]
    out += ["", "| sites | parameters | ours, ms a round | growth | plain loop, ms | its growth |"]
    out += ["|---:|---:|---:|---:|---:|---:|"]
    for rows, size in ((report["by_sites"], "sites"), (report["by_parameters"], "parameters")):
        for before, row in zip([None, *rows], rows, strict=False):
            ours, plain = (_cost(before, row, size, of) for of in ("ours_ms", "plain_ms"))
            out.append(f"| {row['sites']} | {row['parameters']:,} | {ours} | {plain} |")
    return out


def _cost(before: dict[str, Any] | None, row: dict[str, Any], size: str, of: str) -> str:
    """A round's cost, and the exponent with which it grew from the row before."""
    shown = f"{row[of]:.1f} |"
    if before is None or row[of] < NOISE_MS:
        return shown
    return f"{shown} {math.log(row[of] / before[of]) / math.log(row[size] / before[size]):.2f}"


def _flower(folder: Path, home: Path) -> dict[str, Any]:
    """The heart job in Flower's simulation engine and in ours, each a process; imports are start-up."""
    path = folder / "heart.npz"
    measured(home, "federated.py", "save", "heart", str(path))
    started = time.perf_counter()
    ours = measured(home, "federated.py", "alone", "heart")
    between = time.perf_counter()
    flower = measured(home, "flower_job.py", str(path))
    return {
        "ours_s": ours["whole_s"],
        "ours_process_s": between - started,
        "flower_s": flower["rounds_s"],
        "flower_process_s": time.perf_counter() - between,
        "tuning_losses": [ours["tuning_loss"], flower["tuning_loss"]],
    }


def _pfl(job: str, folder: Path, home: Path) -> dict[str, Any] | None:
    """Processor milliseconds a round in pfl-research's simulator and in ours, turn by turn; the median of three."""
    python = _pfl_python()
    if python is None:
        return None
    path = folder / f"{job}.npz"
    measured(home, "federated.py", "save", job, str(path))
    ours, theirs = [], []
    for _ in range(3):
        theirs.append(measured(home, "pfl_job.py", str(path), python=str(python)))
        ours.append(measured(home, "federated.py", "alone", job))
    return {
        "job": job,
        "ours_ms": 1000 * sorted(one["processor_s_per_round"] for one in ours)[1],
        "pfl_ms": 1000 * sorted(one["processor_s_per_round"] for one in theirs)[1],
        "tuning_losses": [ours[0]["tuning_loss"], theirs[0]["tuning_loss"]],
    }


def _pfl_python() -> Path | None:
    """The Python of an environment with pfl and our torch, made when it is first wanted; None where it cannot be."""
    version = torch.__version__.partition("+")[0]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = cache / "fedward-perf" / f"pfl-{PFL}-torch-{version}"
    python = place / "bin" / "python"
    if (place / "complete").is_file():
        return python
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True, timeout=300)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", f"torch=={version}", f"pfl=={PFL}"], check=True, timeout=1800
        )
        subprocess.run([python, "-c", "import pfl.model.pytorch"], check=True, timeout=300)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"pfl {PFL} could not be installed in {place} ({error}): it is not measured", flush=True)
        return None
    (place / "complete").touch()
    return python
