"""Ingest, cohort, features and the warm start, beside polars doing what any engineer would write first."""

import os
import time
from pathlib import Path
from statistics import median
from typing import Any

from process import bench, measured

ROOT = Path(__file__).parents[2]
TASK = "mortality/in_hospital/first_24h"
IN_A_ROW = 3


def section(folder: Path, home: Path, *, chart_rows: int, stays: int) -> dict[str, Any]:
    """All measurements of this kind."""
    data = (ROOT / os.environ.get("FEDWARD_REAL_DATA", "../shared/data")).resolve()
    rows = []
    if data.is_dir():
        rows.append(_against_peer("MIMIC-III demo", f"a=mimic3:{data / 'mimiciii_demo_1.4'}", home, IN_A_ROW))
        rows.append(_against_peer("MIMIC-IV demo", f"a=mimic4:{data / 'mimiciv_demo_2.2'}", home, IN_A_ROW))
    rows.append(_charts(folder, home, chart_rows))
    return {"ingest": rows, "features": _features(folder, home, stays), "warm_start": _warm_start(home, folder)}


def lines(report: dict[str, Any]) -> list[str]:
    """The tables of the page."""
    out = [
        "| ingest and cohort of | ours, s | polars, s | ratio | ours, peak MB | polars, peak MB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    out += [
        f"| {r['name']} | {r['seconds']:.1f} | {r['peer_seconds']:.1f} | {r['ratio']:.2f} | {r['peak_rss_mb']:.0f} "
        f"| {r['peer_peak_rss_mb']:.0f} |"
        for r in report["ingest"]
    ]
    out += ["", "| | s | peak MB |", "|---|---:|---:|"]
    out += [f"| {f['name']} features | {f['seconds']:.1f} | {f['peak_rss_mb']:.0f} |" for f in report["features"]]
    warm = report["warm_start"]
    return [*out, f"| {warm['name']} (cold: {warm['cold_seconds']:.0f} s) | {warm['seconds']:.1f} | |"]


def _against_peer(name: str, site: str, home: Path, repeats: int) -> dict[str, Any]:
    """Ingest and cohort of a site and its peer, turn by turn; medians, and the largest memory."""
    ours, peers = [], []
    for _ in range(repeats):
        peers.append(measured(home, "measure.py", "peer", site))
        ours.append(measured(home, "measure.py", "ingest-and-cohort", site, TASK))
    seconds, peer = median(o["seconds"] for o in ours), median(p["seconds"] for p in peers)
    return {
        "name": name,
        "seconds": seconds,
        "peer_seconds": peer,
        "ratio": round(seconds / peer, 2),
        "peak_rss_mb": max(o["peak_rss_mb"] for o in ours),
        "peer_peak_rss_mb": max(p["peak_rss_mb"] for p in peers),
        "repeats": repeats,
    }


def _charts(folder: Path, home: Path, n_rows: int) -> dict[str, Any]:
    path = folder / "charts"
    measured(home, "measure.py", "write-charts", str(path), str(n_rows))
    return _against_peer(f"simulated, {n_rows / 1e6:g} million chart rows", f"a=mimic4:{path}", home, 1)


def _features(folder: Path, home: Path, stays: int) -> list[dict[str, Any]]:
    # In a process of its own: a child's peak memory, as Linux counts it, begins at its parent's.
    measured(home, "measure.py", "write-hospital", str(folder / "large"), str(int(stays * 1.27)))
    (path,) = (p.parent for p in (folder / "large").glob("*/SIMULATED.json"))
    found = []
    for representation in ("tabular", "series"):
        result = measured(home, "measure.py", "features", f"a=mimic4:{path}", TASK, representation)
        found.append({"name": representation, "seconds": result["seconds"], "peak_rss_mb": result["peak_rss_mb"]})
    return found


def _warm_start(home: Path, folder: Path) -> dict[str, Any]:
    """`bench run` of a suite whose cells all have a record, on the embedded simulated hospitals."""
    command = ("run", "--suite", "mortality", "--only", "model=logistic", "--seeds", "1", "--json")
    times = []
    for _ in range(1 + IN_A_ROW):
        started = time.perf_counter()
        if bench(home, folder, *command).wait() != 0:
            raise RuntimeError(f"bench {' '.join(command)} failed")
        times.append(time.perf_counter() - started)
    return {
        "name": "warm start of bench run",
        "seconds": round(median(times[1:]), 2),
        "cold_seconds": round(times[0], 1),
    }
