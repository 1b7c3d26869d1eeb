"""What an attack finds of a private cell: its sites' training once more, on the cell's terms, with canaries in it.

Each site trains by itself what it trained in the cell, as a federation of one: the same data, features agreed on with
noise, model, rounds, and the site's own protection (`fedcore.protection`), with a ledger that lives as long as the
command. Nothing that is trained here leaves it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.code import representation_of
from bench.commands.audit import Audited
from bench.open import open_all
from bench.suite import load_suite, names
from bench.training import noise_placed, prepared_sites, request_of
from fedcore.features import representation
from fedcore.features.representation import FeatureSpace, PrivateRepresentation
from fedcore.learner import PrivateLearner
from fedcore.local import Split
from fedcore.plan import Plan, plan_of
from fedcore.protection import TRAINING, Protection
from fedcore.samples import SiteSamples
from fedcore.streams import draw_seed, stream
from fedcore.task import load_task
from leaderboard.measured import SitePrivacy
from leaderboard.record import Record, RecordError, Spec
from leaderboard.store import Store
from privacy.accounting import Mechanism, epsilon
from privacy.audit import audits
from privacy.audit.audits import Transcript
from privacy.audit.canaries import Watched
from privacy.releases import messages, sketches
from sites.errors import InputError
from sites.site import Site

STAYS = 4


def private_record(cell: str, out: Path) -> Record:
    """The latest record of a cell that was trained with a budget.

    Raises:
        RecordError: no cell, or several, begin so.
        InputError: it has no budget.
    """
    found = Store(out).starting_with(cell, status="ok")
    if len(found) != 1:
        what = f"{len(found)} cells in {out} start" if found else f"no cell with a result in {out} starts"
        raise RecordError(f"{what} with {cell!r}; `bench plan` and `bench privacy ledger` name cells")
    (record,) = found.values()
    if record.spec.epsilon is None:
        raise InputError(
            f"cell {record.cell_id[:12]} was trained without a budget of epsilon, so that there is no claim to audit; "
            "name a cell that was run with --epsilon"
        )
    if noise_placed(record.spec) == "distributed":
        raise InputError(
            f"cell {record.cell_id[:12]} was trained with noise that the sites shared, which no site's training alone "
            "shows; audit a cell that was run with --noise local"
        )
    return record


def opened(spec: Spec, site: Sequence[str], *, quiet: bool) -> list[Site]:
    """The cell's sites, those that only are scored left out.

    Raises:
        InputError: the sites at hand are others.
    """
    suite = load_suite(spec.suite.name) if spec.suite.name in names() else None
    at_hand = {
        (one.name, one.dataset.manifest.content_sha256): one for one in open_all(site, [], quiet=quiet, suite=suite)
    }
    asked = [(one.name, one.content_sha256) for one in spec.sites if one.role == "train"]
    lacking = sorted(name for name, content in asked if (name, content) not in at_hand)
    if lacking:
        raise InputError(
            f"the cell's site {lacking[0]} is not at hand as it was; name each site with --site as in the run's command"
        )
    return [at_hand[key] for key in asked]


def audited(record: Record, sites: Sequence[Site], canaries: int, progress: Callable[[str], None]) -> Iterator[Audited]:
    """A line for each site and audit.

    Args:
        record: of a cell with a budget.
        sites: its training sites.
        canaries: how many, of which half are in.
        progress: is told which site it is.

    Raises:
        InputError: the code trains otherwise than when the record was made, or the cell cannot be audited.
    """
    spec = record.spec
    task = load_task(spec.task.name)
    if task.sha256 != spec.task.sha256:
        raise InputError(f"task {spec.task.name} has changed since the cell was run; run the cell anew and audit that")
    shown = representation_of(spec.model.name, spec.federation.protocol)
    served, _ = prepared_sites(spec, task, sites, shown)
    plan = plan_of(request_of(spec, sites))
    taking_part = [one.samples.in_split("train") for one in served]
    these = [_Site.of(plan, one) for one in taking_part if messages.released(_patients(one))]
    space = _agreed(shown, these, plan)
    claims = {one.site: one for one in record.privacy}
    for one in these:
        if one.samples.site in claims:
            progress(one.samples.site)
            yield from _bounds(plan, one, space, claims[one.samples.site], canaries)


@dataclass(frozen=True)
class _Site:
    """A site's training samples, and what it does for their privacy."""

    samples: SiteSamples
    protection: Protection

    @classmethod
    def of(cls, plan: Plan, samples: SiteSamples) -> "_Site":
        if plan.terms is None:
            raise InputError("the cell has no terms of privacy; expected a budget of epsilon")
        return cls(samples, Protection(plan.terms, samples.site, _patients(samples), plan.seed))


def _agreed(shown: str, these: Sequence[_Site], plan: Plan) -> FeatureSpace:
    """The features that the sites agree on with noise."""
    chosen = representation.load(shown)
    if not isinstance(chosen, PrivateRepresentation):
        raise InputError(f"representation '{shown}' cannot be agreed on privately, so that the cell cannot be audited")
    asked = (plan.untuned, plan.untuned_rounds)
    drawn = [chosen.sketch_privately(one.samples, *one.protection.statistics(*asked)) for one in these]
    return chosen.agree(sketches.merge(drawn))


def _bounds(plan: Plan, one: _Site, space: FeatureSpace, told: SitePrivacy, canaries: int) -> Iterator[Audited]:
    claimed = [Mechanism(s.noise_multiplier, s.sampling_rate, s.count) for s in told.spends if s.phase == TRAINING]
    if not claimed:
        return  # it left before it trained
    here = one.protection.planned(plan.untuned, plan.untuned_rounds)[TRAINING]
    if [_said(mechanism) for mechanism in claimed] != [_said(here)]:
        raise InputError(
            f"{one.samples.site} trains otherwise now than when the cell was run ({_said(here)}; the record says "
            f"{'; '.join(_said(mechanism) for mechanism in claimed)}); run the cell anew and audit that"
        )
    visits = claimed[0].count // int(plan.untuned["steps"])
    seen = _trained_with_canaries(plan, one, space, canaries, visits)
    training = epsilon(claimed, told.delta)
    for audit in (audits.one_run, audits.white_box):
        bound = audit(seen, told.delta)
        yield Audited(
            site=one.samples.site,
            claim=told.epsilon,
            training=training,
            delta=told.delta,
            audit=bound.kind,
            canaries=bound.canaries,
            guesses=bound.guesses,
            right=bound.right,
            bound=bound.epsilon,
            exceeded=bound.epsilon > training,
        )


def _trained_with_canaries(plan: Plan, one: _Site, space: FeatureSpace, canaries: int, visits: int) -> Transcript:
    """The rounds for which the site has paid; it may have missed some of those agreed on."""
    encoded = representation.load(space.representation).encode(one.samples, space)
    patient = np.unique(one.samples.patient_id, return_inverse=True)[1].astype(np.int64)
    split = Split(encoded, one.samples.label, patient)
    learner = plan.model.recipe(plan.recipe).learner(space.sizes, plan.untuned)
    if not isinstance(learner, PrivateLearner):
        raise InputError(f"model '{plan.model_name}' cannot be trained with noise, so that the cell cannot be audited")
    site = one.samples.site
    present = audits.coins(canaries, stream(plan.seed, "canaries", site))
    arrays: Mapping[str, np.ndarray] = learner.initial(plan.initial_seed)
    made = []
    for number in range(1, visits + 1):
        how = one.protection.training(0, number, plan.untuned_rounds, "train", plan.untuned, split)
        visit = Watched.of(how, present, stays=STAYS, direction=1 if number % 2 else -1)
        seed = draw_seed(plan.seed, "train", site, number)
        arrays = learner.fit_privately(dict(arrays), split.encoded, split.label, visit, seed).arrays
        made.append(visit)
    return Transcript.of(made)


def _said(mechanism: Mechanism) -> str:
    return f"noise {mechanism.noise_multiplier:.4g}, sampling rate {mechanism.sampling_rate:g}"


def _patients(samples: SiteSamples) -> int:
    return len(np.unique(samples.patient_id))
