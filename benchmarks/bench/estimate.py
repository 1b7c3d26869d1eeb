"""About how long cells take: what records of like cells took, else a declared guess."""

from collections.abc import Iterable, Sequence
from statistics import median

from bench.code import representation_of
from bench.plan import Cell
from leaderboard.record import Record, Spec
from leaderboard.store import Store

GUESS_TABULAR, GUESS_SERIES = 5.0, 30.0
"""Seconds a setting of a model of which no cell was ever run: one row a patient, or what happened to them when."""


def estimate_seconds(cells: Sequence[Cell], store: Store) -> dict[str, float]:
    """Seconds of each cell: the median of the records like it (`_like`), else a guess.

    An attacker's federations for comparison are like the cell's own, so that a guess counts each of them.
    """
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
    taken: dict[tuple[object, ...], list[float]] = {}
    for record in records:
        if record.status == "ok":
            for key in _like(record.spec):
                taken.setdefault(key, []).append(record.cost.wall_s)
    found = {}
    for cell in cells:
        known = next((taken[key] for key in _like(cell.spec) if key in taken), None)
        found[cell.cell_id] = median(known) if known else _guess(cell.spec)
    return found


def _like(spec: Spec) -> tuple[tuple[object, ...], ...]:
    """What like cells have in common, the most alike first: attacks, noise and model; at best task and strategy too."""
    attacks = (spec.attack.kinds, spec.attack.shadows) if spec.attack else None
    loose = (spec.model.name, attacks, spec.epsilon is not None)
    return (spec.task.name, spec.strategy.name, *loose), loose


def _guess(spec: Spec) -> float:
    tried = len(spec.tune.settings) if spec.tune else 2
    tabular = representation_of(spec.model.name, spec.federation.protocol) == "tabular"
    federations = 1 + (spec.attack.shadows if spec.attack else 0)
    return tried * federations * (GUESS_TABULAR if tabular else GUESS_SERIES)
