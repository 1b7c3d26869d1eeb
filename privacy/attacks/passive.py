"""Membership by what a coordinator sees of a site: whether its updates descend on a candidate's loss.

Nasr, Shokri and Houmansadr, Comprehensive Privacy Analysis of Deep Learning, 2019 (the passive global attacker); Li, Li
and Ribeiro, Effective Passive Membership Inference Attacks in Federated Learning against Overparameterized Models,
2023: members' gradients are aligned with a site's update, and others' nearly orthogonal to it, in every round anew. The
attacker knows the model that the site was sent, x, the one it sent back, y, and the candidate with the outcome.

With u = y - x and g the gradient of the candidate's loss at x, `alignment` is -<g, u> / |u|: the cosine of the two
times |g|, which spares making anyone's gradient. Its inner product is the loss's slope along u, and found by stepping a
little along it, never beyond x and y: a running variance may not become negative. It is summed over rounds.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from privacy.attacks.outcome import Floats

Model = Mapping[str, NDArray[np.generic]]
Loss = Callable[[Model], Floats]
"""A model -> float64 [n], its loss on each candidate."""

STEP = 0.02
"""How far along the update the slope is taken, as a share of it."""


def alignment(loss: Loss, sent: Model, arrived: Model, step: float = STEP) -> Floats:
    """Float64 [n]: how steeply each candidate's loss falls along one update; 0 if it has no length.

    Three points, (-3 f(0) + 4 f(h) - f(2h)) / 2h, whose error is of second order in the step.
    """
    update = {name: _wide(arrived[name]) - _wide(value) for name, value in sent.items()}
    length = float(np.sqrt(sum(float(np.square(value).sum()) for value in update.values())))
    at, near, far = (
        loss({name: (_wide(value) + along * update[name]).astype(value.dtype) for name, value in sent.items()})
        for along in (0.0, step, 2 * step)
    )
    return (3 * at - 4 * near + far) / (2 * step * length) if length else np.zeros_like(at)


def _wide(value: NDArray[np.generic]) -> Floats:
    return np.asarray(value, dtype=np.float64)
