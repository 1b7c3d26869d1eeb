"""The shared job in Flower's own simulation engine, as Flower's tutorials write it: `python flower_job.py JOB.npz`.

A ClientApp that trains with `torch.optim.SGD`, a ServerApp that starts Flower's FedAvg, `run_simulation`. The apps are
imported and not pickled, so that a worker reads the sites once; each site is given one processor, not Flower's
default of two, so that sites train side by side. Batches are drawn as FedWard draws them, so both train the same model
up to rounding (Flower adds up in float32, in the order in which replies arrive).
"""

import os

os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1", RAY_USAGE_STATS_ENABLED="0")

import json
import sys
import time
from functools import cache
from pathlib import Path

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from networks import network
from shared_job import Tensors, Training, load

from fedcore.streams import draw_seed

LOSS = torch.nn.functional.binary_cross_entropy_with_logits
JOB = "FEDWARD_PERF_JOB"

client = ClientApp()
server = ServerApp()


@cache
def _job() -> tuple[Training, list[Tensors], torch.nn.Module]:
    torch.set_num_threads(1)
    training, sites = load(Path(os.environ[JOB]))
    return training, sites, network(sites[0].x.shape[1], training.hidden)


@client.train()
def train(message: Message, context: Context) -> Message:
    """Train on the site's samples."""
    training, sites, model = _job()
    site = sites[int(context.node_config["partition-id"])]
    x, y = torch.from_numpy(site.x), torch.from_numpy(site.y)
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())  # type: ignore[union-attr]
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=training.step_size)
    number = int(str(message.content["config"]["server-round"]))
    order = torch.Generator().manual_seed(draw_seed(training.seed, "train", site.name, number))
    for _ in range(training.epochs):
        total = 0.0
        for index in torch.randperm(len(y), generator=order).split(training.batch_size):  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            loss = LOSS(model(x[index]), y[index])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(index)
    metrics = MetricRecord({"loss": total / len(y), "num-examples": len(y)})
    return Message(RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}), reply_to=message)


@client.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Log loss over the site's tuning samples."""
    _, sites, model = _job()
    site = sites[int(context.node_config["partition-id"])]
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())  # type: ignore[union-attr]
    model.eval()
    with torch.no_grad():
        loss = LOSS(model(torch.from_numpy(site.tuning_x)), torch.from_numpy(site.tuning_y)).item()
    metrics = MetricRecord({"loss": loss, "num-examples": len(site.tuning_y)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """All rounds of FedAvg; prints when the first began and the last ended."""
    training, sites, model = _job()
    torch.manual_seed(draw_seed(training.seed, "initial"))
    model = network(sites[0].x.shape[1], training.hidden)
    strategy = FedAvg(min_train_nodes=len(sites), min_evaluate_nodes=len(sites), min_available_nodes=len(sites))
    while len(list(grid.get_node_ids())) < len(sites):
        time.sleep(0.01)
    started = time.perf_counter()
    result = strategy.start(grid, ArrayRecord(model.state_dict()), num_rounds=training.rounds)
    seconds = time.perf_counter() - started
    losses = result.evaluate_metrics_clientapp
    report = {"rounds_s": seconds, "tuning_loss": losses[max(losses)]["loss"]}
    Path(os.environ[JOB]).with_suffix(".flower.json").write_text(json.dumps(report), encoding="utf-8")


def run(path: Path) -> None:
    """Simulate."""
    os.environ[JOB] = str(path)
    _, sites, _ = _job()
    run_simulation(
        server,
        client,
        num_supernodes=len(sites),
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": {"address": "local"}},
    )
    print(path.with_suffix(".flower.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    import flower_job  # by name, so that the apps travel as names

    flower_job.run(Path(sys.argv[1]))
