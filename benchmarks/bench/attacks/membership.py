"""Membership inference: who of the candidates was trained on, of the final model and of the updates of all rounds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.attacks.attack import AttackSpec, Finding
from privacy.attacks import lira, loss, rmia
from privacy.attacks.outcome import Bools, Floats, auroc, by_patient, tpr_at

if TYPE_CHECKING:
    from bench.attacks.scene import Scene
    from bench.transcript import Transcript
    from fedcore.samples import SiteSamples

RATES = (0.01, 0.001)
"""False positive rates at which true ones are told."""


@dataclass(frozen=True)
class People:
    """Some rows of all sites, and whose they are.

    Attributes:
        rows: by site, the places of their rows among its samples.
        label: bool [n], of all rows, site after site.
        patient: int64 [n], whose each row is, from 0.
        patients: how many they are.
    """

    rows: dict[str, np.ndarray]
    label: Bools
    patient: np.ndarray
    patients: int

    @classmethod
    def of(cls, sites: "Sequence[SiteSamples]", places: Sequence[np.ndarray]) -> "People":
        """Those of these rows of each site."""
        rows, labels, patients, count = {}, [], [], 0
        for site, here in zip(sites, places, strict=True):
            known, dense = np.unique(site.patient_id[here], return_inverse=True)
            rows[site.site] = here
            labels.append(site.label[here])
            patients.append(dense + count)
            count += len(known)
        return cls(rows, np.concatenate(labels), np.concatenate(patients).astype(np.int64), count)

    def inside(self, played: "Sequence[SiteSamples]", skipped: frozenset[str]) -> Bools:
        """Bool [patients]: who was trained on in a game."""
        trained = np.concatenate(
            [(one.split[self.rows[one.site]] == "train") & (one.site not in skipped) for one in played]
        )
        found = np.zeros(self.patients, np.bool_)
        found[self.patient] = trained
        return found

    def said(self, predictions: "dict[str, np.ndarray]") -> Floats:
        """Float64 [n]: what a model says of each row."""
        return np.concatenate([predictions[site][rows] for site, rows in self.rows.items()])

    def mean(self, value: Floats) -> Floats:
        """Float64 [patients]: all rows of a patient make one number."""
        return by_patient(value, self.patient, self.patients)


def run(scene: "Scene") -> Iterator[Finding]:
    """Every attack on every candidate."""
    from bench.attacks.scene import POPULATION

    candidates = People.of(scene.sites, scene.candidates())
    population = People.of(scene.sites, [np.flatnonzero(np.isin(site.split, POPULATION)) for site in scene.sites])
    member = candidates.inside(scene.played, scene.target.skipped)
    inside, seen, others = [], [], []
    for number in range(scene.plan.shadows):
        pair, turned = number // 2, bool(number % 2)
        played = scene.play("shadow", pair, turned=turned)
        result, released = scene.federation(played, "shadow", pair, int(turned))
        inside.append(candidates.inside(played, released.skipped))
        seen.append(_seen(scene, candidates, dict(result.predictions), released))
        others.append(_fit(population, population.said(dict(result.predictions))))
    target = _seen(scene, candidates, scene.predictions, scene.target)
    known, sets = np.stack(inside), [np.stack(part) for part in zip(*seen, strict=True)]
    theirs = _fit(population, population.said(scene.predictions))
    scores = {
        ("loss", "model"): loss.score(-np.log(target.fit)),
        ("lira-offline", "model"): lira.offline(target.confidence, sets[1], known),
        ("lira-online", "model"): lira.online(target.confidence, sets[1], known),
        ("rmia", "model"): rmia.score(target.fit, sets[0], known, theirs, np.stack(others)),
        ("alignment", "updates"): target.alignment,
        ("lira-alignment", "updates"): lira.online(target.alignment, sets[2], known),
        ("lira-online", "updates"): lira.online(target.own, sets[3], known),
    }
    for (attack, against), score in scores.items():
        measures = {"auroc": auroc(score, member)} | {f"tpr_at_{rate:g}": tpr_at(score, member, rate) for rate in RATES}
        for measure, estimate in measures.items():
            curve = (score, member) if measure == "auroc" else None
            yield Finding(attack, against, measure, estimate, len(member), int(member.sum()), curve=curve)


@dataclass(frozen=True)
class Seen:
    """What an attacker computes of each candidate, float64 [patients] each.

    Attributes:
        fit: the probability that the final model gives the true outcome, over stays its geometric mean.
        confidence: its logit, over stays the mean.
        alignment: how far the updates of the candidate's site descend on the candidate's loss, over all rounds.
        own: the confidence of the models that the candidate's site sent, over rounds their mean.
    """

    fit: Floats
    confidence: Floats
    alignment: Floats
    own: Floats

    def __iter__(self) -> Iterator[Floats]:
        return iter((self.fit, self.confidence, self.alignment, self.own))


def _fit(people: People, probability: Floats) -> Floats:
    right = np.clip(np.where(people.label, probability, 1 - probability), lira.SMALLEST, 1.0)
    return np.exp(people.mean(np.log(right)))


def _seen(scene: "Scene", people: People, predictions: dict[str, np.ndarray], released: "Transcript") -> Seen:
    probability = people.said(predictions)
    by_site = [scene.over_rounds(site, people.rows[site.site], released) for site in scene.sites]
    alignment, own = (np.concatenate(parts) for parts in zip(*by_site, strict=True))
    return Seen(
        fit=_fit(people, probability),
        confidence=people.mean(lira.confidence(probability, people.label)),
        alignment=people.mean(alignment),
        own=people.mean(own),
    )


ATTACK = AttackSpec(
    title="membership inference",
    papers="Yeom et al. 2018; Carlini et al. 2022; Zarifzadeh et al. 2024; Nasr et al. 2019; Li et al. 2023",
    knows=(
        "the final model (`model`) or all that passes the coordinator (`updates`); the candidate with the outcome; to "
        "train its like, the other candidates, of each of whom it does not know whether they were trained on"
    ),
    run=run,
    shadows=True,
)
