"""What commands print: tables for people on standard output, or one JSON document with `--json`.

Progress and warnings go to standard error, so that standard output can be piped. Text that users or hospitals wrote
is escaped before rich sees it.
"""

import sys
from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.markup import escape
from rich.table import Table

out = Console(width=None if sys.stdout.isatty() else 160)
err = Console(stderr=True)


class Report(BaseModel):
    """What a command says, as `--json` prints it; `bench schema NAME` prints its JSON Schema."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def print_json(report: BaseModel) -> None:
    """Print one report as JSON on standard output."""
    sys.stdout.write(report.model_dump_json(indent=2) + "\n")


def print_table(
    title: str, header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = ()
) -> None:
    """Print a table; columns whose index is in `numbers` are set to the right. Cells are plain text."""
    table = Table(
        title=escape(title), title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False
    )
    for index, name in enumerate(header):
        table.add_column(escape(name), justify="right" if index in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    out.print(table)


def say(sentence: str) -> None:
    """One line for people on standard output."""
    out.print(escape(sentence), highlight=False)


def note(sentence: str) -> None:
    """One line on standard error: progress, a warning."""
    err.print(escape(sentence), highlight=False, soft_wrap=True)
