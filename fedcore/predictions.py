"""What a site's chosen model says of its samples: computed at the site, and never sent."""

from collections.abc import Mapping

import numpy as np

from fedcore.errors import CheckpointError
from fedcore.features import representation
from fedcore.learner import Arrays, Learner, Setting
from fedcore.local import Split, Visit
from fedcore.memory import SiteMemory
from fedcore.plan import Plan
from fedcore.samples import SiteSamples
from fedcore.server import Outcome

BLOCK = 4096


def predictions(plan: Plan, outcome: Outcome, samples: SiteSamples, memories: Mapping[str, SiteMemory]) -> np.ndarray:
    """Float64 [n]: the probability of each sample, in their order.

    Args:
        plan: what was trained.
        outcome: what it came to.
        samples: of any site; one that took no part in the training predicts with what the sites share.
        memories: of the sites that took part.

    Raises:
        CheckpointError: the site has forgotten what it predicts with.
        ValueError: the outcome is of sites that train alone.
    """
    space, chosen = outcome.space, outcome.chosen
    if space is None or chosen is None:
        raise ValueError("sites that train alone have no one model to predict with")
    shown = representation.load(space.representation)

    def make(setting: Setting) -> Learner:
        return plan.model.recipe(plan.recipe).learner(space.sizes, setting)

    def training_split() -> Split:
        chosen = samples.in_split("train")
        return Split(shown.encode(chosen, space), chosen.label, np.unique(chosen.patient_id, return_inverse=True)[1])

    arrays: Arrays = outcome.arrays
    memory = memories.get(samples.site)
    if memory is not None and (memory.agreed or samples.site in outcome.remembered):
        try:
            remembered = memory.read(chosen, outcome.remembered.get(samples.site, 0))
        except CheckpointError as error:
            raise CheckpointError(f"site {samples.site}: {error}") from error
        arrays = plan.strategy.local.personal(
            Visit(
                site=samples.site,
                round=outcome.trials[chosen].best_round or 0,
                cell_seed=plan.seed,
                arrays=outcome.arrays,
                beside={},
                config={},
                setting=outcome.setting,
                model=plan.model,
                make=make,
                open_split=training_split,
                memory=remembered,
            )
        )
    learner = make(outcome.setting)
    blocks = [np.zeros(0)]
    for start in range(0, len(samples), BLOCK):
        block = samples.take(np.arange(start, min(start + BLOCK, len(samples))))
        blocks.append(learner.predict(arrays, shown.encode(block, space)))
    return np.concatenate(blocks)
