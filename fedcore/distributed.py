"""A site's round with noise that sites share (`privacy.distributed`): one step, and the site's share of the noise.

No model of the site exists that bears neither noise nor mask and could leave: the clipped sum becomes integers with the
share here, on which `fedcore.secure` puts the masks.
"""

import numpy as np

from fedcore.learner import Arrays, Objective, PrivateLearner, TrainingError
from fedcore.local import Visit
from privacy.distributed import FARTHEST, ClippedSum, SharedNoise
from privacy.ledger import Budget
from privacy.releases.sketches import ReleaseError
from privacy.secagg.fixed_point import FixedPoint
from privacy.secagg.masks import Words

STREAM = "train"


def noised_step(visit: Visit, budget: Budget, rounds: int, weight: int, threshold: int, fixed: FixedPoint) -> Words:
    """A site's integers of one round; the spend is written down.

    Args:
        visit: the request; its `protect` knows the noise multiplier that the sites agreed on.
        budget: the site's.
        rounds: that the sites agreed on.
        weight: how many training patients the site has.
        threshold: so many sites are in the sum, at least.
        fixed: how numbers become integers.

    Returns:
        uint64 [m + 3], as `fedcore.secure` masks them: the model times `weight`, no loss, and `weight`.

    Raises:
        TrainingError: the model cannot be trained so.
        ReleaseError: the numbers do not fit, or there are too many rounds.
        privacy.ledger.BudgetError: the budget would be passed.
    """
    setting, split = visit.setting, visit.split
    learner = visit.make(setting)
    if not isinstance(learner, PrivateLearner) or visit.protect is None:
        raise TrainingError("this model cannot be trained with noise; expected a network")
    how = ClippedSum.of(visit.protect(STREAM, setting, split))
    noise = SharedNoise(
        noise_multiplier=how.noise_multiplier,
        step_size=float(setting["step_size"]),
        clip=how.clip,
        sampling_rate=how.sampling_rate,
        scale=fixed.scale,
        coordinates=sum(value.size for value in visit.arrays.values()),
        threshold=threshold,
    )
    noise.check(budget.epsilon, budget.delta, rounds)
    fit = learner.fit_privately(
        visit.arrays, split.encoded, split.label, how, visit.seed(STREAM), Objective(traced=True)
    )
    expected = how.sampling_rate * how.patients
    stepped = step(visit.arrays, fit.gradient, noise.step_size, float(setting["l2"]), expected)
    longest = max(float(np.abs(value).max(initial=0)) for value in stepped)
    room = fixed.bound / 2
    if not max(longest, FARTHEST * noise.deviation / (fixed.weight * fixed.scale)) <= room:
        raise ReleaseError(
            f"the model or its noise passes {room:g}, which cannot be summed securely; lower the step size"
        )
    words = fixed.encode([*stepped, np.zeros(2)], weight)
    words[: noise.coordinates] += noise.draw(how.source).view(words.dtype)
    return words


def step(arrays: Arrays, total: Arrays, step_size: float, l2: float, expected: float) -> list[np.ndarray]:
    """One step of gradient descent, float64, in the model's order.

    Args:
        arrays: the model; what of it has no gradient stays as it is.
        total: the sum of gradients, by array.
        step_size: of the step.
        l2: the penalty l2/2 |w|^2 on arrays of two axes and more.
        expected: what the sum is divided by.
    """
    stepped = []
    for name, value in arrays.items():
        wide = value.astype(np.float64)
        if name in total:
            slope = total[name].astype(np.float64) / expected + (l2 * wide if value.ndim > 1 else 0.0)
            wide = wide - step_size * slope
        stepped.append(wide)
    return stepped
