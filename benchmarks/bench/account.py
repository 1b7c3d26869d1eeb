"""What a federation came to, as a record tells it: data, training, releases and what was spent on them."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from bench.modes import SHARED
from fedcore.federation import FederationRequest, FederationResult
from fedcore.prepare import Prepared
from fedcore.protection import STATISTICS, TRAINING
from fedcore.rounds import Trial as Tried
from fedcore.strategies.strategy import ANCHORS
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
from leaderboard.record import Spec
from leaderboard.spec import SHARED_NOISE
from privacy.accounting import Mechanism, epsilon
from sites.site import Site

RELEASED = {
    "query.site": "counts of training samples and tuning patients, with and without the event",
    "query.statistics": "feature statistics",
    "train": "model updates with what their strategy sends beside them, steps made and training losses",
    "train.masked": "model updates under masks: none was seen by itself, their sums over sites were learnt",
    "evaluate": "tuning losses",
}
"""What a site sends in answer to an action."""


def data(served: Sequence[Prepared], sites: Sequence[Site], skipped: tuple[SkippedSite, ...]) -> Data:
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


def training(result: FederationResult, *, site_level: bool = False) -> Training:
    """What was chosen and from what; `site_level`: whether the coordinator hid hospitals with noise."""
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
        site_level=_site_level(result) if site_level else None,
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


def releases(spec: Spec, served: Sequence[Prepared], result: FederationResult) -> tuple[Release, ...]:
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
        shared = spec.privacy is not None and spec.privacy.mechanism == SHARED_NOISE
        return tuple(one for name in names for one in _private_releases(name, result, shared=shared))
    return tuple(
        Release(what=what, where=name, public=reason)
        for name in names
        for action, what in RELEASED.items()
        if action in result.answered.get(name, ())
    )


def checks(result: FederationResult, *, shared: bool = False) -> tuple[Check, ...]:
    """Whether sums were learnt of enough sites, where models were summed securely, and what that took.

    `shared`: whether the sites shared the noise on them.
    """
    done = result.secured
    if done is None:
        return ()
    detail = (
        f"{done.sums} sums by double masking, each over {done.fewest} sites or more, with a threshold of "
        f"{done.threshold} or more; no single model update left its site unmasked; {done.bytes_up} bytes up and "
        f"{done.bytes_down} down in its four stages"
    )
    if shared:
        detail += f"; noise placed: distributed, {SHARED}"
    return (Check(name="secure aggregation", passed=done.fewest >= done.threshold, detail=detail),)


def _private_releases(site: str, result: FederationResult, *, shared: bool) -> Iterator[Release]:
    """How many patients a site has is public by the definition of who are neighbours; all else has its epsilon."""
    patients = "the number of its training patients"
    yield Release(what=patients, where=site, public="neighbours are equally many (privacy/accounting.py)")
    ledger = result.ledgers[site]
    updates = "sums of model updates, with noise that the sites shared" if shared else "model updates"
    for phase, what in ((STATISTICS, "feature statistics"), (TRAINING, updates)):
        if ledger.mechanisms(phase):
            yield Release(what=what, where=site, epsilon=ledger.spent(phase=phase))


def privacy(result: FederationResult, request: FederationRequest) -> tuple[SitePrivacy, ...]:
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
