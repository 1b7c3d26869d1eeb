"""`make perf`: every figure of docs/performance.md, each a ratio against a peer measured in the same run.

Writes benchmarks/perf/results.json and the tables in docs/performance.md. `--only` measures one kind anew and leaves
the others as they were.
"""

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grids
import ingest
import private
import rivals
import sums

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "performance.md"
RESULTS = HERE / "results.json"
MARK = "<!-- measured -->"

LINES: Mapping[str, Callable[[dict[str, Any]], list[str]]] = {
    "ingest": ingest.lines,
    "training": rivals.lines,
    "grid": grids.lines,
    "privacy": private.lines,
    "sums": sums.lines,
}


def main() -> None:
    """Measure and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chart-rows", type=int, default=20_000_000)
    parser.add_argument("--stays", type=int, default=50_000)
    parser.add_argument("--only", choices=list(LINES), action="append")
    options = parser.parse_args()
    report: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home = folder / "home"
        measure: Mapping[str, Callable[[], dict[str, Any]]] = {
            "ingest": lambda: ingest.section(folder, home, chart_rows=options.chart_rows, stays=options.stays),
            "training": lambda: rivals.section(folder, home),
            "grid": lambda: grids.section(folder, home),
            "privacy": lambda: private.section(folder, home),
            "sums": lambda: sums.section(folder, home),
        }
        for kind in options.only or LINES:
            report[kind] = {**measure[kind](), **_where()}
            RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    _write_page(report)


def _where() -> dict[str, Any]:
    return {
        "measured_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.platform(),
        "python": platform.python_version(),
    }


def _write_page(report: dict[str, Any]) -> None:
    out = []
    for kind, lines in LINES.items():
        if kind in report:
            found = report[kind]
            where = f"{found['machine']}, {found['cores']} cores, Python {found['python']}, {found['measured_at']}."
            out += ["", *lines(found), "", where]
    head = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    PAGE.write_text(head + MARK + "\n" + "\n".join(out) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
