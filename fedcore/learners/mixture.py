"""The training of a second network for its mixture with the one that is trained: `fedcore.learner.Mixture`.

With w the network that is trained, v the second, a the share and f the loss of the batch, a step is

    v <- v - step_size a grad f(a v + (1 - a) w)
    a <- a - step_size <v - w, grad f(a v + (1 - a) w)>            at the first batch, if it adapts; kept in [0, 1]

or what another optimiser makes of that gradient of v; the penalty of the setting is on v. What batch normalisation
measures in the mixture is v's.
"""

from collections.abc import Mapping

import torch
from torch import nn

from fedcore.learner import Mixture, Setting
from fedcore.learners.optimizers import Optimizer


class MixedTraining:
    """Steps v beside w.

    Args:
        network: v, in training mode; it becomes the mixture.
        mixture: its share.
        optimizer: how v descends.
        setting: `step_size` and `l2`.
    """

    def __init__(self, network: nn.Module, mixture: Mixture, optimizer: type[Optimizer], setting: Setting) -> None:
        self._network = network
        self._own = {name: nn.Parameter(value.detach().clone()) for name, value in network.named_parameters()}
        self._step_size = float(setting["step_size"])
        self._optimizer = optimizer(self._own.items(), step_size=self._step_size, l2=float(setting["l2"]))
        self._share = mixture.share
        self._adapts = self._due = mixture.adapts

    def step(self, network: nn.Module, batch: Mapping[str, torch.Tensor], target: torch.Tensor) -> None:
        """One step, with w as it is now."""
        share, other = self._share, dict(network.named_parameters())
        with torch.no_grad():
            for name, value in self._network.named_parameters():
                value.copy_(torch.lerp(other[name], self._own[name], share))
        nn.functional.binary_cross_entropy_with_logits(self._network(**batch), target).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            slope = 0.0
            for name, value in self._network.named_parameters():
                if value.grad is not None:
                    if self._due:
                        slope += float(((self._own[name] - other[name]) * value.grad).sum())
                    self._own[name].grad = share * value.grad
                value.grad = None
        self._optimizer.step()
        if self._due:
            self._share = min(max(share - self._step_size * slope, 0.0), 1.0)
            self._due = False

    def result(self) -> Mixture:
        """v and its share as they are now."""
        arrays = {**self._network.state_dict(), **self._own}
        own = {name: value.detach().cpu().numpy().copy() for name, value in arrays.items()}
        return Mixture(own, self._share, self._adapts)
