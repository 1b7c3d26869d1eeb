"""The `bench` command: parses, calls, and turns what went wrong into one sentence and an exit code.

Exit codes: 0 done, 1 some cells failed or an audit found more than is claimed, 2 unusable input, 130 interrupted. A
traceback is shown only with `--debug`.
"""

import os
import signal
import sys
import traceback
from importlib import metadata
from typing import Annotated

import click
import typer
import typer.core

from bench import environment, output
from bench.commands import audit, cohort, doctor, grid, look, privacy, site

typer.core.HAS_RICH = False  # with rich installed, typer 0.20 writes "\\[required]" even into plain help

_STOPPED = "interrupted; the same command goes on where it stopped"
DONE, FAILED, UNUSABLE, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    name="bench",
    help="Benchmarks of federated, privacy-preserving clinical machine learning.",
    epilog=(
        "Every command that prints a table takes --json. Exit codes: 0 done, 1 some cells failed or an audit found "
        "more than is claimed, 2 unusable input, 130 interrupted."
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        output.say(f"fedward {metadata.version('fedward')}")
        raise typer.Exit


@app.callback()
def main_options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
    _debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; anywhere in a line.")
    ] = False,
) -> None:
    """Benchmarks of federated, privacy-preserving clinical machine learning."""


app.command("run")(grid.run)
app.command("plan")(grid.plan)
app.command("cohort")(cohort.cohort)
app.command("list")(look.list_things)
app.command("show")(look.show)
app.command("status")(look.status)
app.command("audit")(audit.audit)
app.command("doctor")(doctor.doctor)
app.command("schema")(look.schema)
app.add_typer(site.app, name="site")
app.add_typer(privacy.app, name="privacy")


def _users_to_mend(error: Exception) -> str | None:
    """The sentence for the user; None: it is a fault of ours."""
    from leaderboard.record import RecordError
    from privacy.releases.sketches import ReleaseError
    from sites.errors import InputError

    if isinstance(error, InputError | RecordError | ReleaseError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return (
            f"{error.filename}: {error.strerror}; see whether the path is right, who may read and write there, and how "
            "much room is left"
        )
    return None


def _fail(message: str, code: int, *, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    sys.stderr.write(f"bench: {message}\n")
    return code


def run(arguments: list[str], *, debug: bool = False) -> int:
    """Run one command line and return its exit code."""
    try:
        code = app(args=arguments, standalone_mode=False)
        if code == INTERRUPTED:
            raise KeyboardInterrupt  # typer has turned it into this code
        return code if isinstance(code, int) else DONE
    except click.ClickException as error:
        error.show()
        return UNUSABLE
    except (click.Abort, KeyboardInterrupt):
        return _fail(_STOPPED, INTERRUPTED, debug=debug)
    except SystemExit:
        return DONE  # how rich and typer end where the reader of a pipe has seen enough, as `head` has
    except Exception as error:
        sentence = _users_to_mend(error)
        if sentence is not None:
            return _fail(sentence, UNUSABLE, debug=debug)
        return _fail(f"{type(error).__name__}: {error} (a fault of bench: --debug shows where)", FAILED, debug=debug)


def _interrupt(_number: int, _frame: object) -> None:
    """What SLURM and `timeout` send ends a command as Ctrl-C does."""
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line; what the console script calls."""
    environment.prepare()
    signal.signal(signal.SIGTERM, _interrupt)
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    code = run(arguments, debug="--debug" in sys.argv)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
