"""Options that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_OUT = Path("results/runs")
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Out = Annotated[Path, typer.Option("--out", help="Folder of the records.")]
