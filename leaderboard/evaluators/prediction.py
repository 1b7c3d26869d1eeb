"""Discrimination and overall performance of predicted risks: AUROC, AUPRC, Brier score, log loss.

All take weights and treat ties as scikit-learn does. The two ranking metrics are sums over events of what lies below
and above each, so a replicate costs one running sum over the non-events, however many ties there are.

Sources: Mann and Whitney 1947 for the AUROC; scikit-learn's `average_precision_score` for the AUPRC (no interpolation,
which is optimistic: Davis and Goadrich 2006); Brier 1950.
"""

from __future__ import annotations

import numpy as np

from leaderboard.evaluators.registry import Floats, MetricSpec, Outcomes, Replicates, from_replicates

LOG_LOSS_CLIP = float(np.finfo(np.float64).eps)
"""Risks are kept this far from 0 and 1 in the log loss, as scikit-learn does; a wrong certainty costs 36 nats."""


def prepare_auroc(y: Outcomes, p: Floats) -> Replicates:
    """Area under the ROC curve: the chance that an event has the higher risk than a non-event, ties counting half.

    sum over events i, non-events j of w_i w_j ([p_j < p_i] + [p_j = p_i] / 2), over the same sum without the brackets.
    """
    order = np.argsort(p, kind="stable")
    events, others = order[y[order]], order[~y[order]]
    below = np.searchsorted(p[others], p[events], side="left")
    not_above = np.searchsorted(p[others], p[events], side="right")

    def replicates(w: Floats) -> Floats:
        running = _running_sum(np.take(w, others, axis=1))
        w_events = np.take(w, events, axis=1)
        concordant = (
            np.einsum("bi,bi->b", w_events, np.take(running, below, axis=1) + np.take(running, not_above, axis=1)) / 2
        )
        return _ratio(concordant, w_events.sum(axis=1) * running[:, -1])

    return replicates


def prepare_auprc(y: Outcomes, p: Floats) -> Replicates:
    """Average precision: the mean, over events, of the precision at the event's own risk as threshold.

    sum over events i of w_i TP(p_i) / (TP(p_i) + FP(p_i)), over the sum of w_i; TP and FP are the weights of events and
    non-events of a risk of p_i or more. A model that knows nothing has the prevalence.
    """
    order = np.argsort(p, kind="stable")
    events, others = order[y[order]], order[~y[order]]
    events_below = np.searchsorted(p[events], p[events], side="left")
    others_below = np.searchsorted(p[others], p[events], side="left")

    def replicates(w: Floats) -> Floats:
        w_events = np.take(w, events, axis=1)
        running = _running_sum(w_events)
        true_positives = running[:, -1:] - np.take(running, events_below, axis=1)
        running_others = _running_sum(np.take(w, others, axis=1))
        false_positives = running_others[:, -1:] - np.take(running_others, others_below, axis=1)
        flagged = true_positives + false_positives
        # An event of weight 0 may stand above all that has weight; it counts nothing.
        np.copyto(flagged, 1.0, where=flagged <= 0)
        precision = np.divide(true_positives, flagged, out=true_positives)
        return _ratio(np.einsum("bi,bi->b", w_events, precision), running[:, -1])

    return replicates


def prepare_brier(y: Outcomes, p: Floats) -> Replicates:
    """Brier score: the mean squared difference of risk and outcome (0 or 1)."""
    return _mean((p - y) ** 2)


def prepare_log_loss(y: Outcomes, p: Floats) -> Replicates:
    """Log loss in nats: the mean of minus the log of the risk given to what happened, clipped at `LOG_LOSS_CLIP`."""
    clipped = np.clip(p, LOG_LOSS_CLIP, 1 - LOG_LOSS_CLIP)
    return _mean(-np.log(np.where(y, clipped, 1 - clipped)))


def _mean(loss: Floats) -> Replicates:
    def replicates(w: Floats) -> Floats:
        return _ratio(np.einsum("bi,i->b", w, loss), w.sum(axis=1))

    return replicates


def _running_sum(w: Floats) -> Floats:
    """Sums of the first 0, 1, ..., n columns: float64 [replicates, n + 1]."""
    running = np.zeros((w.shape[0], w.shape[1] + 1))
    np.cumsum(w, axis=1, out=running[:, 1:])
    return running


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Their quotient; NaN, which marks an undefined replicate, where the denominator is 0."""
    ratio = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=ratio, where=denominator > 0)
    return ratio


METRICS = (
    MetricSpec(
        name="auroc",
        title="AUROC",
        direction="max",
        unit="1",
        low=0.0,
        high=1.0,
        needs="both-classes",
        function=from_replicates(prepare_auroc, "both-classes"),
        prepare=prepare_auroc,
        ideal=1.0,
    ),
    MetricSpec(
        name="auprc",
        title="AUPRC",
        direction="max",
        unit="1",
        low=0.0,
        high=1.0,
        needs="events",
        function=from_replicates(prepare_auprc, "events"),
        prepare=prepare_auprc,
        ideal=1.0,
    ),
    MetricSpec(
        name="brier",
        title="Brier score",
        direction="min",
        unit="1",
        low=0.0,
        high=1.0,
        needs="samples",
        function=from_replicates(prepare_brier, "samples"),
        prepare=prepare_brier,
        ideal=0.0,
    ),
    MetricSpec(
        name="log_loss",
        title="Log loss",
        direction="min",
        unit="nat",
        low=0.0,
        high=float(-np.log(LOG_LOSS_CLIP)),
        needs="samples",
        function=from_replicates(prepare_log_loss, "samples"),
        prepare=prepare_log_loss,
        ideal=0.0,
    ),
)
