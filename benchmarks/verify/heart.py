"""Suite `heart` against the cells that FLamby published, and what equal tuning does to its ranking.

`heart.py [FOLDER]` runs the suites `heart` and `heart-tuned` as a user would and writes the tables of docs/heart.md.
What it has run it keeps in the folder, if one is named, and goes on from there. The exit code is 1 if fewer than seven
of FLamby's nine methods have its means at every centre to four digits.

`flamby_heart.csv` holds FLamby's published accuracies as numbers of right predictions; they stand in
flamby/results/results_benchmark_fed_heart_disease/heart_seed42.csv to heart_seed46.csv of github.com/owkin/FLamby.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BENCH = str(Path(sys.executable).parent / "bench")
PAGE = ROOT / "docs" / "heart.md"

TESTS = {"cleveland": 104, "hungarian": 89, "switzerland": 16, "va": 45, "pooled_test": 254}
"""How many patients each test set has."""
CENTRES = tuple(TESTS)[:4]

METHODS: Mapping[str, tuple[str, ...]] = {
    "local": tuple(f"local_{centre}" for centre in CENTRES),
    **{
        name: (name,)
        for name in ("pooled", "cyclic", "fedavg", "fedprox", "scaffold", "fedadam", "fedyogi", "fedadagrad")
    },
}
"""FLamby's nine methods, and the strategies that each of them is."""

FEDERATED = ("fedavg", "fedprox", "scaffold", "fedadam", "fedyogi", "fedadagrad", "cyclic")

Counts = dict[tuple[str, int], dict[str, int]]
"""(strategy, seed) -> test set -> right predictions."""


@dataclass(frozen=True)
class Tuned:
    """One cell of `heart-tuned`."""

    accuracy: float
    auroc: float
    brier: float
    trials: int


def main() -> None:
    """Run both suites, compare, write."""
    published = read_published()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else name).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        replayed = {key: rights(record) for key, record in records(folder, "heart").items()}
        tuned = {key: tuned_cell(record) for key, record in records(folder, "heart-tuned").items()}
    equal = [method for method in METHODS if same_means(replayed, published, METHODS[method])]
    cells = sum(replayed[key][test] == right for key, row in published.items() for test, right in row.items())
    print(
        f"{cells} of {len(TESTS) * len(published)} cells, {len(equal)} of {len(METHODS)} methods are FLamby's: {equal}"
    )
    write("replayed", replay_table(replayed, published, cells, len(equal)))
    write("tuned", tuned_table(tuned, published))
    sys.exit(0 if len(equal) >= 7 else 1)


def records(folder: Path, suite: str) -> dict[tuple[str, int], dict[str, Any]]:
    """(strategy, seed) -> record, of a suite that is run in this folder."""
    environment = {**os.environ, "FEDWARD_HOME": str(folder / "home")}
    environment.setdefault("FEDWARD_REAL_DATA", str(ROOT.parent / "shared" / "data"))
    print("bench run --suite", suite, flush=True)
    done = subprocess.run(
        [BENCH, "run", "--suite", suite, "--out", str(folder / "results"), "--json"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"bench ended with {done.returncode}")
    cells = json.loads(done.stdout)["cells"]
    read = [json.loads((folder / cell["record"]).read_text(encoding="utf-8")) for cell in cells]
    return {(one["spec"]["strategy"]["name"], one["spec"]["seed"]): one for one in read}


def read_published() -> Counts:
    """FLamby's cells."""
    with (HERE / "flamby_heart.csv").open(encoding="utf-8") as file:
        return {
            (row["method"], int(row["seed"])): {test: int(row[test]) for test in TESTS} for row in csv.DictReader(file)
        }


def values(record: Mapping[str, Any], metric: str) -> dict[tuple[str, str | None], float]:
    """(scope, site) -> value of a metric."""
    return {
        (m["scope"]["kind"], m["scope"]["id"] if m["scope"]["kind"] in ("site", "external") else None): m["value"]
        for m in record["metrics"]
        if m["name"] == metric
    }


def rights(record: Mapping[str, Any]) -> dict[str, int]:
    """Right predictions of a cell at each test set."""
    found = {site: value for (_, site), value in values(record, "accuracy").items() if site is not None}
    return {test: round(found[test] * patients) for test, patients in TESTS.items()}


def tuned_cell(record: Mapping[str, Any]) -> Tuned:
    """What the second table shows of a cell."""
    return Tuned(
        accuracy=values(record, "accuracy")["site-macro", None],
        auroc=values(record, "auroc")["pooled", None],
        brier=values(record, "brier")["pooled", None],
        trials=len(record["training"]["trials"]),
    )


def shares(counts: Counts, strategy: str, test: str) -> list[float]:
    """A strategy's accuracy at a test set, seed by seed."""
    return [row[test] / TESTS[test] for (name, _), row in sorted(counts.items()) if name == strategy]


def averages(counts: Counts, strategy: str) -> list[float]:
    """The unweighted mean over the centres, seed by seed."""
    return [mean(column) for column in zip(*(shares(counts, strategy, centre) for centre in CENTRES), strict=True)]


def same_means(ours: Counts, theirs: Counts, strategies: Sequence[str]) -> bool:
    """Whether the means over seeds agree at every centre to four digits."""
    return all(
        f"{mean(shares(ours, strategy, centre)):.4f}" == f"{mean(shares(theirs, strategy, centre)):.4f}"
        for strategy in strategies
        for centre in CENTRES
    )


def replay_table(ours: Counts, theirs: Counts, cells: int, methods: int) -> list[str]:
    """Both tables, line by line."""
    lines = [
        "| method | | Cleveland | Hungary | Switzerland | Long Beach | average | pooled test | equal cells |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for strategy in (one for names in METHODS.values() for one in names):
        same = sum(ours[key][test] == theirs[key][test] for key in theirs if key[0] == strategy for test in TESTS)
        for who, counts, last in (("FedWard", ours, f"{same} of 25"), ("FLamby", theirs, "")):
            row = [f"{mean(shares(counts, strategy, centre)):.4f}" for centre in CENTRES]
            row += [spread(averages(counts, strategy)), spread(shares(counts, strategy, "pooled_test"))]
            lines.append("| " + " | ".join([f"`{strategy}`" if last else "", who, *row, last]) + " |")
    total = 5 * len(theirs)
    return [
        *lines,
        "",
        f"{cells} of {total} cells are equal; {methods} of 9 methods have FLamby's means at every centre.",
    ]


def tuned_table(tuned: Mapping[tuple[str, int], Tuned], published: Counts) -> list[str]:
    """Ranks before and after tuning, and what accuracy does not see."""
    lines = [
        "| strategy | FLamby's accuracy | rank | accuracy, tuned | rank | AUROC, tuned | Brier score, tuned |",
        "|---|---|---|---|---|---|---|",
    ]
    before = {name: mean(averages(published, name)) for name in FEDERATED}
    cells = {name: [cell for (of, _), cell in sorted(tuned.items()) if of == name] for name, _ in tuned}
    after = {name: mean(cell.accuracy for cell in cells[name]) for name in FEDERATED}
    for name in sorted(FEDERATED, key=lambda name: -after[name]):
        ranked = f"{spread(averages(published, name))} | {rank(before, name)}"
        lines.append(f"| `{name}` | {ranked} | {_scores(cells[name], rank(after, name))}")
    for name in ("pooled", "local"):
        shown = spread(averages(published, name)) if name == "pooled" else ""
        lines.append(f"| anchor `{name}` | {shown} | | {_scores(cells[name], '')}")
    tried = sorted({cell.trials for name in FEDERATED for cell in cells[name]})
    gap = {key: max(of.values()) - min(of.values()) for key, of in (("before", before), ("after", after))}
    return [
        *lines,
        "",
        f"Settings tried in each federated and pooled cell: {', '.join(map(str, tried))}.",
        "From best to worst strategy there are "
        f"{100 * gap['before']:.1f} points of accuracy in FLamby's table and {100 * gap['after']:.1f} after tuning.",
    ]


def _scores(cells: Sequence[Tuned], place: str) -> str:
    accuracy = spread([cell.accuracy for cell in cells])
    return f"{accuracy} | {place} | {spread([c.auroc for c in cells])} | {spread([c.brier for c in cells])} |"


def spread(found: Sequence[float]) -> str:
    """Mean and standard deviation over seeds."""
    return f"{mean(found):.4f} ± {stdev(found):.4f}"


def rank(of: Mapping[str, float], name: str) -> str:
    """1 for the best; equals share the better rank."""
    return str(1 + sum(value > of[name] + 1e-9 for value in of.values()))


def write(part: str, lines: Sequence[str]) -> None:
    """Put lines between a part's marks in the page."""
    begin, end = f"<!-- {part} -->", f"<!-- /{part} -->"
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(begin)
    PAGE.write_text(head + begin + "\n\n" + "\n".join(lines) + "\n\n" + end + rest.split(end)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
