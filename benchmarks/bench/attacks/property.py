"""Property inference: whether a hospital treats more women than men, from the first update that it sends.

Hospitals of 60 patients each, drawn from all sites', three tenths or seven tenths of them women, join one federation
for one round. One half, of one half of the patients, is the attacker's own; the other is attacked.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bench.attacks.attack import LEVEL, AttackSpec, Finding
from privacy.attacks.outcome import Estimate, auroc, clopper_pearson

if TYPE_CHECKING:
    from bench.attacks.scene import Scene
    from fedcore.federation import Passed

ATTRIBUTE = "sex"
HOSPITALS, PATIENTS = 40, 60
SHARES = (0.3, 0.7)


def run(scene: "Scene") -> Iterator[Finding]:
    """Of forty hospitals by forty others."""
    from fedcore.samples import SiteSamples
    from fedcore.streams import stream
    from privacy.attacks import property as attack

    if any(ATTRIBUTE not in site.names.get("x", ()) for site in scene.sites):
        reason = "the model's representation has no column for the sex of a patient"
        yield Finding("classifier", "updates", "auroc", Estimate(None, reason=reason), 0, 0, unit="hospital")
        return
    pooled = SiteSamples.concatenate([site.take(site.split != "held_out") for site in scene.sites])
    sex = np.asarray(pooled.raw["x"][:, pooled.names["x"].index(ATTRIBUTE)])
    _, first = np.unique(pooled.patient_id, return_index=True)
    draw = stream(scene.spec.seed, "property")
    halves = np.array_split(draw.permutation(first[~np.isnan(sex[first])]), 2)
    hospitals, has = [], []
    for number in range(2 * HOSPITALS):
        half, share = halves[number // HOSPITALS], SHARES[number % 2]
        women = round(share * PATIENTS)
        groups = half[sex[half] > 0.5], half[sex[half] <= 0.5]
        if len(groups[0]) < women or len(groups[1]) < women:
            reason = (
                f"{len(groups[0])} women and {len(groups[1])} men; expected {round(max(SHARES) * PATIENTS)} of each"
            )
            yield Finding("classifier", "updates", "auroc", Estimate(None, reason=reason), 0, 0, unit="hospital")
            return
        chosen = [
            draw.choice(group, n, replace=False) for group, n in zip(groups, (women, PATIENTS - women), strict=True)
        ]
        own = pooled.take(np.sort(np.concatenate(chosen)))
        hospitals.append(replace(own, site=f"hospital {number:03d}", split=np.full(PATIENTS, "train", "<U13")))
        has.append(share > 0.5)
    _, released = scene.federation(hospitals, "property", rounds=1)
    sent = {one.site: one for one in released.passed if one.round == 1}
    there = [number for number, hospital in enumerate(hospitals) if hospital.site in sent]
    updates = np.stack([_update(sent[hospitals[number].site]) for number in there])
    known = np.array(there) < HOSPITALS
    truth = np.array(has)[there]
    score = attack.score(updates[known], truth[known], updates[~known])
    asked, n = truth[~known], int((~known).sum())
    right = int(((score > 0) == asked).sum())
    exact = clopper_pearson(right, n, LEVEL)
    for measure, estimate in (
        ("auroc", auroc(score, asked)),
        ("accuracy", Estimate(right / n, *exact, "clopper-pearson")),
    ):
        yield Finding("classifier", "updates", measure, estimate, n, int(asked.sum()), unit="hospital")


def _update(passed: "Passed") -> np.ndarray:
    parts = [np.ravel(passed.arrived[name].astype(np.float64) - value) for name, value in passed.sent.items()]
    return np.concatenate(parts)


ATTACK = AttackSpec(
    title="property inference",
    papers="Ateniese et al. 2015; Melis et al. 2019",
    knows="a hospital's first update, and patients of its own of whom to make hospitals with and without the property",
    run=run,
)
