"""Flower's own simulation engine: the sites' app runs in Ray's actors, the coordinator's in a thread of one process.

That process is one of its own, since Flower's simulation claims a Ray for itself, and shuts it down when it ends. The
sites' samples are spooled to disk, since Flower unpickles the app, and what it closes over, for every message.
"""

import logging
import multiprocessing
import os
import pickle
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedcore.checkpoint import SITES, journal
from fedcore.client import client_app
from fedcore.desk import Desk, ledgers_of
from fedcore.environment import CLOSED_PROXY, SETTINGS
from fedcore.errors import EngineError, FederationError
from fedcore.guard import Guard
from fedcore.memory import SiteMemory
from fedcore.plan import plan_of
from fedcore.request import FederationRequest
from fedcore.rounds import OnRound
from fedcore.samples import SiteSamples
from fedcore.server import Outcome, federate
from privacy.ledger import Ledger
from privacy.terms import Terms
from sites.home import home


@dataclass(frozen=True)
class Spooled:
    """Opens a site's desk in whichever process a message reaches.

    Attributes:
        folder: where the samples lie, one file a site, numbered as Flower numbers its nodes.
        memories: where the sites remember, for each federation.
    """

    folder: Path
    memories: tuple[Path, ...]
    terms: tuple[tuple[Terms | None, int], ...]
    ledgers: Path | None
    guards: tuple[Guard | None, ...]

    def __call__(self, context: Context, federation: str) -> Desk:
        """See `fedcore.client.client_app`."""
        torch.set_num_threads(1)
        number = int(federation)
        partition = int(str(context.node_config["partition-id"]))
        terms, seed = self.terms[number]
        guard = self.guards[partition]
        return _desk(self.folder, partition, self.memories[number], federation, terms, seed, self.ledgers, guard)


@cache
def _samples(folder: Path, partition: int) -> SiteSamples:
    with (folder / f"{partition}.pickle").open("rb") as file:
        samples: SiteSamples = pickle.load(file)  # noqa: S301 - written by `run`, in a folder of its own
    return samples


@cache
def _desk(
    folder: Path,
    partition: int,
    memories: Path,
    federation: str,
    terms: Terms | None,
    seed: int,
    ledgers: Path | None,
    guard: Guard | None,
) -> Desk:
    samples = _samples(folder, partition)
    return Desk(samples, SiteMemory(memories, samples.site), terms, seed, ledgers, guard)


def run(
    training: Sequence[SiteSamples],
    requests: Sequence[FederationRequest],
    on_round: OnRound,
    folder: Path | None = None,
    ledgers: Path | None = None,
    guards: Mapping[str, Guard] | None = None,
    *,
    cores: int | None = None,
) -> tuple[list[Outcome], list[dict[str, SiteMemory]], list[dict[str, Ledger]]]:
    """Run federations of the same sites, one after another, in one simulation.

    Args:
        training: the sites' samples.
        requests: what is asked; no anchors.
        on_round: hears of each round as it ends.
        folder: where the checkpoint of the only request is kept.
        ledgers: where the sites' ledgers of the only request are kept.
        guards: by site, what its hospital's policy allows.
        cores: how many sites train at a time; default: one a core.

    Returns:
        The outcomes; what each site remembers of each federation; and its ledger, if it took part on terms.

    Raises:
        EngineError: the engine ended before the federation did; whatever a federation raises is raised here.
    """
    place = folder or home() / "checkpoints"  # patient data, which has one place, also when nobody is left to tidy up
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".spool-", dir=place) as name:
        spool = Path(name)
        for partition, samples in enumerate(training):
            with (spool / f"{partition}.pickle").open("wb") as file:
                pickle.dump(samples, file, protocol=pickle.HIGHEST_PROTOCOL)
        allowed = tuple((guards or {}).get(one.site) for one in training)
        kept = [folder] if folder is not None else [spool / f"federation-{n}" for n in range(len(requests))]
        outcomes = _apart(_Job(spool, tuple(kept), tuple(requests), cores or _cores(), ledgers, allowed), on_round)
        memories = [{one.site: SiteMemory(at / SITES, one.site) for one in training} for at in kept]
        desks = [
            [
                Desk(one, memory[one.site], request.privacy, request.seed, ledgers, guard)
                for one, guard in zip(training, allowed, strict=True)
                if one.site not in outcome.refused
            ]
            for request, memory, outcome in zip(requests, memories, outcomes, strict=True)
        ]
        kept_ledgers = [ledgers_of(some) for some in desks]
        detached = [{site: one.detached() for site, one in memory.items()} for memory in memories]
    return outcomes, detached, kept_ledgers


def _cores() -> int:
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class _Job:
    spool: Path
    folders: tuple[Path, ...]
    requests: tuple[FederationRequest, ...]
    cores: int
    ledgers: Path | None
    guards: tuple[Guard | None, ...]


def _apart(job: _Job, on_round: OnRound) -> list[Outcome]:
    """Run the job in a process of its own and pass on what it says."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    with _environment({**SETTINGS, **CLOSED_PROXY}):
        process = context.Process(target=_simulate, args=(theirs, job), daemon=False)
        process.start()
    theirs.close()
    outcomes: list[Outcome] = []
    try:
        while True:
            try:
                kind, what = ours.recv()
            except EOFError:
                break
            if kind == "round":
                on_round(what)
            elif kind == "outcome":
                outcomes.append(what)
            else:
                raise what
    finally:
        ours.close()  # it ends by itself: it is done, or finds nobody to tell
        process.join(timeout=30)
        if process.is_alive():
            process.terminate()
            process.join(timeout=10)
        if process.is_alive():
            process.kill()
            process.join()
    if len(outcomes) < len(job.requests):
        raise EngineError(f"Flower's simulation engine ended with code {process.exitcode} before the federation did")
    return outcomes


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """The environment with these changes inside, as it was outside; all else stays where it is for other threads."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _carried(error: Exception) -> Exception:
    """The error, or what can be carried of it to another process."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - what was dumped here
    except Exception:
        return FederationError(f"{type(error).__name__}: {error}")
    return error


def _simulate(connection: Connection, job: _Job) -> None:
    """In the process apart: all federations over one Grid."""
    from flwr.simulation import run_simulation

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches this process and Ray's too; who began this ends it
    logging.getLogger("flwr").setLevel(logging.ERROR)  # that `run_simulation` will go is no news for a user
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        torch.set_num_threads(1)
        logging.getLogger("flwr").setLevel(logging.WARNING)  # strategies log each step to the terminal
        try:
            for number, (request, folder) in enumerate(zip(job.requests, job.folders, strict=True)):
                training = [_samples(job.spool, partition) for partition in range(len(job.guards))]
                with journal(folder, request, training) as answered:
                    name = f"{number:03d}"  # as long as that of a federation by itself, for its bytes are counted
                    outcome = federate(
                        grid, plan_of(request), lambda report: connection.send(("round", report)), answered, name
                    )
                connection.send(("outcome", outcome))
        except BrokenPipeError:
            return
        except Exception as error:
            with suppress(BrokenPipeError):
                connection.send(("error", _carried(error)))

    terms = tuple((request.privacy, request.seed) for request in job.requests)
    memories = tuple(folder / SITES for folder in job.folders)
    sites = client_app(Spooled(job.spool, memories, terms, job.ledgers, job.guards))
    init: dict[str, Any] = {
        "address": "local",
        "num_cpus": job.cores,
        "include_dashboard": False,
        "log_to_driver": False,
        "logging_level": "ERROR",
    }
    run_simulation(
        server_app=server,
        client_app=sites,
        num_supernodes=len(job.guards),
        backend_config={"init_args": init, "client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
