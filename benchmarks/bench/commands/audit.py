"""`bench audit`: what an attack finds of a private cell, beside what the cell claims."""

from pathlib import Path
from typing import Annotated

import typer

from bench import output
from bench.commands.grid import SiteOption
from bench.commands.options import DEFAULT_OUT, Json, Out

CANARIES = 1000


class Audited(output.Report):
    """What one audit of one site found: epsilon of its training is at least `bound`, with 95 % confidence.

    `claim` is the site's epsilon of all its releases, `training` that of its training alone, which was audited; both at
    `delta`. `guesses`: how many canaries were said to be in or out, `right` of them rightly.
    """

    site: str
    claim: float
    training: float
    delta: float
    audit: str
    canaries: int
    guesses: int
    right: int
    bound: float
    exceeded: bool


class Audits(output.Report):
    """What `bench audit` prints."""

    cell_id: str
    audits: tuple[Audited, ...]


def audit(
    cell: Annotated[str, typer.Argument(help="A cell_id or its first characters, of a cell run with --epsilon.")],
    site: SiteOption = None,
    canaries: Annotated[
        int, typer.Option("--canaries", min=100, help="Canary patients, of which half are put in.")
    ] = CANARIES,
    out: Out = DEFAULT_OUT,
    json_: Json = False,
) -> int:
    """Train a private cell's sites once more with canaries in them, and bound epsilon from below."""
    from bench.auditing import audited, opened, private_record

    record = private_record(cell, Path(out))
    sites = opened(record.spec, site or [], quiet=json_)
    found = tuple(audited(record, sites, canaries, lambda name: None if json_ else output.note(f"auditing {name}")))
    report = Audits(cell_id=record.cell_id, audits=found)
    if json_:
        output.print_json(report)
    else:
        rows = [
            (
                one.site,
                f"{one.claim:.3f}",
                f"{one.training:.3f}",
                f"{one.delta:.2g}",
                one.audit,
                str(one.canaries),
                f"{one.right} of {one.guesses}",
                f"{one.bound:.3f}",
            )
            for one in found
        ]
        header = ["site", "claim", "training alone", "delta", "audit", "canaries", "guesses right", "at least"]
        spec = record.spec
        title = f"Epsilon of {spec.task.name} {spec.model.name} {spec.strategy.name} seed {spec.seed}, from below"
        output.print_table(title, header, rows, numbers=(1, 2, 3, 5, 6, 7))
        output.say(
            "at least: a lower bound on the epsilon of training, with 95 % confidence: one line in twenty may exceed "
            "an honest claim. A bound far below the claim does not prove the claim."
        )
        for one in found:
            if one.exceeded:
                output.say(
                    f"{one.site}: the bound ({one.audit}) exceeds the claim: the training is not as private as that"
                )
    return 1 if any(one.exceeded for one in found) else 0
