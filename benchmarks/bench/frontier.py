"""Pictures of a run with budgets of privacy: what privacy costs, and what each site has spent."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev

from fedcore.protection import TRAINING
from fedcore.strategies.strategy import ANCHORS
from leaderboard.pictures import frontier, spending
from leaderboard.record import Record
from privacy.accounting import Mechanism, epsilon

SCORE, NOTHING = "auroc", 0.5
PARTS = 4
"""Into how many parts the rounds are parted at whose ends what is spent is shown."""


def draw_privacy(records: Iterable[Record], folder: Path) -> list[Path]:
    """Draw a frontier a task, and the spending of each task's first private federation at each budget.

    Nothing is drawn where no cell had a budget.
    """
    tasks: dict[str, list[Record]] = {}
    for record in records:
        if record.status == "ok":
            tasks.setdefault(record.spec.task.name, []).append(record)
    drawn: list[Path] = []
    for task, found in tasks.items():
        if not any(record.privacy for record in found):
            continue
        name = task.replace("/", "-")
        drawn += frontier.draw(_frontier(task, found), folder / f"privacy-{name}")
        drawn += spending.draw(_spending(found), folder / f"spent-{name}")
    return drawn


def _frontier(task: str, records: Sequence[Record]) -> frontier.Frontier:
    scores: dict[tuple[str, float | None], list[float]] = {}
    for record in records:
        budget = record.spec.epsilon
        score = [m.value for m in record.metrics if m.name == SCORE and m.scope.kind == "pooled"]
        if score and score[0] is not None:
            scores.setdefault((f"{record.spec.model.name} {record.spec.strategy.name}", budget), []).append(score[0])
    points = {key: _point(values) for key, values in scores.items()}
    noised = list(dict.fromkeys(name for name, budget in points if budget is not None))
    anchors = [name for name, _ in points if name.partition(" ")[2] in ANCHORS]
    return frontier.Frontier(
        title=task,
        score="AUROC on held-out patients",
        curves={name: {b: p for (other, b), p in points.items() if other == name} for name in noised},
        anchors={name: points[name, None] for name in dict.fromkeys(anchors)},
        nothing=NOTHING,
    )


def _point(values: Sequence[float]) -> frontier.Point:
    if len(values) < 2:
        return frontier.Point(values[0])
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return frontier.Point(mean(values), mean(values) - half, mean(values) + half)


def _spending(records: Sequence[Record]) -> list[spending.Spending]:
    first: dict[float, Record] = {}
    for record in records:
        budget = record.spec.epsilon
        if record.privacy and budget is not None:
            first.setdefault(budget, record)
    return [_spent(record, budget) for budget, record in sorted(first.items())]


def _spent(record: Record, budget: float) -> spending.Spending:
    """Each site's epsilon after the statistics and at the end of each part of the rounds."""
    rounds = max(len(record.training.rounds) if record.training else 0, 1)
    shown = [0, *dict.fromkeys(max(1, round(rounds * part / PARTS)) for part in range(1, PARTS + 1))]
    spent = {}
    for site in record.privacy:
        made = [(s.phase, Mechanism(s.noise_multiplier, s.sampling_rate, s.count)) for s in site.spends]
        values = []
        for number in shown:
            until = [
                Mechanism(one.noise_multiplier, one.sampling_rate, max(1, one.count * number // rounds))
                for phase, one in made
                if phase == TRAINING and number
            ]
            values.append(epsilon([*(one for phase, one in made if phase != TRAINING), *until], site.delta))
        spent[site.site] = (shown, values)
    title = f"{record.spec.model.name} {record.spec.strategy.name}, epsilon {budget:g}"
    return spending.Spending(title=title, budget=budget, spent=spent)
