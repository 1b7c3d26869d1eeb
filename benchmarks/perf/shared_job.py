"""What every framework is given: the sites' tensors and how to train, in one file that needs numpy alone to be read."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Training:
    """How to train.

    Attributes:
        hidden: width of the perceptron's two hidden layers; 0: logistic regression.
        rounds: rounds, all of which are run.
        epochs: passes over a site's samples in a round.
        batch_size: samples a step.
        step_size: of gradient descent.
        seed: of initial weights and batches.
    """

    hidden: int = 0
    rounds: int = 15
    epochs: int = 1
    batch_size: int = 4
    step_size: float = 0.01
    seed: int = 0


@dataclass(frozen=True)
class Tensors:
    """One site: x float32 [n, d] and y float32 [n] of its training samples, and of its tuning samples."""

    name: str
    x: np.ndarray
    y: np.ndarray
    tuning_x: np.ndarray
    tuning_y: np.ndarray


def save(path: Path, training: Training, sites: Sequence[Tensors]) -> None:
    """Write a job to a .npz file."""
    arrays = {f"{i}/{name}": value for i, site in enumerate(sites) for name, value in vars(site).items()}
    np.savez(path, training=json.dumps(asdict(training)), **arrays)  # type: ignore[arg-type]


def load(path: Path) -> tuple[Training, list[Tensors]]:
    """Read it."""
    sites: dict[str, dict[str, np.ndarray]] = {}
    with np.load(path, allow_pickle=False) as stored:
        training = Training(**json.loads(str(stored["training"])))
        for key in stored.files:
            number, slash, name = key.partition("/")
            if slash:
                sites.setdefault(number, {})[name] = stored[key]
    return training, [Tensors(str(site.pop("name")), **site) for site in sites.values()]
