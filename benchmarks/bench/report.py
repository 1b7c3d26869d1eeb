"""What a run and a record look like to people."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench import output
from bench.attacked import NOT_ASKED, attack_rows, print_attacks
from bench.commands.grid import FinishedCell, Number, Run, SummaryRow, called, varied
from bench.run import Finished
from bench.suite import SuiteSpec
from leaderboard.metric import Metric, ScopeKind
from leaderboard.record import Record, result_sha256
from leaderboard.store import Store
from leaderboard.tables import SCOPES, Row, summary

WIDE = 112
"""Columns of a terminal that hold a line of the end table; in fewer, an interval stands under its value."""

TITLES = {"auroc": "AUROC", "auprc": "AUPRC", "brier": "Brier", "calibration_slope": "calibration slope"}


def run_report(suite: SuiteSpec, out: Path, finished: Sequence[Finished], pictures: Sequence[Path] = ()) -> Run:
    """The report of a run: its cells, one line for each model, strategy and scope, and what attackers learned."""
    store = Store(out)
    records = [one.record for one in finished]
    scopes: tuple[ScopeKind, ...] = ("external",) if any(one.cell.left_out for one in finished) else SCOPES
    with_data = [record.data for record in records if record.data is not None]
    return Run(
        suite=suite.name,
        records=str(out),
        data_kind=with_data[0].data_kind if with_data else None,
        cells=tuple(
            FinishedCell(
                cell_id=one.cell.cell_id,
                result_sha256=one.cell.found.result_sha256
                if one.cached and one.cell.found
                else result_sha256(one.record),
                task=one.record.spec.task.name,
                model=one.record.spec.model.name,
                strategy=one.record.spec.strategy.name,
                epsilon=one.record.spec.epsilon,
                secure_aggregation=one.record.spec.summed_securely,
                faults=one.record.spec.federation.faults.name if one.record.spec.federation.faults else None,
                left_out=one.cell.left_out,
                seed=one.record.spec.seed,
                status=one.record.status,
                cached=one.cached,
                error=one.record.error.message if one.record.error else None,
                record=str(store.path(one.record)),
            )
            for one in finished
        ),
        summary=tuple(_row(row) for row in summary(records, suite.evaluation.columns, scopes)),
        skipped_sites=_skipped(records),
        attacks=tuple(_row(row) for row in attack_rows(records)),
        pictures=tuple(str(path) for path in pictures),
    )


def _skipped(records: Sequence[Record]) -> dict[str, str]:
    """Sites that took no part in some cell, or none in its training, and why."""
    untrained = {s.name: f"not trained on: {s.reason}" for r in records if r.training for s in r.training.skipped}
    return untrained | {site.name: site.reason for r in records if r.data for site in r.data.skipped}


def _row(row: Row) -> SummaryRow:
    return SummaryRow(
        task=row.task,
        model=row.model,
        config=dict(row.config),
        strategy=row.strategy,
        epsilon=row.epsilon,
        secure_aggregation=row.secure_aggregation,
        faults=row.faults,
        scope=row.scope,
        sites=row.sites,
        seeds=row.seeds,
        patients=row.patients,
        metrics={name: Number(**asdict(number)) for name, number in row.numbers.items()},
    )


def print_run(report: Run) -> None:
    """The end table, a task at a time; then what failed, what was skipped, and where the records are."""
    narrow = output.out.width < WIDE
    for task in dict.fromkeys(row.task for row in report.summary):
        rows = [row for row in report.summary if row.task == task]
        lines = []
        for row in rows:
            of = {"worst-site": "  worst site", "external": f"  external {', '.join(row.sites)}"}.get(row.scope)
            alone = all(other.scope == row.scope for other in rows)  # sites left out one by one: there is no line above
            strategy = varied(row)
            names = [called(row), f"{strategy}{of}"] if of and alone else ["", of] if of else [called(row), strategy]
            numbers = [_shown(number) for number in row.metrics.values()]
            if narrow:
                names, numbers = [of or " ".join(names)], [number.replace(" [", "\n[") for number in numbers]
            lines.append([*names, *numbers])
        seeds = len(rows[0].seeds)
        title = f"\n{task}, {report.data_kind} data, {seeds} seed{'s' if seeds > 1 else ''}, held-out patients"
        header = ["model, strategy"] if narrow else ["model", "strategy"]
        output.print_table(
            title, [*header, *(TITLES.get(metric, metric.replace("_", " ")) for metric in rows[0].metrics)], lines
        )
    for row in report.summary:
        alike_rows = [other for other in report.summary if (other.task, other.scope) == (row.task, row.scope)]
        most = max(sum(other.patients) for other in alike_rows)
        if row.scope == "pooled" and sum(row.patients) < most:
            output.say(
                f"fewer patients: {row.model} {varied(row)} has no model for some hospitals and is scored on "
                f"{sum(row.patients)} of {most} held-out patients of {row.task}; it cannot be compared with the others"
            )
    told = (*report.summary, *report.attacks)
    reasons = {n.reason for row in told for n in row.metrics.values() if n.reason and n.reason != NOT_ASKED}
    if report.summary:
        output.say(
            "\nValue [95 % interval from resampling patients]; over several seeds both are means. "
            "A worst site is chosen anew for each metric."
        )
    print_attacks(report)
    for reason in sorted(reasons):
        output.say(f"suppressed: {reason}")
    for site, reason in report.skipped_sites.items():
        output.say(f"skipped site {site}: {reason}")
    alike: dict[tuple[str, str, str], list[str]] = {}
    for cell in report.cells:
        if cell.status != "ok":
            key = (cell.status, cell.task, cell.error or "")
            alike.setdefault(key, []).append(f"{cell.model} {varied(cell)} seed {cell.seed}")
    for (status, task, error), names in alike.items():
        which = names[0] if len(names) == 1 else f"{len(names)} cells"
        output.say(f"{status}: {task}, {which}: {error}")
    cached = sum(cell.cached for cell in report.cells)
    cells = f"{len(report.cells)} cell{'' if len(report.cells) == 1 else 's'}"
    output.say(f"\n{cells} ({cached} cached); records: {report.records}/{report.suite}/")
    for path in report.pictures:
        output.say(f"picture: {path}")


def _shown(number: Number) -> str:
    if number.value is None:
        return "suppressed"
    if number.low is None or number.high is None:
        return f"{number.value:.3f}"
    return f"{number.value:.3f} [{number.low:.3f}, {number.high:.3f}]"


def print_record(record: Record) -> None:
    """One record: what was asked, on which data, what was chosen, what came out, what it cost."""
    s = record.spec
    output.say(f"cell    {record.cell_id}")
    output.say(f"result  {result_sha256(record)}")
    output.say(
        f"asked   {s.suite.name} {s.suite.version}: {s.task.name}, {s.model.name}, {s.strategy.name}, seed {s.seed}"
    )
    output.say(f"status  {record.status}" + (f": {record.error.message}" if record.error else ""))
    if record.data is not None:
        rows = [
            (d.name, d.role, d.data_kind, f"{d.n_patients:,}", f"{d.n_samples:,}", f"{d.n_pos:,}")
            for d in record.data.sites
        ]
        header = ["site", "role", "data", "patients", "samples", "positives"]
        output.print_table("\nData", header, rows, numbers=(3, 4, 5))
        for site in record.data.skipped:
            output.say(f"skipped {site.name}: {site.reason}")
    if record.training is not None:
        t = record.training
        for site in t.skipped:
            output.say(f"not trained on {site.name}: {site.reason}")
        output.say(f"\nchosen  {t.chosen} ({t.selection}; {len(t.trials)} trials)")
    if record.metrics:
        rows6 = [_metric(metric) for metric in record.metrics]
        output.print_table(
            "\nMetrics on held-out patients", ["scope", "metric", "value", "n", "events"], rows6, numbers=(3, 4)
        )
    cost, where = record.cost, record.provenance
    up, down = cost.bytes_up or 0, cost.bytes_down or 0
    output.say(f"\ncost    {cost.wall_s:.1f} s, {up:,} bytes up, {down:,} bytes down, {cost.rounds or 0} rounds")
    commit = f"{where.code.commit}{' (dirty)' if where.code.dirty else ''}" if where.code.commit else "no checkout"
    output.say(f"ran     {where.finished_at}, {where.code.package_version} {commit}, Python {where.python}")


def _metric(metric: Metric) -> tuple[str, str, str, str, str]:
    scope = metric.scope.kind + (f" {metric.scope.id}" if metric.scope.id else "")
    if metric.value is None:
        value = f"suppressed: {metric.suppressed}"
    elif metric.ci is None:
        value = f"{metric.value:.3f} (no interval: {metric.no_interval})"
    else:
        value = f"{metric.value:.3f} [{metric.ci.low:.3f}, {metric.ci.high:.3f}]"
    return scope, metric.name, value, f"{metric.n:,}", f"{metric.n_pos:,}"
