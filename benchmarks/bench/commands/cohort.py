"""`bench cohort`: who a task takes in at each site, and where the others went."""

from typing import TYPE_CHECKING, Annotated

import typer

from bench import output
from bench.commands.options import Json

if TYPE_CHECKING:
    import polars as pl

    from fedcore.samples import Attrition


class Step(output.Report):
    """What one step of the definition left."""

    step: str
    samples: int
    patients: int
    positives: int | None


class SiteCohort(output.Report):
    """One site's cohort; `skipped` says why it has none."""

    site: str
    samples: int
    patients: int
    positives: int
    attrition: tuple[Step, ...]
    skipped: str | None


class Cohorts(output.Report):
    """What `bench cohort` prints."""

    task: str
    sites: tuple[SiteCohort, ...]


def cohort(
    task: Annotated[str, typer.Argument(help="A task's name (`bench list tasks`) or the path of an ACES file.")],
    site: Annotated[
        list[str] | None,
        typer.Option(
            "--site", help="NAME=KIND[,OPTION...]:PATH, or a remembered name; several. None: simulated hospitals."
        ),
    ] = None,
    json_: Json = False,
) -> int:
    """Count samples, positives and attrition by site."""
    from bench.open import open_all
    from fedcore.cohort import CannotServe, load_task
    from fedcore.prepare import prepared_cohort

    loaded = load_task(task)
    found: list[tuple[str, pl.DataFrame | None, tuple[Attrition, ...], str | None]] = []
    for one in open_all(site or [], [], quiet=json_):
        try:
            built = prepared_cohort(one, loaded)
        except CannotServe as reason:
            steps = getattr(reason, "attrition", ())
            found.append((one.name, None, steps, str(reason)))
            continue
        found.append((one.name, built.samples, built.attrition, None))
    report = Cohorts(
        task=loaded.name,
        sites=tuple(
            SiteCohort(
                site=name,
                samples=0 if samples is None else samples.height,
                patients=0 if samples is None else samples["patient_id"].n_unique(),
                positives=0 if samples is None else int(samples["label"].sum()),
                attrition=tuple(
                    Step(step=a.step, samples=a.samples, patients=a.patients, positives=a.positives) for a in steps
                ),
                skipped=reason,
            )
            for name, samples, steps, reason in found
        ),
    )
    if json_:
        output.print_json(report)
    else:
        _print(report)
    return 0 if any(s.skipped is None for s in report.sites) else 2


def _print(report: Cohorts) -> None:
    rows = [
        (s.site, f"{s.samples:,}", f"{s.patients:,}", f"{s.positives:,}", _share(s.positives, s.samples))
        for s in report.sites
    ]
    header = ["site", "samples", "patients", "positives", "prevalence"]
    output.print_table(report.task, header, rows, numbers=(1, 2, 3, 4))
    for s in report.sites:
        if s.skipped:
            output.say(f"\n{s.site}: skipped: {s.skipped}")
        steps = [(a.step, f"{a.samples:,}", f"{a.patients:,}") for a in s.attrition]
        if steps:
            output.print_table(
                f"\n{s.site}", ["what was demanded", "samples left", "patients left"], steps, numbers=(1, 2)
            )


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else ""
