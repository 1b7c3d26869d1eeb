"""Running the pending cells of a plan: samples first, each once, then cells side by side, each record as it ends."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.cell import Piece, run_cell
from bench.grid import Grid
from bench.modes import CacheMode, Rerun
from bench.plan import Cell, is_pending, representation_of
from bench.progress import Watch
from bench.provenance import now, provenance
from leaderboard.measured import Cost
from leaderboard.record import Failure, Record, seal
from leaderboard.store import Store
from sites.errors import InputError
from sites.site import Site


@dataclass(frozen=True)
class Finished:
    """A cell with its record; `cached` if it was there before."""

    cell: Cell
    record: Record
    cached: bool


def run_cells(
    cells: Sequence[Cell],
    sites: Sequence[Site],
    *,
    out: Path,
    jobs: int,
    address: str | None,
    cache_mode: CacheMode,
    rerun: Rerun | None,
    command: str,
    quiet: bool,
) -> list[Finished]:
    """Run what is pending, write each record as its cell ends, and return all cells that have one, in plan order."""
    store = Store(out)
    found = {cell.cell_id: Finished(cell, cell.record, True) for cell in cells if cell.record is not None}
    pending = (
        [cell for cell in cells if is_pending(cell, cache_mode, rerun)] if cache_mode is not CacheMode.only else []
    )
    if pending:
        _check_writable(out)
        reuse = cache_mode is not CacheMode.ignore and rerun is not Rerun.all
        pieces = [Piece(cell.spec, cell.task, tuple(sites), cell.code_fingerprint, command, reuse) for cell in pending]
        with Watch(pending, total_cells=len(cells), quiet=quiet) as watch, Grid(jobs, address) as grid:
            _prepare(pieces, grid, watch)
            for outcome in grid.run(run_cell, pieces, watch.report):
                piece = pieces[outcome.index]
                record = outcome.result or _died(piece, outcome.error or "", outcome.trace)
                store.write(record)
                cell = pending[outcome.index]
                found[cell.cell_id] = Finished(cell, record, False)
                watch.finished(outcome.index, record)
    return [found[cell.cell_id] for cell in cells if cell.cell_id in found]


def _check_writable(out: Path) -> None:
    """Find out before the first cell, not after it, whether its record can be kept."""
    out.mkdir(parents=True, exist_ok=True)
    if not os.access(out, os.W_OK | os.X_OK):
        raise InputError(f"{out}: no record may be written there; change its mode, or give another folder with --out")


def _prepare(pieces: Sequence[Piece], grid: Grid, watch: Watch) -> None:
    """Make each site's samples once, before several cells want them at the same time."""
    wanted = {}
    for piece in pieces:
        representation = representation_of(piece.spec.model.name)
        for number in range(len(piece.sites)):
            wanted[piece.sites[number].name, piece.spec.task.name, representation] = (piece, number, representation)
    for done, _ in enumerate(grid.run(prepare_site, list(wanted.values())), start=1):
        watch.preparing(done, len(wanted))


def prepare_site(what: tuple[Piece, int, str], report: Any) -> None:
    """Extract one site's samples for one task and representation, so that the cells find them on disk."""
    from fedcore.cohort import CannotServe
    from fedcore.prepare import prepare
    from sites.home import home

    piece, number, representation = what
    try:
        prepare(piece.sites[number], piece.task, representation, piece.spec.split_seed, home())
    except CannotServe:
        return


def _died(piece: Piece, error: str, trace: str | None) -> Record:
    """The record of a cell whose worker did not live to write one."""
    return seal(
        spec=piece.spec,
        status="failed",
        code_fingerprint=piece.code_fingerprint,
        provenance=provenance(now(), piece.command, trace),
        cost=Cost(wall_s=0.0),
        error=Failure(kind="WorkerDied", message=error or "the worker process ended without a word"),
    )
