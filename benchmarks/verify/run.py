"""`make verify`: the claims that take too long for `make test`, each with its figures in docs/verification.md.

Claims are checked through the command line, as a user would, but for the two engines (`engines.py`). The exit code is 1
if one does not hold. `--only` checks one kind anew and leaves the others as they were.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import engines

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BENCH = str(Path(sys.executable).parent / "bench")
PAGE = ROOT / "docs" / "verification.md"
RESULTS = HERE / "results.json"
MARK = "<!-- verified -->"
SEEDS = 20


@dataclass(frozen=True)
class Claim:
    """One claim: what was asked for, what was found, and whether it holds."""

    claim: str
    asked: str
    found: str
    holds: bool


def bench(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run a command and return its JSON document."""
    print("bench", *arguments, flush=True)
    done = subprocess.run([BENCH, *arguments, "--json"], cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"bench ended with {done.returncode}")
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def pooled_auroc(report: dict[str, Any]) -> dict[tuple[str, str], dict[int, float]]:
    """(model, strategy) -> seed -> pooled AUROC on held-out patients, from the records of a run."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for cell in report["cells"]:
        record = json.loads((Path(report["folder"]) / cell["record"]).read_text(encoding="utf-8"))
        (value,) = [m["value"] for m in record["metrics"] if m["name"] == "auroc" and m["scope"]["kind"] == "pooled"]
        found.setdefault((cell["model"], cell["strategy"]), {})[cell["seed"]] = value
    return found


def physionet(folder: Path, data: Path) -> list[Claim]:
    """PhysioNet 2012 set A by ICU type, split seeds 0 to 19."""
    site = f"a=physionet2012,by=icu_type:{data / 'physionet2012'}"
    cells = ("--only", "model=logistic,strategy=pooled,strategy=fedavg,model=trees")
    task = ("--task", "mortality/in_hospital/first_48h")
    report = bench(folder, "run", "--suite", "quickstart", "--site", site, *task, *cells, "--seeds", str(SEEDS))
    auroc = pooled_auroc({**report, "folder": str(folder)})
    logistic, trees, fedavg = (
        auroc[key] for key in (("logistic", "pooled"), ("trees", "pooled"), ("logistic", "fedavg"))
    )
    loss = [logistic[seed] - fedavg[seed] for seed in range(SEEDS)]
    shown = f"mean of {SEEDS} split seeds"

    def of(values: dict[int, float]) -> str:
        return f"{mean(values.values()):.4f} (sd {stdev(values.values()):.4f})"

    return [
        Claim(
            "PhysioNet 2012 set A, logistic regression, pooled, to convergence",
            f"AUROC >= 0.815, {shown}",
            of(logistic),
            mean(logistic.values()) >= 0.815,
        ),
        Claim(
            "the same, boosted trees, pooled",
            f"AUROC >= 0.83, {shown}",
            of(trees),
            mean(trees.values()) >= 0.83,
        ),
        Claim(
            "the same, logistic regression, FedAvg over the four ICU types",
            f"at most 0.015 AUROC below pooled, {shown}, paired",
            f"{mean(loss):.4f} below (sd {stdev(loss):.4f}); AUROC {of(fedavg)}",
            mean(loss) <= 0.015,
        ),
    ]


PRIVATE = """
name: private
version: 1.0.0
description: Logistic regression over hospitals, tuned without noise, and with patient-level privacy
tasks: [mortality/in_hospital/first_48h]
seeds: {seeds}
{more}
"""


def private(folder: Path, data: Path) -> list[Claim]:
    """PhysioNet 2012 set A by ICU type, split seeds 0 to 19: what a budget of epsilon 8 costs logistic regression."""
    strategies = ("fedavg", "fedprox", "fedadam", "scaffold")
    tuned = f"tune: {{settings: 8}}\nentries: [{{model: logistic, strategies: [{', '.join(strategies)}]}}]"
    noised = "epsilon: [8]\nentries: [{model: logistic, strategies: [fedavg]}]"
    site = f"a=physionet2012,by=icu_type:{data / 'physionet2012'}"
    found = {}
    for name, more in (("tuned", tuned), ("noised", noised)):
        (folder / f"{name}.yaml").write_text(PRIVATE.format(seeds=list(range(SEEDS)), more=more), encoding="utf-8")
        report = bench(folder, "run", "--suite", f"{name}.yaml", "--site", site, "--out", name)
        found[name] = pooled_auroc({**report, "folder": str(folder)})
    best = max(found["tuned"].values(), key=lambda seeds: mean(seeds.values()))
    name = next(strategy for (_, strategy), seeds in found["tuned"].items() if seeds is best)
    (ours,) = found["noised"].values()
    loss = [best[seed] - ours[seed] for seed in range(SEEDS)]
    return [
        Claim(
            "PhysioNet 2012 set A, logistic regression, FedAvg over the four ICU types, patient-level epsilon 8 in "
            f"all at delta below 1/(10 patients), beside the best of {len(strategies)} federated strategies tuned "
            "without noise",
            f"at most 0.03 AUROC below, mean of {SEEDS} split seeds, paired",
            f"{mean(loss):.4f} below (sd {stdev(loss):.4f}); AUROC {mean(ours.values()):.4f}; {name} "
            f"{mean(best.values()):.4f}",
            mean(loss) <= 0.03,
        )
    ]


def simulated(folder: Path) -> list[Claim]:
    """The embedded suite: against the oracle, against the clock, against itself."""
    started = time.perf_counter()
    first = bench(folder, "run", "--suite", "quickstart", "--out", "first")
    minutes = (time.perf_counter() - started) / 60
    claims = [
        Claim("the quickstart suite on simulated hospitals", "within 5 minutes", f"{minutes:.1f} minutes", minutes < 5)
    ]
    for task in dict.fromkeys(row["task"] for row in first["summary"]):
        rows = {
            (r["model"], r["strategy"]): r["metrics"]["auroc"]
            for r in first["summary"]
            if r["task"] == task and r["scope"] == "pooled"
        }
        oracle = rows.pop(("oracle", "truth"))
        best = max(rows, key=lambda key: rows[key]["value"])
        gap = oracle["value"] - rows["logistic", "pooled"]["value"]
        claims += [
            Claim(
                f"{task}: no model beats the oracle beyond its interval",
                f"all AUROC <= {oracle['high']:.3f}",
                f"best is {' '.join(best)}, {rows[best]['value']:.3f}; oracle {oracle['value']:.3f}",
                all(row["value"] <= oracle["high"] for row in rows.values()),
            ),
            Claim(
                f"{task}: pooled logistic regression against the oracle",
                "within 0.05 AUROC",
                f"{gap:.3f} below",
                gap <= 0.05,
            ),
        ]
    second = bench(folder, "run", "--suite", "quickstart", "--out", "second", "--cache", "ignore")
    same = [a["result_sha256"] == b["result_sha256"] for a, b in zip(first["cells"], second["cells"], strict=True)]
    equal = f"{sum(same)} of {len(same)} equal"
    return [*claims, Claim("the suite twice, computed anew", "every result_sha256 equal", equal, all(same))]


def real(folder: Path, data: Path) -> list[Claim]:
    """The real exports together, and OMOP alone."""
    federations = {
        "MIMIC-III demo (CareVue), MIMIC-IV demo, eICU demo by region": [
            f"iii=mimic3,carevue:{data / 'mimiciii_demo_1.4'}",
            f"iv=mimic4:{data / 'mimiciv_demo_2.2'}",
            f"eicu=eicu,by=region:{data / 'eicu_demo_2.0.1'}",
        ],
        "MIMIC-IV demo in OMOP": [f"omop=omop:{data / 'mimiciv_demo_omop_0.9' / '1_omop_data_csv'}"],
    }
    claims = []
    for name, sites in federations.items():
        options = [text for site in sites for text in ("--site", site)]
        report = bench(folder, "run", "--suite", "quickstart", *options, "--out", f"real-{len(claims)}")
        states = [cell["status"] for cell in report["cells"]]
        found = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        claims.append(Claim(f"the quickstart suite on {name}", "every cell ends ok", found, set(states) == {"ok"}))
    return claims


def both_engines(folder: Path) -> tuple[list[Claim], list[str]]:
    """Every pair of model and strategy in both engines, and its table."""
    found = engines.pairs(folder / "pairs")
    counts = {state: list(found.values()).count(state) for state in dict.fromkeys(found.values())}
    claim = Claim(
        "every pair of model and strategy, in process and in Flower's simulation engine",
        "every result_sha256 equal",
        ", ".join(f"{count} {state}" for state, count in counts.items()),
        set(found.values()) == {"equal"},
    )
    return [claim], engines.table(found)


def replayed() -> tuple[list[Claim], list[str]]:
    """Suite `heart` against FLamby's published cells; docs/heart.md has its tables."""
    done = subprocess.run([sys.executable, HERE / "heart.py"], stdout=subprocess.PIPE, text=True, check=False)
    said = done.stdout.strip().splitlines()[-1].partition(" are FLamby's")[0]
    asked = "per-centre means to four digits for seven of nine methods"
    return [Claim("suite heart against FLamby's published accuracies", asked, said, done.returncode == 0)], []


def main() -> None:
    """Check every claim, or those of the kinds that are asked for, and write the page."""
    data = (ROOT / os.environ.get("FEDWARD_REAL_DATA", "../shared/data")).resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checks: dict[str, Callable[[], tuple[list[Claim], list[str]]]] = {
            "simulated": lambda: (simulated(folder), []),
            "real": lambda: (real(folder, data), []),
            "physionet": lambda: (physionet(folder, data), []),
            "private": lambda: (private(folder, data), []),
            "heart": replayed,
            "engines": lambda: both_engines(folder),
        }
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("--only", choices=list(checks), action="append")
        report: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
        holds = True
        for kind in parser.parse_args().only or checks:
            if kind in ("real", "physionet", "private", "heart") and not data.is_dir():
                print(f"no real data at {data}: the claims of {kind} are not checked", file=sys.stderr)
                continue
            os.environ["FEDWARD_HOME"] = str(folder / "home")
            claims, table = checks[kind]()
            for claim in claims:
                print("ok " if claim.holds else "NOT", claim.claim, "|", claim.asked, "|", claim.found, flush=True)
            holds = holds and all(claim.holds for claim in claims)
            report[kind] = {"claims": [asdict(claim) for claim in claims], "table": table, **_where()}
            RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
            _write(report)
    sys.exit(0 if holds else 1)


def _where() -> dict[str, Any]:
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "verified_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": commit.stdout.strip() or None,
        "cores": len(os.sched_getaffinity(0)),
    }


def _write(report: dict[str, Any]) -> None:
    lines = []
    for found in report.values():
        lines += ["", "| claim | asked | found | |", "|---|---|---|---|"]
        for claim in found["claims"]:
            state = "holds" if claim["holds"] else "**does not hold**"
            lines.append(f"| {claim['claim']} | {claim['asked']} | {claim['found']} | {state} |")
        lines += ["", *found["table"], ""] if found["table"] else [""]
        lines.append(f"{found['verified_at']}, commit {found['commit']}, {found['cores']} cores.")
    head = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    PAGE.write_text(head + MARK + "\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
