"""Gradients of which no patient can make up more than so much: what DP-SGD adds noise to.

Abadi et al., Deep Learning with Differential Privacy, 2016 (algorithm 1), with the patient in place of the example:
`privacy.clipping` has the sum of the patients' clipped gradients. What normalises over a batch is refused.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from privacy.clipping import Inputs, clipped_sum, refuse_inexact
from privacy.noise import Source


class MixesPatientsError(ValueError):
    """A network lets one patient's rows change what another's come to: one sentence with the remedy."""


def refuse(network: nn.Module, inputs: Inputs, truth: Tensor) -> None:
    """See on a few rows that a network can be trained with patient-level privacy.

    Args:
        network: as it trains.
        inputs: a few rows.
        truth: float [n].

    Raises:
        MixesPatientsError: a row's logit depends on other rows.
        privacy.clipping.InexactError: patients' gradients cannot be told apart.
    """
    refuse_mixing(network, inputs)
    with _without_dropout(network):
        refuse_inexact(network, inputs, truth)


def refuse_mixing(network: nn.Module, inputs: Inputs) -> None:
    """See that no row's logit depends on another row.

    All rows but the first are replaced, by zeros and by copies of the first: the first one's logit has to stay.

    Args:
        network: as it trains; dropout is left out of account.
        inputs: two rows or more; with fewer nothing can be seen, and nothing can mix.

    Raises:
        MixesPatientsError: it changes.
    """
    if len(next(iter(inputs.values()))) < 2:
        return
    before = {name: value.clone() for name, value in network.state_dict().items()}
    alone = {name: torch.cat([value[:1], torch.zeros_like(value[1:])]) for name, value in inputs.items()}
    other = {name: torch.cat([value[:1]] * len(value)) for name, value in inputs.items()}
    try:
        with torch.no_grad(), _without_dropout(network):
            whole, first, again = (network(**rows)[0] for rows in (inputs, alone, other))
    finally:
        network.load_state_dict(before)
    scale = 1e-4 * (1 + float(whole.abs()))
    if max(float((whole - first).abs()), float((whole - again).abs())) > scale:
        raise MixesPatientsError(
            "the model lets one patient change what another's rows come to, as batch normalisation does; it cannot be "
            "trained with patient-level privacy; normalise each row by itself (LayerNorm, GroupNorm), or freeze the "
            "statistics"
        )


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


@dataclass(frozen=True)
class DPSGD:
    """How a site trains for one visit.

    Attributes:
        noise_multiplier: the noise's standard deviation over `clip`.
        sampling_rate: the probability with which each patient is drawn into a step (Poisson sampling).
        steps: how many.
        clip: C, the most that one patient's gradient counts for.
        patient: int64 [n], whose each row is, from 0.
        patients: how many they are; public.
        source: of the draws and the noise.
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int
    clip: float
    patient: np.ndarray
    patients: int
    source: Source

    def gradients(self, network: nn.Module, inputs: Inputs, truth: Tensor) -> Iterator[dict[str, Tensor]]:
        """Step by step: the noised gradient of the mean patient's loss, by parameter, at the network as it is then.

        The sum is divided by the number of patients that are drawn on average, which is public, and not by those who
        were.
        """
        whose = torch.from_numpy(self.patient)
        for _ in range(self.steps):
            drawn = torch.from_numpy(self.source.uniform(self.patients) < self.sampling_rate)
            rows = torch.nonzero(drawn[whose]).squeeze(1)
            place = torch.cumsum(drawn, 0) - 1  # the drawn patients, from 0
            batch = {name: value[rows] for name, value in inputs.items()}
            total = clipped_sum(network, batch, truth[rows], place[whose[rows]], self.clip)
            yield {
                name: (value + self.noise_multiplier * self.clip * self._normal(value))
                / (self.sampling_rate * self.patients)
                for name, value in total.items()
            }

    def _normal(self, like: Tensor) -> Tensor:
        return torch.from_numpy(self.source.normal(tuple(like.shape))).to(like.dtype)
