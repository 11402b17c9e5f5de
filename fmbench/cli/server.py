"""The process that forks the jobs of a run (:mod:`fmbench.system.forkserver`). It imports what the jobs' commands import."""

import gc
import importlib
import signal
import socket
import sys
from collections.abc import Sequence

from fmbench.cli.main import main
from fmbench.cli.output import open_streams
from fmbench.errors import FmbenchError
from fmbench.store.codehash import stage_module
from fmbench.store.provenance import commit, versions
from fmbench.system.forkserver import Server, die_with_parent
from fmbench.system.quick_exit import run_and_exit

OTHERS = {"figure": "fmbench.report.figures", "mlflow": "fmbench.stages.mlflow_summary"}
"""Modules of the commands that are not called like their stage."""
LATE = {
    "features": ("torch._dynamo",),
    "train": ("torch._dynamo", "pandas"),
    "pairs": ("pandas",),
    "sample": ("pandas",),
    "trajectory": ("pandas",),
    "figure": ("fmbench.store.unpack", "matplotlib.backends.backend_pdf", "matplotlib.backends.backend_svg"),
}
"""Modules that these commands import in the middle of their work. An optimiser imports torch._dynamo at its first step. pyarrow
imports pandas when it gets an array."""


def prepare(arguments: Sequence[str]) -> None:
    """Import what a command needs, once for all jobs that come after."""
    command = arguments[1].replace("-", "_") if len(arguments) > 1 else ""
    try:
        importlib.import_module(OTHERS[command] if command in OTHERS else stage_module(command))
        for module in LATE.get(command, ()):
            importlib.import_module(module)
    except (ImportError, ValueError, FmbenchError):
        pass  # the command itself says what is wrong
    commit(), versions()  # of the code that is running here
    gc.freeze()  # objects that all jobs share stay in shared memory


def serve(parent: int, descriptor: int) -> None:
    """Serve on an inherited socket until the process ``parent`` ends."""
    open_streams()
    die_with_parent(parent, signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; the jobs get it too
    Server(socket.socket(fileno=descriptor), prepare, main).serve()


if __name__ == "__main__":
    run_and_exit(lambda: serve(int(sys.argv[1]), int(sys.argv[2])))
