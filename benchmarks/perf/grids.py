"""A grid of sixty cells, and how busy it keeps the processors; a finished grid of a thousand, planned anew."""

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from finished import write_suite
from process import bench, measured

from leaderboard.store import Store

CELLS = 60
FINISHED = 1000
TICK = os.sysconf("SC_CLK_TCK")
BUSY = """
name: sixty
version: 1.0.0
description: Sixty cells of a few seconds
tasks: [mortality/in_hospital/first_24h]
entries:
  - model: logistic
    strategies: [local, pooled, fedavg]
rounds: 5
seeds: [{seeds}]
"""
"""Three cells a seed, and the embedded hospitals' oracle."""


def section(folder: Path, home: Path) -> dict[str, Any]:
    """Both measurements."""
    return {"busy": _busy(folder, home), "finished": _finished(folder, home)}


def lines(report: dict[str, Any]) -> list[str]:
    """The table of the page."""
    b, f = report["busy"], report["finished"]
    return [
        "| grid | |",
        "|---|---:|",
        f"| {b['cells']} cells, {b['seconds']:.0f} s from the first's beginning to the last's end: processors busy "
        f"with them | {b['utilisation']:.0%} |",
        f"| of what other processes left of them | {b['utilisation_of_the_rest']:.0%} |",
        f"| time in which a cell ran, of all the places for one | {b['places_filled']:.0%} |",
        f"| {f['cells']} finished cells: `bench plan`, s | {f['plan_s']:.2f} |",
        f"| the same: `bench run`, s | {f['run_s']:.2f} |",
    ]


class _Sample(NamedTuple):
    """Seconds: by the clock, of the tree's processors, of all that were busy."""

    clock: float
    tree: float
    all: float


def _busy(folder: Path, home: Path) -> dict[str, Any]:
    suite, out = folder / "sixty.yaml", folder / "sixty"
    suite.write_text(BUSY.format(seeds=", ".join(map(str, range(CELLS // 4)))), encoding="utf-8")
    jobs = len(os.sched_getaffinity(0))
    command = ("run", "--suite", str(suite), "--out", str(out), "--jobs", str(jobs), "--json")
    if bench(home, folder, *command[:5], "--seeds", "1", "--json").wait() != 0:  # samples are made; no part of it
        raise RuntimeError("the first cells failed")
    for path in Store(out).paths():
        path.unlink()
    process = bench(home, folder, *command)
    samples = _watched(process.pid, process.wait)
    if process.returncode != 0:
        raise RuntimeError("cells failed")
    ends = [(path.stat().st_mtime, Store(out).read(path).cost.wall_s) for path in Store(out).paths()]
    begin, end = min(at - wall for at, wall in ends), max(at for at, _ in ends)
    clock = [one.clock for one in samples]
    tree, everything = (
        float(np.diff(np.interp([begin, end], clock, [one[place] for one in samples]))[0]) for place in (1, 2)
    )
    capacity = (end - begin) * jobs
    return {
        "cells": len(ends),
        "seconds": end - begin,
        "utilisation": tree / capacity,
        "utilisation_of_the_rest": tree / (capacity - max(0.0, everything - tree)),
        "places_filled": sum(wall for _, wall in ends) / capacity,
    }


def _watched(pid: int, wait: Any) -> list[_Sample]:
    """The processor time of a process and all below it, ten times a second until it ends."""
    seen: dict[tuple[int, int], float] = {}
    samples: list[_Sample] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            for who, seconds in _tree(pid).items():
                seen[who] = max(seconds, seen.get(who, 0.0))
            samples.append(_Sample(time.time(), sum(seen.values()), _all_busy()))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        wait()
    finally:
        over.set()
        thread.join()
    return samples


def _tree(root: int) -> dict[tuple[int, int], float]:
    """Processor seconds of each process below `root` and itself, by pid and start."""
    below: dict[int, list[int]] = {}
    found: dict[int, tuple[tuple[int, int], float]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        pid = int(path.parent.name)
        below.setdefault(int(fields[1]), []).append(pid)
        found[pid] = (pid, int(fields[19])), (int(fields[11]) + int(fields[12])) / TICK
    members, queue = {}, [root]
    while queue:
        pid = queue.pop()
        queue.extend(below.get(pid, ()))
        if pid in found:
            who, seconds = found[pid]
            members[who] = seconds
    return members


def _all_busy() -> float:
    """Seconds in which the machine's processors did anything for anybody, other guests of its host included."""
    fields = [int(f) for f in Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0].split()[1:9]]
    user, nice, system, _, _, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) / TICK


def _finished(folder: Path, home: Path) -> dict[str, Any]:
    suite, out = folder / "finished.yaml", folder / "finished"
    write_suite(suite, FINISHED)
    asked = ("--suite", str(suite), "--out", str(out), "--json")
    one = ("--only", "model=logistic,strategy=fedavg", "--seeds", "1")
    if bench(home, folder, "run", *asked, *one).wait() != 0:
        raise RuntimeError("the cell that the others are made after failed")
    cells = measured(home, "finished.py", str(suite), str(out))["cells"]
    times: dict[str, list[float]] = {"plan": [], "run": []}
    for what in ("plan", "run") * 3:
        started = time.perf_counter()
        if bench(home, folder, what, *asked).wait() != 0:
            raise RuntimeError(f"bench {what} failed")
        times[what].append(time.perf_counter() - started)
    return {"cells": cells, "plan_s": sorted(times["plan"])[1], "run_s": sorted(times["run"])[1]}


if __name__ == "__main__":
    import json
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        place = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(name) / "home"
        print(json.dumps(section(Path(name), place), indent=1))
