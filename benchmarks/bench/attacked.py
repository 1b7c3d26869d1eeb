"""What attackers learned, to people: a table a kind of attack, and the ROC of those who tell members from others."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from bench import output
from bench.attacks import attack as attacks
from bench.code import training_code
from bench.commands.grid import Number, Run, called, varied
from bench.run import Finished
from leaderboard.record import Record
from leaderboard.tables import Row, summary
from privacy.attacks.outcome import most_true, roc

NOT_ASKED = "not scored"

PICTURE = ("loss.model", "lira-online.model", "rmia.model", "lira-online.updates")
"""The curves that are drawn, of those there are."""


def attack_rows(records: Iterable[Record]) -> list[Row]:
    """What attacks found: a line a federation, seeds summed up, with the numbers that it was attacked for."""
    found = [record for record in records if record.spec.attack is not None]
    names = dict.fromkeys(
        metric.name for record in found for metric in record.metrics if metric.name.startswith(attacks.BEGINNING)
    )
    return summary(found, tuple(names), ("pooled",))


def print_attacks(report: Run) -> None:
    """A table for each kind of attack: a line for each federation and way to go about it, a column a measure."""
    names = dict.fromkeys(name for row in report.attacks for name in row.metrics)
    told = {name: name.removeprefix(attacks.BEGINNING).split(".", 3) for name in names}
    for kind in dict.fromkeys(parts[0] for parts in told.values()):
        measures = list(dict.fromkeys(parts[3] for parts in told.values() if parts[0] == kind))
        ways = list(dict.fromkeys((parts[1], parts[2]) for parts in told.values() if parts[0] == kind))
        lines = []
        for row in report.attacks:
            for way, against in ways:
                cells = [row.metrics.get(f"{attacks.BEGINNING}{kind}.{way}.{against}.{m}") for m in measures]
                if any(one is not None and one.reason != NOT_ASKED for one in cells):
                    lines.append([called(row), varied(row), f"{way}, {against}", *(_shown(one) for one in cells)])
        header = ["model", "strategy", "attack, against", *(measure.replace("_", " ") for measure in measures)]
        spec = attacks.load(kind)
        output.print_table(f"\nAttack: {spec.title} ({spec.papers})", header, lines)
        output.say(f"The attacker knows {spec.knows}.")


def _shown(number: Number | None) -> str:
    if number is None or number.reason == NOT_ASKED:
        return ""
    if number.value is None:
        return "suppressed"
    if number.low is None or number.high is None:
        return f"{number.value:.3f}"
    return f"{number.value:.3f} [{number.low:.3f}, {number.high:.3f}]"


def draw_attacks(finished: Sequence[Finished], folder: Path) -> list[Path]:
    """Draw the ROC of attacks on membership, a picture a task: a row of panels a model, a panel a federation.

    The scores lie where the cell was trained; cells of which they are not here are left out. Of several seeds the first
    is drawn.
    """
    from bench.training import trained_folder
    from leaderboard.pictures.roc import Panel, draw

    tasks: dict[str, dict[str, list[Panel]]] = {}
    met = set[tuple[str, str, str]]()
    for one in finished:
        spec = one.record.spec
        if spec.attack is None or one.record.status != "ok":
            continue
        code = training_code(spec.model.name, spec.strategy.name, spec.federation.protocol)
        scores = trained_folder(spec, code) / attacks.SCORES
        known = attacks.curves(scores) if scores.is_file() else {}
        chosen = {name: known[f"membership.{name}"] for name in PICTURE if f"membership.{name}" in known}
        model, title = (
            spec.model.name,
            one.cell.name.removeprefix(f"{spec.task.name} ").removesuffix(f" seed {spec.seed}"),
        )
        if spec.attack.patients is not None:
            title += f",\n{spec.attack.patients} candidates a hospital"
        what = (spec.task.name, title, str(sorted(spec.model.config.items())))
        if not chosen or what in met:
            continue
        met.add(what)
        others = min(int((~member).sum()) for _, member in chosen.values())
        panel = Panel(
            title=title,
            curves={name.replace(".", ", "): roc(*curve) for name, curve in chosen.items()},
            others=others,
            bound=_bound(one.record, others),
        )
        tasks.setdefault(spec.task.name, {}).setdefault(model, []).append(panel)
    drawn: list[Path] = []
    for task, rows in tasks.items():
        drawn += draw(list(rows.values()), folder / f"membership-{task.replace('/', '-')}")
    return drawn


def _bound(record: Record, others: int) -> tuple[np.ndarray, np.ndarray] | None:
    """What the sites' claims leave an attack, at the largest of their epsilons and deltas."""
    if not record.privacy:
        return None
    fpr = np.geomspace(0.5 / others, 1, 200)
    epsilon, delta = (max(getattr(site, name) for site in record.privacy) for name in ("epsilon", "delta"))
    return fpr, most_true(fpr, epsilon, delta)
