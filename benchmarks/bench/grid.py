"""Pieces of work side by side: Ray core tasks, or one after another in this process.

Ray only schedules. What is done already is known from the store of records, never from Ray's state, so a killed grid
goes on where it stopped. Worker processes are reused; each holds one core and one thread.

Whether a piece is tried again is decided here, not by Ray, which makes no difference between a machine that went away
and a piece that takes its process with it.
"""

import _thread
import os
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from bench import environment
from bench.session import knock, session
from sites.errors import InputError

Piece = TypeVar("Piece")
Result = TypeVar("Result")
Report = Callable[[Any], None]

POLL_SECONDS = 0.2
STOP_SECONDS = 10.0
"""What is running when the grid is left has so long to clear up behind itself."""
LOOK_SECONDS = 5.0
HEADLESS_SECONDS = 40.0
"""So long a cluster may be without its head, which may come back; after 60 Ray ends the driver."""
IDLE_SECONDS = 120.0
"""So long it may be without any processor: a node may be about to join."""
NODE_LOST_RETRIES = 4
CRASH_RETRIES = 1


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
        self._open = ExitStack()
        self._tasks: _Tasks | None = None

    def __enter__(self) -> Self:
        if self._jobs > 1 or self._address is not None:
            folder = self._open.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
            stop = Path(folder) / "stop" if self._address is None else None
            self._tasks = _Tasks(self._open.enter_context(session(self._jobs, self._address)), stop)
            self._open.callback(self._tasks.stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def run(
        self,
        work: Callable[[Piece, Report], Result],
        pieces: Sequence[Piece],
        on_report: Callable[[int, Any], None] = lambda _index, _report: None,
    ) -> Iterator[Outcome[Result]]:
        """Yield an outcome for each piece as it ends; one that fails does not stop the others.

        Args:
            work: Called with a piece and with a function that takes what it has to report on the way. A module-level
                function, importable by the workers, or a partial of one; it travels once, so it may hold what all
                pieces share.
            pieces: What there is to do, begun in this order; small, since each travels to a worker.
            on_report: Is told what piece `index` reports, though not all of what it reports at once; None when it
                begins.
        """
        if self._tasks is None:
            yield from _one_by_one(work, pieces, on_report)
        else:
            yield from self._tasks.run(work, pieces, on_report)


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
        self.reports: list[tuple[int, int, Any]] = []

    def put(self, run: int, index: int, report: Any) -> None:
        self.reports.append((run, index, report))

    def drain(self) -> list[tuple[int, int, Any]]:
        reports, self.reports = self.reports, []
        return reports


def _in_worker(
    run: int,
    index: int,
    work: Callable[[Piece, Report], Result],
    piece: Piece,
    mailbox: Any,
    folder: str,
    stop: Path | None,
) -> Outcome[Result]:
    os.chdir(folder)  # the user's own modules are looked for, and fingerprinted, in the current folder
    environment.prepare()
    mailbox.put.remote(run, index, None)
    told = -POLL_SECONDS

    def report(news: Any) -> None:
        nonlocal told
        if time.monotonic() - told >= POLL_SECONDS:  # nobody reads faster, and rounds may take milliseconds
            told = time.monotonic()
            mailbox.put.remote(run, index, news)

    try:
        if stop is not None and stop.exists():
            raise KeyboardInterrupt
        with _interrupted_by(stop):
            return _attempt(index, work, piece, report)
    except KeyboardInterrupt:
        return Outcome(index, None, "interrupted")


@contextmanager
def _interrupted_by(stop: Path | None) -> Iterator[None]:
    """Ctrl-C reaches what runs inside when this file is there.

    `ray.cancel` would do so as well; where the task ends at the same moment, Ray then ends the driver (a failed check
    in its task manager, seen with 2.55.1).
    """
    if stop is None:
        yield
        return
    over = threading.Event()

    def watch() -> None:
        while not stop.exists():
            if over.wait(POLL_SECONDS):
                return
        _thread.interrupt_main()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class _Tasks:
    """The pieces of a grid as tasks of Ray, one a processor."""

    def __init__(self, ray: Any, stop: Path | None) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        # Beside the driver: on another node it could be lost, and the grid with it.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._ray = ray
        self._stop = stop
        self._mailbox = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(_Mailbox).remote()
        self._task = ray.remote(num_cpus=1, max_retries=0)(_in_worker)
        self._pending: dict[Any, int] = {}
        self._letter: Any = None
        self._run = 0

    def run(
        self,
        work: Callable[[Piece, Report], Result],
        pieces: Sequence[Piece],
        on_report: Callable[[int, Any], None],
    ) -> Iterator[Outcome[Result]]:
        """See `Grid.run`."""
        ray, self._run = self._ray, self._run + 1
        shared, folder = ray.put(work), str(Path.cwd())

        def begin(index: int) -> None:
            task = self._task.remote(self._run, index, shared, pieces[index], self._mailbox, folder, self._stop)
            self._pending[task] = index

        for index in range(len(pieces)):
            begin(index)
        failures: Counter[tuple[int, int]] = Counter()
        watchdog = _Watchdog(ray)
        while self._pending:
            done, _ = ray.wait(list(self._pending), timeout=POLL_SECONDS)
            self._pass_on(on_report)
            watchdog.work_goes_on() if done else watchdog.look()
            for reference in done:
                index = self._pending.pop(reference)
                try:
                    outcome: Outcome[Result] = ray.get(reference)
                except ray.exceptions.RayError as error:
                    retries, sentence = _death(ray, error)
                    failures[index, retries] += 1
                    if failures[index, retries] <= retries:
                        begin(index)
                        continue
                    outcome = Outcome(index, None, sentence, str(error))
                yield outcome

    def stop(self) -> None:
        """Interrupt what still runs, so that it clears up behind itself; what has not begun never does."""
        pending = list(self._pending)
        if self._stop is not None:  # all workers are on this machine
            self._stop.touch()
        else:
            for reference in reversed(pending):  # those that run come last, lest their places are taken
                self._ray.cancel(reference)
        if pending:
            self._ray.wait(pending, num_returns=len(pending), timeout=STOP_SECONDS)

    def _pass_on(self, on_report: Callable[[int, Any], None]) -> None:
        """Tell what has been reported; reports are only shown, so nothing is waited for, nor is a loss a failure."""
        self._letter = self._letter or self._mailbox.drain.remote()
        try:
            reports = self._ray.get(self._letter, timeout=POLL_SECONDS)
        except self._ray.exceptions.GetTimeoutError:
            return
        except self._ray.exceptions.RayError:
            reports = []
        self._letter = None
        for run, index, report in reports:
            if run == self._run:
                on_report(index, report)


def _death(ray: Any, error: Exception) -> tuple[int, str]:
    """How often a piece that ended so is tried again, and a sentence for when that did not help."""
    found = ray.exceptions
    if isinstance(error, found.OutOfMemoryError):
        return 0, "its worker process was killed because memory ran out; fewer --jobs leave more for each cell"
    if isinstance(error, found.NodeDiedError | found.ObjectLostError):
        return NODE_LOST_RETRIES, "each machine that ran it left the cluster meanwhile"
    if isinstance(error, found.WorkerCrashedError):
        return CRASH_RETRIES, "its worker process died, twice: it crashed, or the system killed it, as for memory"
    return 0, f"its worker process could not run it: {(str(error).strip() or type(error).__name__).splitlines()[-1]}"


class _Watchdog:
    """Notices that there is nothing left to wait for, where Ray would wait for ever or end this process."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._head = ray.get_runtime_context().gcs_address
        self._well = self._looked = time.monotonic()

    def work_goes_on(self) -> None:
        """Where something is done all is well, whatever was seen before."""
        self._well = time.monotonic()

    def look(self) -> None:
        """Look now and then.

        Raises:
            InputError: The cluster has had no head or no processor for a while.
        """
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        try:
            knock(self._head)
        except OSError:
            patience, missing = HEADLESS_SECONDS, f"the Ray cluster's head at {self._head} went away; start it"
        else:
            patience, missing = IDLE_SECONDS, "the Ray cluster has no processor; add a node with `ray start --address`"
            if self._ray.cluster_resources().get("CPU", 0) >= 1:
                self._well = now
        if now - self._well > patience:
            raise InputError(f"{missing}, and the same command goes on where it stopped")
