r"""The course of a hospital stay as an absorbing Markov chain, and the exact risk of death at every point of it.

A stay is in one of two places, L in {ICU, ward}, at one of `LEVELS` severities z_s = -3, -2.75, ..., 6, and of one of
`FRAILTIES` types c that does not change. Time runs in hours (ticks k = 0, 1, 2, ...) from hospital admission. During
hour (k, k+1], exactly one of these happens, with probabilities that depend on place and severity only:

    ICU:   death d_I(z), discharge home e_H(z), transfer to the ward e_W(z), nothing
    ward:  death d_W(z), discharge home h_W(z), transfer to the ICU a(z), nothing

Whoever is still in the hospital then moves by at most one severity level: up with probability (q + b)/2 and down with
(q - b)/2, where the bias b = kappa (mu_c - z_s) / 0.25 pulls to the type's own level mu_c. A stay starts in the ICU or
on the ward at severity z_0. (Patients meant for the ICU wait 1 to 6 ticks in the emergency department first; nothing
happens there and z stands still, so that the chain simply starts later.)

Everything the patient shows (vital signs, results, treatments, diagnoses) is drawn given the path of (L, z), c and
covariates, and does not act back on it. So, given the path up to tick t, the future depends on (L_t, z_t, c) alone, and
P(death | everything known at t, observed or latent) is a property of the chain. With A_c the transition matrix between
the transient states (L, z), B its restriction to the ICU, d the vector of death probabilities in one hour, 1 the
vector of ones:

  in the hospital:       u = d + A u,  u = (I - A)^-1 d                               P(dies before discharge | state)
  in this ICU stay:      w = d_I + B w, w = (I - B)^-1 d_I                            P(dies before leaving the ICU | z)
  the same, for a cohort still in the ICU n hours later (MEDS-DEV: predicted at 24 h, in the ICU at 48 h):
                         (B^n w) / (B^n 1)                    Bayes: P(in ICU at t+n and dies there) / P(in ICU at t+n)
  for a cohort of those on the ward who come to the ICU at some later time (eICU holds no other hospital stays): with D
  the ward-to-ward matrix and R the ward-to-ICU matrix, r = (I - D)^-1 R 1 is the probability of ever coming to the ICU,
                         ((I - D)^-1 R u_ICU) / r

All are solutions of small linear systems (2 x 37 states for each of 9 types): exact up to rounding, no simulation. That
a cohort asks only for presence at tick t is no further selection, since the risk is already conditional on the state at
t; transfers and deaths lie inside (k, k+1], so presence "at 24:00" is presence at tick 24.

No model that sees only the data up to t ranks better, on average, than this risk: by the Neyman-Pearson lemma P(Y = 1 |
F) maximises the expected ROC curve over all scores that are functions of F, and the observed history is one.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sites.simulate.hospital import Hospital

Floats = npt.NDArray[np.float64]

STEP = 0.25
SEVERITY: Floats = np.arange(-3.0, 6.0 + STEP / 2, STEP)
"""The severity z of each level, float64 [37]."""
LEVELS = len(SEVERITY)
FRAILTIES = 9
ICU, WARD, EMERGENCY = 0, 1, 2
"""Places; EMERGENCY is the waiting time before a planned ICU stay and no state of the chain."""

_MOVES = 0.13  # q: severity changes in about one hour of eight
_PULL = 0.006  # kappa per hour: half of a deviation is gone after 4.8 days
_HOME_FROM_ICU = 0.12  # part of the ICU discharges that leave the hospital


def level_of(severity: Floats) -> npt.NDArray[np.int8]:
    """The level nearest to each severity, clipped to the ends of the scale."""
    return np.asarray(np.clip(np.rint((severity - SEVERITY[0]) / STEP), 0, LEVELS - 1), dtype=np.int8)


def _logistic(x: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-x)), dtype=np.float64)


@dataclass(frozen=True)
class Course:
    """The chain of one hospital.

    Attributes:
        death: Probability of death within the hour, float64 [2, LEVELS] (ICU, ward).
        home: Probability of leaving the hospital alive, float64 [2, LEVELS].
        transfer: Probability of moving to the other place, float64 [2, LEVELS].
        up: Probability of one level up, of those who stay, float64 [FRAILTIES, LEVELS].
        down: One level down, likewise.
    """

    death: Floats
    home: Floats
    transfer: Floats
    up: Floats
    down: Floats

    @classmethod
    def of(cls, hospital: Hospital) -> "Course":
        """The chain that a hospital's knobs give."""
        z = SEVERITY
        death = np.stack(
            [
                np.minimum(np.exp(-10.8 + 1.75 * z + hospital.mortality), 0.09),
                np.minimum(np.exp(-11.4 + 1.7 * z + hospital.mortality), 0.06),
            ]
        )
        leave = 0.028 * _logistic(-1.3 * (z - 0.9)) + 0.0015
        home = np.stack([_HOME_FROM_ICU * leave, 0.019 * _logistic(-1.6 * (z - 0.2)) + 0.0008])
        transfer = np.stack([(1 - _HOME_FROM_ICU) * leave, np.minimum(np.exp(-8.0 + 1.2 * z), 0.08)])
        target = np.linspace(-2.0, 2.6, FRAILTIES)[:, None]
        bias = np.clip(_PULL * (target - z[None, :]) / STEP, -_MOVES, _MOVES)
        up, down = (_MOVES + bias) / 2, (_MOVES - bias) / 2
        up[:, -1] = 0.0
        down[:, 0] = 0.0
        return cls(death, home, transfer, up, down)

    @cached_property
    def _move(self) -> Floats:
        """Severity after an hour given severity before, float64 [FRAILTIES, LEVELS, LEVELS]."""
        move = np.zeros((FRAILTIES, LEVELS, LEVELS))
        i = np.arange(LEVELS)
        move[:, i, i] = 1 - self.up - self.down
        move[:, i[:-1], i[1:]] = self.up[:, :-1]
        move[:, i[1:], i[:-1]] = self.down[:, 1:]
        return move

    def _block(self, here: int, there: int) -> Floats:
        """Transitions from one place to one place within an hour, float64 [FRAILTIES, LEVELS, LEVELS]."""
        stay = 1 - self.death - self.home - self.transfer
        chance = stay[here] if here == there else self.transfer[here]
        return np.asarray(chance[None, :, None] * self._move, dtype=np.float64)

    @cached_property
    def hospital_risk(self) -> Floats:
        """P(death before hospital discharge | place, severity), float64 [2, FRAILTIES, LEVELS]."""
        a = np.concatenate(
            [
                np.concatenate([self._block(ICU, ICU), self._block(ICU, WARD)], axis=2),
                np.concatenate([self._block(WARD, ICU), self._block(WARD, WARD)], axis=2),
            ],
            axis=1,
        )
        u = np.linalg.solve(np.eye(2 * LEVELS) - a, self.death.reshape(1, -1, 1))[..., 0]
        return np.stack([u[:, :LEVELS], u[:, LEVELS:]])

    def icu_risk(self, still_there_after_hours: int = 0) -> Floats:
        """P(death in this ICU stay | in it now and that many hours later, severity), float64 [FRAILTIES, LEVELS]."""
        b = self._block(ICU, ICU)
        w = np.linalg.solve(np.eye(LEVELS) - b, self.death[ICU].reshape(1, -1, 1))
        later = np.linalg.matrix_power(b, still_there_after_hours)
        return np.asarray((later @ w)[..., 0] / later.sum(axis=2), dtype=np.float64)

    @cached_property
    def ward_risk_of_later_icu(self) -> Floats:
        """P(death in hospital | on the ward now and in the ICU at some later time), float64 [FRAILTIES, LEVELS]."""
        enter = np.linalg.solve(np.eye(LEVELS) - self._block(WARD, WARD), self._block(WARD, ICU))
        dies = (enter @ self.hospital_risk[ICU][..., None])[..., 0]
        return np.asarray(dies / enter.sum(axis=2), dtype=np.float64)


@dataclass(frozen=True)
class Paths:
    """What happened, hour by hour.

    Attributes:
        admission: Whose hour it is, int32 [hours]; sorted, then by tick.
        tick: Hours since the chain of this admission started, int32 [hours].
        place: ICU or WARD at that tick, int8 [hours].
        level: Severity level at that tick, int8 [hours].
        ticks: How many ticks each admission was present at, int32 [admissions]; it ends within the last one's hour.
        died: How it ended, bool [admissions].
    """

    admission: npt.NDArray[np.int32]
    tick: npt.NDArray[np.int32]
    place: npt.NDArray[np.int8]
    level: npt.NDArray[np.int8]
    ticks: npt.NDArray[np.int32]
    died: npt.NDArray[np.bool_]


def walk(
    course: Course,
    place: npt.NDArray[np.int8],
    level: npt.NDArray[np.int8],
    frailty: npt.NDArray[np.int8],
    rng: np.random.Generator,
) -> Paths:
    """Let every admission run until death or discharge.

    Args:
        course: The chain.
        place: Where each starts, int8 [admissions].
        level: At which severity, int8 [admissions].
        frailty: Of which type, int8 [admissions].
        rng: The stream.
    """
    count = len(place)
    ticks, died = np.zeros(count, np.int32), np.zeros(count, np.bool_)
    who, place, level, frailty = np.arange(count, dtype=np.int32), place.copy(), level.copy(), frailty.copy()
    seen: list[tuple[npt.NDArray[np.int32], npt.NDArray[np.int8], npt.NDArray[np.int8]]] = []
    died_below = course.death
    home_below = died_below + course.home
    transfer_below = home_below + course.transfer
    while len(who):
        seen.append((who, place, level))
        event, move = rng.random((2, len(who)))
        dies = event < died_below[place, level]
        leaves = event < home_below[place, level]
        moved = np.where(~leaves & (event < transfer_below[place, level]), 1 - place, place).astype(np.int8)
        up, down = course.up[frailty, level], course.down[frailty, level]
        shift = (move < up).astype(np.int8) - ((move >= up) & (move < up + down)).astype(np.int8)
        ticks[who] += 1
        died[who[dies]] = True
        on = ~leaves
        who, place, level, frailty = who[on], moved[on], (level + shift)[on], frailty[on]
    sizes = np.array([len(w) for w, _, _ in seen], dtype=np.int64)
    admission = np.concatenate([w for w, _, _ in seen])
    order = np.argsort(admission, kind="stable")
    return Paths(
        admission=admission[order],
        tick=np.repeat(np.arange(len(seen), dtype=np.int32), sizes)[order],
        place=np.concatenate([p for _, p, _ in seen])[order],
        level=np.concatenate([s for _, _, s in seen])[order],
        ticks=ticks,
        died=died,
    )
