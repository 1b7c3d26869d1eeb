"""Gradient inversion: patients' features, from the first update of a hospital so small that it may just take part.

Hospitals of ten patients each, the fewest of whom a model may leave a site, join the federation for one round; the
coordinator searches for ten patients whose gradient, at the model that it sent, points where the update does. Beside it
stands what the wall is for: one patient's update, which no site sends, inverted in closed form where the first layer is
linear and has a bias.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bench.attacks.attack import LEVEL, AttackSpec, Finding
from privacy.attacks.outcome import Estimate, Floats, clopper_pearson

if TYPE_CHECKING:
    from bench.attacks.scene import Scene
    from fedcore.samples import SiteSamples

HOSPITALS, PATIENTS, ALONE = 5, 10, 20
NEAR = 0.1
"""A patient is recovered whose squared error is below a tenth of that of guessing the mean."""

STEPS, PRIOR = 200, 0.03


def run(scene: "Scene") -> Iterator[Finding]:
    """One update each of five small hospitals, and twenty patients one by one."""
    import torch

    from bench.attacks.scene import encoded_for
    from fedcore.learners.minibatch import MinibatchLearner
    from fedcore.streams import draw_seed, stream
    from privacy.attacks.inversion import analytic, by_optimisation, relative_error

    small = [_small(scene, number) for number in range(HOSPITALS)]
    _, released = scene.federation([*scene.played, *small], "inversion", rounds=1)
    learner = scene.learner(released)
    if not isinstance(learner, MinibatchLearner):
        return
    errors: list[Floats] = []
    for site in small:
        for passed in released.of_site(site.site)[:1]:
            inputs = {name: torch.from_numpy(value) for name, value in encoded_for(site, released).items()}
            network = learner.network(passed.sent)
            update = {
                name: torch.from_numpy(passed.sent[name] - passed.arrived[name])
                for name, _ in network.named_parameters()
            }
            begin = torch.from_numpy(
                0.1
                * stream(scene.spec.seed, "inversion", site.site).standard_normal(inputs["x"].shape).astype(np.float32)
            )
            known = {name: value for name, value in inputs.items() if name != "x"}
            truth = torch.from_numpy(site.label.astype(np.float32))
            found = by_optimisation(network, update, truth, begin, known=known, steps=STEPS, prior=PRIOR)
            measured = known.get("mask", torch.ones_like(begin))  # what is carried forward is no secret of its own
            x = (inputs["x"] * measured).numpy()
            errors.append(relative_error((found * measured).numpy(), x, np.zeros(x.shape[1:])))
    yield from _told("cosine", "update of ten patients", errors)

    first = next(iter(released.model))
    if scene.spec.epsilon is None and first == "weight":  # one linear layer
        rows = small[0].take(np.arange(min(ALONE, len(small[0]))))
        errors = []
        sent = released.passed[0].sent
        for place in range(len(rows)):
            row = rows.take(np.array([place]))
            encoded = encoded_for(row, released)
            seed = draw_seed(scene.spec.seed, "inversion", place)
            arrived = learner.fit(sent, encoded, row.label, seed, {}).arrays
            w, b = (arrived[name] - sent[name] for name in ("weight", "bias"))
            x = encoded["x"]
            errors.append(relative_error(analytic(w, b)[None].astype(np.float32), x, np.zeros(x.shape[1:])))
        yield from _told("closed form", "update of one patient, which no site sends", errors)


def _small(scene: "Scene", number: int) -> "SiteSamples":
    """A hospital of ten of another's patients, one stay each."""
    from fedcore.streams import stream

    host = scene.sites[number % len(scene.sites)]
    train = np.flatnonzero(host.split == "train")
    _, first = np.unique(host.patient_id[train], return_index=True)
    chosen = stream(scene.spec.seed, "inversion", number).permutation(train[first])[:PATIENTS]
    return replace(host.take(np.sort(chosen)), site=f"small hospital {number}")


def _told(attack: str, against: str, errors: list[Floats]) -> Iterator[Finding]:
    if not errors:
        missing = Estimate(None, reason="the small hospitals sent no update: their budget leaves nothing to learn")
        yield Finding(attack, against, "relative_error", missing, 0, 0, "max")
        return
    every = np.concatenate(errors)
    near, n = int((every < NEAR).sum()), len(every)
    half = 1.96 * float(every.std(ddof=1)) / np.sqrt(n)
    mean = float(every.mean())
    yield Finding(attack, against, "relative_error", Estimate(mean, mean - half, mean + half, "normal"), n, 0, "max")
    low, high = clopper_pearson(near, n, LEVEL)
    yield Finding(attack, against, "recovered", Estimate(near / n, low, high, "clopper-pearson"), n, near)


ATTACK = AttackSpec(
    title="gradient inversion",
    papers="Zhu et al. 2019; Geiping et al. 2020; Phong et al. 2017",
    knows=(
        "what passes the coordinator in the first round; the outcomes of the small hospital's patients; of sequences "
        "what was measured when; and nothing of the values, which it searches for"
    ),
    run=run,
)
