"""The half of a cell that makes predictions: sites to samples, samples to a federation, its predictions kept at home.

What was trained has a key of its own (the spec without its evaluation, and the code that trains), so that a new
evaluator retrains nothing. Predictions are patient data: they lie under FEDWARD_HOME and never in `results/`.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict

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
from fedcore.protection import STATISTICS, TRAINING
from fedcore.protocols import protocol
from fedcore.rounds import RoundReport
from fedcore.rounds import Trial as Tried
from fedcore.samples import SiteSamples
from fedcore.strategies import strategy
from fedcore.strategies.strategy import ANCHORS
from fedcore.task import Task
from leaderboard.measured import (
    AttritionStep,
    Check,
    Data,
    DroppedAnswers,
    Release,
    Round,
    SiteData,
    SiteLevel,
    SitePrivacy,
    SkippedSite,
    Spend,
    Training,
    Trial,
    least_real,
)
from leaderboard.record import Spec, training_id
from privacy.accounting import Mechanism, epsilon
from sites.errors import InputError
from sites.home import home
from sites.site import Site

OnRound = Callable[[RoundReport], None]

RELEASED = {
    "query.site": "counts of training samples and tuning patients, with and without the event",
    "query.statistics": "feature statistics",
    "train": "model updates with what their strategy sends beside them, steps made and training losses",
    "train.masked": "model updates under masks: none was seen by itself, their sums over sites were learnt",
    "evaluate": "tuning losses",
}
"""What a site sends in answer to an action."""


class Trained(BaseModel):
    """What training came to, beside the predictions; `engine` and `device` are where it ran."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Data
    training: Training
    releases: tuple[Release, ...]
    checks: tuple[Check, ...] = ()
    privacy: tuple[SitePrivacy, ...] = ()
    policies: tuple[Check, ...] = ()
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


def described(served: Sequence[Prepared], sites: Sequence[Site], skipped: tuple[SkippedSite, ...]) -> Data:
    """The data block of a record: counts, attrition and hashes of each site's cohort."""
    kinds = {site.name: site.dataset.manifest.data_kind for site in sites}
    described = tuple(
        SiteData(
            name=one.samples.site,
            role="external" if one.samples.external else "train",
            data_kind=kinds[one.samples.site],
            n_subjects=len(np.unique(one.samples.subject_id)),
            n_patients=len(np.unique(one.samples.patient_id)),
            n_samples=len(one.samples),
            n_pos=int(one.samples.label.sum()),
            cohort_sha256=one.cohort_sha256,
            splits_sha256=one.splits_sha256,
            attrition=tuple(
                AttritionStep(step=a.step, samples=a.samples, patients=a.patients, positives=a.positives)
                for a in one.cohort.attrition
            ),
        )
        for one in served
    )
    partition = hashlib.sha256()
    for one in sorted(served, key=lambda one: one.samples.site):
        partition.update(one.samples.site.encode() + b"\0" + np.unique(one.samples.patient_id).astype("<i8").tobytes())
    return Data(
        data_kind=least_real([site.data_kind for site in described]),
        sites=described,
        skipped=skipped,
        partition_sha256=partition.hexdigest(),
    )


def trained_folder(spec: Spec, code_fingerprint: str) -> Path:
    """Where what was trained for a spec by some code lies or will lie."""
    key = hashlib.sha256(f"{training_id(spec)} {code_fingerprint}".encode()).hexdigest()
    return home() / "trained" / key[:2] / key


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
    if spec.attack is not None and spec.attack.game:
        served = _played(served, spec.seed, spec.attack.patients)
    samples = [one.samples for one in served]
    if spec.federation.protocol is not None:
        samples = protocol.load(spec.federation.protocol).gather(samples)
    # Two processes may be at one cell: two commands, or a worker that a cluster has lost sight of and its successor.
    with claimed(home() / "checkpoints" / folder.name) as mine:
        checkpoint = home() / "checkpoints" / folder.name if mine else None
        if checkpoint and not reuse:
            shutil.rmtree(checkpoint, ignore_errors=True)
        request = request_of(spec, engine, real=any(site.dataset.manifest.data_kind == "real" for site in sites))
        ledgers = home() / "ledgers" / folder.name
        passed: list[Passed] | None = None if spec.attack is None else []
        guards = guards_of(policies, spec, ledgers.name)
        result = _federation(samples, request, checkpoint, ledgers, on_round, guards, passed)
        at_the_site = [SkippedSite(name=name, reason=result.skipped[name]) for name in sorted(result.refused)]
        served = [one for one in served if one.samples.site not in result.refused]
        trained = Trained(
            data=described(served, sites, (*skipped, *at_the_site)),
            training=_training(result, spec),
            policies=told(policies, (*refused, *at_the_site)),
            releases=_releases(spec, served, result),
            checks=_checks(result),
            privacy=_privacy(result, request),
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


def request_of(spec: Spec, engine: str, *, real: bool) -> FederationRequest:
    """What the cell asks of a federation. Noise on real patients' data comes from a cryptographic source, always."""
    terms = None
    if real and strategy.load(spec.strategy.name).site_level:
        raise InputError(
            f"strategy '{spec.strategy.name}' draws its noise from the cell's seed, which hides nothing; it runs on "
            "simulated and open data only"
        )
    if spec.privacy is not None and spec.privacy.epsilon is not None:
        noise = "cryptographic" if real else "seeded"
        terms = {"epsilon": spec.privacy.epsilon, "delta": spec.privacy.delta, "noise": noise}
        terms |= spec.privacy.budget
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
        "secure_aggregation": spec.privacy is not None and spec.privacy.secure_aggregation,
        "protocol": spec.federation.protocol,
        "engine": engine,
    }
    return FederationRequest.model_validate(asked)


def _played(served: Sequence[Prepared], seed: int, patients: int | None) -> list[Prepared]:
    """The sites with the splits of the attack's game."""
    out = []
    for one, samples in zip(served, play([one.samples for one in served], seed, patients=patients), strict=True):
        split = hashed({"patient_id": samples.patient_id, "split": samples.split.astype("S13")})
        out.append(one._replace(samples=samples, splits_sha256=split))
    return out


def _training(result: FederationResult, spec: Spec) -> Training:
    return Training(
        chosen=dict(result.setting),
        selection=result.selection,
        trials=tuple(_trial(trial) for trial in result.trials),
        rounds=tuple(
            Round(
                round=r.round,
                train_loss=r.train_loss,
                tuning_loss=r.tuning_loss,
                answered=r.answered,
                waited_s=r.waited_s,
            )
            for r in result.rounds
            if r.trial == result.chosen
        ),
        skipped=tuple(
            SkippedSite(name=name, reason=reason)
            for name, reason in sorted(result.skipped.items())
            if name not in result.refused  # they have brought no data either, which says why
        ),
        dropped=_dropped(result),
        own_start=result.own_start,
        site_level=_site_level(result) if strategy.load(spec.strategy.name).site_level else None,
    )


def _site_level(result: FederationResult) -> SiteLevel:
    """Each round of each setting that was tried gave the sites a model: they compose in full."""
    sites = len([site for site, actions in result.answered.items() if "train" in actions])
    models = [Mechanism(float(t.setting["site_noise"]), count=t.rounds) for t in result.trials if t.rounds]
    delta = 1 / (10 * sites)
    return SiteLevel(
        epsilon=epsilon(models, delta),
        delta=delta,
        noise_multiplier=min(one.noise_multiplier for one in models),
        models=sum(one.count for one in models),
    )


def _dropped(result: FederationResult) -> tuple[DroppedAnswers, ...]:
    """The chosen trial's answers that did not count: one entry for each site, action and reason."""
    rounds: dict[tuple[str, str, str], list[int]] = {}
    for one in result.dropped:
        if one.trial == result.chosen:
            rounds.setdefault((one.site, one.action, one.reason), []).append(one.round)
    return tuple(
        DroppedAnswers(site=site, action=action, reason=reason, rounds=tuple(numbers))
        for (site, action, reason), numbers in sorted(rounds.items())
    )


def _trial(trial: Tried) -> Trial:
    site = {} if trial.site is None else {"site": trial.site}
    note = trial.error or (None if trial.tuning_loss is not None else "too few tuning patients to tell")
    return Trial(
        settings={**site, **trial.setting}, tuning_loss=trial.tuning_loss, best_round=trial.best_round, note=note
    )


def _releases(spec: Spec, served: Sequence[Prepared], result: FederationResult) -> tuple[Release, ...]:
    """What left the sites: nothing under an anchor, but that `external` hands models from site to site.

    Without a privacy mechanism all of it is without noise.
    """
    reason = "no privacy mechanism was asked for in this cell"
    if result.secured is not None:
        reason = "no noise was asked for in this cell; single model updates did not leave unmasked"
    names = [one.samples.site for one in served if not one.samples.external]
    if spec.strategy.name == "external":
        alone = "model that the site trained alone"
        return tuple(Release(what=alone, where=name, public=reason) for name in names if name in result.answered)
    if spec.strategy.name in ANCHORS:
        return ()
    if result.ledgers:
        return tuple(one for name in names for one in _private_releases(name, result))
    return tuple(
        Release(what=what, where=name, public=reason)
        for name in names
        for action, what in RELEASED.items()
        if action in result.answered.get(name, ())
    )


def _checks(result: FederationResult) -> tuple[Check, ...]:
    """Whether sums were learnt of enough sites, where models were summed securely, and what that took."""
    done = result.secured
    if done is None:
        return ()
    detail = (
        f"{done.sums} sums by double masking, each over {done.fewest} sites or more, with a threshold of "
        f"{done.threshold} or more; no single model update left its site unmasked; {done.bytes_up} bytes up and "
        f"{done.bytes_down} down in its four stages"
    )
    return (Check(name="secure aggregation", passed=done.fewest >= done.threshold, detail=detail),)


def _private_releases(site: str, result: FederationResult) -> Iterator[Release]:
    """How many patients a site has is public by the definition of who are neighbours; all else has its epsilon."""
    patients = "the number of its training patients"
    yield Release(what=patients, where=site, public="neighbours are equally many (privacy/accounting.py)")
    ledger = result.ledgers[site]
    for phase, what in ((STATISTICS, "feature statistics"), (TRAINING, "model updates")):
        if ledger.mechanisms(phase):
            yield Release(what=what, where=site, epsilon=ledger.spent(phase=phase))


def _privacy(result: FederationResult, request: FederationRequest) -> tuple[SitePrivacy, ...]:
    """What each site's ledger came to."""
    if request.privacy is None:
        return ()
    seeded = request.privacy.noise == "seeded"
    return tuple(
        SitePrivacy(
            site=site,
            epsilon=ledger.spent(),
            delta=ledger.budget.delta,
            accountant="pld",
            noise="seeded, no privacy claim" if seeded else "cryptographic",
            opinions={name: value for name, value in ledger.opinions().items() if name != "pld"},
            spends=tuple(
                Spend(phase=phase, noise_multiplier=m.noise_multiplier, sampling_rate=m.sampling_rate, count=m.count)
                for phase in (STATISTICS, TRAINING)
                for m in ledger.mechanisms(phase)
            ),
        )
        for site, ledger in sorted(result.ledgers.items())
    )


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
