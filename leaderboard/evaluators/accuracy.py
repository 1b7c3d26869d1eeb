"""Accuracy: the share of samples that a threshold of one half puts on the right side.

What many published tables report. It says little of a model: it takes a risk of one half for the point at which to act,
at which hardly any decision in care changes, and where few have the event a model that never warns does well (Van
Calster et al., Evaluation of performance measures in predictive artificial intelligence models, 2025).
"""

from __future__ import annotations

import numpy as np

from leaderboard.evaluators.registry import Floats, MetricSpec, Outcomes, Replicates, from_replicates

THRESHOLD = 0.5


def prepare_accuracy(y: Outcomes, p: Floats) -> Replicates:
    """Accuracy: the weight of samples with (p > `THRESHOLD`) = y over the weight of all; a risk of one half is no."""
    right = ((p > THRESHOLD) == y).astype(np.float64)

    def replicates(w: Floats) -> Floats:
        total = w.sum(axis=1)
        share = np.full(len(w), np.nan)
        np.divide(w @ right, total, out=share, where=total > 0)
        return share

    return replicates


METRICS = (
    MetricSpec(
        name="accuracy",
        title="Accuracy",
        direction="max",
        unit="1",
        low=0.0,
        high=1.0,
        needs="samples",
        function=from_replicates(prepare_accuracy, "samples"),
        prepare=prepare_accuracy,
        ideal=1.0,
    ),
)
