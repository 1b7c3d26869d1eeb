"""Running the pending cells of a plan: samples first, each once, then cells side by side, each record as it ends."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.cell import Piece, run_cell
from bench.code import ORACLE, representation_of
from bench.estimate import longest_first
from bench.grid import Grid
from bench.modes import CacheMode, Rerun
from bench.plan import Cell, code_of, is_pending
from bench.policies import Policies
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
    engine: str = "inline",
    policies: Policies | None = None,
) -> list[Finished]:
    """Run what is pending, write each record as its cell ends, and return all cells that have one, in plan order.

    Raises:
        InputError: records cannot be written, or Flower's simulation engine is to share a Ray cluster.
    """
    if engine != "inline":
        if address is not None:
            raise InputError(f"--engine {engine} brings a Ray of its own for each cell; leave --ray-address out")
        jobs = 1  # Flower's simulation claims every processor, and shuts the Ray of a worker down
    store = Store(out)
    found = {cell.cell_id: Finished(cell, store.read(cell.found.path), True) for cell in cells if cell.found}
    pending = (
        [cell for cell in cells if is_pending(cell, cache_mode, rerun)] if cache_mode is not CacheMode.only else []
    )
    # the oracle is looked up in no time: it is worth no process of its own
    jobs = min(jobs, max(1, sum(cell.spec.model.name != ORACLE for cell in pending)))
    if jobs > 1 or address is not None:
        pending = longest_first(pending, [one.record for one in found.values()])
    if pending:
        _check_writable(out)
        reuse = cache_mode is not CacheMode.ignore and rerun is not Rerun.all
        pieces = [
            Piece(cell.spec, cell.task, (), cell.code_fingerprint, command, reuse, engine, policies or {})
            for cell in pending
        ]
        with Watch(pending, total_cells=len(cells), quiet=quiet) as watch, Grid(jobs, address) as grid:
            _prepare(pieces, sites, grid, watch)
            for outcome in grid.run(partial(_run_cell, tuple(sites)), pieces, watch.report):
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


def _run_cell(sites: tuple[Site, ...], piece: Piece, report: Any) -> Record:
    """Run a cell whose sites, a megabyte each, did not travel with it.

    Raises:
        InputError: the code here is not the code that the record would name.
    """
    asked = piece.spec
    if code_of(asked) != piece.code_fingerprint:
        raise InputError(
            f"the code on {platform.node()} differs from the code that the cell was planned with; have the same "
            "FedWard, libraries and modules of your own on every node, and change none of them during a run"
        )
    return run_cell(replace(piece, sites=sites), report)


def _prepare(pieces: Sequence[Piece], sites: Sequence[Site], grid: Grid, watch: Watch) -> None:
    """Make each site's samples once, before several cells want them at the same time."""
    wanted = {}
    for piece in pieces:
        representation = representation_of(piece.spec.model.name, piece.spec.federation.protocol)
        for number, site in enumerate(sites):
            wanted[site.name, piece.spec.task.name, representation] = (piece, number, representation)
    for done, _ in enumerate(grid.run(partial(prepare_site, tuple(sites)), list(wanted.values())), start=1):
        watch.preparing(done, len(wanted))


def prepare_site(sites: tuple[Site, ...], what: tuple[Piece, int, str], report: Any) -> None:
    """Extract one site's samples for one task and representation, so that the cells find them on disk."""
    from bench.training import prepared_site
    from fedcore.cohort import CannotServe

    piece, number, representation = what
    try:
        prepared_site(piece.spec.federation.protocol, sites[number], piece.task, representation, piece.spec.split_seed)
    except CannotServe:
        return


def _died(piece: Piece, error: str, trace: str | None) -> Record:
    """The record of a cell whose worker did not live to write one."""
    return seal(
        spec=piece.spec,
        status="failed",
        code_fingerprint=piece.code_fingerprint,
        provenance=provenance(now(), piece.command, piece.engine, traceback=trace),
        cost=Cost(wall_s=0.0),
        error=Failure(kind="WorkerDied", message=error or "the worker process ended without a word"),
    )
