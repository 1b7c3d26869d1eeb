"""Gradients of which no patient can make up more than so much: what DP-SGD adds noise to.

Abadi et al., Deep Learning with Differential Privacy, 2016 (algorithm 1), with the patient in place of the example:
`privacy.clipping` has the sum of the patients' clipped gradients. What normalises over a batch is refused.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from privacy.clipping import Clipped, Clipping, Inputs, refuse_inexact
from privacy.noise import Source


class MixesPatientsError(ValueError):
    """A network lets one patient's rows change what another's come to: one sentence with the remedy."""


def refuse(network: nn.Module, like: Inputs) -> None:
    """See that a network can be trained with patient-level privacy.

    It is tried with weights and rows that are made up: an error is a release, and may depend on no patient.

    Args:
        network: as it trains; its weights are changed.
        like: rows of the same shapes and types, of which nothing else is looked at.

    Raises:
        MixesPatientsError: a row's logit depends on other rows, or what is trained is changed by looking at rows.
        privacy.clipping.InexactError: patients' gradients cannot be told apart.
    """
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in network.parameters():
            value.copy_(torch.randn(value.shape, generator=draw) * 0.3)
    rows = {name: _made_up(value, draw) for name, value in like.items()}
    refuse_mixing(network, rows)
    with _without_dropout(network):
        refuse_inexact(network, rows, torch.tensor([0.0, 1.0, 1.0, 0.0], device=next(iter(rows.values())).device))


def _made_up(like: Tensor, draw: torch.Generator) -> Tensor:
    """Four rows: numbers in [0, 1); of whole ones 0 and 1 where they are many to a row, as words are, else up to 3."""
    shape = (4, *like.shape[1:])
    if like.dtype.is_floating_point:
        return torch.rand(shape, generator=draw).to(like)
    return torch.randint(2 if like.ndim > 1 else 4, shape, generator=draw).to(like)


def refuse_mixing(network: nn.Module, inputs: Inputs) -> None:
    """See that no row's logit depends on another row.

    All rows but the first are replaced, by zeros and by copies of the first: the first one's logit has to stay.

    Args:
        network: as it trains; dropout is left out of account.
        inputs: two rows or more; with fewer nothing can be seen, and nothing can mix.

    Raises:
        MixesPatientsError: it changes, or so do weights or statistics that travel with the model.
    """
    if len(next(iter(inputs.values()))) < 2:
        return
    before = {name: value.clone() for name, value in network.state_dict().items()}
    told = (
        "the model lets one patient change what another's rows come to, as batch normalisation does; it cannot be "
        "trained with patient-level privacy; normalise each row by itself (LayerNorm, GroupNorm), or freeze the "
        "statistics"
    )
    alone = {name: torch.cat([value[:1], torch.zeros_like(value[1:])]) for name, value in inputs.items()}
    other = {name: torch.cat([value[:1]] * len(value)) for name, value in inputs.items()}
    try:
        with torch.no_grad(), _without_dropout(network):
            whole, first, again = (network(**rows)[0] for rows in (inputs, alone, other))
        if not all(torch.equal(value, before[name]) for name, value in network.state_dict().items()):
            raise MixesPatientsError(told)
    finally:
        network.load_state_dict(before)
    scale = 1e-4 * (1 + float(whole.abs()))
    if max(float((whole - first).abs()), float((whole - again).abs())) > scale:
        raise MixesPatientsError(told)


@contextmanager
def _without_dropout(network: nn.Module) -> Iterator[None]:
    dropouts = [layer for layer in network.modules() if isinstance(layer, nn.Dropout) and layer.training]
    for layer in dropouts:
        layer.eval()
    try:
        yield
    finally:
        for layer in dropouts:
            layer.train()


PHYSICAL = 1024
"""Rows whose gradients are made at once, or those of one patient who has more; the sum is over all that were drawn."""

CLIPS = (1e-3, 1e3)
"""Between which C lies: far outside float32 loses the noise, or the gradients beside it."""

ADAPTATION = 0.2
"""How fast an adaptive bound follows: the learning rate of Andrew et al."""


@dataclass
class DPSGD:
    """How a site trains for one visit.

    An adaptive bound (Andrew, Thakkar, McMahan and Ramaswamy, Differentially Private Learning with Adaptive Clipping,
    2021, algorithm 1) follows a quantile of the lengths of the patients' gradients. How many are within it is told by
    the sum over those drawn of 1/2 for who is and -1/2 for who is not, which one patient changes by 1/2 at most, with
    noise of its own; the gradients bear as much more noise that both together cost what one release of
    `noise_multiplier` does (theorem 1).

    Attributes:
        noise_multiplier: the noise's standard deviation over what one patient can move a step's release.
        sampling_rate: the probability with which each patient is drawn into a step (Poisson sampling).
        steps: how many.
        clip: C, the most that one patient's gradient counts for; where it adapts, what it has come to.
        patient: int64 [n], whose each row is, from 0.
        patients: how many they are; public.
        source: of the draws and the noise.
        per_layer: whether each layer's share is clipped by itself (`privacy.clipping.Clipping`).
        quantile: the share of patients whose gradients are to be no longer than C; None: C stays as it is.
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int
    clip: float
    patient: np.ndarray
    patients: int
    source: Source
    per_layer: bool = False
    quantile: float | None = None

    def gradients(self, network: nn.Module, inputs: Inputs, truth: Tensor) -> Iterator[dict[str, Tensor]]:
        """Step by step: the noised gradient of the mean patient's loss, by parameter, at the network as it is then.

        The sum is divided by the number of patients that are drawn on average, which is public, and not by those who
        were.
        """
        whose = torch.from_numpy(self.patient)
        expected = self.sampling_rate * self.patients
        clipping = Clipping(network, per_layer=self.per_layer)
        for _ in range(self.steps):
            drawn = torch.from_numpy(self.source.uniform(self.patients) < self.sampling_rate)
            total, squared = self._clipped(clipping, inputs, truth, whose, drawn)
            noise = self.clip * self._gradients_noise
            yield {name: (value + noise * self._normal(value)) / expected for name, value in total.items()}
            if self.quantile is not None:
                balance = _balance(squared, self.clip) + self._count_deviation * float(self.source.normal((1,))[0])
                followed = self.clip * math.exp(-ADAPTATION * (balance / expected + 0.5 - self.quantile))
                self.clip = min(max(followed, CLIPS[0]), CLIPS[1])

    @property
    def _count_deviation(self) -> float:
        """The standard deviation of the count's noise: a twentieth of those drawn; the count takes half at most."""
        return max(self.sampling_rate * self.patients / 20, self.noise_multiplier / math.sqrt(2))

    @property
    def _gradients_noise(self) -> float:
        """The noise on the gradients over C, so that with the count's both cost `noise_multiplier`."""
        if self.quantile is None:
            return self.noise_multiplier
        return 1 / math.sqrt(self.noise_multiplier**-2 - (2 * self._count_deviation) ** -2)

    def _clipped(self, clipping: Clipping, inputs: Inputs, truth: Tensor, whose: Tensor, drawn: Tensor) -> Clipped:
        """The clipped sum over the patients drawn, a part of them at a time."""
        rows = torch.nonzero(drawn[whose]).squeeze(1)
        if len(rows) > PHYSICAL:  # all rows of one patient stand together
            rows = rows[torch.argsort(whose[rows], stable=True)]
        parts = []
        for part in _parts(rows, whose[rows]):
            place = torch.unique(whose[part], return_inverse=True)[1]
            batch = {name: value[part] for name, value in inputs.items()}
            parts.append(clipping.sum(batch, truth[part], place, self.clip))
        if len(parts) == 1:
            return parts[0]
        total = {name: sum((part.total[name] for part in parts[1:]), value) for name, value in parts[0].total.items()}
        return Clipped(total, torch.cat([part.squared for part in parts]))

    def _normal(self, like: Tensor) -> Tensor:
        return torch.from_numpy(self.source.normal(tuple(like.shape))).to(like.dtype)


def _balance(squared: Tensor, clip: float) -> float:
    """Half the number of patients whose gradient was no longer than C, less half that of the others."""
    return float((squared <= clip**2).sum()) - len(squared) / 2


def _parts(rows: Tensor, whose: Tensor) -> Sequence[Tensor]:
    """Rows, a patient's together, in parts of at most `PHYSICAL` rows or of one patient; one part of none."""
    if len(rows) <= PHYSICAL:
        return [rows]
    begins = [0, *(torch.nonzero(whose[1:] != whose[:-1]).squeeze(1) + 1).tolist(), len(rows)]
    cuts = [0]
    for begin, end in itertools.pairwise(begins):
        if end - cuts[-1] > PHYSICAL and begin > cuts[-1]:
            cuts.append(begin)
    return [rows[a:b] for a, b in itertools.pairwise([*cuts, len(rows)])]
