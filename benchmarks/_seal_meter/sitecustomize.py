"""Python imports this module at its start where ``benchmarks/seals.py`` says so: it times all hashing of files.

At its end a process adds a line to the file ``$FMBENCH_SEAL_METER``: its command, its processor time in seconds, the part
of it in which it hashed files, the bytes that it hashed, and the number of files.
"""

import atexit
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

BEGAN = time.process_time()
METER = os.environ.get("FMBENCH_SEAL_METER")


class Meter:
    """What this process has hashed so far."""

    def __init__(self) -> None:
        self.seconds, self.bytes, self.files = 0.0, 0, 0

    def timed(self, function: Callable[..., Any], size: Callable[[Any], int]) -> Callable[..., Any]:
        """``function``, whose first argument is a file of ``size`` bytes, with its time added to the meter."""

        def call(file: Any, *rest: Any) -> Any:
            start = time.process_time()
            try:
                return function(file, *rest)
            finally:
                self.seconds += time.process_time() - start
                self.bytes += size(file)
                self.files += 1

        return call

    def write(self) -> None:
        """Add the line of this process."""
        line = {
            "command": " ".join(sys.argv[:2])[-60:],
            "process_s": time.process_time() - BEGAN,
            "hash_s": self.seconds,
            "bytes": self.bytes,
            "files": self.files,
        }
        with open(str(METER), "a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


if METER:
    from fmbench.store import files, seal

    meter = Meter()
    seal._read = meter.timed(seal._read, lambda stream: stream.seek(0, os.SEEK_END))
    files.sha256 = meter.timed(files.sha256, lambda path: path.stat().st_size)
    atexit.register(meter.write)
