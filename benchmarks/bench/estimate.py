"""About how long cells take: what records of like cells took, else a declared guess."""

from collections.abc import Sequence
from statistics import median

from bench.plan import Cell
from leaderboard.store import Store

GUESS_SECONDS = {"logistic": 5.0, "gru": 30.0, "trees": 5.0}


def estimate_seconds(cells: Sequence[Cell], store: Store) -> dict[str, float]:
    """Seconds of each cell: the median of the records with its task, model and strategy; then with its model only."""
    like: dict[tuple[str, ...], list[float]] = {}
    for record in store.records():
        if record.status == "ok":
            s = record.spec
            for key in ((s.task.name, s.model.name, s.strategy.name), (s.model.name,)):
                like.setdefault(key, []).append(record.cost.wall_s)
    found = {}
    for cell in cells:
        s = cell.spec
        taken = like.get((s.task.name, s.model.name, s.strategy.name)) or like.get((s.model.name,))
        found[cell.cell_id] = median(taken) if taken else GUESS_SECONDS.get(s.model.name, 10.0)
    return found
