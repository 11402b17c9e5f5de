"""Starts the server that forks the jobs of a run. The Snakefile does so when the first job is about to start."""

import atexit
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from fmbench.system.forkserver import OFF, VARIABLE

THREADS = (
    *("OMP_NUM_THREADS", "GOTO_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
    *("VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS"),
)
"""Variables in which Snakemake tells a job its number of threads. Libraries read some of them when they are imported."""


def start_server(local: bool) -> None:
    """Start a server for jobs with one thread, and name it in the environment of all jobs. It ends with this process.

    Nothing is started if jobs run on other machines, if the system is not Linux, or if ``FMBENCH_FORKSERVER`` is ``off``.
    Then each job imports everything by itself.

    Args:
        local: whether jobs run on this machine.
    """
    if not local or sys.platform != "linux" or os.environ.get(VARIABLE) == OFF:
        return
    folder = Path(tempfile.mkdtemp(prefix="fmbench-"))  # no other user may enter it
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(str(folder / "jobs"))
        except OSError:  # the path of the folder for temporary files is too long for a socket
            return
        listener.listen(128)
        os.environ[VARIABLE] = str(folder / "jobs")
        command = [sys.executable, "-m", "fmbench.cli.server", str(os.getpid()), str(listener.fileno())]
        server = subprocess.Popen(command, env=os.environ | dict.fromkeys(THREADS, "1"), pass_fds=[listener.fileno()])
    atexit.register(_stop, server)


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    server.wait()
