"""Progress of long work: a bar in a terminal, plain lines elsewhere, and always plain lines in the log file.

A terminal or a log takes any text (:func:`fmbench.errors.printable`). A terminal that takes none, because its window is closed or
its disk is full, ends no work: the log has every line too.
"""

import contextlib
import sys
import time
from pathlib import Path
from typing import IO, Literal, get_args

from fmbench.errors import printable

Mode = Literal["auto", "bar", "lines", "none"]
MODES: tuple[Mode, ...] = get_args(Mode)


def write_note(log: IO[str], text: str) -> None:
    """Write ``text`` to a log file, after the date and time."""
    log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {printable(text)}\n")
    log.flush()


def tell(text: str) -> None:
    """Write a line to standard error, if it takes one."""
    if sys.stderr is None:  # closed; print would take standard output instead
        return
    with contextlib.suppress(OSError, ValueError):  # a full disk, a closed window; a closed stream
        print(printable(text), file=sys.stderr, flush=True)


def _mode_here() -> Mode:
    if sys.stderr is None:
        return "none"
    return "bar" if sys.stderr.isatty() else "lines"


class Console:
    """Writes a stage's messages and progress to the terminal and to its log file.

    Args:
        label: what the work is, such as ``train digits/fm_ot/0``.
        mode: ``bar`` draws a bar; ``lines`` prints a line every ``interval`` seconds; ``none`` prints nothing; ``auto`` draws
            a bar on a terminal and prints lines elsewhere.
        log: a file to which every line is appended, in every mode.
        interval: seconds between two lines of progress.
    """

    def __init__(self, label: str, mode: Mode = "auto", log: Path | None = None, interval: float = 10.0) -> None:
        self.label, self.interval = label, interval
        self.mode = _mode_here() if mode == "auto" or sys.stderr is None else mode
        self.log: IO[str] | None = None
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            self.log = open(log, "a", encoding="utf-8")  # noqa: SIM115 - stays open until the process ends

    def say(self, message: str) -> None:
        """Write one line to the terminal (unless the mode is ``none``) and to the log."""
        line = f"{self.label}: {message}"
        if self.mode == "bar":
            from tqdm import tqdm

            with contextlib.suppress(OSError, ValueError):
                tqdm.write(printable(line), file=sys.stderr)
        elif self.mode == "lines":
            tell(line)
        self.note(line)

    def note(self, line: str) -> None:
        """Write one line to the log alone."""
        if self.log is not None:
            write_note(self.log, line)

    def progress(self, total: int, unit: str, start: int = 0) -> "Progress":
        """Return the progress of a piece of work of ``total`` units, of which ``start`` are already done."""
        return Progress(self, total, unit, start)


class Progress:
    """Shows how many units of a loop are done, the rate, the time left, and a few values."""

    def __init__(self, console: Console, total: int, unit: str, start: int) -> None:
        self.console, self.total, self.unit, self.start, self.done = console, total, unit, start, start
        self.began = self.shown = time.monotonic()
        self.bar = None
        if console.mode == "bar":
            from tqdm import tqdm

            with contextlib.suppress(OSError, ValueError):
                self.bar = tqdm(total=total, initial=start, unit=unit, desc=console.label, file=sys.stderr, dynamic_ncols=True)

    def update(self, done: int, **values: float) -> None:
        """Show that ``done`` units are done in total, with ``values`` next to it."""
        shown = {k: f"{v:.4g}" for k, v in values.items()}
        if self.bar is not None:
            with contextlib.suppress(OSError, ValueError):
                self.bar.set_postfix(shown, refresh=False)
                self.bar.update(done - self.done)
        self.done = done
        now = time.monotonic()
        if now - self.shown >= self.console.interval:
            self.shown = now
            rate = (done - self.start) / (now - self.began)
            left = (self.total - done) / rate if rate else float("inf")
            extra = "".join(f", {k} {v}" for k, v in shown.items())
            line = f"{self.console.label}: {done}/{self.total} {self.unit}{extra}, {rate:.3g} {self.unit}/s, {left:.0f} s left"
            if self.console.mode == "lines":
                tell(line)
            self.console.note(line)

    def close(self) -> None:
        """Finish the bar, if there is one."""
        if self.bar is not None:
            with contextlib.suppress(OSError, ValueError):
                self.bar.close()
