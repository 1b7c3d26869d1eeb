"""The shared job in pfl-research's simulator: `python pfl_job.py JOB.npz`, in an environment that has `pfl` and torch.

As its tutorials do it: `FederatedAveraging` over a `SimulatedBackend`, every site in every cohort, weighted by numbers
of samples, and the loss over all tuning samples after each round by `CentralEvaluationCallback`. Whatever of it can be
left out is left out: no privacy mechanism, no local evaluation. pfl cuts a site's samples into batches once and does
not shuffle them, which is less work than everybody else's.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from networks import network
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.callback.central_evaluation import CentralEvaluationCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.data.sampling import MinimizeReuseUserSampler
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from shared_job import Training, load

LOSS = torch.nn.functional.binary_cross_entropy_with_logits


class Scored(torch.nn.Module):
    """The network with the two methods that pfl asks for."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.network = network(features, hidden)

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Mean log loss, to be minimised."""
        self.train()
        return LOSS(self.network(x), y)

    @torch.no_grad()
    def metrics(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, Weighted]:
        """Log loss as a sum and its weight."""
        self.eval()
        return {"loss": Weighted(LOSS(self.network(x).double(), y.double(), reduction="sum").item(), len(y))}


class Marks(TrainingProcessCallback):
    """Notes when each round ends: processor and wall clock."""

    def __init__(self) -> None:
        self.processor: list[float] = []
        self.wall: list[float] = []
        self.losses: list[float] = []

    def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):  # type: ignore[no-untyped-def]
        """See pfl."""
        self.processor.append(time.process_time())
        self.wall.append(time.perf_counter())
        values = aggregate_metrics.to_simple_dict()
        self.losses.append(next(value for name, value in values.items() if name.startswith("Central val | loss")))
        return False, Metrics()


def run(path: Path) -> dict[str, object]:
    """Train, and return seconds a round from the end of the first round to the end of the last."""
    torch.set_num_threads(1)
    training, sites = load(path)
    np.random.seed(training.seed)  # noqa: NPY002 pfl draws from it
    torch.manual_seed(training.seed)
    module = Scored(sites[0].x.shape[1], training.hidden)
    data = {i: [torch.from_numpy(site.x), torch.from_numpy(site.y)] for i, site in enumerate(sites)}
    users = {i: PyTorchTensorDataset(tensors, user_id=str(i)) for i, tensors in data.items()}
    cohort = FederatedDataset(users.__getitem__, MinimizeReuseUserSampler(list(users)))
    tuning = PyTorchTensorDataset(
        [
            torch.from_numpy(np.concatenate([site.tuning_x for site in sites])),
            torch.from_numpy(np.concatenate([site.tuning_y for site in sites])),
        ]
    )
    model = PyTorchModel(module, torch.optim.SGD, torch.optim.SGD(module.parameters(), lr=1.0))
    marks = Marks()
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=training.rounds,
            evaluation_frequency=training.rounds + 1,
            train_cohort_size=len(sites),
            val_cohort_size=None,
        ),
        backend=SimulatedBackend(cohort, cohort, postprocessors=[WeightByDatapoints()]),
        model=model,
        model_train_params=_parameters(training),
        model_eval_params=NNEvalHyperParams(local_batch_size=None),
        callbacks=[CentralEvaluationCallback(tuning), marks],
        send_metrics_to_platform=False,
    )
    rounds = training.rounds - 1
    return {
        "processor_s_per_round": (marks.processor[-1] - marks.processor[0]) / rounds,
        "wall_s_per_round": (marks.wall[-1] - marks.wall[0]) / rounds,
        "tuning_loss": marks.losses[-1],
    }


def _parameters(training: Training) -> NNTrainHyperParams:
    return NNTrainHyperParams(
        local_num_epochs=training.epochs,
        local_learning_rate=training.step_size,
        local_batch_size=training.batch_size,
    )


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]))))
