"""Python imports this module at its start where ``benchmarks/pipeline.py`` says so: it times the imports of the process.

At its end a process adds a line to the file ``$FMBENCH_PROCESS_METER``: its command, its number, its processor time in seconds,
the part of it before this module and in import statements, and its memory. A forked process counts from its fork on.
"""

import atexit
import builtins
import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

METER = os.environ.get("FMBENCH_PROCESS_METER")


class Meter:
    """The processor time that the main thread of this process has spent on imports."""

    def __init__(self) -> None:
        self.imports, self.inside = time.process_time(), False

    def forked(self) -> None:
        """Begin again, in a child that another process has imported the modules for."""
        self.imports, self.inside = 0.0, False

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, an import, with its time added to the meter unless another import has called it."""

        def call(*arguments: Any, **options: Any) -> Any:
            if self.inside or threading.current_thread() is not threading.main_thread():
                return function(*arguments, **options)
            self.inside, start = True, time.thread_time()
            try:
                return function(*arguments, **options)
            finally:
                self.imports += time.thread_time() - start
                self.inside = False

        return call

    def write(self) -> None:
        """Add the line of this process."""
        line = {
            "command": " ".join(sys.argv[:3]),
            "pid": os.getpid(),
            "process_s": time.process_time(),
            "import_s": self.imports,
            "memory_mib": peak_memory(),
        }
        with open(str(METER), "a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


def peak_memory() -> float:
    """The most memory that this process has had, in MiB. The kernel's count for a caller (``ru_maxrss``) goes on after exec."""
    with open("/proc/self/status", encoding="utf-8") as stream:
        return next(int(line.split()[1]) for line in stream if line.startswith("VmHWM:")) / 1024


if METER:
    meter = Meter()
    builtins.__import__ = meter.timed(builtins.__import__)
    importlib.import_module = meter.timed(importlib.import_module)
    os.register_at_fork(after_in_child=meter.forked)
    atexit.register(meter.write)
