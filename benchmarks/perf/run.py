"""`make perf`: every figure of docs/performance.md, each a ratio against a peer measured in the same run.

Writes benchmarks/perf/results.json and the table in docs/performance.md.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "performance.md"
MARK = "<!-- measured -->"
TASK = "mortality/in_hospital/first_24h"
IN_A_ROW = 3


def measured(home: Path, *arguments: str) -> dict[str, Any]:
    """One run of measure.py in a process of its own."""
    environment = {**os.environ, "FEDWARD_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, str(HERE / "measure.py"), *arguments],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    print(" ".join(arguments), done.stdout.strip(), flush=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def against_peer(name: str, site: str, home: Path, repeats: int) -> dict[str, Any]:
    """Ingest and cohort of a site and its peer, turn by turn; medians, and the largest memory."""
    ours, peers = [], []
    for _ in range(repeats):
        peers.append(measured(home, "peer", site))
        ours.append(measured(home, "ingest-and-cohort", site, TASK))
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


def warm_start(home: Path, folder: Path) -> dict[str, Any]:
    """`bench run` of a suite whose cells all have a record, on the embedded simulated hospitals."""
    command = [
        *(str(Path(sys.executable).parent / "bench"), "run", "--suite", "mortality"),
        *("--only", "model=logistic", "--seeds", "1"),
    ]
    environment = {**os.environ, "FEDWARD_HOME": str(home)}
    times = []
    for _ in range(1 + IN_A_ROW):
        started = time.perf_counter()
        subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return {
        "name": "warm start of bench run",
        "seconds": round(median(times[1:]), 2),
        "cold_seconds": round(times[0], 1),
    }


def main() -> None:
    """Measure everything and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chart-rows", type=int, default=20_000_000)
    parser.add_argument("--stays", type=int, default=50_000)
    options = parser.parse_args()
    data = (ROOT / os.environ.get("FEDWARD_REAL_DATA", "../shared/data")).resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home = folder / "home"
        rows = []
        if data.is_dir():
            rows.append(against_peer("MIMIC-III demo", f"a=mimic3:{data / 'mimiciii_demo_1.4'}", home, IN_A_ROW))
            rows.append(against_peer("MIMIC-IV demo", f"a=mimic4:{data / 'mimiciv_demo_2.2'}", home, IN_A_ROW))
        rows.append(_charts(folder, home, options.chart_rows))
        features = _features(folder, home, options.stays)
        warm = warm_start(home, folder)
    report = {
        "measured_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.platform(),
        "python": platform.python_version(),
        "ingest": rows,
        "features": features,
        "warm_start": warm,
    }
    (HERE / "results.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    _write_page(report)


def _charts(folder: Path, home: Path, n_rows: int) -> dict[str, Any]:
    path = folder / "charts"
    measured(home, "write-charts", str(path), str(n_rows))
    return against_peer(f"simulated, {n_rows / 1e6:g} million chart rows", f"a=mimic4:{path}", home, 1)


def _features(folder: Path, home: Path, stays: int) -> list[dict[str, Any]]:
    # In a process of its own: a child's peak memory, as Linux counts it, begins at its parent's.
    measured(home, "write-hospital", str(folder / "large"), str(int(stays * 1.27)))
    (path,) = (p.parent for p in (folder / "large").glob("*/SIMULATED.json"))
    found = []
    for representation in ("tabular", "series"):
        result = measured(home, "features", f"a=mimic4:{path}", TASK, representation)
        found.append({"name": representation, "seconds": result["seconds"], "peak_rss_mb": result["peak_rss_mb"]})
    return found


def _write_page(report: dict[str, Any]) -> None:
    lines = [
        "| ingest and cohort of | ours, s | polars, s | ratio | ours, peak MB | polars, peak MB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {r['name']} | {r['seconds']:.1f} | {r['peer_seconds']:.1f} | {r['ratio']:.2f} | {r['peak_rss_mb']:.0f} "
        f"| {r['peer_peak_rss_mb']:.0f} |"
        for r in report["ingest"]
    ]
    lines += ["", "| | s | peak MB |", "|---|---:|---:|"]
    lines += [f"| {f['name']} features | {f['seconds']:.1f} | {f['peak_rss_mb']:.0f} |" for f in report["features"]]
    warm = report["warm_start"]
    lines += [f"| {warm['name']} (cold: {warm['cold_seconds']:.0f} s) | {warm['seconds']:.1f} | |"]
    lines += ["", f"{report['machine']}, {report['cores']} cores, Python {report['python']}, {report['measured_at']}."]
    head = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    PAGE.write_text(head + MARK + "\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
