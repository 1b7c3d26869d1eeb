"""From predictions to metrics: scopes, patient-clustered intervals, suppression.

Scopes, each another question. `pooled`: all training sites' samples as one list, pairs across sites included (what a
central model would report). `site`: one hospital. `site-macro`: the unweighted mean of the sites' values (what a
hospital feels). `worst-site`: the worst of them, chosen anew in every replicate, so that the interval knows of the
choice. `external`: a hospital that only scored. Pooled and site-macro AUROC differ when sites do; neither is an error.

Intervals are percentile intervals of the patient bootstrap, stratified by site (`leaderboard/bootstrap.py`). They speak
of other patients from the same hospitals, not of other hospitals nor of another training seed. The worst of several
sites looks worse than any of them is, and its interval moves with it: of eight like sites of 120 patients the 95 %
interval of the worst AUROC held the sites' true one in 5 % of simulations. It tells how the worst looked.

A replicate in which the metric does not exist makes no interval; if that are more than `MAX_UNDEFINED` of them there is
none at all.

Small groups have no value: fewer than `MIN_PATIENTS` patients, or fewer than `MIN_EVENTS` patients with an event or
without one. Events are counted in patients, so five stays that end alike are one event. `small_groups` lifts that from
metrics that need neither events nor non-events (accuracy, Brier score, log loss), where a published benchmark on open
data reports them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from leaderboard.bootstrap import Resampler, SitePredictions
from leaderboard.evaluators import registry
from leaderboard.evaluators.registry import Floats, MetricSpec, PredictionError, Replicates, Undefined
from leaderboard.metric import Interval, Metric, Scope

__all__ = ["Estimates", "SitePredictions", "estimate", "evaluate"]

MIN_PATIENTS = 20
MIN_EVENTS = 10
MAX_UNDEFINED = 0.05
METHOD = "patient-bootstrap-percentile"

_BLOCK = 2**17
"""Weights in one block of replicates: 1 MiB, so that a block stays in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Support:
    """What stands behind a number."""

    n: int
    n_pos: int
    n_patients: int
    n_sites: int | None = None
    n_sites_excluded: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Estimates:
    """One metric in one scope, before it becomes a line of a record.

    Attributes:
        spec: the metric.
        scope: over whom.
        support: how many stand behind it.
        value: the number, or None if `reason` says why there is none.
        reason: why there is no value.
        replicates: float64 [b], NaN where undefined. Replicate i of two models for the same sites and seed drew the
            same patients, so their differences are paired.
    """

    spec: MetricSpec
    scope: Scope
    support: Support
    value: float | None
    reason: str | None
    replicates: Floats


def evaluate(
    sites: Sequence[SitePredictions],
    metrics: Sequence[str | MetricSpec] | None = None,
    *,
    b: int = 1000,
    level: float = 0.95,
    seed: int,
    estimator: str = "exact",
    small_groups: bool = False,
) -> list[Metric]:
    """Score predictions in every scope.

    Args:
        sites: the held-out predictions of every site, external ones included; the order does not matter.
        metrics: names or entries; all registered ones if None.
        b: bootstrap replicates; 0 for no intervals.
        level: of the intervals.
        seed: of the bootstrap. The same predictions and seed give the same bits.
        estimator: how the values were found, as it will stand in the record.
        small_groups: groups below the minimum have a value of metrics that need samples alone.

    Returns:
        For each scope (pooled, site-macro, worst-site, sites, external sites; sites by name) every metric.

    Raises:
        PredictionError: predictions that cannot be scored, or two sites of one name.
        KeyError: an unknown metric; the message lists the known.
    """
    found = estimate(sites, metrics, b=b, seed=seed, small_groups=small_groups)
    return [_line(one, b, level, seed, estimator) for one in found]


def estimate(
    sites: Sequence[SitePredictions],
    metrics: Sequence[str | MetricSpec] | None = None,
    *,
    b: int = 1000,
    seed: int,
    small_groups: bool = False,
) -> list[Estimates]:
    """As `evaluate`, but with the replicates themselves, for whoever compares models."""
    specs = [registry.load(m) if isinstance(m, str) else m for m in (registry.names() if metrics is None else metrics)]
    names = [site.site for site in sites]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise PredictionError(f"the site {twice[0]} stands twice among the predictions; give each site its own name")
    parts = sorted((_canonical(site) for site in sites), key=lambda site: site.site)
    inner = [site for site in parts if not site.external]

    groups = [(Scope(kind="pooled"), inner)] if inner else []
    groups += [(Scope(kind="site", id=site.site), [site]) for site in inner]
    groups += [(Scope(kind="external", id=site.site), [site]) for site in parts if site.external]
    scopes = [_Group(scope, members, specs, small_groups) for scope, members in groups]
    _bootstrap(scopes, parts, b, seed)

    pooled = [one for group in scopes if group.scope.kind == "pooled" for one in group.estimates()]
    by_site = [group.estimates() for group in scopes if group.scope.kind == "site"]
    external = [one for group in scopes if group.scope.kind == "external" for one in group.estimates()]
    across = [list(values) for values in zip(*by_site, strict=True)]
    macro = [_macro(values) for values in across]
    worst = [_worst(values) for values in across]
    return pooled + macro + worst + [one for values in by_site for one in values] + external


class _Group:
    """The samples of one or several sites taken as one list."""

    def __init__(
        self, scope: Scope, sites: Sequence[SitePredictions], specs: Sequence[MetricSpec], small_groups: bool
    ) -> None:
        self.scope, self.specs = scope, specs
        self.names = [site.site for site in sites]
        y = np.concatenate([site.y for site in sites])
        p = np.concatenate([site.p for site in sites])
        n_patients = sum(len(np.unique(site.patient)) for site in sites)
        self.support = Support(n=len(y), n_pos=int(y.sum()), n_patients=n_patients)
        self.values: list[float | None] = []
        self.reasons: list[str | None] = []
        self.kernels: list[Replicates | None] = []
        self.replicates: list[list[Floats]] = [[] for _ in specs]
        small = _too_small(sites, n_patients)
        for spec in specs:
            refused = None if small_groups and spec.needs == "samples" else small
            value, reason = (None, refused) if refused else _value(spec, y, p)
            self.values.append(value)
            self.reasons.append(reason)
            self.kernels.append(None if value is None else spec.replicates(y, p))

    def add(self, weights: dict[str, Floats]) -> None:
        """Score one block of replicates: site -> float64 [replicates, samples of the site]."""
        if not any(self.kernels):
            return
        parts = [weights[name] for name in self.names]
        w = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        for spec, kernel, found in zip(self.specs, self.kernels, self.replicates, strict=True):
            if kernel is not None:
                values = kernel(w)
                found.append(np.where(np.isfinite(values), np.clip(values, spec.low, spec.high), np.nan))

    def estimates(self) -> list[Estimates]:
        """What was found, metric by metric."""
        return [
            Estimates(spec, self.scope, self.support, value, reason, np.concatenate([np.empty(0), *found]))
            for spec, value, reason, found in zip(self.specs, self.values, self.reasons, self.replicates, strict=True)
        ]


def _canonical(site: SitePredictions) -> SitePredictions:
    """The site's samples in an order that depends on their content alone, so that sums have the same bits."""
    order = np.lexsort((site.y, site.p, site.patient))
    return SitePredictions(site.site, site.external, site.patient[order], site.y[order], site.p[order])


def _too_small(sites: Sequence[SitePredictions], n_patients: int) -> str | None:
    """Why the group is too small to have a value, or None."""
    if n_patients < MIN_PATIENTS:
        return f"{n_patients} patients; at least {MIN_PATIENTS} are needed"
    for outcome, what in ((True, "with an event"), (False, "without an event")):
        patients = sum(len(np.unique(site.patient[site.y == outcome])) for site in sites)
        if patients < MIN_EVENTS:
            return f"{patients} patients {what}; at least {MIN_EVENTS} are needed"
    return None


def _value(spec: MetricSpec, y: registry.Outcomes, p: Floats) -> tuple[float | None, str | None]:
    try:
        return spec.checked(spec.function(y, p, np.ones(len(y)))), None
    except Undefined as reason:
        return None, str(reason)


def _bootstrap(scopes: Sequence[_Group], sites: Sequence[SitePredictions], b: int, seed: int) -> None:
    """Draw `b` replicates and let every group score them; a site's draw serves all groups it is in."""
    resamplers = {site.site: Resampler(site.patient, seed, site.site) for site in sites}
    rows = max(1, _BLOCK // max(1, sum(len(site.y) for site in sites)))
    for start in range(0, b, rows):
        weights = {name: resampler.draw(min(rows, b - start)) for name, resampler in resamplers.items()}
        for group in scopes:
            group.add(weights)


def _macro(sites: Sequence[Estimates]) -> Estimates:
    """The unweighted mean of the sites that have a value; a replicate counts if it is defined at all of them."""
    having = [one for one in sites if one.value is not None]
    spec, scope, support = sites[0].spec, Scope(kind="site-macro"), _across(sites, having)
    if not having:
        return Estimates(spec, scope, support, None, _NO_SITE, np.empty(0))
    value = math.fsum(one.value for one in having if one.value is not None) / len(having)
    return Estimates(spec, scope, support, value, None, np.mean([one.replicates for one in having], axis=0))


def _worst(sites: Sequence[Estimates]) -> Estimates:
    """The worst of the sites that have a value; of equally bad ones the first by name."""
    having = [one for one in sites if one.value is not None]
    spec = sites[0].spec
    if not having:
        return Estimates(spec, Scope(kind="worst-site"), _across(sites, []), None, _NO_SITE, np.empty(0))
    values = np.array([one.value for one in having], dtype=np.float64)
    worst = having[int(np.argmax(spec.badness(values)))]
    replicates = np.array([one.replicates for one in having])
    # argmax finds a NaN first, so a replicate that is undefined at one site is undefined.
    chosen = np.argmax(spec.badness(replicates), axis=0)
    return Estimates(
        spec,
        Scope(kind="worst-site", id=worst.scope.id),
        _across(sites, having, worst.support),
        worst.value,
        None,
        np.take_along_axis(replicates, chosen[np.newaxis], axis=0)[0],
    )


_NO_SITE = "no site has a value of its own"


def _across(sites: Sequence[Estimates], having: Sequence[Estimates], of: Support | None = None) -> Support:
    supports = [one.support for one in having] if of is None else [of]
    return Support(
        n=sum(s.n for s in supports),
        n_pos=sum(s.n_pos for s in supports),
        n_patients=sum(s.n_patients for s in supports),
        n_sites=len(having),
        n_sites_excluded=len(sites) - len(having),
    )


def _line(one: Estimates, b: int, level: float, seed: int, estimator: str) -> Metric:
    """An estimate as it stands in a record."""
    ci, se, no_interval = (None, None, None) if one.value is None else _interval(one, b, level, seed)
    outside = ci is not None and one.value is not None and not ci.low <= one.value <= ci.high
    return Metric(
        name=one.spec.name,
        direction=one.spec.direction,
        ideal=one.spec.ideal,
        unit=one.spec.unit,
        scope=one.scope,
        value=one.value,
        n=one.support.n,
        n_pos=one.support.n_pos,
        n_patients=one.support.n_patients,
        n_sites=one.support.n_sites,
        n_sites_excluded=one.support.n_sites_excluded,
        ci=ci,
        se=se,
        suppressed=one.reason,
        no_interval=no_interval,
        flags=("value-outside-interval",) if outside else (),
        estimator=estimator,
    )


def _interval(one: Estimates, b: int, level: float, seed: int) -> tuple[Interval | None, float | None, str | None]:
    """The percentile interval and the standard error, or the reason why there is none."""
    if b < 2:
        return None, None, "no bootstrap was asked for"
    defined = one.replicates[np.isfinite(one.replicates)]
    if len(defined) < (1 - MAX_UNDEFINED) * b:
        return None, None, f"the metric is undefined in {b - len(defined)} of {b} resamples"
    low, high = (float(q) for q in np.quantile(defined, [(1 - level) / 2, (1 + level) / 2]))
    if low == high:
        return None, None, "all resamples give the same value, so they do not say how uncertain it is"
    interval = Interval(
        level=level,
        low=low,
        high=high,
        method=METHOD + (", site reselected" if one.scope.kind == "worst-site" else ""),
        b=b,
        b_defined=len(defined),
        cluster="patient",
        strata="site",
        seed=seed,
    )
    return interval, float(defined.std(ddof=1)), None
