"""`make audit`: what each audit finds in 100 honest runs, and in 100 of each way in which private training breaks.

The exit code is 1 if more than 11 of 100 honest bounds exceed the claim (one in twenty may, and 11 of 100 hardly ever
do), or the white-box audit misses a fault in more than five of a hundred. `--only` repeats one audit alone.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from privacy.audit import audits
from privacy.audit.audits import Bound, Transcript
from privacy.audit.broken import ALL_DRAWN, FAULTS, WHOLE, Trial

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "verification.md"
RESULTS = HERE / "results.json"
BEGIN, END = "<!-- audited -->", "<!-- end of audited -->"
FALSE_ALARMS = 11
CAUGHT = 0.95


@dataclass(frozen=True)
class Audit:
    """One kind of audit: of what, by which bound, how often with each fault, and whether it has to find each."""

    trial: Trial
    bound: Callable[[Transcript, float], Bound]
    with_fault: int
    finds_all: bool
    honest: int = 100


AUDITS = {
    "white box": Audit(Trial(), audits.white_box, 100, finds_all=True),
    "white box, all drawn": Audit(Trial(sampling_rate=1.0), audits.white_box, 20, finds_all=False),
    "many runs": Audit(
        Trial(claim=1.0, sampling_rate=1.0, steps=1, canaries=1, runs=500), audits.many_runs, 20, finds_all=False
    ),
    "one run": Audit(Trial(canaries=500, runs=1), audits.one_run, 20, finds_all=False),
}


def repeated(audit: Audit) -> list[dict[str, Any]]:
    """A line for the whole mechanism and for each fault: the bounds of each repeat."""
    lines = []
    for name, fault in {"none": WHOLE, **FAULTS}.items():
        if name == ALL_DRAWN and audit.trial.sampling_rate == 1:
            continue  # so they are
        started, times = time.perf_counter(), audit.honest if fault is WHOLE else audit.with_fault
        found = [audit.bound(audit.trial.transcript(fault, seed), audit.trial.delta).epsilon for seed in range(times)]
        above = sum(bound > audit.trial.claim for bound in found)
        lines.append(
            {"fault": name, "repeats": times, "above": above, "lowest": min(found), "median": median(found)}
            | {"highest": max(found)}
        )
        print(f"{name}: {above} of {times} above the claim, {time.perf_counter() - started:.0f} s", flush=True)
    return lines


def holds(audit: Audit, lines: list[dict[str, Any]]) -> bool:
    """Whether honest training is believed and, where it has to be, every fault is found."""
    honest, *faulty = lines
    found = all(line["above"] >= CAUGHT * line["repeats"] for line in faulty)
    return honest["above"] <= FALSE_ALARMS and (found or not audit.finds_all)


def table(report: dict[str, Any]) -> list[str]:
    """What docs/verification.md says of it."""
    lines = []
    for name, found in report.items():
        trial = found["trial"]
        lines += [
            f"**{name[0].upper()}{name[1:]}**: claim epsilon {trial['claim']:g} at delta {found['delta']:.2g}, noise "
            f"{found['noise']:.3g}, sampling rate {trial['sampling_rate']:g}, rounds {trial['visits']}, steps a round "
            f"{trial['steps']}; for one bound, runs {trial['runs']}, canaries a run {trial['canaries']}.",
            "",
            "| what is broken | bounds above the claim | lowest | median | highest |",
            "|---|---:|---:|---:|---:|",
        ]
        for one in found["lines"]:
            numbers = " | ".join(f"{one[key]:.2f}" for key in ("lowest", "median", "highest"))
            lines.append(
                f"| {one['fault'].replace('none', 'nothing')} | {one['above']} of {one['repeats']} | {numbers} |"
            )
        lines += ["", f"{found['audited_at']}, commit {found['commit']}, {found['seconds']} s.", ""]
    return lines


def main() -> None:
    """Run the audits that are asked for, and write what they found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=list(AUDITS), action="append")
    report: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    good = True
    for name in parser.parse_args().only or AUDITS:
        print(name, flush=True)
        audit, started = AUDITS[name], time.perf_counter()
        lines = repeated(audit)
        good = good and holds(audit, lines)
        report[name] = {
            "trial": asdict(audit.trial),
            "delta": audit.trial.delta,
            "noise": audit.trial.noise,
            "lines": lines,
            "audited_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "commit": _commit(),
            "cores": len(os.sched_getaffinity(0)),
            "seconds": round(time.perf_counter() - started),
        }
        RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        written(PAGE, BEGIN, END, table({key: report[key] for key in AUDITS if key in report}))
    sys.exit(0 if good else 1)


def written(page: Path, begin: str, end: str, lines: list[str]) -> None:
    """Put lines between two marks of a page."""
    head, _, rest = page.read_text(encoding="utf-8").partition(begin)
    tail = rest.partition(end)[2]
    page.write_text(head + begin + "\n\n" + "\n".join(lines) + "\n" + end + tail, encoding="utf-8")


def _commit() -> str | None:
    found = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


if __name__ == "__main__":
    main()
