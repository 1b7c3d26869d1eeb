"""One cell end to end: sites, federation, evaluators, record.

The evaluators see predictions on held-out patients and nothing else; they do not know the federation, nor it them.
"""

import errno
import hashlib
import os
import resource
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from bench.code import ORACLE
from bench.policies import Policies
from bench.provenance import now, provenance
from fedcore.task import Task
from leaderboard.measured import Cost, Predictions
from leaderboard.record import Failure, Record, Spec, seal
from leaderboard.statistics import SitePredictions, evaluate
from sites.errors import InputError
from sites.home import home
from sites.site import Site


@dataclass(frozen=True)
class Piece:
    """What a worker needs to run a cell.

    `sites` may play other parts than in the cell, whose spec says which train and which are only scored.
    """

    spec: Spec
    task: Task
    sites: tuple[Site, ...]
    code_fingerprint: str
    command: str
    reuse: bool = True
    engine: str = "inline"
    policies: Policies = field(default_factory=dict)


def run_cell(piece: Piece, report: Callable[[Any], None]) -> Record:
    """Run a cell to its record; what goes wrong is a record too.

    Args:
        piece: the cell.
        report: is told of each round (`fedcore.rounds.RoundReport`).
    """
    started_at, wall, cpu = now(), time.perf_counter(), time.process_time()

    def cost(**counted: Any) -> Cost:
        return Cost(
            wall_s=round(time.perf_counter() - wall, 3),
            cpu_s=round(time.process_time() - cpu, 3),
            peak_rss_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
            **counted,
        )

    try:
        return _scored(piece, report, started_at, cost)
    except InputError as reason:
        return _without_result(piece, "skipped", reason, None, started_at, cost())
    except Exception as error:
        return _without_result(piece, "failed", error, traceback.format_exc(), started_at, cost())


def _scored(piece: Piece, report: Callable[[Any], None], started_at: str, cost: Callable[..., Cost]) -> Record:
    spec = piece.spec
    if spec.model.name == ORACLE:
        from bench.oracle import predict
    else:
        from bench.training import predict
    roles = {site.name: site.role == "external" for site in spec.sites}
    sites = [replace(site, external=roles[site.name]) for site in piece.sites]
    predicted = predict(
        spec, piece.task, sites, report, reuse=piece.reuse, engine=piece.engine, policies=piece.policies
    )
    trained = predicted.trained
    held_out = held_out_predictions(predicted.predictions)
    metrics = evaluate(
        held_out,
        spec.evaluation.metrics,
        b=spec.evaluation.b,
        level=spec.evaluation.level,
        seed=spec.seed,
        small_groups=spec.evaluation.small_groups,
    )
    if spec.attack is not None:
        from bench.attacks.attack import SCORES, attacked
        from bench.attacks.scene import scene_of

        metrics += attacked(
            scene_of(spec, spec.attack, piece.task, sites, predicted), predicted.predictions.parent / SCORES
        )
    return seal(
        spec=spec,
        status="ok",
        code_fingerprint=piece.code_fingerprint,
        provenance=provenance(started_at, piece.command, trained.engine, trained.device),
        cost=cost(
            bytes_up=trained.bytes_up,
            bytes_down=trained.bytes_down,
            rounds=len(trained.round_s),
            round_s=tuple(round(seconds, 4) for seconds in trained.round_s),
        ),
        data=trained.data,
        training=trained.training,
        metrics=metrics,
        checks=trained.checks,
        releases=trained.releases,
        privacy=trained.privacy,
        predictions=Predictions(sha256=_sha256(held_out), rows=sum(len(one.y) for one in held_out)),
    )


def held_out_predictions(path: Path) -> list[SitePredictions]:
    """The predictions on held-out patients, site by site, from a file in MEDS-evaluation's columns.

    A site without held-out patients has none, and its metrics say so.
    """
    frame = pl.read_parquet(path).sort("site_id", maintain_order=True)
    found = []
    for (site,), rows in frame.group_by("site_id", maintain_order=True):
        held_out = rows.filter(pl.col("split") == "held_out")
        found.append(
            SitePredictions(
                site=str(site),
                external=bool(rows["external"][0]),
                patient=held_out["patient_id"].to_numpy(),
                y=held_out["boolean_value"].to_numpy(),
                p=held_out["predicted_boolean_probability"].to_numpy(),
            )
        )
    return found


def _sha256(predictions: list[SitePredictions]) -> str:
    """Of the values, not of the file: a Parquet file's bytes are its writer's."""
    digest = hashlib.sha256()
    for one in predictions:
        digest.update(one.site.encode() + b"\0")
        digest.update(one.patient.astype("<i8").tobytes() + one.y.tobytes() + one.p.astype("<f8").tobytes())
    return digest.hexdigest()


def _without_result(
    piece: Piece, status: Any, error: Exception, trace: str | None, started_at: str, cost: Cost
) -> Record:
    return seal(
        spec=piece.spec,
        status=status,
        code_fingerprint=piece.code_fingerprint,
        provenance=provenance(started_at, piece.command, piece.engine, traceback=trace),
        cost=cost,
        error=Failure(kind=type(error).__name__, message=_sentence(error)),
    )


def _sentence(error: Exception) -> str:
    """What the error says; of a full disk each library speaks in its own way, and none says where."""
    said = str(error) or type(error).__name__
    full = os.strerror(errno.ENOSPC)
    of_numpy = isinstance(error, OSError) and error.errno is None and " requested and " in said
    if full in said or of_numpy:
        return f"{home()}: {full} ({said}); make room, and run the cell again with --rerun failed"
    return said
