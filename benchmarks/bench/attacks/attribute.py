"""Attribute inference: the sex of patients of whom all else is known, with the final model and without it.

Candidates are the game's, each with their first stay. `members` and `others` are told apart: what the model adds for
both is what it tells of people in general; what it adds for members alone is what it remembers of them.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bench.attacks.attack import AttackSpec, Finding
from privacy.attacks.outcome import Bools, Estimate, Floats, auroc

if TYPE_CHECKING:
    from bench.attacks.scene import Scene
    from fedcore.samples import SiteSamples

ATTRIBUTE = "sex"


def run(scene: "Scene") -> Iterator[Finding]:
    """With the model and without it, of members and of others."""
    from bench.attacks.scene import POPULATION
    from privacy.attacks import attribute

    if ATTRIBUTE not in scene.target.space.columns or any(ATTRIBUTE not in s.names.get("x", ()) for s in scene.sites):
        reason = f"the model does not take {ATTRIBUTE} as a column of its own"
        yield Finding("bayes", "model", "auroc", Estimate(None, reason=reason), 0, 0)
        return
    asked: list[Floats] = []
    has: list[Bools] = []
    known: list[Floats] = []
    known_has: list[Bools] = []
    label: list[Bools] = []
    member: list[Bools] = []
    said: list[tuple[Floats, Floats]] = []
    for site, played, places in zip(scene.sites, scene.played, scene.candidates(), strict=True):
        candidates = _told(site, places)
        outside = _told(site, np.flatnonzero(np.isin(site.split, POPULATION)))
        for rows, others, of_them in ((candidates, asked, has), (outside, known, known_has)):
            others.append(np.c_[_without(scene, site.take(rows)), site.label[rows]])
            of_them.append(_sex(site)[rows] > 0.5)
        label.append(site.label[candidates])
        member.append((played.split[candidates] == "train") & (site.site not in scene.target.skipped))
        there = site.take(candidates)
        said.append((_said(scene, there, 1.0), _said(scene, there, 0.0)))
    truth, outcome, inside = (np.concatenate(parts) for parts in (has, label, member))
    prior = attribute.imputed(np.concatenate(known), np.concatenate(known_has), np.concatenate(asked))
    given = [np.where(outcome, p, 1 - p) for p in (np.concatenate(parts) for parts in zip(*said, strict=True))]
    nothing = np.ones(len(prior))
    ways = {"with the model": attribute.score(prior, *given), "imputed": attribute.score(prior, nothing, nothing)}
    for who, these in (("members", inside), ("others", ~inside)):
        for way, score in ways.items():
            estimate = auroc(score[these], truth[these])
            yield Finding(way, who, "auroc", estimate, int(these.sum()), int(truth[these].sum()))


def _sex(site: "SiteSamples") -> Floats:
    return np.asarray(site.raw["x"][:, site.names["x"].index(ATTRIBUTE)], dtype=np.float64)


def _told(site: "SiteSamples", places: np.ndarray) -> np.ndarray:
    """The places of the first stays of those whose attribute is known."""
    with_it = places[~np.isnan(_sex(site)[places])]
    _, first = np.unique(site.patient_id[with_it], return_index=True)
    return np.asarray(with_it[first])


def _with(samples: "SiteSamples", value: float) -> "SiteSamples":
    x = np.array(samples.raw["x"])
    x[:, samples.names["x"].index(ATTRIBUTE)] = value
    return replace(samples, raw={**samples.raw, "x": x})


def _without(scene: "Scene", samples: "SiteSamples") -> Floats:
    """All else, as the model takes it."""
    from bench.attacks.scene import encoded_for

    x = encoded_for(_with(samples, 0.0), scene.target)["x"]
    return np.asarray(x, dtype=np.float64)


def _said(scene: "Scene", samples: "SiteSamples", value: float) -> Floats:
    """The probability of the event, if all had this value."""
    from bench.attacks.scene import encoded_for

    encoded = encoded_for(_with(samples, value), scene.target)
    return np.asarray(scene.learner(scene.target).predict(scene.target.model, encoded))


ATTACK = AttackSpec(
    title="attribute inference",
    papers="Fredrikson et al. 2014; Yeom et al. 2018",
    knows="the final model, all of a patient but their sex, the outcome among it, and other people with theirs",
    run=run,
)
