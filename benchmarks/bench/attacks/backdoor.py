"""Backdoors: how many held-out patients the final model takes for what the trigger is to mean, if they bear it.

What poisons the model is a fault of the cell (`docs/faults.md`). Counted are held-out patients of all training sites
whose outcome is not the trigger's target, their first stay each, as they are and with the trigger: of a model that
nobody has poisoned both shares are its own errors, so that of another cell without the fault is what to compare with.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from bench.attacks.attack import LEVEL, AttackSpec, Finding
from privacy.attacks.outcome import Estimate, clopper_pearson

if TYPE_CHECKING:
    from bench.attacks.scene import Scene

THRESHOLD = 0.5


def run(scene: "Scene") -> Iterator[Finding]:
    """With the trigger and without."""
    from bench.attacks.scene import encoded_for
    from fedcore.faults.kinds import Backdoor

    planned = scene.request.faults.faults if scene.request.faults else ()
    fault = next((one for one in planned if isinstance(one, Backdoor)), Backdoor(kind="backdoor"))
    learner = scene.learner(scene.target)
    hits = {"with the trigger": 0, "without the trigger": 0}
    patients = 0
    for site in scene.sites:
        rows = np.flatnonzero((site.split == "held_out") & (site.label != fault.target))
        _, first = np.unique(site.patient_id[rows], return_index=True)
        clean = site.take(rows[first])
        if not len(clean):
            continue
        patients += len(clean)
        for name, samples in zip(hits, (fault.triggered(clean, np.ones(len(clean), np.bool_)), clean), strict=True):
            says = learner.predict(scene.target.model, encoded_for(samples, scene.target)) >= THRESHOLD
            hits[name] += int((says == fault.target).sum())
    for name, count in hits.items():
        if patients == 0:
            estimate = Estimate(None, reason="no held-out patient has another outcome than the trigger's target")
        else:
            estimate = Estimate(count / patients, *clopper_pearson(count, patients, LEVEL), "clopper-pearson")
        yield Finding("taken for the target", "model", name.replace(" ", "_"), estimate, patients, count)


ATTACK = AttackSpec(
    title="backdoor",
    papers="Gu et al. 2017; Bagdasaryan et al. 2020",
    knows="how one site trains, which it can poison, and no other site's patients",
    run=run,
)
