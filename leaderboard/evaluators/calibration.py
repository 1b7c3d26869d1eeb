"""Calibration of predicted risks: slope, intercept (calibration in the large) and observed over expected.

With z = logit(p), clipped at `RISK_CLIP`:

- slope: b of the logistic model logit P(y) = a + b z. 1 is perfect; below 1 the risks are too extreme (overfitting).
- intercept: a of logit P(y) = a + z, the slope fixed at 1. 0 is perfect; above 0 the risks are too low.
- O:E: events observed over the sum of the risks. 1 is perfect; above 1 the risks are too low.

The models are fitted by Newton's method without a penalty. A fit that does not exist is refused: without an event or a
non-event, and for the slope where the risks separate events from non-events or are all the same (Albert and Anderson
1984; in one dimension: the two classes' ranges of z do not overlap).

Sources: Cox 1958; Van Calster et al. 2016 (doi 10.1016/j.jclinepi.2015.12.005) for the terms.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from leaderboard.evaluators.registry import Floats, MetricSpec, Outcomes, Replicates, from_replicates

RISK_CLIP = 1e-8
"""Risks are kept this far from 0 and 1 before the logit; a 32-bit sigmoid is exactly 1 from about there on."""

CONVERGED = 1e-6
"""A last Newton step below this (in standard deviations of z) leaves an error of about its square, 1e-12."""

SAME = 1e-6
"""Risks whose logits differ by less (in standard deviations of z) are one risk; 32-bit models know no finer."""

FAST_STEPS = 8
"""Plain Newton steps before a replicate is fitted alone, with damping."""

_Defined = Callable[[Floats], NDArray[np.bool_]]
_Fit = Callable[[Floats, NDArray[np.bool_]], Floats]


def prepare_slope(y: Outcomes, p: Floats) -> Replicates:
    """Calibration slope: b in logit P(y) = a + b logit(p)."""
    z = _logit(p)
    spread = float(z.std())
    if spread == 0.0:
        return _nowhere
    u = (z - z.mean()) / spread
    design = np.column_stack([np.ones_like(u), u])
    fit = _prepare_fit(y, design, np.zeros_like(u))
    overlap = _prepare_overlap(y, u)

    def replicates(w: Floats) -> Floats:
        return fit(w, overlap(w))[:, 1] / spread

    return replicates


def prepare_intercept(y: Outcomes, p: Floats) -> Replicates:
    """Calibration in the large: a in logit P(y) = a + logit(p)."""
    fit = _prepare_fit(y, np.ones((len(y), 1)), _logit(p))

    def replicates(w: Floats) -> Floats:
        both = np.any(np.compress(y, w, axis=1) > 0, axis=1) & np.any(np.compress(~y, w, axis=1) > 0, axis=1)
        return fit(w, both)[:, 0]

    return replicates


def prepare_o_e(y: Outcomes, p: Floats) -> Replicates:
    """Observed over expected: the number of events over the sum of the risks."""
    observed = y.astype(np.float64)

    def replicates(w: Floats) -> Floats:
        expected = np.einsum("bi,i->b", w, p)
        ratio = np.full(len(w), np.nan)
        np.divide(np.einsum("bi,i->b", w, observed), expected, out=ratio, where=expected > 0)
        return ratio

    return replicates


def _logit(p: Floats) -> Floats:
    clipped = np.clip(p, RISK_CLIP, 1 - RISK_CLIP)
    return np.asarray(np.log(clipped) - np.log1p(-clipped), dtype=np.float64)


def _nowhere(w: Floats) -> Floats:
    return np.full(len(w), np.nan)


def _prepare_overlap(y: Outcomes, u: Floats) -> _Defined:
    """In which replicates the ranges of u of the two classes overlap, so that the slope's fit exists."""
    order = np.argsort(u, kind="stable")
    events, others = order[y[order]], order[~y[order]]

    def ends(w: Floats, of: NDArray[np.intp]) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        weighted = np.take(w, of, axis=1) > 0
        first, last = weighted.argmax(axis=1), len(of) - 1 - weighted[:, ::-1].argmax(axis=1)
        return u[of[first]], u[of[last]], np.any(weighted, axis=1, keepdims=True)[:, 0]

    def overlap(w: Floats) -> NDArray[np.bool_]:
        if len(events) == 0 or len(others) == 0:
            return np.zeros(len(w), dtype=np.bool_)
        low_event, high_event, any_event = ends(w, events)
        low_other, high_other, any_other = ends(w, others)
        return any_event & any_other & (high_other - low_event > SAME) & (high_event - low_other > SAME)

    return overlap


def _prepare_fit(y: Outcomes, design: Floats, offset: Floats) -> _Fit:
    """Weighted logistic regression of y on `design` [n, d] with an offset, for many sets of weights at once.

    Sums are numpy's own, not BLAS's, whose last bits depend on the number of threads. All replicates start from the
    fit with equal weights, near which they lie. There the first step needs no
    exponentials: it is a few sums of the weights. Those that have not converged after `FAST_STEPS` are fitted one at a
    time with damping.
    """
    target = y.astype(np.float64)
    width = design.shape[1]
    pairs = [(i, j) for i in range(width) for j in range(i, width)]
    columns = [np.ascontiguousarray(design[:, i]) for i in range(width)]
    products = {(i, j): columns[i] * columns[j] for i, j in pairs}
    start = np.zeros(width) if y.all() or not y.any() else _damped(target, design, offset, np.ones(len(y)))
    if not np.all(np.isfinite(start)):
        start = np.zeros(width)
    risk_there = _sigmoid(offset + np.einsum("ni,i->n", design, start))
    residual_there, curvature_there = target - risk_there, risk_there * (1 - risk_there)

    def first_step(w: Floats) -> Floats:
        gradient = np.stack([np.einsum("bi,i->b", w, residual_there * column) for column in columns], axis=1)
        hessian = np.empty((len(w), width, width))
        for i, j in pairs:
            hessian[:, i, j] = hessian[:, j, i] = np.einsum("bi,i->b", w, curvature_there * products[i, j])
        return _solve(hessian, gradient)

    def next_step(w: Floats, beta: Floats) -> Floats:
        eta = np.multiply(beta[:, :1], columns[0])
        for i in range(1, width):
            eta += beta[:, i : i + 1] * columns[i]
        eta += offset
        risk = _sigmoid(eta)
        residual = np.subtract(target, risk, out=eta)
        residual *= w
        gradient = np.stack([np.einsum("bi,i->b", residual, column) for column in columns], axis=1)
        curvature = np.subtract(1, risk, out=eta)
        curvature *= risk
        curvature *= w
        hessian = np.empty((len(w), width, width))
        for i, j in pairs:
            hessian[:, i, j] = hessian[:, j, i] = np.einsum("bi,i->b", curvature, products[i, j])
        return _solve(hessian, gradient)

    def fit(w: Floats, defined: NDArray[np.bool_]) -> Floats:
        beta = np.full((len(w), width), np.nan)
        left = np.flatnonzero(defined)
        if len(left) == 0:
            return beta
        beta[left] = start + first_step(w[left])
        for _ in range(FAST_STEPS):
            with np.errstate(over="ignore", invalid="ignore"):
                step = next_step(w[left], beta[left])
                beta[left] += step
            # A step that is NaN or leaps away compares false and stays on the list.
            left = left[~(np.abs(step).max(axis=1) < CONVERGED)]
            if len(left) == 0:
                return beta
        for row in left:
            beta[row] = _damped(target, design, offset, w[row])
        return beta

    return fit


def _damped(target: Floats, design: Floats, offset: Floats, w: Floats) -> Floats:
    """One weighted fit by Newton's method with halved steps, from the null model; NaN if it does not converge.

    The loss is convex and the step a descent direction, so halving ends; plain Newton can diverge on small or nearly
    separated samples.
    """
    beta: Floats = np.zeros(design.shape[1])
    w = w / w.sum()

    def loss(at: Floats) -> float:
        eta = offset + np.einsum("ni,i->n", design, at)
        return float(np.sum(w * (np.logaddexp(0, eta) - target * eta)))

    for _ in range(200):
        risk = _sigmoid(offset + np.einsum("ni,i->n", design, beta))
        gradient = np.einsum("n,ni->i", w * (target - risk), design)
        hessian = np.einsum("n,ni,nj->ij", w * risk * (1 - risk), design, design)
        step = _solve(hessian[np.newaxis], gradient[np.newaxis])[0]
        if not np.all(np.isfinite(step)):
            break
        # Where the curve is flat a full step leaps hundreds of logits too far; this one doubles the way at most.
        here, size = loss(beta), min(1.0, (5 + np.abs(beta).max()) / np.abs(step).max(initial=1e-300))
        gain, rounding = 1e-4 * float((gradient * step).sum()), 1e-13 * (1 + abs(here))
        while size > 1e-10 and loss(beta + size * step) > here - size * gain + rounding:
            size /= 2
        beta = beta + size * step
        if size == 1.0 and np.abs(step).max() < CONVERGED:
            return beta
    return np.full(design.shape[1], np.nan)


def _solve(hessian: Floats, gradient: Floats) -> Floats:
    """Solutions of [b, d, d] systems for d of 1 or 2 in closed form; NaN where one is singular."""
    if gradient.shape[1] == 1:
        numerator, determinant = gradient, hessian[:, :, 0]
    else:
        a, b, c = hessian[:, 0, 0], hessian[:, 0, 1], hessian[:, 1, 1]
        first, second = gradient[:, 0], gradient[:, 1]
        numerator, determinant = np.stack([c * first - b * second, a * second - b * first], axis=1), a * c - b * b
        determinant = determinant[:, np.newaxis]
    solution = np.full(gradient.shape, np.nan)
    np.divide(numerator, determinant, out=solution, where=determinant > 0)
    return solution


def _sigmoid(eta: Floats) -> Floats:
    with np.errstate(over="ignore"):
        risk: Floats = np.exp(-eta)
        np.add(risk, 1.0, out=risk)
        np.divide(1.0, risk, out=risk)
    return risk


METRICS = (
    MetricSpec(
        name="calibration_slope",
        title="Calibration slope",
        direction="target",
        unit="1",
        low=-math.inf,
        high=math.inf,
        needs="both-classes",
        function=from_replicates(
            prepare_slope, "both-classes", "the risks separate events from non-events or are all the same"
        ),
        prepare=prepare_slope,
        ideal=1.0,
    ),
    MetricSpec(
        name="calibration_intercept",
        title="Calibration intercept",
        direction="target",
        unit="logit",
        low=-math.inf,
        high=math.inf,
        needs="both-classes",
        function=from_replicates(prepare_intercept, "both-classes", "the fit did not converge"),
        prepare=prepare_intercept,
        ideal=0.0,
    ),
    MetricSpec(
        name="o_e",
        title="O:E",
        direction="target",
        unit="1",
        low=0.0,
        high=math.inf,
        needs="samples",
        function=from_replicates(prepare_o_e, "samples", "the risks sum to 0, so no event is expected"),
        prepare=prepare_o_e,
        ideal=1.0,
        scale="log",
    ),
)
