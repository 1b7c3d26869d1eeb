"""A gated recurrent unit made of two linear layers: for training with patient-level privacy.

It computes what `torch.nn.GRU` of one layer does (Cho et al., Learning Phrase Representations using RNN
Encoder-Decoder, 2014), which shows nothing of its inside: of linear layers each patient's gradient can be told
(`privacy.clipping`).
"""

import torch
from torch import Tensor, nn


class Recurrence(nn.Module):
    """The states of a gated recurrent unit.

    Args:
        size: of what is seen at each time.
        hidden: of the state.
    """

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.seen, self.state = nn.Linear(size, 3 * hidden), nn.Linear(hidden, 3 * hidden)
        for value in self.parameters():
            nn.init.uniform_(value, -(hidden**-0.5), hidden**-0.5)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """The states float32 [n, times, hidden] of x float32 [n, times, size]; a pair, as `torch.nn.GRU` returns."""
        state = x.new_zeros(len(x), self.state.in_features)
        states = []
        for reset, update, candidate in (gates.chunk(3, dim=1) for gates in self.seen(x).unbind(dim=1)):
            of_reset, of_update, of_candidate = self.state(state).chunk(3, dim=1)
            new = torch.tanh(candidate + torch.sigmoid(reset + of_reset) * of_candidate)
            state = torch.lerp(new, state, torch.sigmoid(update + of_update))
            states.append(state)
        return torch.stack(states, dim=1), None
