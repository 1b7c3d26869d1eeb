"""Pieces of work side by side: Ray core tasks, or one after another in this process.

Ray only schedules. What is done already is known from the store of records, never from Ray's state, so a killed grid
goes on where it stopped. Worker processes are reused; each holds one core and one thread.
"""

import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from bench import environment
from sites.errors import InputError

Piece = TypeVar("Piece")
Result = TypeVar("Result")
Report = Callable[[Any], None]

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """What became of the piece at `index`: a result, or the error and its traceback."""

    index: int
    result: Result | None
    error: str | None = None
    trace: str | None = None
    wall_s: float = 0.0


class Grid:
    """A place to work: this process, or a Ray session that lasts as long as the `with` block.

    Args:
        jobs: Pieces at a time on this machine. With 1 and no address there is no Ray at all.
        address: A Ray cluster's address, or None for a Ray of our own.
    """

    def __init__(self, jobs: int, address: str | None = None) -> None:
        self._jobs, self._address = jobs, address
        self._ray: Any = None
        self._environment: dict[str, str] = {}

    def __enter__(self) -> Self:
        if self._jobs > 1 or self._address is not None:
            self._environment = dict(os.environ)
            try:
                self._ray = _session(self._jobs, self._address)
            except BaseException:
                self._restore()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ray is not None:
            self._ray.shutdown()
            self._restore()

    def _restore(self) -> None:
        """Ray's processes take their environment from this one's, which is as it was when they are gone."""
        os.environ.clear()
        os.environ.update(self._environment)

    def run(
        self,
        work: Callable[[Piece, Report], Result],
        pieces: Sequence[Piece],
        on_report: Callable[[int, Any], None] = lambda _index, _report: None,
    ) -> Iterator[Outcome[Result]]:
        """Yield an outcome for each piece as it ends; one that fails does not stop the others.

        Args:
            work: Called with a piece and with a function that takes what it has to report on the way. A module-level
                function, importable by the workers.
            pieces: What there is to do; small, since each travels to a worker.
            on_report: Is told what piece `index` reports; None when it begins.
        """
        if self._ray is None:
            yield from _one_by_one(work, pieces, on_report)
        else:
            yield from _with_ray(self._ray, work, pieces, on_report)


def _attempt(index: int, work: Callable[[Piece, Report], Result], piece: Piece, report: Report) -> Outcome[Result]:
    started = time.perf_counter()
    try:
        result = work(piece, report)
    except Exception as error:
        message = str(error) or type(error).__name__
        return Outcome(index, None, message, traceback.format_exc(), time.perf_counter() - started)
    return Outcome(index, result, wall_s=time.perf_counter() - started)


def _one_by_one(
    work: Callable[[Piece, Report], Result], pieces: Sequence[Piece], on_report: Callable[[int, Any], None]
) -> Iterator[Outcome[Result]]:
    for index, piece in enumerate(pieces):
        on_report(index, None)
        yield _attempt(index, work, piece, lambda report, index=index: on_report(index, report))  # type: ignore[misc]


class _Mailbox:
    """Holds what the workers report until the driver asks."""

    def __init__(self) -> None:
        self.reports: list[tuple[int, Any]] = []

    def put(self, index: int, report: Any) -> None:
        self.reports.append((index, report))

    def drain(self) -> list[tuple[int, Any]]:
        reports, self.reports = self.reports, []
        return reports


def _in_worker(index: int, work: Callable[[Piece, Report], Result], piece: Piece, mailbox: Any) -> Outcome[Result]:
    environment.prepare()
    mailbox.put.remote(index, None)
    return _attempt(index, work, piece, lambda report: mailbox.put.remote(index, report))


def _session(jobs: int, address: str | None) -> Any:
    os.environ.update(environment.for_workers())
    on_sigterm = signal.getsignal(signal.SIGTERM)
    import ray

    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address is None:
        os.environ.update(environment.CLOSED_PROXY)
        ray.init(num_cpus=jobs, object_store_memory=256 * 2**20, include_dashboard=False, **quiet)
    else:
        try:
            _knock(address)
            ray.init(address=address, runtime_env={"env_vars": environment.for_workers()}, **quiet)
        except (OSError, ValueError) as error:
            raise InputError(
                f"found no Ray cluster at {address!r} ({error}); expected that of one that runs: HOST:PORT or auto"
            ) from error
    if on_sigterm is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray has put its own in its place
    return ray


def _knock(address: str) -> None:
    """Raise at once where nothing listens; Ray would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and "://" not in address:
        socket.create_connection((host, int(port)), timeout=10).close()


def _with_ray(
    ray: Any,
    work: Callable[[Piece, Report], Result],
    pieces: Sequence[Piece],
    on_report: Callable[[int, Any], None],
) -> Iterator[Outcome[Result]]:
    mailbox = ray.remote(num_cpus=0)(_Mailbox).remote()
    task = ray.remote(num_cpus=1, max_retries=1)(_in_worker)
    pending = {task.remote(index, work, piece, mailbox): index for index, piece in enumerate(pieces)}
    while pending:
        done, _ = ray.wait(list(pending), timeout=POLL_SECONDS)
        for index, report in ray.get(mailbox.drain.remote()):
            on_report(index, report)
        for reference in done:
            index = pending.pop(reference)
            try:
                yield ray.get(reference)
            except ray.exceptions.RayError as error:
                yield Outcome(index, None, f"the worker process died: {str(error).splitlines()[0]}", str(error))
