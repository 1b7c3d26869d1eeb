"""Options that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_OUT = Path("results/runs")
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Out = Annotated[
    Path,
    # No shell expands the ~ of `--out=~/records`.
    typer.Option("--out", help="Folder of the records.", callback=Path.expanduser),
]
