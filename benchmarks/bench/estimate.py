"""About how long cells take: what records of like cells took, else a declared guess."""

from collections.abc import Iterable, Sequence
from statistics import median

from bench.code import representation_of
from bench.plan import Cell
from leaderboard.record import Record
from leaderboard.store import Store

GUESS_TABULAR, GUESS_SERIES = 5.0, 30.0
"""Seconds a setting of a model of which no cell was ever run: one row a patient, or what happened to them when."""


def estimate_seconds(cells: Sequence[Cell], store: Store) -> dict[str, float]:
    """Seconds of each cell: the median of the records with its task, model and strategy; then with its model only."""
    return _seconds(cells, store.records())


def longest_first(cells: Sequence[Cell], known: Iterable[Record]) -> list[Cell]:
    """So that no long cell is left for the end of a grid, when the other processors have nothing more to do.

    Args:
        cells: what there is to do.
        known: records of like cells, if there are any.
    """
    seconds = _seconds(cells, known)
    return sorted(cells, key=lambda cell: -seconds[cell.cell_id])


def _seconds(cells: Sequence[Cell], records: Iterable[Record]) -> dict[str, float]:
    like: dict[tuple[str, ...], list[float]] = {}
    for record in records:
        if record.status == "ok":
            s = record.spec
            for key in ((s.task.name, s.model.name, s.strategy.name), (s.model.name,)):
                like.setdefault(key, []).append(record.cost.wall_s)
    found = {}
    for cell in cells:
        s = cell.spec
        taken = like.get((s.task.name, s.model.name, s.strategy.name)) or like.get((s.model.name,))
        tried = len(s.tune.settings) if s.tune else 2
        tabular = representation_of(s.model.name, s.federation.protocol) == "tabular"
        found[cell.cell_id] = median(taken) if taken else tried * (GUESS_TABULAR if tabular else GUESS_SERIES)
    return found
