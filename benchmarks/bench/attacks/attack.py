"""Attacks by name: what each needs of a cell, and what it finds as metrics of the cell's record.

An attack is a file of this folder that defines `ATTACK`. It is handed the scene: what the cell's federation released,
and what the attacker of its threat model knows beside that. It says what it found, number by number.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from fedcore.registry import Registry
from leaderboard.metric import Interval, Metric, Scope
from leaderboard.record import Spec
from privacy.attacks.outcome import Estimate

if TYPE_CHECKING:
    from bench.attacks.scene import Scene

BEGINNING = "attack."
"""Of the names of all metrics that attacks find."""

LEVEL = 0.95
PARTS = ("score", "member")
SCORES = "scores.npz"


@dataclass(frozen=True)
class Finding:
    """One number that an attack came to.

    Attributes:
        attack: how it went about it, as `lira-online`.
        against: what it looked at: `model`, `updates`, ...
        measure: what is measured, as `auroc`.
        estimate: the number.
        n, n_pos: how many are behind it, and how many of them are members, or have what is looked for.
        direction: what would be better for the patients.
        unit: what the n are.
        curve: scores, float64 [n], and whose are members, bool [n], of whatever has a ROC to draw.
    """

    attack: str
    against: str
    measure: str
    estimate: Estimate
    n: int
    n_pos: int
    direction: Literal["min", "max"] = "min"
    unit: Literal["patient", "hospital"] = "patient"
    curve: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True)
class AttackSpec:
    """An attack.

    Attributes:
        title: what it is called in the literature.
        papers: authors and years.
        knows: the threat model: what the attacker knows and sees.
        run: finds what is to be found in a scene.
        shadows: whether its attacker trains federations for comparison.
    """

    title: str
    papers: str
    knows: str
    run: "Callable[[Scene], Iterable[Finding]]"
    shadows: bool = False


ATTACKS = Registry[AttackSpec]("attack", "bench.attacks", "ATTACK", no_part=("attack", "scene"))

names, module, load = ATTACKS.names, ATTACKS.module, ATTACKS.load


def attacked(scene: "Scene", scores: Path) -> list[Metric]:
    """What the attacks of the scene's cell find.

    Args:
        scene: the scene.
        scores: the file in which the scores behind each ROC are kept, which are the patients' own.
    """
    found = [(kind, one) for kind in scene.plan.kinds for one in load(kind).run(scene)]
    curves = {f"{kind}.{one.attack}.{one.against}": one.curve for kind, one in found if one.curve is not None}
    held = {f"{name}/{part}": value for name, curve in curves.items() for part, value in zip(PARTS, curve, strict=True)}
    np.savez(scores, allow_pickle=False, **held)
    return [_metric(kind, one, scene.spec) for kind, one in found]


def curves(scores: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Scores and members by attack, as `attacked` kept them."""
    with np.load(scores, allow_pickle=False) as held:
        names = dict.fromkeys(name.partition("/")[0] for name in held.files)
        return {name: (held[f"{name}/{PARTS[0]}"], held[f"{name}/{PARTS[1]}"]) for name in names}


def _metric(kind: str, found: Finding, spec: Spec) -> Metric:
    estimate = found.estimate
    interval = None
    if estimate.value is not None and estimate.low is not None and estimate.high is not None:
        interval = Interval(
            level=LEVEL,
            low=estimate.low,
            high=estimate.high,
            method=estimate.method,
            b=0,
            b_defined=0,
            cluster=found.unit,
            strata=None,
            seed=spec.seed,
        )
    without = estimate.value is not None and interval is None
    return Metric(
        name=f"{BEGINNING}{kind}.{found.attack}.{found.against}.{found.measure}",
        direction=found.direction,
        unit="1",
        scope=Scope(kind="pooled"),
        value=estimate.value,
        n=found.n,
        n_pos=found.n_pos,
        n_patients=found.n if found.unit == "patient" else 0,
        ci=interval,
        suppressed=estimate.reason,
        no_interval=(estimate.method or "one number, not a sample of any") if without else None,
        estimator="exact",
    )
