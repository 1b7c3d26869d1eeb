"""A grid that is finished: `python finished.py SUITE.yaml RECORDS` gives every cell of a suite a record.

All have the numbers of one real run on the embedded hospitals, so that planning can be timed where nothing is pending
without having run it.
"""

import json
import sys
from pathlib import Path

from bench.open import open_all
from bench.plan import Cell, Choice, make_plan
from bench.suite import load_suite
from leaderboard.record import Record, seal
from leaderboard.store import Store

SUITE = """
name: finished
version: 1.0.0
description: A thousand cells, all of which have a record
tasks: [mortality/in_hospital/first_24h]
entries:
  - model: logistic
    strategies: [local, pooled, fedavg]
  - model: gru
    strategies: [fedavg]
seeds: [{seeds}]
evaluation: {{replicates: 1000}}
"""
"""Four cells a seed, and the embedded hospitals' oracle."""


def write_suite(path: Path, cells: int) -> None:
    """A suite of so many cells on the embedded hospitals, in fives."""
    path.write_text(SUITE.format(seeds=", ".join(map(str, range(cells // 5)))), encoding="utf-8")


def fill(suite: Path, out: Path) -> int:
    """Write the records that are missing, after the pattern of one that is there; returns how many cells there are."""
    store = Store(out)
    cells = make_plan(load_suite(str(suite)), open_all([], [], quiet=True), Choice(), store)
    known = {cell.cell_id: store.latest(cell.cell_id, cell.code_fingerprint) for cell in cells}
    pattern = next(record for record in known.values() if record is not None and record.training is not None)
    for cell in cells:
        if known[cell.cell_id] is None:
            store.write(_after(pattern, cell))
    return len(cells)


def _after(pattern: Record, cell: Cell) -> Record:
    return seal(
        spec=cell.spec,
        status="ok",
        code_fingerprint=cell.code_fingerprint,
        provenance=pattern.provenance,
        cost=pattern.cost,
        data=pattern.data,
        training=pattern.training,
        metrics=pattern.metrics,
        releases=pattern.releases,
        predictions=pattern.predictions,
    )


if __name__ == "__main__":
    print(json.dumps({"cells": fill(Path(sys.argv[1]), Path(sys.argv[2]))}))
