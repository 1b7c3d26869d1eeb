"""The half of a cell that makes predictions: sites to samples, samples to a federation, its predictions kept at home.

What was trained has a key of its own (the spec without its evaluation, and the code that trains), so that a new
evaluator retrains nothing. Predictions are patient data: they lie under FEDWARD_HOME and never in `results/`.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict

from bench import account
from bench.claim import claimed
from bench.code import representation_of, training_code
from bench.game import play
from bench.policies import Policies, guards_of, refusals, told
from bench.transcript import Transcript
from fedcore.cohort import CannotServe
from fedcore.errors import CheckpointError, FederationError
from fedcore.federation import FederationRequest, FederationResult, Passed, run_federation
from fedcore.guard import Guard
from fedcore.prepare import Prepared, hashed, prepare
from fedcore.protocols import protocol
from fedcore.rounds import RoundReport
from fedcore.samples import SiteSamples
from fedcore.strategies import strategy
from fedcore.task import Task
from leaderboard.measured import (
    Check,
    Data,
    Release,
    SitePrivacy,
    SkippedSite,
    Training,
)
from leaderboard.record import Spec, training_id
from leaderboard.spec import SHARED_NOISE
from sites.errors import InputError
from sites.home import home
from sites.site import Site

OnRound = Callable[[RoundReport], None]


class Trained(BaseModel):
    """What training came to, beside the predictions; `engine` and `device` are where it ran."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Data
    training: Training
    releases: tuple[Release, ...]
    checks: tuple[Check, ...] = ()
    privacy: tuple[SitePrivacy, ...] = ()
    bytes_up: int
    bytes_down: int
    round_s: tuple[float, ...]
    engine: str = "inline"
    device: str = "cpu"


@dataclass(frozen=True)
class Predicted:
    """A trained cell: what is known of it, and where its predictions lie."""

    trained: Trained
    predictions: Path


def prepared_sites(
    spec: Spec, task: Task, sites: Sequence[Site], representation: str, refused: Sequence[SkippedSite] = ()
) -> tuple[list[Prepared], tuple[SkippedSite, ...]]:
    """Every site's samples, and the sites that cannot serve the task, each with the reason; in the order of names.

    Those that have refused to are among the latter, and nothing is read of them.

    Raises:
        InputError: no training site can serve the task.
    """
    served, skipped = [], list(refused)
    known = {one.name for one in refused}
    for site in sorted((site for site in sites if site.name not in known), key=lambda site: site.name):
        try:
            served.append(prepared_site(spec.federation.protocol, site, task, representation, spec.split_seed))
        except CannotServe as reason:
            skipped.append(SkippedSite(name=site.name, reason=str(reason)))
    if all(one.samples.external for one in served):
        reasons = "; ".join(dict.fromkeys(site.reason.rstrip(".") for site in skipped))
        raise InputError(f"no site can train for {spec.task.name}: {reasons}")
    return served, tuple(skipped)


def prepared_site(rules: str | None, site: Site, task: Task, representation: str, split_seed: int) -> Prepared:
    """A site's samples, as the protocol of that name prepares them or as we do.

    Raises:
        CannotServe: the site cannot serve the task.
    """
    if rules is not None:
        return protocol.load(rules).prepare(site, task, split_seed)
    return prepare(site, task, representation, split_seed, home())


def trained_folder(spec: Spec, code_fingerprint: str) -> Path:
    """Where what was trained for a spec by some code lies or will lie."""
    key = hashlib.sha256(f"{training_id(spec)} {code_fingerprint}".encode()).hexdigest()
    return home() / "trained" / key[:2] / key


def ledgers_of(spec: Spec, folder: Path, request: FederationRequest) -> str:
    """What the folder of a cell's ledgers is called: a claim outlives the code that spent it; seeded noise has none."""
    claimed = request.privacy is not None and request.privacy.noise == "cryptographic"
    return hashlib.sha256(training_id(spec).encode()).hexdigest() if claimed else folder.name


def predict(
    spec: Spec,
    task: Task,
    sites: Sequence[Site],
    on_round: OnRound,
    *,
    reuse: bool,
    engine: str,
    policies: Policies | None = None,
) -> Predicted:
    """Train what the spec asks for, or find it trained already. Killed in the middle, it goes on where it was.

    Args:
        spec: the cell.
        task: its task.
        sites: its sites, in any order.
        on_round: hears of each round.
        reuse: whether predictions that were kept, or a training that was stopped, may serve.
        engine: where the federation runs; the result is the same.
        policies: by site, what its hospital allows.

    Raises:
        InputError: no training site can serve the task, or all refuse.
    """
    policies = policies or {}
    representation = representation_of(spec.model.name, spec.federation.protocol)
    folder = trained_folder(spec, training_code(spec.model.name, spec.strategy.name, spec.federation.protocol))
    if reuse and (folder / "trained.json").is_file():
        trained = Trained.model_validate_json((folder / "trained.json").read_bytes())
        return Predicted(trained, folder / "predictions.parquet")
    refused = [SkippedSite(name=name, reason=reason) for name, reason in refusals(spec, sites, policies).items()]
    served, skipped = prepared_sites(spec, task, sites, representation, refused)
    if spec.attack is not None:
        served = _played(served, spec.seed, spec.attack.patients)
    samples = [one.samples for one in served]
    if spec.federation.protocol is not None:
        samples = protocol.load(spec.federation.protocol).gather(samples)
    # Two processes may be at one cell: two commands, or a worker that a cluster has lost sight of and its successor.
    with claimed(home() / "checkpoints" / folder.name) as mine:
        checkpoint = home() / "checkpoints" / folder.name if mine else None
        if checkpoint and not reuse:
            shutil.rmtree(checkpoint, ignore_errors=True)
        request = request_of(spec, sites, engine)
        ledgers = home() / "ledgers" / ledgers_of(spec, folder, request)
        passed: list[Passed] | None = None if spec.attack is None else []
        guards = guards_of(policies, spec, ledgers.name)
        result = _federation(samples, request, checkpoint, ledgers, on_round, guards, passed)
        at_the_site = [SkippedSite(name=name, reason=result.skipped[name]) for name in sorted(result.refused)]
        served = [one for one in served if one.samples.site not in result.refused]
        trained = Trained(
            data=account.data(served, sites, (*skipped, *at_the_site)),
            training=account.training(result, site_level=strategy.load(spec.strategy.name).site_level),
            releases=account.releases(spec, served, result),
            checks=(
                *account.checks(result, shared=noise_placed(spec) == "distributed"),
                *told(policies, (*refused, *at_the_site)),
            ),
            privacy=account.privacy(result, request),
            bytes_up=result.bytes_up,
            bytes_down=result.bytes_down,
            round_s=tuple(report.seconds for report in result.rounds),
            engine=result.engine,
            device=result.device,
        )
        if not (reuse and (folder / "trained.json").is_file()):  # else the other process was faster
            transcript = None if passed is None else Transcript.of(result, passed)
            keep(folder, trained, samples, result.predictions, transcript)
        if checkpoint:
            shutil.rmtree(checkpoint, ignore_errors=True)
    return Predicted(trained, folder / "predictions.parquet")


def _federation(
    samples: Sequence[SiteSamples],
    request: FederationRequest,
    checkpoint: Path | None,
    ledgers: Path,
    on_round: OnRound,
    guards: Mapping[str, Guard],
    passed: list[Passed] | None = None,
) -> FederationResult:
    """Run it, or go on; what cannot be gone on from is begun anew. What passes the coordinator goes to `passed`.

    A federation that failed leaves no checkpoint: gone on from, it would fail again of what the sites answered then.
    """
    watch = None if passed is None else passed.append
    run = partial(run_federation, samples, request, folder=checkpoint, ledgers=ledgers, guards=guards, watch=watch)
    try:
        try:
            return run(on_round=on_round)
        except CheckpointError:
            if checkpoint is None:
                raise
            shutil.rmtree(checkpoint)
            if passed is not None:
                passed.clear()
            return run(on_round=on_round)
    except (FederationError, InputError):
        if checkpoint is not None:
            shutil.rmtree(checkpoint, ignore_errors=True)
        raise


def request_of(spec: Spec, sites: Sequence[Site], engine: str = "inline") -> FederationRequest:
    """What the cell asks of a federation. Noise on real patients' data comes from a cryptographic source, always."""
    terms = None
    real = any(site.dataset.manifest.data_kind == "real" for site in sites)
    if real and strategy.load(spec.strategy.name).site_level:
        raise InputError(
            f"strategy '{spec.strategy.name}' draws its noise from the cell's seed, which hides nothing; it runs on "
            "simulated and open data only"
        )
    if spec.privacy is not None and spec.privacy.epsilon is not None:
        noise = "cryptographic" if real else "seeded"
        terms = {"epsilon": spec.privacy.epsilon, "delta": spec.privacy.delta, "noise": noise}
        terms |= {"place": noise_placed(spec), **spec.privacy.budget}
    asked = {
        "model": spec.model.name,
        "strategy": spec.strategy.name,
        "rounds": spec.federation.rounds,
        "settings": spec.tune.settings if spec.tune else None,
        "config": spec.model.config,
        "seed": spec.seed,
        "min_sites": spec.federation.min_sites,
        "fraction": spec.federation.fraction,
        "faults": spec.federation.faults.plan if spec.federation.faults else None,
        "privacy": terms,
        "secure_aggregation": spec.summed_securely,
        "protocol": spec.federation.protocol,
        "engine": engine,
    }
    return FederationRequest.model_validate(asked)


def noise_placed(spec: Spec) -> Literal["local", "distributed"]:
    """Who adds the noise: each site all of its own, or the sites together."""
    return "distributed" if spec.privacy is not None and spec.privacy.mechanism == SHARED_NOISE else "local"


def _played(served: Sequence[Prepared], seed: int, patients: int | None) -> list[Prepared]:
    """The sites with the splits of the attack's game."""
    out = []
    for one, samples in zip(served, play([one.samples for one in served], seed, patients=patients), strict=True):
        split = hashed({"patient_id": samples.patient_id, "split": samples.split.astype("S13")})
        out.append(one._replace(samples=samples, splits_sha256=split))
    return out


def keep(
    folder: Path,
    trained: Trained,
    samples: Sequence[SiteSamples],
    predictions: Mapping[str, np.ndarray],
    transcript: Transcript | None = None,
) -> None:
    """Write predictions (MEDS-evaluation's columns) and what is known of the training, all or nothing."""
    frames = [
        pl.DataFrame(
            {
                "site_id": [one.site] * len(one),
                "external": [one.external] * len(one),
                "subject_id": one.subject_id,
                "patient_id": one.patient_id,
                "prediction_time": one.prediction_time,
                "split": one.split.tolist(),
                "boolean_value": one.label,
                "predicted_boolean_probability": predictions[one.site],
            }
        )
        for one in sorted(samples, key=lambda one: one.site)
        if one.site in predictions
    ]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        whole = Path(work) / "whole"
        whole.mkdir()
        pl.concat(frames).write_parquet(whole / "predictions.parquet")
        if transcript is not None:
            transcript.write(whole)
        (whole / "trained.json").write_text(trained.model_dump_json(), encoding="utf-8")
        with suppress(FileNotFoundError):
            folder.rename(Path(work) / "former")
        try:
            whole.rename(folder)
        except OSError:
            if not (folder / "trained.json").is_file():  # else another process was faster, with the same content
                raise
