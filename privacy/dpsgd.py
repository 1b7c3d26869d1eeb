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


@dataclass(frozen=True)
class Clipped:
    """A clipped sum of gradients.

    Attributes:
        total: by parameter, the sum over patients of their clipped gradients.
        norms: float [patients], the gradients' lengths before they were clipped; they never leave the site.
        loss: the sum of the rows' log losses.
    """

    total: dict[str, Tensor]
    norms: Tensor
    loss: Tensor


def clipped_sum(network: nn.Module, inputs: Inputs, truth: Tensor, patient: Tensor, clip: float) -> Clipped:
    """The sum over patients of the gradients of their summed log losses, each clipped to length `clip`.

    Args:
        network: maps the inputs to logits [n]; its parameters that require a gradient are trained.
        inputs: the rows, by name; first axis n, which may be 0.
        truth: float [n].
        patient: int64 [n], whose row it is, from 0.
        clip: C > 0.
    """
    if len(truth) == 0:
        total = {name: torch.zeros_like(value) for name, value in network.named_parameters() if value.requires_grad}
        return Clipped(total, torch.zeros(0), torch.zeros(()))
    return (_by_layers if linear_only(network) else _by_rows)(network, inputs, truth, patient, clip)


def linear_only(network: nn.Module) -> bool:
    """Whether all that is trained belongs to linear layers."""
    own = {id(value) for layer in network.modules() if isinstance(layer, nn.Linear) for value in layer.parameters()}
    return all(id(value) in own for value in network.parameters() if value.requires_grad)


def _loss(logits: Tensor, truth: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction="sum")


def _by_layers(network: nn.Module, inputs: Inputs, truth: Tensor, patient: Tensor, clip: float) -> Clipped:
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
    patients = int(patient.max()) + 1
    alone = patients == len(patient)
    if alone:
        order = torch.argsort(patient)
    same = truth.new_ones(()) if alone else (patient[:, None] == patient[None, :]).to(truth.dtype)
    squared = torch.zeros(patients, dtype=torch.float64)
    for (layer, row, _), gradient in zip(seen, back, strict=True):
        if alone:
            inner = (gradient * gradient).sum(1) * ((row * row).sum(1) + (layer.bias is not None))
            squared += inner[order].double()
        else:
            inner = (gradient @ gradient.T) * (row @ row.T + float(layer.bias is not None)) * same
            squared.index_add_(0, patient, inner.sum(1).double())
    norms = squared.clamp_min(0).sqrt()
    factor = _factor(norms, clip)[patient].to(truth.dtype)
    total: dict[str, Tensor] = {}
    names = {id(value): name for name, value in network.named_parameters()}
    for (layer, row, _), gradient in zip(seen, back, strict=True):
        weighted = gradient * factor[:, None]
        for value, part in ((layer.weight, weighted.T @ row), (layer.bias, weighted.sum(0))):
            if value is not None and value.requires_grad:
                name = names[id(value)]
                total[name] = total[name] + part if name in total else part
    return Clipped(total, norms, loss.detach())


def _by_rows(network: nn.Module, inputs: Inputs, truth: Tensor, patient: Tensor, clip: float) -> Clipped:
    from opacus import GradSampleModule

    sampled = GradSampleModule(network, batch_first=True, loss_reduction="sum")
    try:
        loss = _loss(sampled(**inputs), truth)
        loss.backward()  # type: ignore[no-untyped-call]
        patients = int(patient.max()) + 1
        own = {}
        squared = torch.zeros(patients, dtype=torch.float64)
        for name, value in network.named_parameters():
            if not value.requires_grad:
                continue
            rows: Tensor = value.grad_sample  # type: ignore[attr-defined]
            own[name] = torch.zeros((patients, *value.shape), dtype=rows.dtype).index_add_(0, patient, rows)
            squared += own[name].reshape(patients, -1).double().square().sum(1)
            value.grad = None
    finally:
        sampled.remove_hooks()
        sampled.del_grad_sample()
    norms = squared.sqrt()
    factor = _factor(norms, clip)
    total = {name: torch.tensordot(factor.to(each.dtype), each, dims=1) for name, each in own.items()}
    return Clipped(total, norms, loss.detach())


def _factor(norms: Tensor, clip: float) -> Tensor:
    """What each patient's gradient is multiplied by; a little less than C / norm, so that rounding stays below C."""
    return torch.where(norms > clip, clip * (1 - 1e-6) / norms, torch.ones_like(norms))


def refuse_mixing(network: nn.Module, inputs: Inputs) -> None:
    """See that no row's logit depends on another row.

    The rows' places are changed and all but one of them are replaced: that one's logit has to stay.

    Args:
        network: as it trains; dropout is left out of account.
        inputs: two rows or more; with fewer nothing can be seen, and nothing can mix.

    Raises:
        MixesPatientsError: it changes.
    """
    n = len(next(iter(inputs.values())))
    if n < 2:
        return
    dropouts = [layer for layer in network.modules() if isinstance(layer, nn.Dropout) and layer.training]
    for layer in dropouts:
        layer.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    try:
        with torch.no_grad():
            whole = network(**inputs)[0]
            first = network(**{name: torch.cat([value[:1], value[1:].flip(0) * 0]) for name, value in inputs.items()})[
                0
            ]
            again = network(**{name: torch.cat([value[:1], value[:1] * 2 + 1]) for name, value in inputs.items()})[0]
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
            clipped = clipped_sum(network, batch, truth[rows], place[whose[rows]], self.clip)
            yield {
                name: (value + self.noise_multiplier * self.clip * self._normal(value))
                / (self.sampling_rate * self.patients)
                for name, value in clipped.total.items()
            }

    def _normal(self, like: Tensor) -> Tensor:
        return torch.from_numpy(self.source.normal(tuple(like.shape))).to(like.dtype)
