"""A program whose commands run in forks of a server, or by themselves: what ``fmbench`` is, in small.

``fork_jobs.py serve PARENT DESCRIPTOR`` is the server, ``fork_jobs.py starter FOLDER`` starts one and sleeps, and every other
word is a command.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from fmbench.system.forkserver import VARIABLE, Server, die_with_parent, run_forked
from fmbench.system.quick_exit import run_and_exit

prepared: list[str] = []


def work() -> None:
    """The job that ``sys.argv`` names."""
    command, *rest = sys.argv[1:]
    if command == "exit":
        sys.exit(int(rest[0]))
    elif command == "say":
        print("out", rest[0])
        print("err", os.environ["TMPDIR"], file=sys.stderr)
    elif command == "who":
        print(os.getppid(), os.getpgid(0), *prepared)
    elif command == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif command == "sleep":
        Path(rest[0]).write_text(str(os.getpid()))
        time.sleep(600)


def start(folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a server whose socket is in ``folder``, with variable :data:`VARIABLE` naming it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "jobs"))
        listener.listen()
        command = [sys.executable, __file__, "serve", str(os.getpid()), str(listener.fileno())]
        values = environment | {VARIABLE: str(folder / "jobs")}
        return subprocess.Popen(command, env=values, pass_fds=[listener.fileno()])


def serve() -> None:
    die_with_parent(int(sys.argv[2]), signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Server(socket.socket(fileno=int(sys.argv[3])), lambda arguments: prepared.append(arguments[1]), work).serve()


def main() -> None:
    if sys.argv[1] == "serve":
        serve()
    elif sys.argv[1] == "starter":
        server = start(Path(sys.argv[2]), dict(os.environ))
        Path(sys.argv[2], "server").write_text(str(server.pid))
        time.sleep(600)
    else:
        code = run_forked(sys.argv)
        sys.exit(99 if code is None else code)


if __name__ == "__main__":
    run_and_exit(main)
