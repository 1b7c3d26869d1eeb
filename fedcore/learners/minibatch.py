"""Local training as FedAvg means it: a few epochs of minibatches, starting from the federation's model.

McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data, 2017 (algorithm 1,
ClientUpdate).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from fedcore.learner import Arrays, Encoded, Fit, Setting, TrainingError
from fedcore.learners.optimizers import Optimizer

PREDICTION_BATCH = 1024


class MinibatchLearner:
    """Trains a torch network that maps encoded samples to logits.

    The setting holds `step_size`, `epochs` (passes over the site's samples in a round), `batch_size` and `l2` (the
    penalty l2/2 |w|^2 on everything but biases).

    Args:
        build: makes the network; its `forward` takes the encoded arrays by name and returns logits [n].
        setting: the hyperparameters.
        optimizer: how it descends.
        keeps_moments: whether the optimiser's moments live on from round to round (a lone site, for which rounds are
            but epochs) or start anew (a federation, where the model changes under the site).
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        setting: Setting,
        *,
        optimizer: type[Optimizer],
        keeps_moments: bool = False,
    ) -> None:
        self._build = build
        self._setting = setting
        self._optimizer = optimizer
        self._keeps_moments = keeps_moments

    def initial(self, seed: int) -> Arrays:
        """The network as torch initialises it."""
        with _seeded(seed):
            return _arrays(self._build())

    def fit(self, arrays: Arrays, encoded: Encoded, label: np.ndarray, seed: int, memory: Arrays) -> Fit:
        """Run the epochs; see `fedcore.learner.Learner`."""
        inputs = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in encoded.items()}
        target = torch.from_numpy(label.astype(np.float32))
        n, batch_size = len(target), int(self._setting["batch_size"])
        with _seeded(seed):
            network = self._network(arrays).train()
            optimizer = self._optimizer(
                network.named_parameters(), step_size=float(self._setting["step_size"]), l2=float(self._setting["l2"])
            )
            if memory:
                optimizer.restore(memory)
            order = torch.Generator().manual_seed(seed)
            total = torch.zeros((), dtype=torch.float64)
            for _ in range(int(self._setting["epochs"])):
                total.zero_()
                for index in torch.randperm(n, generator=order).split(batch_size):  # type: ignore[no-untyped-call]
                    logits = network(**{name: value.index_select(0, index) for name, value in inputs.items()})
                    loss = nn.functional.binary_cross_entropy_with_logits(logits, target[index])
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    total += loss.detach() * len(index)
        mean = float(total) / n
        trained = _arrays(network)
        if not np.isfinite(mean) or not all(np.isfinite(value).all() for value in trained.values()):
            raise TrainingError(
                f"the training loss is not a number with step_size {self._setting['step_size']}; expected a finite "
                "loss; choose a smaller step_size"
            )
        return Fit(trained, mean, optimizer.moments() if self._keeps_moments else {})

    def predict(self, arrays: Arrays, encoded: Encoded) -> np.ndarray:
        """Probabilities, the logistic function taken in float64."""
        inputs = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in encoded.items()}
        network = self._network(arrays).eval()
        n = len(next(iter(inputs.values())))
        with torch.no_grad():
            logits = [
                network(**{name: value[start : start + PREDICTION_BATCH] for name, value in inputs.items()})
                for start in range(0, n, PREDICTION_BATCH)
            ]
            if not logits:
                return np.zeros(0)
            return torch.sigmoid(torch.cat(logits).double()).numpy()

    def _network(self, arrays: Arrays) -> nn.Module:
        with _seeded(0):  # building draws initial weights that are then overwritten
            network = self._build()
        # a copy: load_state_dict copies into the network's own memory, so training leaves `arrays` as they are
        network.load_state_dict({name: torch.from_numpy(np.asarray(value)) for name, value in arrays.items()})
        return network


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Torch's global generator, which dropout and initialisation draw from, seeded inside and as it was outside."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(
            seed
        )  # torch.manual_seed would also queue seeds for a GPU that is not there
        yield


def _arrays(network: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy().copy() for name, value in network.state_dict().items()}
