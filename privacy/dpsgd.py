"""Gradients of which no patient can make up more than so much: what DP-SGD adds noise to.

Abadi et al., Deep Learning with Differential Privacy, 2016 (algorithm 1), with the patient in place of the example: all
rows of one patient make one gradient, the sum over the rows, and that sum is clipped to length C. For any model and any
batch, taking one patient's rows away changes the clipped sum by at most C, and putting others in their place by at most
2C, provided that a row's loss depends on no other row: what normalises over a batch is refused (`refuse_mixing`).

Two exact ways to the clipped sum. Where every trained parameter is that of a linear layer that sees one vector a row,
norms follow from what the layers see and what comes back to them, and the sum is one product (Goodfellow, Efficient
Per-Example Gradient Computations, 2015); no row's gradient is ever made. Else Opacus makes each row's by hooks.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from privacy.noise import Source

Inputs = Mapping[str, Tensor]


class MixesPatientsError(ValueError):
    """A network lets one patient's rows change what another's come to: one sentence with the remedy."""


def clipped_sum(network: nn.Module, inputs: Inputs, truth: Tensor, patient: Tensor, clip: float) -> dict[str, Tensor]:
    """The sum over patients of the gradients of their summed log losses, each clipped to length `clip`, by parameter.

    Args:
        network: maps the inputs to logits [n]; its parameters that require a gradient are trained.
        inputs: the rows, by name; first axis n, which may be 0.
        truth: float [n].
        patient: int64 [n], whose row it is: each of 0 to some number at least once.
        clip: C > 0.
    """
    if len(truth) == 0:
        return {name: torch.zeros_like(value) for name, value in network.named_parameters() if value.requires_grad}
    return (_by_layers if linear_only(network) else _by_rows)(network, inputs, truth, patient, clip)


def linear_only(network: nn.Module) -> bool:
    """Whether the network is trained as a whole and consists of linear layers that share no parameter."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    own = [id(value) for layer in layers for value in layer.parameters()]
    unshared = len(set(own)) == len(own)
    return unshared and all(value.requires_grad and id(value) in own for value in network.parameters())


def _loss(logits: Tensor, truth: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction="sum")


def _by_layers(network: nn.Module, inputs: Inputs, truth: Tensor, patient: Tensor, clip: float) -> dict[str, Tensor]:
    seen: list[tuple[nn.Linear, Tensor, Tensor]] = []

    def note(layer: Any, arguments: tuple[Tensor, ...], named: Mapping[str, Tensor], output: Tensor) -> None:
        (row,) = (*arguments, *named.values())
        seen.append((layer, row.detach(), output))

    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_hook(note, with_kwargs=True) for layer in layers]
    try:
        loss = _loss(network(**inputs), truth)
    finally:
        for hook in hooks:
            hook.remove()
    if any(row.ndim != 2 for _, row, _ in seen) or len({id(layer) for layer, _, _ in seen}) < len(seen):
        return _by_rows(network, inputs, truth, patient, clip)  # several vectors a row, or a layer that is used twice
    back = [g.reshape(len(g), -1) for g in torch.autograd.grad(loss, [output for _, _, output in seen])]
    pairs = list(zip([(layer, row) for layer, row, _ in seen], back, strict=True))
    patients = int(patient.max()) + 1
    if patients == len(patient):  # a row each
        factor = _factor(
            sum(
                gradient.square().sum(1) * (row.square().sum(1) + float(layer.bias is not None))
                for (layer, row), gradient in pairs
            ),
            clip,
        )
    else:
        same = (patient[:, None] == patient[None, :]).to(truth.dtype)
        inner = sum(
            (gradient @ gradient.T) * (row @ row.T + float(layer.bias is not None)) for (layer, row), gradient in pairs
        )
        squared = torch.zeros(patients, dtype=truth.dtype).index_add_(0, patient, (inner * same).sum(1))
        factor = _factor(squared, clip)[patient]
    total: dict[int, Tensor] = {}
    for (layer, row), gradient in pairs:
        weighted = gradient * factor[:, None]
        total[id(layer.weight)] = weighted.T @ row
        if layer.bias is not None:
            total[id(layer.bias)] = weighted.sum(0)
    return {name: total[id(value)] for name, value in network.named_parameters()}


def _by_rows(network: nn.Module, inputs: Inputs, truth: Tensor, patient: Tensor, clip: float) -> dict[str, Tensor]:
    from opacus import GradSampleModule

    sampled = GradSampleModule(network, batch_first=True, loss_reduction="sum")
    try:
        _loss(sampled(**inputs), truth).backward()  # type: ignore[no-untyped-call]
        patients = int(patient.max()) + 1
        own = {}
        for name, value in network.named_parameters():
            if value.requires_grad:
                rows: Tensor = value.grad_sample  # type: ignore[attr-defined]
                own[name] = torch.zeros((patients, *value.shape), dtype=rows.dtype).index_add_(0, patient, rows)
                value.grad = None
    finally:
        sampled.remove_hooks()
        sampled.del_grad_sample()
    squared = sum(each.reshape(patients, -1).square().sum(1) for each in own.values())
    factor = _factor(squared, clip)
    return {name: torch.tensordot(factor, each, dims=1) for name, each in own.items()}


def _factor(squared: "Tensor | int", clip: float) -> Tensor:
    """What each patient's gradient is multiplied by; a little less than C / length, so that rounding stays below C."""
    return clip * (1 - 1e-5) / torch.as_tensor(squared).clamp_min(0).sqrt().clamp_min(clip * (1 - 1e-5))


def refuse_mixing(network: nn.Module, inputs: Inputs) -> None:
    """See that no row's logit depends on another row.

    All rows but the first are replaced, and then there are fewer: the first one's logit has to stay.

    Args:
        network: as it trains; dropout is left out of account.
        inputs: two rows or more; with fewer nothing can be seen, and nothing can mix.

    Raises:
        MixesPatientsError: it changes.
    """
    if len(next(iter(inputs.values()))) < 2:
        return
    dropouts = [layer for layer in network.modules() if isinstance(layer, nn.Dropout) and layer.training]
    for layer in dropouts:
        layer.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    alone = {name: torch.cat([value[:1], torch.zeros_like(value[1:])]) for name, value in inputs.items()}
    other = {name: torch.cat([value[:1], value[:1] * 2 + 1]) for name, value in inputs.items()}
    try:
        with torch.no_grad():
            whole, first, again = (network(**rows)[0] for rows in (inputs, alone, other))
    finally:
        network.load_state_dict(before)
        for layer in dropouts:
            layer.train()
    scale = 1e-4 * (1 + float(whole.abs()))
    if max(float((whole - first).abs()), float((whole - again).abs())) > scale:
        raise MixesPatientsError(
            "the model lets one patient change what another's rows come to, as batch normalisation does; it cannot be "
            "trained with patient-level privacy; normalise each row by itself (LayerNorm, GroupNorm), or freeze the "
            "statistics"
        )


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
