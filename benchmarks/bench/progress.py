"""Live progress on standard error; none of it where nobody watches or the output is to be JSON."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Group
from rich.live import Live
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

if TYPE_CHECKING:
    from bench.plan import Cell

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
    """The cells of a run: one bar for all, one line for each that runs, one line printed for each that ended.

    What runs is told without a bar and with its news first, so that a narrow terminal cuts off what matters least.
    """

    def __init__(self, pending: "Sequence[Cell]", *, total_cells: int, quiet: bool) -> None:
        self._pending = pending
        self._quiet = quiet
        self._bars = _bars()
        self._lines = Progress(TextColumn("  {task.description}"), console=err)
        self._live = Live(Group(self._bars, self._lines), console=err, transient=True) if is_live(quiet=quiet) else None
        self._running: dict[int, TaskID] = {}
        self._done = 0
        self._cached = total_cells - len(pending)
        self._all: TaskID | None = None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
            self._all = self._bars.add_task("starting", total=None)
        elif not self._quiet:
            cells = "1 cell" if len(self._pending) == 1 else f"{len(self._pending)} cells"
            note(f"{cells} to run, {self._cached} cached; samples first")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def preparing(self, done: int, total: int) -> None:
        """Samples of so many sites, tasks and representations are ready."""
        if self._all is not None:
            self._bars.update(self._all, description=f"samples {done}/{total}", completed=done, total=total)

    def report(self, index: int, report: Any) -> None:
        """A cell begins (None) or ended a round."""
        if self._all is None:
            return
        if not self._running and not self._done:
            self._bars.reset(self._all, total=len(self._pending))
        self._show_done(self._all)
        asked = self._pending[index].spec
        what = f"{asked.model.name} {asked.strategy.name} seed {asked.seed}"
        if index not in self._running:
            self._running[index] = self._lines.add_task(escape(f"{what} ({asked.task.name})"), total=None)
        if report is not None:
            losses = [
                f"{what} {loss:.4f}"
                for what, loss in (("train", report.train_loss), ("tuning", report.tuning_loss))
                if loss is not None
            ]
            where = f" at {report.site}" if report.site else ""
            told = ", ".join([f"round {report.round}", *losses, f"setting {report.trial + 1}{where}"])
            self._lines.update(self._running[index], description=escape(f"{what}: {told} ({asked.task.name})"))

    def finished(self, index: int, record: Record) -> None:
        """A cell ended."""
        self._done += 1
        if self._all is not None:
            self._show_done(self._all)
            if index in self._running:
                self._lines.remove_task(self._running.pop(index))
        if not self._quiet:
            note(
                f"{self._done:>3}/{len(self._pending)} {self._pending[index].name}: "
                f"{_outcome(record)} ({record.cost.wall_s:.1f} s)"
            )

    def _show_done(self, bar: TaskID) -> None:
        of = f"{self._done}/{len(self._pending)} cells" + (f" ({self._cached} cached)" if self._cached else "")
        self._bars.update(bar, description=of, completed=self._done)


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
