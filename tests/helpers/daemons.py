"""Daemons of the system for tests: found, started in the foreground with a log, and ended with the test."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

PATIENCE = 60
"""Seconds to wait for a daemon to be ready."""


def find(program: str) -> str | None:
    """Where a program is, or None. Debian has daemons in a folder that not every user has in the path."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def missing(programs: Iterable[str]) -> str:
    """The programs that are not installed, with commas."""
    return ", ".join(program for program in programs if find(program) is None)


def start(daemons: contextlib.ExitStack, log: Path, command: list, environment: dict[str, str] | None = None) -> None:
    """Start a daemon in the foreground. The end of ``daemons`` ends it."""
    with open(log, "w") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL)

    def end() -> None:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    daemons.callback(end)


def wait(ready: Callable[[], bool], folder: Path) -> None:
    """Wait until a daemon is ready. If it is not in time, the test fails with the logs of the folder."""
    deadline = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < deadline, f"a daemon is not ready{logs(folder)}"
        time.sleep(0.1)


def logs(folder: Path) -> str:
    """The ends of all logs of a folder."""
    return "".join(f"\n--- {log.name}\n{log.read_text()[-3000:]}" for log in sorted(folder.glob("*.log")))
