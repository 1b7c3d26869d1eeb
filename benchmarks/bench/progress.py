"""Live progress on standard error; none of it where nobody watches or the output is to be JSON."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from bench.output import err, note
from leaderboard.record import Record

Tell = Callable[[str, float], None]


def is_live(*, quiet: bool) -> bool:
    """Whether somebody watches."""
    return not quiet and sys.stderr.isatty()


def _bars() -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=err, transient=True)


@contextmanager
def reading(*, quiet: bool) -> Iterator[Tell]:
    """A bar for reading exports: told what is done and the share of the work of one export."""
    if not is_live(quiet=quiet):
        yield lambda _what, _share: None
        return
    with _bars() as bars:
        bar = bars.add_task("", total=1.0)
        yield lambda what, share: bars.update(bar, description=escape(what), completed=share)


class Watch:
    """The cells of a run: one bar for all, one line for each that runs, one line printed for each that ended."""

    def __init__(self, names: Sequence[str], *, total_cells: int, quiet: bool) -> None:
        self._names = names
        self._quiet = quiet
        self._bars = _bars() if is_live(quiet=quiet) else None
        self._running: dict[int, TaskID] = {}
        self._done = 0
        self._started = time.perf_counter()
        self._cached = total_cells - len(names)
        self._all: TaskID | None = None

    def __enter__(self) -> Self:
        if self._bars:
            self._bars.start()
            self._all = self._bars.add_task("preparing", total=len(self._names))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()

    def preparing(self, done: int, total: int) -> None:
        """Samples of so many sites, tasks and representations are ready."""
        if self._bars and self._all is not None:
            self._bars.update(self._all, description=f"samples {done}/{total}")

    def report(self, index: int, report: Any) -> None:
        """A cell begins (None) or ended a round."""
        if not self._bars or self._all is None:
            return
        self._bars.update(self._all, description=f"{self._done}/{len(self._names)} cells ({self._cached} cached)")
        if index not in self._running:
            self._running[index] = self._bars.add_task(escape(self._names[index]), total=None)
        if report is not None:
            losses = [
                f"{what} {loss:.4f}"
                for what, loss in (("train", report.train_loss), ("tuning", report.tuning_loss))
                if loss is not None
            ]
            where = f" {report.site}" if report.site else ""
            text = f"{self._names[index]}{where}: setting {report.trial + 1}, round {report.round}, {', '.join(losses)}"
            self._bars.update(self._running[index], description=escape(text))

    def finished(self, index: int, record: Record) -> None:
        """A cell ended."""
        self._done += 1
        if self._bars and self._all is not None:
            self._bars.update(self._all, completed=self._done)
            if index in self._running:
                self._bars.remove_task(self._running.pop(index))
        if not self._quiet:
            note(
                f"{self._done:>3}/{len(self._names)} {self._names[index]}: "
                f"{_outcome(record)} ({record.cost.wall_s:.1f} s)"
            )


def _outcome(record: Record) -> str:
    if record.error is not None:
        return f"{record.status}: {record.error.message}"
    for metric in record.metrics:
        if metric.name == "auroc" and metric.scope.kind == "pooled":
            if metric.value is None:
                return f"AUROC suppressed: {metric.suppressed}"
            interval = f" [{metric.ci.low:.3f}, {metric.ci.high:.3f}]" if metric.ci else ""
            return f"AUROC {metric.value:.3f}{interval}"
    return "done"
