"""Audits: canaries are put in by fair coins, the training runs, and the auditor says who was in.

- **White-box**: the auditor knows the model, all other patients and every noised sum of the transcript; its score is a
  canary's summed inner product, in place of the likelihood ratio, of which it is a function where all are drawn in
  every step. Canaries in coordinates of their own are independent trials if noise and draws are independent, as DP-SGD
  has them (Andrew et al., One-shot Empirical Privacy Estimation, 2024, pool canaries of one run likewise); hence few
  runs give many trials. The bound is parametric (`bounds.gaussian`).
- **Many runs**: one canary a run, and no assumption on the mechanism (`bounds.from_answers`).
- **One run**: many canaries, one run, and no assumption on the mechanism (`bounds.one_run`).

Thresholds and numbers of guesses are constants of this file.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from privacy.audit import bounds
from privacy.audit.bounds import Answers
from privacy.audit.canaries import Bools, Floats, Watched
from privacy.dpsgd import DPSGD

MIDDLE = 0.5
"""The white-box audit's threshold: half of what a canary that is in adds on average."""

THRESHOLDS = (0.5, 1.5)
"""Those of many runs: the higher one where false positives are rare, and a ratio of rates says more."""

GUESSED = 0.1
"""The share of canaries that the one-run audit makes a guess on: half of them, the lowest scores, "out"."""


@dataclass(frozen=True)
class Transcript:
    """What trainings told of canaries.

    Attributes:
        present: bool [canaries].
        scores: float64 [canaries], summed inner products (`canaries.Watched`).
        drawn: what a canary that is in adds to its score on average.
    """

    present: Bools
    scores: Floats
    drawn: float

    @classmethod
    def of(cls, visits: Sequence[Watched]) -> "Transcript":
        """Of one training's visits, once they have run: the same canaries in each."""
        scores: Floats = np.sum([visit.scores for visit in visits], axis=0)
        return cls(visits[0].present, scores, float(sum(visit.drawn[0] for visit in visits)))

    @classmethod
    def pooled(cls, runs: Iterable["Transcript"]) -> "Transcript":
        """Of several runs with the same number of steps: each with canaries of its own."""
        those = list(runs)
        present = np.concatenate([one.present for one in those])
        return cls(present, np.concatenate([one.scores for one in those]), those[0].drawn)

    def answers(self, threshold: float) -> Answers:
        """Who is said to be in: scores above `threshold` times what a canary that is in adds on average."""
        said = self.scores > threshold * self.drawn
        there = int(self.present.sum())
        return Answers(
            int((said & self.present).sum()), there, int((said & ~self.present).sum()), len(self.present) - there
        )

    def guesses(self) -> tuple[int, int]:
        """How many guesses are made, and how many are right: the highest scores are "in", the lowest "out"."""
        each = max(1, int(len(self.present) * GUESSED / 2))
        order = np.argsort(self.scores, kind="stable")
        return 2 * each, int(self.present[order[-each:]].sum() + (~self.present[order[:each]]).sum())


@dataclass(frozen=True)
class Bound:
    """What an audit found: epsilon at `delta` is at least `epsilon`, with 95 % confidence.

    Attributes:
        kind: `one run`, `many runs` or `white box, parametric`.
        delta: at which.
        epsilon: the lower bound.
        canaries: how many, in or out.
        guesses: how many were said to be in or out.
        right: how many of them rightly.
    """

    kind: str
    delta: float
    epsilon: float
    canaries: int
    guesses: int
    right: int


def white_box(seen: Transcript, delta: float) -> Bound:
    """A parametric bound, from independent trials."""
    return _of_answers("white box, parametric", seen.answers(MIDDLE), delta, bounds.gaussian)


def many_runs(seen: Transcript, delta: float) -> Bound:
    """A bound for any mechanism, from one canary a run: the best threshold's, each with its share of the error."""
    confidence = 1 - (1 - bounds.CONFIDENCE) / len(THRESHOLDS)
    found = [
        _of_answers("many runs", seen.answers(one), delta, partial(bounds.from_answers, confidence=confidence))
        for one in THRESHOLDS
    ]
    return max(found, key=lambda bound: bound.epsilon)


def one_run(seen: Transcript, delta: float) -> Bound:
    """A bound for any mechanism, from one run."""
    guesses, right = seen.guesses()
    canaries = len(seen.present)
    return Bound("one run", delta, bounds.one_run(canaries, guesses, right, delta), canaries, guesses, right)


def _of_answers(kind: str, answers: Answers, delta: float, bound: Callable[[Answers, float], float]) -> Bound:
    trials = answers.present + answers.absent
    right = answers.true_positives + answers.absent - answers.false_positives
    return Bound(kind, delta, bound(answers, delta), trials, trials, right)


def coins(canaries: int, stream: np.random.Generator) -> Bools:
    """Bool [canaries]: which are in."""
    return stream.random(canaries) < 0.5


class _Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1, bias=False)
        nn.init.zeros_(self.layer.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layer(x)
        return found[:, 0]


OTHERS = 9
"""Patients of the small training that are no canaries."""


def small_training(visits: Sequence[DPSGD], present: Bools, alter: Callable[[Watched], Watched]) -> Transcript:
    """The smallest training there is: a linear layer on nine patients and the canaries, the model sent anew each visit.

    Args:
        visits: how each visit trains its `OTHERS` patients.
        present: bool [canaries], which are in.
        alter: what is broken on purpose in it.
    """
    rows, truth = torch.eye(OTHERS, 2) * 3, torch.zeros(OTHERS)
    watched = [
        alter(Watched.of(how, present, stays=6, direction=1 if number % 2 else -1)) for number, how in enumerate(visits)
    ]
    for visit in watched:
        for _ in visit.gradients(_Small(), {"x": rows}, truth):
            pass
    return Transcript.of(watched)
