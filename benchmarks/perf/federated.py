"""Measurements of federated training, in a process of their own: `python federated.py WHAT ARGUMENTS...` prints JSON.

    pairs JOB N                     FedWard's `inline` engine and the plain loop, turn by turn, N times
    alone JOB                       FedWard once
    grown SITES PARAMETERS ROUNDS   both, milliseconds a round
    save JOB PATH                   a job as a file, for the other frameworks

A JOB is heart, logistic or perceptron (`job_of`).
"""

import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from job import Job, embedded, heart, made_up
from networks import hidden_for
from plain_loop import Style, plain_loop
from shared_job import Tensors, Training, save

from fedcore.federation import FederationRequest, run_federation

FEATURES = 13


class Run(NamedTuple):
    """One training: processor seconds at the end of each round and in all, the same by the wall clock, the model."""

    processor: list[float]
    whole_processor: float
    wall: list[float]
    whole_wall: float
    arrays: dict[str, np.ndarray]
    tuning_loss: float

    @property
    def rounds(self) -> float:
        """Processor seconds from the end of the first round to the end of the last."""
        return self.processor[-1] - self.processor[0]


def inline(job: Job) -> Run:
    """FedWard, as a cell of a grid trains."""
    request = FederationRequest(
        model="job:MODEL",
        strategy="fedavg",
        rounds=job.training.rounds,
        settings=(job.setting,),
        seed=job.training.seed,
    )

    def train(on_round: Callable[[], None]) -> tuple[dict[str, np.ndarray], float]:
        result = run_federation(job.sites, request, on_round=lambda _: on_round())
        return dict(result.arrays), float(result.rounds[-1].tuning_loss or 0.0)

    return _timed(train)


def plain(job: Job, tensors: list[Tensors], *, style: Style = "plain") -> Run:
    """The plain loop."""

    def train(on_round: Callable[[], None]) -> tuple[dict[str, np.ndarray], float]:
        trained = plain_loop(job.training, tensors, on_round, style=style)
        return trained.arrays, trained.losses[-1][1]

    return _timed(train)


def _timed(train: Callable[[Callable[[], None]], tuple[dict[str, np.ndarray], float]]) -> Run:
    gc.collect()
    processor, wall = [], []

    def mark() -> None:
        processor.append(time.process_time())
        wall.append(time.perf_counter())

    began, began_wall = time.process_time(), time.perf_counter()
    arrays, loss = train(mark)
    return Run(processor, time.process_time() - began, wall, time.perf_counter() - began_wall, arrays, loss)


def job_of(name: str) -> Job:
    """A job by name."""
    if name == "heart":
        return heart()
    return embedded({"logistic": 0, "perceptron": 64}[name])


def pairs(name: str, repeats: str) -> dict[str, Any]:
    """Ratios of processor time, the median over pairs; one pair more goes before to warm up."""
    job = job_of(name)
    tensors = job.tensors()
    inline(job), plain(job, tensors)
    ours, loops, gathered, usual = [], [], [], []
    for number in range(int(repeats)):
        for turn in (0, 1) if number % 2 else (1, 0):
            ours.append(inline(job)) if turn else loops.append(plain(job, tensors))
        gathered.append(plain(job, tensors, style="gathered"))
        if number % 3 == 0:
            usual.append(plain(job, tensors, style="usual"))
    return {
        "job": name,
        "sites": len(tensors),
        "features": tensors[0].x.shape[1],
        "train_samples": sum(len(site.y) for site in tensors),
        "rounds": job.training.rounds,
        "ours_s": median(run.rounds for run in ours),
        "plain_s": median(run.rounds for run in loops),
        "plain_torch_optimizer_s": median(run.rounds for run in usual),
        "ratio": median(a.rounds / b.rounds for a, b in zip(ours, loops, strict=True)),
        "gathered_s": median(run.rounds for run in gathered),
        "gathered_ratio": median(a.rounds / b.rounds for a, b in zip(ours, gathered, strict=True)),
        "whole_ratio": median(a.whole_processor / b.whole_processor for a, b in zip(ours, loops, strict=True)),
        "ours_whole_s": median(run.whole_processor for run in ours),
        "largest_difference": difference(ours[-1].arrays, loops[-1].arrays),
        "tuning_losses": [ours[-1].tuning_loss, loops[-1].tuning_loss],
        "repeats": int(repeats),
    }


def difference(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    """The largest absolute difference of two models' parameters."""
    return max(float(np.abs(a[name] - b[name]).max()) for name in a)


def alone(name: str) -> dict[str, Any]:
    """One run of FedWard's, by the wall clock: what another framework's run is held against."""
    run = inline(job_of(name))
    rounds = len(run.wall) - 1
    return {
        "whole_s": run.whole_wall,
        "processor_s_per_round": run.rounds / rounds,
        "wall_s_per_round": (run.wall[-1] - run.wall[0]) / rounds,
        "tuning_loss": run.tuning_loss,
    }


def grown(sites: str, parameters: str, rounds: str) -> dict[str, Any]:
    """Milliseconds of processor time a round, with one step of 20 samples at each site in each round."""
    hidden = hidden_for(int(parameters), FEATURES)
    training = Training(hidden=hidden, rounds=int(rounds) + 1, batch_size=20)
    job = made_up(int(sites), train=20, tuning=max(20, 400 // int(sites)), features=FEATURES, training=training)
    tensors = job.tensors()
    ours, loops = [], []
    for _ in range(3):
        ours.append(inline(job))
        loops.append(plain(job, tensors))
    return {
        "sites": int(sites),
        "parameters": sum(value.size for value in ours[0].arrays.values()),
        "ours_ms": _milliseconds(ours),
        "plain_ms": _milliseconds(loops),
        "largest_difference": difference(ours[0].arrays, loops[0].arrays),
    }


def _milliseconds(runs: list[Run]) -> float:
    return float(np.median(np.concatenate([np.diff(run.processor) for run in runs])) * 1000)


def write(name: str, path: str) -> dict[str, Any]:
    """A job as a file."""
    job = job_of(name)
    save(Path(path), job.training, job.tensors())
    return {"path": path}


MEASUREMENTS: dict[str, Callable[..., dict[str, Any]]] = {
    "pairs": pairs,
    "alone": alone,
    "grown": grown,
    "save": write,
}


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, *arguments = sys.argv[1:]
    print(json.dumps(MEASUREMENTS[what](*arguments)))
