"""The sum of patients' gradients, each clipped: exact, by the cheapest way that a network allows.

All rows of one patient make one gradient, the sum over the rows, and that sum is clipped to length C. For any model and
any batch, taking one patient's rows away changes the clipped sum by at most C, and putting others in their place by at
most 2C, provided that a row's loss depends on no other row (`privacy.dpsgd.refuse_mixing`).

Where every trained parameter is that of a linear layer or an embedding, what such a layer sees and what comes back to
it hold each row's gradient. Three exact ways to the clipped sum:

- `_Vector`: a linear layer that is used once and sees one vector of each patient. Norms are products of lengths, the
  sum is one product (Goodfellow, Efficient Per-Example Gradient Computations, 2015); nobody's gradient is ever made.
- `_Positions`: a linear layer or an embedding that is used several times or sees several vectors of a patient, as in
  recurrent networks, in attention, and where patients have several rows: each one's gradient is one small product, made
  once for its norm and the sum. (Norms from inner products alone would cancel where stays are alike.)
- else Opacus makes each row's gradient by hooks.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

Inputs = Mapping[str, Tensor]
Layer = nn.Linear | nn.Embedding


class InexactError(ValueError):
    """The clipped sum of a network is not what its patients' gradients, made one by one, come to."""


class Clipped(NamedTuple):
    """A clipped sum.

    Attributes:
        total: by parameter.
        squared: float [patients], the squared length of each one's gradient before it was clipped.
    """

    total: dict[str, Tensor]
    squared: Tensor


class Clipping:
    """Clips the gradients of a network, of which the same parameters are trained all the time.

    Args:
        network: maps the inputs to logits [n]; its parameters that require a gradient are trained.
        per_layer: clip what each of L layers (where the network is not made of those, parameters) adds to a gradient
            to C / sqrt(L) by itself (McMahan et al., Learning Differentially Private Recurrent Language Models, 2018).
    """

    def __init__(self, network: nn.Module, *, per_layer: bool = False) -> None:
        self._network = network
        self._per_layer = per_layer
        self._named = {name: value for name, value in network.named_parameters() if value.requires_grad}
        self._layers = _layers(network) if by_layers(network) else None

    def sum(self, inputs: Inputs, truth: Tensor, patient: Tensor, clip: float) -> Clipped:
        """The sum over patients of the gradients of their summed log losses, each clipped to length `clip`.

        Args:
            inputs: the rows, by name; first axis n, which may be 0.
            truth: float [n].
            patient: int64 [n], whose row it is: each of 0 to some number at least once.
            clip: C > 0.
        """
        if len(truth) == 0:
            return Clipped({name: torch.zeros_like(value) for name, value in self._named.items()}, truth[:0])
        units = _Units(patient)
        parts = self._parts(inputs, truth, units)
        lengths = [part.squared() for part in parts]  # [units] each
        whole = lengths[0] if len(lengths) == 1 else torch.stack(lengths).sum(0)
        counted = torch.isfinite(whole)
        if not bool(counted.all()):
            return self._counted(inputs, truth, units, counted, clip)
        if self._per_layer:
            factors = [_factor(one, clip / len(parts) ** 0.5) for one in lengths]
        else:
            factors = [_factor(whole, clip)] * len(parts)
        total: dict[int, Tensor] = {}
        for part, factor in zip(parts, factors, strict=True):
            total |= part.total(factor)
        found = {
            name: total[id(value)] if id(value) in total else torch.zeros_like(value)
            for name, value in self._named.items()
        }
        return Clipped(found, whole)

    def _counted(self, inputs: Inputs, truth: Tensor, units: "_Units", counted: Tensor, clip: float) -> Clipped:
        """The sum over those whose gradient is a number: what overflows counts for nothing, and is told to nobody."""
        rows = torch.nonzero(counted[units.of_row]).squeeze(1)
        place = torch.cumsum(counted, 0) - 1
        batch = {name: value[rows] for name, value in inputs.items()}
        total, some = self.sum(batch, truth[rows], place[units.of_row[rows]], clip)
        return Clipped(total, torch.full_like(counted, torch.inf, dtype=some.dtype).index_put_((counted,), some))

    def _parts(self, inputs: Inputs, truth: Tensor, units: "_Units") -> "list[_Part]":
        if self._layers is None:
            return _by_rows(self._network, inputs, truth, units)
        return _by_layers(self._network, self._layers, inputs, truth, units)


def by_layers(network: nn.Module) -> bool:
    """Whether the network is trained as a whole, of linear layers and embeddings that share no parameter."""
    own = [id(value) for layer in _layers(network) for value in layer.parameters()]
    unshared = len(set(own)) == len(own)
    return unshared and all(value.requires_grad and id(value) in own for value in network.parameters())


def refuse_inexact(network: nn.Module, inputs: Inputs, truth: Tensor) -> None:
    """See on a few rows of two patients that the clipped sum is that of gradients made one patient at a time.

    Args:
        network: as it trains, without dropout.
        inputs: up to four rows.
        truth: float [n].

    Raises:
        InexactError: it is not, as where a layer's first axis is not the rows'.
    """
    rows = min(len(truth), 4)
    patient = torch.arange(rows, device=truth.device) % 2
    batch, outcome = {name: value[:rows] for name, value in inputs.items()}, truth[:rows]
    parameters = {name: value for name, value in network.named_parameters() if value.requires_grad}
    own = []
    for one in range(min(rows, 2)):
        mine = patient == one
        loss = _loss(network(**{name: value[mine] for name, value in batch.items()}), outcome[mine])
        own.append(torch.autograd.grad(loss, list(parameters.values()), allow_unused=True, materialize_grads=True))
    lengths = [float(torch.stack([g.square().sum() for g in one]).sum().sqrt()) for one in own]
    clip = 0.5 * max(lengths, default=0.0) or 1.0
    found = Clipping(network).sum(batch, outcome, patient, clip).total
    for i, name in enumerate(parameters):
        expected = sum(one[i] * min(1.0, clip / max(n, 1e-12)) for one, n in zip(own, lengths, strict=True))
        if float((found[name] - expected).abs().max() if rows else 0.0) > 1e-3 * clip:
            raise InexactError(
                f"the gradient of '{name}' cannot be told patient by patient, so that the model cannot be trained with "
                "patient-level privacy; expected layers whose first axis is the samples"
            )


def _layers(network: nn.Module) -> list[Layer]:
    plain = [
        layer
        for layer in network.modules()
        if isinstance(layer, nn.Linear)
        or (
            isinstance(layer, nn.Embedding)
            and layer.padding_idx is None
            and layer.max_norm is None
            and not layer.scale_grad_by_freq
        )
    ]
    return plain


def _loss(logits: Tensor, truth: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction="sum")


class _Part(Protocol):
    """A layer's share in each patient's gradient."""

    def squared(self) -> Tensor:
        """Its squared length, [units]."""
        ...

    def total(self, factor: Tensor) -> dict[int, Tensor]:
        """The sum over units, each times its factor, by the parameter's id."""
        ...


class _Units:
    """Whose gradients are clipped: each row's where all have one row, else each patient's.

    Args:
        patient: int64 [n].
    """

    def __init__(self, patient: Tensor) -> None:
        self.rows, self.count = len(patient), int(patient.max()) + 1
        self.alone = self.rows == self.count
        self._patient = patient

    @property
    def of_row(self) -> Tensor:
        """Whose each row is, int64 [n]."""
        return torch.arange(self.rows, device=self._patient.device) if self.alone else self._patient

    def summed(self, rows: Tensor) -> Tensor:
        """Each unit's sum over its rows."""
        if self.alone:
            return rows
        return rows.new_zeros((self.count, *rows.shape[1:])).index_add_(0, self.of_row, rows)


class _Vector:
    def __init__(self, layer: nn.Linear, seen: Tensor, back: Tensor) -> None:
        self._layer, self._seen, self._back = layer, seen, back

    def squared(self) -> Tensor:
        return self._back.square().sum(1) * (self._seen.square().sum(1) + float(self._layer.bias is not None))

    def total(self, factor: Tensor) -> dict[int, Tensor]:
        weighted = self._back * factor[:, None]
        found = {id(self._layer.weight): weighted.T @ self._seen}
        if self._layer.bias is not None:
            found[id(self._layer.bias)] = weighted.sum(0)
        return found


class _Own:
    """Each unit's gradient itself, [units, *shape], by the parameter's id."""

    def __init__(self, own: dict[int, Tensor]) -> None:
        self._own = own

    def squared(self) -> Tensor:
        lengths = [torch.linalg.vector_norm(own.flatten(1), dim=1).square() for own in self._own.values()]
        return torch.stack(lengths).sum(0)

    def total(self, factor: Tensor) -> dict[int, Tensor]:
        return {key: torch.tensordot(factor, own, dims=1) for key, own in self._own.items()}


class _Positions(_Own):
    def __init__(self, layer: Layer, seen: Tensor, back: Tensor, units: _Units) -> None:
        if isinstance(layer, nn.Embedding):
            words = layer.num_embeddings
            at = (units.of_row[:, None] * words + seen).reshape(-1)
            empty = back.new_zeros((units.count * words, back.shape[2]))
            weight = empty.index_add_(0, at, back.reshape(-1, back.shape[2])).view(units.count, words, -1)
        else:
            weight = units.summed(torch.bmm(back.transpose(1, 2), seen))
        own = {id(layer.weight): weight}
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            own[id(layer.bias)] = units.summed(back.sum(1))
        super().__init__(own)


def _by_layers(network: nn.Module, layers: list[Layer], inputs: Inputs, truth: Tensor, units: _Units) -> list[_Part]:
    uses: dict[int, list[tuple[Layer, Tensor, Tensor]]] = {}

    def note(layer: Any, arguments: tuple[Tensor, ...], named: Mapping[str, Tensor], output: Tensor) -> None:
        (seen,) = (*arguments, *named.values())
        uses.setdefault(id(layer), []).append((layer, seen.detach(), output))

    hooks = [layer.register_forward_hook(note, with_kwargs=True) for layer in layers]
    try:
        loss = _loss(network(**inputs), truth)
    finally:
        for hook in hooks:
            hook.remove()
    outputs = [output for layer in uses.values() for _, _, output in layer]
    back = iter(torch.autograd.grad(loss, outputs, allow_unused=True, materialize_grads=True))
    return [_part([(layer, seen, next(back)) for layer, seen, _ in one], units) for one in uses.values()]


def _part(uses: list[tuple[Layer, Tensor, Tensor]], units: _Units) -> _Part:
    """What one layer's uses add to the gradients."""
    layer, first, back = uses[0]
    if isinstance(layer, nn.Linear) and len(uses) == 1 and first.ndim == 2 and units.alone:
        return _Vector(layer, first, back.reshape(len(first), -1))
    rows = units.rows
    out, wide = layer.weight.shape if isinstance(layer, nn.Linear) else reversed(layer.weight.shape)
    shape = (rows, -1, wide) if isinstance(layer, nn.Linear) else (rows, -1)
    seen = torch.cat([one.reshape(shape) for _, one, _ in uses], 1)
    return _Positions(layer, seen, torch.cat([one.reshape(rows, -1, out) for _, _, one in uses], 1), units)


def _by_rows(network: nn.Module, inputs: Inputs, truth: Tensor, units: _Units) -> list[_Part]:
    from opacus import GradSampleModule

    sampled = GradSampleModule(network, batch_first=True, loss_reduction="sum")
    try:
        _loss(sampled(**inputs), truth).backward()  # type: ignore[no-untyped-call]
        parts: list[_Part] = []
        for value in network.parameters():
            if value.requires_grad:
                parts.append(_Own({id(value): units.summed(value.grad_sample)}))  # type: ignore[attr-defined]
                value.grad = None
    finally:
        sampled.remove_hooks()
        sampled.del_grad_sample()
    return parts


def _factor(squared: Tensor, clip: float) -> Tensor:
    """What each patient's gradient is multiplied by; a little less than C / length, so that rounding stays below C."""
    return clip * (1 - 1e-5) / squared.clamp_min(0).sqrt().clamp_min(clip * (1 - 1e-5))
