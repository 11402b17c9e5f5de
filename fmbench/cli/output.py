"""The standard streams of the command line: any text can be written to them, and they are always open."""

import contextlib
import io
import os
import sys

import typer

from fmbench.errors import printable


def echo(text: str, newline: bool = True) -> None:
    """Write ``text``, which may come from a stranger's file, to standard output."""
    typer.echo(printable(text), nl=newline)


def open_streams() -> None:
    """Make the standard streams take any text, in any encoding, and open those that are closed on nothing.

    Without this, the first file that a command opens would get the number of a closed stream, and with it what libraries print.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - stays open until the process ends
        elif isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(OSError):  # what is waiting to be written, on a full disk
                stream.reconfigure(errors="backslashreplace")
