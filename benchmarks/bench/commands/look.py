"""Commands that look and change nothing: list, show, status, schema."""

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import BaseModel

from bench import output
from bench.commands.options import DEFAULT_OUT, Json, Out

if TYPE_CHECKING:
    from fedcore.registry import Registry


class Listed(output.Report):
    """One thing that can be named on the command line."""

    name: str
    about: str


class Listing(output.Report):
    """What `bench list` prints."""

    what: str
    items: tuple[Listed, ...]


class SuiteStatus(output.Report):
    """How the records of one suite stand."""

    suite: str
    ok: int
    failed: int
    skipped: int
    latest: str | None


class Status(output.Report):
    """What `bench status` prints."""

    records: str
    suites: tuple[SuiteStatus, ...]
    home: str
    home_bytes: int
    datasets: tuple[str, ...]


def _suites() -> list[Listed]:
    from bench.suite import load_suite, names

    return [Listed(name=name, about=load_suite(name).description) for name in names()]


def _tasks() -> list[Listed]:
    from fedcore.cohort import load_task, tasks

    return [Listed(name=name, about=load_task(name).description) for name in tasks()]


def _first_lines(registry: "Registry[Any]") -> list[Listed]:
    import ast

    items = []
    for name, path in registry.files().items():
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or registry.what
        items.append(Listed(name=name, about=text.splitlines()[0]))
    return items


def _models() -> list[Listed]:
    from fedcore.models import model

    return _first_lines(model.MODELS)


def _strategies() -> list[Listed]:
    from fedcore.strategies import strategy

    anchors = [Listed(name=name, about=about) for name, about in strategy.ANCHORS.items()]
    return [*anchors, *_first_lines(strategy.STRATEGIES)]


def _attacks() -> list[Listed]:
    from bench.attacks import attack

    return _first_lines(attack.ATTACKS)


def _sites() -> list[Listed]:
    from sites import site
    from sites.exports import registry

    kinds = [Listed(name=kind, about=registry.load(kind).title) for kind in registry.kinds()]
    registered = [Listed(name=name, about=str(spec)) for name, spec in site.registered().items()]
    return [*registered, *kinds]


LISTS = {
    "suites": _suites,
    "tasks": _tasks,
    "models": _models,
    "strategies": _strategies,
    "attacks": _attacks,
    "sites": _sites,
}


def list_things(
    what: Annotated[str, typer.Argument(help=f"One of {', '.join(LISTS)}.")],
    json_: Json = False,
) -> None:
    """List suites, tasks, models, strategies, attacks or sites (export kinds and registered sites)."""
    if what not in LISTS:
        raise typer.BadParameter(f"{what!r} is not one of {', '.join(LISTS)}")
    listing = Listing(what=what, items=tuple(LISTS[what]()))
    if json_:
        output.print_json(listing)
    else:
        output.print_table(what, ["name", "what it is"], [(item.name, item.about) for item in listing.items])


def show(
    cell: Annotated[str, typer.Argument(help="A cell_id or its first characters.")],
    out: Out = DEFAULT_OUT,
    json_: Json = False,
) -> None:
    """Show one record: what was asked, on which data, what came out."""
    from bench.report import print_record
    from leaderboard.record import RecordError, canonical_json
    from leaderboard.store import Store

    found = Store(out).starting_with(cell)
    if not found:
        raise RecordError(
            f"no record in {out} has a cell_id that starts with {cell!r}; `bench status` says what is there"
        )
    if len(found) > 1:
        raise RecordError(
            f"{len(found)} cells in {out} start with {cell!r}: {', '.join(k[:16] for k in found)}; give more characters"
        )
    record = next(iter(found.values()))
    if json_:
        sys.stdout.write(canonical_json(record).decode())
    else:
        print_record(record)


def status(out: Out = DEFAULT_OUT, json_: Json = False) -> None:
    """Say what has been run and what is stored where."""
    from leaderboard.store import Store
    from sites.home import home

    by_suite: dict[str, list[tuple[str, str]]] = {}
    for record in Store(out).records():
        by_suite.setdefault(record.spec.suite.name, []).append((record.status, record.provenance.finished_at))
    place = home()
    datasets = sorted(
        path.name for path in (place / "datasets").glob("*") if (path / "metadata/fedward.json").is_file()
    )
    report = Status(
        records=str(out),
        suites=tuple(
            SuiteStatus(
                suite=suite,
                ok=sum(state == "ok" for state, _ in rows),
                failed=sum(state == "failed" for state, _ in rows),
                skipped=sum(state == "skipped" for state, _ in rows),
                latest=str(max(finished for _, finished in rows)),
            )
            for suite, rows in sorted(by_suite.items())
        ),
        home=str(place),
        home_bytes=sum(path.stat().st_size for path in place.rglob("*") if path.is_file()),
        datasets=tuple(datasets),
    )
    if json_:
        output.print_json(report)
        return
    rows = [(s.suite, str(s.ok), str(s.failed), str(s.skipped), s.latest or "") for s in report.suites]
    output.print_table(f"Records in {out}", ["suite", "ok", "failed", "skipped", "latest"], rows, numbers=(1, 2, 3))
    output.say(f"\nPatient data lies in {report.home} ({report.home_bytes / 2**20:.1f} MB); ingested datasets:")
    for name in report.datasets:
        output.say(f"  {name}")
    if not report.datasets:
        output.say("  none")


def schema(name: Annotated[str, typer.Argument(help="A report's name; none lists them.")] = "") -> None:
    """Print the JSON Schema of what a command prints with --json, of a result record, or of a site's policy."""
    from leaderboard.record import Record
    from privacy.policy import Policy

    models: dict[str, type[BaseModel]] = {"Policy": Policy, "Record": Record}
    models |= {model.__name__: model for model in output.Report.__subclasses__()}
    if not name:
        output.say(" ".join(sorted(models)))
    elif name not in models:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(sorted(models))}")
    else:
        sys.stdout.write(json.dumps(models[name].model_json_schema(), indent=2) + "\n")
