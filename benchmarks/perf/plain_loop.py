"""FedAvg as a researcher writes it in plain PyTorch: one loop, no framework, no checks.

The same model, the same batches, the same steps of gradient descent, the same average in float64 weighted by numbers of
samples, the same log loss over all tuning samples after each round, and the model of the best round at the end: what
the `inline` engine is measured against. It sends nothing, checks nothing and keeps no record.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from networks import network
from shared_job import Tensors, Training

from fedcore.streams import draw_seed


class Trained(NamedTuple):
    """The best round's model, and each round's losses (training, tuning)."""

    arrays: dict[str, np.ndarray]
    losses: list[tuple[float, float]]


Style = Literal["plain", "usual", "gathered"]


def _batches(
    x: torch.Tensor, y: torch.Tensor, order: torch.Tensor, size: int, style: Style
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    if style == "gathered":
        yield from zip(x[order].split(size), y[order].split(size), strict=True)  # type: ignore[no-untyped-call]
        return
    for index in order.split(size):  # type: ignore[no-untyped-call]
        yield x[index], y[index]


def plain_loop(
    training: Training,
    sites: Sequence[Tensors],
    on_round: Callable[[], None] = lambda: None,
    *,
    style: Style = "plain",
) -> Trained:
    """Train.

    Args:
        training: how.
        sites: on what.
        on_round: hears when a round has ended.
        style: `usual` descends with `torch.optim.SGD`, as most would, `plain` with the two lines it comes to;
            `gathered` does that too, puts a whole pass into its order at once, and reads no loss before the pass is
            over, which is what the `inline` engine does.
    """
    data = [[torch.from_numpy(a) for a in (site.x, site.y, site.tuning_x, site.tuning_y)] for site in sites]
    torch.manual_seed(draw_seed(training.seed, "initial"))
    model = network(sites[0].x.shape[1], training.hidden)
    optimizer = torch.optim.SGD(model.parameters(), lr=training.step_size) if style == "usual" else None
    loss_of = torch.nn.functional.binary_cross_entropy_with_logits
    state = {name: value.clone() for name, value in model.state_dict().items()}
    total, tuning_total = sum(len(site.y) for site in sites), sum(len(site.tuning_y) for site in sites)
    best, lowest, losses = state, float("inf"), []
    for number in range(1, training.rounds + 1):
        average = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in state.items()}
        train_loss = 0.0
        for site, (x, y, _, _) in zip(sites, data, strict=True):
            model.load_state_dict(state)
            model.train()
            order = torch.Generator().manual_seed(draw_seed(training.seed, "train", site.name, number))
            for _ in range(training.epochs):
                site_losses = []
                for batch, truth in _batches(x, y, torch.randperm(len(y), generator=order), training.batch_size, style):
                    loss = loss_of(model(batch), truth)
                    site_losses.append(loss.detach() * len(truth) if style == "gathered" else loss.item() * len(truth))
                    loss.backward()
                    if optimizer is None:
                        with torch.no_grad():
                            for value in model.parameters():
                                value.add_(value.grad, alpha=-training.step_size)
                                value.grad = None
                    else:
                        optimizer.step()
                        optimizer.zero_grad()
            for name, value in model.state_dict().items():
                average[name] += value.double() * (len(y) / total)
            train_loss += float(sum(site_losses))
        state = {name: value.to(state[name].dtype) for name, value in average.items()}
        model.load_state_dict(state)
        model.eval()
        with torch.no_grad():
            tuning_loss = sum(loss_of(model(x).double(), y.double(), reduction="sum").item() for _, _, x, y in data)
        losses.append((train_loss / total, tuning_loss / tuning_total))
        if tuning_loss < lowest:
            best, lowest = state, tuning_loss
        on_round()
    return Trained({name: value.numpy() for name, value in best.items()}, losses)
