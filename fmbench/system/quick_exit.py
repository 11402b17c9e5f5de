"""The end of a process that has imported torch. Python would spend half a second on taking torch apart."""

import atexit
import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import NoReturn


def run_and_exit(work: Callable[[], object]) -> NoReturn:
    """Run ``work`` and end the process with its exit code, without the destructors of modules.

    Everything that asked to be run at the end is run, threads are waited for, and the standard streams are written out. The
    processes that :mod:`multiprocessing` forks end in the same way. A file that ``work`` leaves open must have been flushed.
    """
    code = _exit_code(work)
    threading._shutdown()  # type: ignore[attr-defined] # waits for threads and for the pools of concurrent.futures
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # a full disk; a closed stream; no stream
            code = code or 120  # as Python does
    os._exit(code)


def _exit_code(work: Callable[[], object]) -> int:
    """Run ``work`` and return the exit code that Python would end with. The traceback of an exception is shown."""
    try:
        work()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return (end.code or 0) & 0xFF
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
