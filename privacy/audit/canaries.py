"""Patients that are put into a training to see how much it tells of them, each in a coordinate of its own.

The network gets one more layer, linear and without a bias, from as many inputs as there are canaries to the logit
("Dirac canaries": Nasr et al., Tight Auditing of Differentially Private Machine Learning, 2023). Only canary i has a
value at input i, and a great one, so that its gradient, once clipped, is C along that input's weight and next to
nothing elsewhere. What the noised sums have at that weight is the whole of what they tell of canary i; all else of the
training, the real patients' part of it too, is as it would be.

The auditor is the coordinator, and chooses the weights of that layer for each visit. Half of a canary's stays have the
event: at a great positive weight its gradient is plus C, at a great negative one minus C. Visits with alternating signs
(`direction`) see through noise that is drawn twice: it cancels, and the canary does not.

Nothing of the mechanism is copied: `Watched` is the `DPSGD` it is made of, and hands its inputs to that one's own
`gradients`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from privacy.clipping import Clipping, Inputs
from privacy.dpsgd import DPSGD

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

LOUD = 1e4
"""A canary's value, over C: how far its own coordinate outweighs all others of its gradient before it is clipped."""

SURE = 30.0
"""The logit that a canary's weight gives it: no other part of the network comes near."""


class _WithCanaries(nn.Module):
    def __init__(self, network: nn.Module, canaries: int, weight: float) -> None:
        super().__init__()
        self.network = network
        self.canary = nn.Linear(canaries, 1, bias=False, device=next(network.parameters()).device)
        nn.init.constant_(self.canary.weight, weight)

    def forward(self, canary: Tensor, **inputs: Tensor) -> Tensor:
        logits: Tensor = self.network(**inputs) + self.canary(canary)[:, 0]
        return logits


@dataclass(kw_only=True)
class Watched(DPSGD):
    """A training with canaries in it, and what its transcript tells of each.

    Attributes:
        present: bool [canaries], which are in; the others' rows are not there, as zero-out has it.
        stays: rows of each canary, an even number.
        direction: 1 or -1, that of the canaries' gradients.
        scores: float64 [canaries], filled while it trains: the sum over the steps of each noised sum's inner product
            with the canary's direction, over C.
        drawn: float64 [1], filled while it trains: what a canary that is in adds to its score on average. In a step in
            which it is drawn that is 1, or what clipping by layers leaves of it.
    """

    present: Bools
    stays: int
    direction: int
    scores: Floats
    drawn: Floats

    @classmethod
    def of(cls, how: DPSGD, present: Bools, *, stays: int = 2, direction: int = 1) -> "Watched":
        """A training with canaries put in behind its patients; all of them count as patients, in or out.

        Raises:
            ValueError: `stays` is odd: half of them have the event.
        """
        if stays % 2:
            raise ValueError(f"stays: found {stays}, expected an even number")
        own = {field.name: getattr(how, field.name) for field in fields(how) if field.init}
        more = np.repeat(np.arange(int(present.sum())), stays) + how.patients
        own |= {"patient": np.concatenate([how.patient, more]), "patients": how.patients + len(present)}
        scores, drawn = np.zeros(len(present)), np.zeros(1)
        return cls(**own, present=present, stays=stays, direction=direction, scores=scores, drawn=drawn)

    def gradients(self, network: nn.Module, inputs: Inputs, truth: Tensor) -> Iterator[dict[str, Tensor]]:
        """See `DPSGD`; the network's own gradients, the canaries' part of them included."""
        value = LOUD * self.clip
        whole = _WithCanaries(network, len(self.present), self.direction * SURE / value)
        whole.train(network.training)
        rows, outcome = self._with_rows(inputs, truth, value)
        adds = self._adds(whole, rows, outcome) if self.present.any() else 0.0
        for found in super().gradients(whole, rows, outcome):
            seen = found.pop("canary.weight")[0].detach().cpu().numpy().astype(np.float64)
            self.scores[:] += self.direction * seen * self.sampling_rate * self.patients / self.clip
            self.drawn[:] += adds * self.sampling_rate
            yield {name.removeprefix("network."): gradient for name, gradient in found.items()}

    def _adds(self, network: nn.Module, rows: Inputs, outcome: Tensor) -> float:
        """What the last canary that is in adds to its score when it is drawn."""
        one = {name: row[-self.stays :] for name, row in rows.items()}
        whose = torch.zeros(self.stays, dtype=torch.int64, device=outcome.device)
        alone = Clipping(network, per_layer=self.per_layer).sum(one, outcome[-self.stays :], whose, self.clip)
        return float(alone.total["canary.weight"].abs().max()) / self.clip

    def _with_rows(self, inputs: Inputs, truth: Tensor, value: float) -> tuple[Mapping[str, Tensor], Tensor]:
        """The patients' rows, and behind them the canaries', who look like one of them but for their own input."""
        which = torch.from_numpy(np.repeat(np.flatnonzero(self.present), self.stays)).to(truth.device)
        like = torch.arange(len(which), device=truth.device) % len(truth)
        own = torch.zeros((len(truth) + len(which), len(self.present)), dtype=truth.dtype, device=truth.device)
        own[len(truth) + torch.arange(len(which), device=truth.device), which] = value
        rows = {name: torch.cat([one, one[like]]) for name, one in inputs.items()}
        event = torch.arange(len(which), device=truth.device) % 2  # stays are even
        return {**rows, "canary": own}, torch.cat([truth, event.to(truth.dtype)])
