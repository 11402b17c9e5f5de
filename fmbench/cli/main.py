"""The program ``fmbench``: all commands, and the exit code of each kind of error."""

import contextlib
import functools
import inspect
import itertools
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

import fmbench
from fmbench.cli import inspection, project, sharing, stages, tables
from fmbench.cli.next_command import next_command
from fmbench.cli.output import echo, open_streams
from fmbench.config.plugins import reason
from fmbench.errors import CheckpointError, ConfigError, DataError, FmbenchError, LockedError
from fmbench.system.progress import tell, write_note
from fmbench.system.usage import usage

HELP = """A benchmark of flow matching and diffusion. `snakemake --cores all` runs it; a command here looks at a config or at
results, or runs one stage.

Exit codes: 0 done (also if a training diverged, since that is a result); 2 the config or the command is wrong;
3 a file is missing, damaged or does not fit; 4 another process is doing the same work.

`fmbench --install-completion` makes the shell complete commands, options and names of figures.
"""
COMMANDS = {
    "Before and during a run": (*project.BEGIN, *inspection.RUN, *project.WATCH),
    "Look at results": tables.COMMANDS,
    "Share results": sharing.SHARE,
    "Administer": (*inspection.ADMIN, *sharing.ADMIN),
    "Stages, which the workflow calls": (*stages.COMMANDS, *sharing.STAGES),
}


def _unwrapped(text: str | None) -> str:
    """Return a help text with each paragraph on one line, which typer then wraps to the terminal."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in inspect.cleandoc(text or "").split("\n\n"))


def _ends_by_itself(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command that code of a plug-in cannot end: ``sys.exit(0)`` in a network would count as a finished job.

    When the command is done, the time and the memory that it took are in its log.
    """

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        began = time.monotonic()
        try:
            command(*arguments, **options)
            if os.environ.get("RANK", "0") == "0":  # of several processes, the first one
                _append_to_log(usage(time.monotonic() - began))
        except (Exception, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise ConfigError(f"a plug-in or a library ended the command: {reason(error)}") from error

    return run


EXIT_CODES: dict[type[FmbenchError], int] = {ConfigError: 2, DataError: 3, CheckpointError: 3, LockedError: 4}

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=_unwrapped(HELP))
for _panel, _commands in COMMANDS.items():
    for _command in _commands:
        app.command(help=_unwrapped(_command.__doc__), rich_help_panel=_panel)(_ends_by_itself(_command))


def _show_version(wanted: bool) -> None:
    if wanted:
        echo(f"fmbench {fmbench.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="print the version and exit", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line and exit.

    An error's message goes to standard error and to the end of the command's log, which Snakemake shows for a failed job.
    """
    open_streams()
    try:
        sys.path.append(_current_folder())  # where `python -m fmbench`, and so Snakemake's jobs, also find a user's plug-ins
        app(prog_name="fmbench")
    except Exception as error:
        message, code = _describe(error)
        _append_to_log(message or traceback.format_exc().rstrip())
        if not message:
            raise
        tell(message)
        sys.exit(code)


def _current_folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # torch ends a process that has none
        raise ConfigError("the current folder does not exist any more; change to another folder (cd) and try again") from None


def _describe(error: Exception) -> tuple[str, int]:
    """Return an error's message and exit code. An unexpected error has no message: it is shown with its traceback."""
    if isinstance(error, FmbenchError):
        code = next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 1)
        return f"fmbench: error: {error}{next_command(error, sys.argv[1:])}", code
    if os.environ.get("FMBENCH_DEBUG"):
        return "", 1
    if isinstance(error, ValueError):
        return f"fmbench: error: {error} (FMBENCH_DEBUG=1 shows where)", 2
    if isinstance(error, MemoryError):
        what = f" ({error})" if str(error) else ""
        return f"fmbench: error: there is not enough memory{what}; make batch sizes or data sets smaller", 3
    if isinstance(error, OSError) and error.errno is not None:
        remedy = "Finished work is kept; remove the cause (a full disk, a missing permission) and run the command again"
        return f"fmbench: error: {error}. {remedy}", 3
    return "", 1


def _append_to_log(text: str) -> None:
    """Append to the file of ``--log``, which is read from the arguments: the error may come before the command has opened it."""
    arguments = sys.argv[1:]
    logs = [value for option, value in itertools.pairwise(arguments) if option == "--log"]
    logs += [option.removeprefix("--log=") for option in arguments if option.startswith("--log=")]
    with contextlib.suppress(OSError):  # the error itself may be a full disk
        for path in map(Path, logs[-1:]):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "a", encoding="utf-8") as log:
                write_note(log, text)
