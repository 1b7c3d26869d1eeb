"""What cells will spend, and have spent, of the privacy of each site's training patients."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from bench.code import representation_of
from bench.commands.privacy import PlannedSpend, Spent
from bench.plan import Cell
from bench.policies import Policies, guards_of, refusals
from bench.training import noise_placed, prepared_sites, request_of
from fedcore.plan import plan_of
from fedcore.protection import AGREED, Protection, agreed_noise
from leaderboard.store import Store
from privacy.accounting import Mechanism, epsilon
from sites.errors import InputError
from sites.site import Site


def planned(cells: Sequence[Cell], sites: Sequence[Site], policies: Policies) -> Iterator[PlannedSpend]:
    """What each site would release in each phase, for each cell of the first seed.

    A site whose policy refuses the cell releases nothing; the delta is its policy's where that has one.

    Raises:
        InputError: no cell is asked with a budget.
    """
    private = [cell for cell in cells if cell.spec.epsilon]
    if not private:
        raise InputError("no cell of this plan has a budget of epsilon; give one with --epsilon")
    for cell in private:
        spec = cell.spec
        if spec.seed != private[0].spec.seed:
            continue
        refused = refusals(spec, sites, policies)
        serving = [site for site in sites if site.name not in refused]
        guards = guards_of(policies, spec)
        representation = representation_of(spec.model.name, spec.federation.protocol)
        served, _ = prepared_sites(spec, cell.task, serving, representation)
        request = request_of(spec, sites)
        plan = plan_of(request)
        training = [one.samples for one in served if not one.samples.external]
        counts = {one.site: len(np.unique(one.in_split("train").patient_id)) for one in training}
        setting = dict(plan.untuned)
        if plan.terms is not None and plan.terms.place == "distributed":
            setting[AGREED] = agreed_noise(plan.terms, counts.values(), plan.untuned, plan.untuned_rounds)
        for one in training:
            patients = counts[one.site]
            terms = guards[one.site].terms(plan.terms) if one.site in guards else plan.terms
            if terms is None:
                continue
            protection = Protection(terms, one.site, patients, spec.seed)
            delta = protection.ledger.budget.delta
            for phase, mechanism in protection.planned(setting, plan.untuned_rounds).items():
                yield PlannedSpend(
                    task=spec.task.name,
                    model=spec.model.name,
                    strategy=spec.strategy.name,
                    epsilon=terms.epsilon,
                    site=one.site,
                    patients=patients,
                    delta=delta,
                    phase=phase,
                    noise_multiplier=mechanism.noise_multiplier,
                    sampling_rate=mechanism.sampling_rate,
                    releases=mechanism.count,
                    phase_epsilon=epsilon([mechanism], delta),
                )


def spent(run: str, out: Path) -> Iterator[Spent]:
    """What each site has spent in the latest record of each cell of a suite, or of a cell.

    Raises:
        InputError: there is no such record, or none with a ledger.
    """
    store = Store(out)
    latest = store.starting_with("", suite=run) | store.starting_with(run)
    if not latest:
        raise InputError(f"{out} has no record of suite or cell {run!r}; `bench status` says what is there")
    private = [record for record in latest.values() if record.privacy]
    if not private:
        raise InputError(f"no record of {run!r} in {out} was made with privacy; run it with --epsilon")
    for record in private:
        spec = record.spec
        for one in record.privacy:
            phases: dict[str, list[Mechanism]] = {}
            for spend in one.spends:
                mechanism = Mechanism(spend.noise_multiplier, spend.sampling_rate, spend.count)
                phases.setdefault(spend.phase, []).append(mechanism)
            yield Spent(
                cell_id=record.cell_id,
                task=spec.task.name,
                model=spec.model.name,
                strategy=spec.strategy.name,
                seed=spec.seed,
                site=one.site,
                epsilon=one.epsilon,
                left=max(0.0, (spec.epsilon or 0.0) - one.epsilon),
                delta=one.delta,
                by_phase={phase: epsilon(made, one.delta) for phase, made in phases.items()},
                opinions=dict(one.opinions),
                claim=one.noise == "cryptographic",
                noise_placed=noise_placed(spec),
            )
