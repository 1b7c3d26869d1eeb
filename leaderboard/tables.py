"""What a set of records says in one table: a line for each model, strategy and scope, seeds summed up.

A number is the mean of the seeds' values, and its interval the mean of their lower ends and the mean of their upper
ends: how far other patients of the same hospitals would move one seed's value. It is not the interval of the mean over
seeds, which would be narrower where every seed holds out other patients. How far seeds move it is another question with
another answer, the smallest and largest value (`seed_low`, `seed_high`); the two are never mixed into one.

A number that some seed lacks is not a mean of the others: it has no value, and the reason says how many lack it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from leaderboard.canonical import sha256_of
from leaderboard.metric import Metric, ScopeKind
from leaderboard.record import Record
from leaderboard.spec import Spec

COLUMNS = ("auroc", "auprc", "brier", "calibration_slope")
SCOPES: tuple[ScopeKind, ...] = ("pooled", "worst-site", "external")
BY_SITE: tuple[ScopeKind, ...] = ("site", "external")
"""Scopes that have a line for each site."""


@dataclass(frozen=True, slots=True)
class Number:
    """One metric over the seeds; `value` is None if and only if `reason` says why."""

    value: float | None
    low: float | None
    high: float | None
    seed_low: float | None
    seed_high: float | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Row:
    """One line.

    `config`: the model's hyperparameters that are not the declared ones.
    `epsilon`: the budget of patient-level privacy; None for no noise. `secure_aggregation`: only sums of models were
    learnt. `faults`: what went wrong on purpose, by its
    name; None for nothing. `sites`: for `worst-site`, the sites that were worst by any metric and seed, by name; for
    `site` and `external`, the one site. `patients`: how many were scored, seed by seed; a strategy without a model for
    some hospitals has fewer than others, with which it cannot be compared.
    """

    task: str
    model: str
    config: Mapping[str, JsonValue]
    strategy: str
    epsilon: float | None
    secure_aggregation: bool
    faults: str | None
    scope: ScopeKind
    sites: tuple[str, ...]
    seeds: tuple[int, ...]
    patients: tuple[int, ...]
    numbers: Mapping[str, Number]


def summary(
    records: Iterable[Record], columns: Sequence[str] = COLUMNS, scopes: Sequence[ScopeKind] = SCOPES
) -> list[Row]:
    """Sum records up.

    Args:
        records: of any cells; failed and skipped ones count for nothing, of several runs of one cell the latest does.
        columns: the metrics, by name.
        scopes: pooled, site-macro and worst-site have one line a record, site and external one for each site.

    Returns:
        Rows in the order in which their first records came. Cells that differ in more than their seeds (a setting, a
        site, a privacy budget) never share a row.
    """
    latest: dict[str, Record] = {}
    for record in records:
        known = latest.get(record.cell_id)
        if record.status == "ok" and (known is None or record.run_id > known.run_id):
            latest[record.cell_id] = record
    together: dict[str, list[Record]] = {}
    for record in latest.values():
        together.setdefault(_but_for_seeds(record.spec), []).append(record)
    return [
        _row(sorted(group, key=lambda record: record.spec.seed), columns, scope, site)
        for group in together.values()
        for scope in scopes
        for site in (_sites(group, scope) if scope in BY_SITE else [None])
    ]


def _sites(records: Sequence[Record], scope: ScopeKind) -> list[str]:
    named = {metric.scope.id for record in records for metric in record.metrics if metric.scope.kind == scope}
    return sorted(site for site in named if site is not None)


def _but_for_seeds(spec: Spec) -> str:
    return sha256_of(spec.model_copy(update={"seed": 0, "split_seed": 0}))


def _row(records: Sequence[Record], columns: Sequence[str], scope: ScopeKind, site: str | None) -> Row:
    spec = records[0].spec
    by_record = [
        {m.name: m for m in record.metrics if m.scope.kind == scope and (site is None or m.scope.id == site)}
        for record in records
    ]
    named = {found[name].scope.id for found in by_record for name in columns if name in found}
    return Row(
        task=spec.task.name,
        model=spec.model.name,
        config=spec.model.config,
        strategy=spec.strategy.name,
        epsilon=spec.epsilon,
        secure_aggregation=spec.summed_securely,
        faults=spec.federation.faults.name if spec.federation.faults else None,
        scope=scope,
        sites=tuple(sorted(site for site in named if site is not None)),
        seeds=tuple(record.spec.seed for record in records),
        patients=tuple(
            max((found[name].n_patients for name in columns if name in found), default=0) for found in by_record
        ),
        numbers={name: _number([found.get(name) for found in by_record]) for name in columns},
    )


def _number(metrics: Sequence[Metric | None]) -> Number:
    values = [metric.value for metric in metrics if metric is not None and metric.value is not None]
    if len(values) < len(metrics):
        reasons = [metric.suppressed for metric in metrics if metric is not None and metric.suppressed]
        why = reasons[0] if reasons else "not scored"
        lacking = f" (in {len(metrics) - len(values)} of {len(metrics)} seeds)" if len(metrics) > 1 else ""
        return Number(None, None, None, None, None, why + lacking)
    intervals = [metric.ci for metric in metrics if metric is not None and metric.ci is not None]
    whole = len(intervals) == len(metrics)
    return Number(
        value=_mean(values),
        low=_mean([ci.low for ci in intervals]) if whole else None,
        high=_mean([ci.high for ci in intervals]) if whole else None,
        seed_low=min(values),
        seed_high=max(values),
        reason=None,
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
