"""`bench site`: look at an export, read it into MEDS, remember it, forget it, simulate hospitals."""

from pathlib import Path
from typing import Annotated

import typer

from bench import output
from bench.commands.options import Json

app = typer.Typer(
    help="Hospital exports: check, ingest, forget, simulate.", no_args_is_help=True, rich_markup_mode=None
)

SITE_HELP = (
    "[NAME=]KIND[,OPTION...]:PATH, e.g. mimic4:/data/mimiciv, or a remembered name; `bench list sites` names the kinds."
)
What = Annotated[str, typer.Argument(metavar="KIND:PATH", help=SITE_HELP)]


class ConceptCoverage(output.Report):
    """How much of one harmonised variable a site has."""

    concept: str
    unit: str
    events: int
    subjects: int
    implausible: int


class Declared(output.Report):
    """A choice that was made for this data: what, its value, how often it applied."""

    what: str
    value: str
    n: int


class SiteCheck(output.Report):
    """What `bench site check` prints."""

    kind: str
    title: str
    path: str
    source: str
    part: str
    data_kind: str
    n_subjects: int
    n_patients: int
    tables: dict[str, int]
    absent: dict[str, str]
    groups: dict[str, dict[str, int]]
    declared: tuple[Declared, ...]
    warnings: tuple[str, ...]
    n_events: int | None
    content_sha256: str | None
    coverage: tuple[ConceptCoverage, ...]


class Ingested(output.Report):
    """What `bench site ingest` prints."""

    name: str
    registered: bool
    dataset: str
    kind: str
    data_kind: str
    n_subjects: int
    n_patients: int
    n_events: int
    content_sha256: str
    warnings: tuple[str, ...]


class Simulated(output.Report):
    """One hospital that `bench site simulate` wrote; `site` is what `--site` takes."""

    name: str
    kind: str
    path: str
    site: str


class Simulation(output.Report):
    """What `bench site simulate` prints."""

    hospitals: tuple[Simulated, ...]


@app.command()
def check(
    what: What,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only files, patients and stays; no ingest, no coverage.")
    ] = False,
    json_: Json = False,
) -> None:
    """Say what an export holds, what is missing, what was decided, and which harmonised variables it covers."""
    from bench.open import parse_site
    from bench.progress import reading
    from sites import concepts
    from sites.home import home
    from sites.ingest import check as look
    from sites.ingest import ingest

    spec, _ = parse_site(what)
    found = look(spec)
    dataset, coverage = None, []
    if not quick:
        with reading(quiet=json_) as progress:
            dataset = ingest(spec, home(), progress=progress)
        coverage = [
            ConceptCoverage(
                concept=row["concept"],
                unit=row["unit"],
                events=row["n_events"],
                subjects=row["n_subjects"],
                implausible=row["n_implausible"],
            )
            for row in concepts.coverage(dataset).iter_rows(named=True)
        ]
    report = SiteCheck(
        kind=found.kind,
        title=found.title,
        path=str(spec.path),
        source=found.source,
        part=found.part,
        data_kind=found.data_kind,
        n_subjects=found.n_subjects,
        n_patients=found.n_patients,
        tables={name: size for name, (_, size) in found.files.items()},
        absent=dict(found.absent),
        groups={g: {"unknown" if v is None else v: n for v, n in values.items()} for g, values in found.groups.items()},
        declared=tuple(Declared(what=w, value=v, n=n) for w, v, n in found.declared),
        warnings=tuple(dataset.manifest.warnings if dataset else found.warnings),
        n_events=dataset.manifest.n_events if dataset else None,
        content_sha256=dataset.manifest.content_sha256 if dataset else None,
        coverage=tuple(coverage),
    )
    if json_:
        output.print_json(report)
    else:
        _print_check(report)


def _print_check(report: SiteCheck) -> None:
    source = f", patient source {report.source} {report.part}".rstrip() if report.source else ""
    output.say(f"{report.title} at {report.path}: {report.data_kind} data{source}")
    output.say(f"{report.n_patients:,} patients, {report.n_subjects:,} subjects, {len(report.tables)} tables found")
    if report.absent:
        rows = [(name, lost) for name, lost in report.absent.items()]
        output.print_table("\nAbsent tables", ["table", "what is lost"], rows)
    if report.groups:
        output.say("")
    for group, values in report.groups.items():
        shown = sorted(values.items(), key=lambda item: -item[1])
        text = ", ".join(f"{value} {n:,}" for value, n in shown[:8]) + (" ..." if len(shown) > 8 else "")
        output.say(f"by={group}: {len(values)} group{'' if len(values) == 1 else 's'} (patients): {text}")
    if report.declared:
        rows3 = [(d.what, d.value, f"{d.n:,}") for d in report.declared]
        output.print_table("\nDecided for this data", ["what", "value", "n"], rows3, numbers=(2,))
    if report.coverage:
        there = [c for c in report.coverage if c.events or c.implausible]
        rows5 = [(c.concept, c.unit, f"{c.events:,}", f"{c.subjects:,}", f"{c.implausible:,}") for c in there]
        header = ["variable", "unit", "events", "subjects", "implausible"]
        output.print_table(
            f"\n{len(there)} of {len(report.coverage)} harmonised variables", header, rows5, numbers=(2, 3, 4)
        )
        output.say("none of: " + ", ".join(c.concept for c in report.coverage if c not in there))
    if report.warnings:
        output.say("")
    for warning in report.warnings:
        output.say(f"- {warning}")


@app.command()
def ingest(what: What, json_: Json = False) -> None:
    """Read an export into a MEDS dataset under FEDWARD_HOME; with NAME= the site is remembered by that name."""
    from bench.open import parse_site
    from bench.progress import reading
    from sites import site
    from sites.home import home
    from sites.ingest import ingest as read

    spec, named = parse_site(what)
    with reading(quiet=json_) as progress:
        dataset = read(spec, home(), progress=progress)
    if named:
        site.register(spec)
    m = dataset.manifest
    report = Ingested(
        name=spec.name,
        registered=named,
        dataset=str(dataset.root),
        kind=m.kind,
        data_kind=m.data_kind,
        n_subjects=m.n_subjects,
        n_patients=m.n_patients,
        n_events=m.n_events,
        content_sha256=m.content_sha256,
        warnings=m.warnings,
    )
    if json_:
        output.print_json(report)
        return
    output.say(f"{m.title}: {m.n_events:,} events of {m.n_patients:,} patients in {dataset.root}")
    for warning in m.warnings:
        output.say(f"- {warning}")
    if named:
        output.say(f"remembered: `--site {spec.name}` is `--site {spec}`")


@app.command()
def forget(name: Annotated[str, typer.Argument(help="A remembered name, or KIND:PATH.")]) -> None:
    """Delete everything that was made from a site's data under FEDWARD_HOME, and its remembered name.

    Samples, features and predictions of other sites go with it, since a federation's lie together; they are made anew
    when they are wanted. Records stay: they hold no patient's data.
    """
    from bench.forget import forget_site

    for line in forget_site(name):
        output.say(line)


@app.command()
def simulate(
    out: Annotated[Path, typer.Option("--out", help="Folder for the exports.", callback=Path.expanduser)],
    hospitals: Annotated[int, typer.Option(min=1, max=60, help="How many hospitals.")] = 6,
    patients: Annotated[
        int | None, typer.Option(min=50, help="Patients of each; default: as the embedded suite.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    json_: Json = False,
) -> None:
    """Write hospitals with known truth in the genuine MIMIC-IV, eICU and OMOP formats."""
    from sites.simulate.federation import simulate as write

    written = write(out, hospitals=hospitals, patients_per_hospital=patients, seed=seed)
    report = Simulation(
        hospitals=tuple(Simulated(name=s.name, kind=s.kind, path=str(s.path), site=str(s.spec)) for s in written)
    )
    if json_:
        output.print_json(report)
        return
    output.print_table(
        "Simulated hospitals", ["name", "format", "site"], [(h.name, h.kind, h.site) for h in report.hospitals]
    )
