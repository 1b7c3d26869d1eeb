"""Gradient inversion: patients' features from the gradient or the update that a site sends.

`analytic`: a linear layer that sees one row x has the gradients dL/dW = g x^T and dL/db = g, so x stands in their
ratio, exactly (Phong et al., Privacy-Preserving Deep Learning via Additively Homomorphic Encryption, 2017, section III;
Geiping et al., proposition 3.1). Of several rows the same ratio is a weighted mean.

`by_optimisation`: search for rows of which the gradient is like the one that was seen (Zhu, Liu and Han, Deep Leakage
from Gradients, 2019), by 1 - cosine similarity, which an update serves as well as a gradient, with a prior on the rows
(Geiping, Bauermeister, Droege and Moeller, Inverting Gradients, 2020, equation 4); total variation, their prior for
images, gives way to the squared length, since features are standardised. The outcomes are taken for known: of a batch
they are the lesser secret.

How near a reconstruction is, is told relative to guessing the mean: 0 is the patient, 1 is no better than the guess.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from privacy.attacks.outcome import Floats

Gradient = Mapping[str, Tensor]

MOST = 4.0
"""No value that is searched for is farther from 0, in standard deviations."""


def analytic(weight: NDArray[np.floating], bias: NDArray[np.floating]) -> Floats:
    """Float64 [d]: the row of which a linear layer has these gradients, or anything proportional to both.

    The ratios of all units, weighted by the squares of their bias gradients: least squares.

    Args:
        weight: float [k, d].
        bias: float [k], not all 0.

    Raises:
        ValueError: the bias has no gradient.
    """
    w, b = np.asarray(weight, dtype=np.float64), np.asarray(bias, dtype=np.float64)
    if not np.any(b):
        raise ValueError("the bias has no gradient, so that there is no ratio; expected one other than 0")
    return np.asarray(b @ w / np.square(b).sum(), dtype=np.float64)


def by_optimisation(
    network: nn.Module,
    seen: Gradient,
    truth: Tensor,
    rows: Tensor,
    *,
    known: Mapping[str, Tensor] | None = None,
    prior: float = 1e-4,
    steps: int = 300,
    step_size: float = 0.1,
) -> Tensor:
    """The rows whose gradient is most like the one that was seen.

    Args:
        network: maps inputs by name to logits [n]; as the attacker knows it. Its mode is left as it is.
        seen: the gradient of the mean log loss, by parameter, or anything proportional to it.
        truth: float [n], the outcomes.
        rows: where the search for the input `x` begins, [n, ...].
        known: further inputs, which the attacker knows.
        prior: the weight of the rows' mean square.
        steps: of Adam, whose step falls to a hundredth along a cosine.
        step_size: the first.
    """
    parameters = {name: value for name, value in network.named_parameters() if name in seen}
    wanted = [seen[name].detach() for name in parameters]
    x = rows.detach().clone().requires_grad_(True)
    optimizer = torch.optim.Adam([x], lr=step_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, step_size / 100)
    for _ in range(steps):
        loss = nn.functional.binary_cross_entropy_with_logits(network(x=x, **(known or {})), truth)
        found = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
        (x.grad,) = torch.autograd.grad(_unlike(found, wanted) + prior * x.square().mean(), x)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            x.clamp_(-MOST, MOST)
    return x.detach()


def _unlike(found: tuple[Tensor, ...], wanted: list[Tensor]) -> Tensor:
    inner = torch.stack([(a * b).sum() for a, b in zip(found, wanted, strict=True)]).sum()
    lengths = [torch.stack([a.square().sum() for a in each]).sum() for each in (found, wanted)]
    return 1 - inner / (lengths[0] * lengths[1]).clamp_min(1e-30).sqrt()


def relative_error(recovered: Floats, truth: Floats, guess: Floats) -> Floats:
    """Float64 [n]: each true row's squared error over that of the guess, of the reconstruction that is matched to it.

    Each reconstruction serves one row, so that all errors together are least (Kuhn, 1955).

    Args:
        recovered: float [n, ...].
        truth: float [n, ...].
        guess: float [...], what who has seen nothing would say.
    """
    n = len(truth)
    a, b = recovered.reshape(n, -1).astype(np.float64), truth.reshape(n, -1).astype(np.float64)
    square = np.square(a).sum(1)[:, None] + np.square(b).sum(1)[None, :] - 2 * a @ b.T
    pairs = linear_sum_assignment(square)
    error = np.empty(n)
    error[pairs[1]] = np.maximum(square[pairs], 0.0)
    blind = np.square(b - np.asarray(guess, np.float64).reshape(1, -1)).sum(1)
    return np.asarray(error / np.maximum(blind, 1e-12), dtype=np.float64)
