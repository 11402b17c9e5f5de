"""A server that forks a process for each job of a run, so that all jobs share one import of torch.

A job is still a command of its own (``python -m fmbench ...``) with its own log, exit code and signals. If the variable
:data:`VARIABLE` names a server's socket, the command sends its arguments and standard streams there, waits, and ends with the
exit code of the forked process. The job runs in the command itself if there is no server, or if the server may not take it: the
job has another folder, Python or environment, such as another number of threads.

The processes end together. If the command dies, the server kills its job. If the server dies, the system kills the jobs. If the
process that started the server dies, the system ends the server.

The server imports modules and does nothing else, so it has one thread, and the fork is safe.
"""

import ctypes
import json
import os
import selectors
import signal
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from fmbench.system.quick_exit import run_and_exit

VARIABLE = "FMBENCH_FORKSERVER"
"""Names the socket of the server; ``off`` for no server."""
OFF = "off"
OWN = ("_", "OLDPWD", "PWD", "SHLVL", "TEMP", "TEMPDIR", "TMP", "TMPDIR")
"""Variables that may differ between a job and the server. The shell and Snakemake set them for each job."""
FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that a command passes on to its job. A terminal sends the others to both, since both are in one process group."""
FORKED = b"+"
_SIZE, _STATUS = struct.Struct("!I"), struct.Struct("!i")
_PR_SET_PDEATHSIG = 1  # of Linux's prctl.h
_PATIENCE = 10.0  # seconds in which a command must have sent its request


def surroundings() -> dict[str, Any]:
    """What a job and the server must have in common."""
    environment = {name: value for name, value in os.environ.items() if name not in OWN}
    sources = str(Path(__file__).resolve().parent)
    return {"folder": os.getcwd(), "python": [sys.prefix, sys.version, sources], "environment": environment}


def die_with_parent(parent: int, number: int) -> None:
    """Let the system send signal ``number`` to this process when its parent dies. Linux only.

    Raises:
        RuntimeError: the parent is dead already.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number))
    if os.getppid() != parent:
        raise RuntimeError("the process that started this one has ended")


# The command


def run_forked(arguments: Sequence[str]) -> int | None:
    """Run a command in a process that the server forks.

    Args:
        arguments: the command, with the program before it, as in ``sys.argv``.

    Returns:
        The exit code of that process, 128 + n if signal n ended it; None if no server takes the job.
    """
    address = os.environ.get(VARIABLE, OFF)
    if address == OFF:
        return None
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            own = {name: os.environ[name] for name in OWN if name in os.environ}
            request = json.dumps({"arguments": list(arguments), "surroundings": surroundings(), "own": own}).encode()
            connection.connect(address)
            socket.send_fds(connection, [_SIZE.pack(len(request))], [0, 1, 2])
            connection.sendall(request)
            if connection.recv(1) != FORKED:
                return None
        except OSError:
            return None
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the job gets it too
        for number in FORWARDED:
            signal.signal(number, lambda number, _: connection.send(bytes([number])))
        answer = _receive(connection, _STATUS.size)
    if len(answer) < _STATUS.size:
        return 128 + signal.SIGKILL  # the server died, and the job with it
    (code,) = _STATUS.unpack(answer)
    return code if code >= 0 else 128 - code


def _receive(connection: socket.socket, size: int) -> bytes:
    """``size`` bytes, or fewer if the other side ends before."""
    found = b""
    while len(found) < size:
        try:
            part = connection.recv(size - len(found))
        except ConnectionError:
            break
        if not part:
            break
        found += part
    return found


# The server


class Server:
    """Forks a process for each job that asks for one.

    Args:
        listener: a listening Unix socket.
        prepare: imports what a command with these arguments (``sys.argv``) needs. It is called in the server, before the fork.
        work: runs the command that is in ``sys.argv``. It is called in the fork.
    """

    def __init__(self, listener: socket.socket, prepare: Callable[[Sequence[str]], None], work: Callable[[], object]) -> None:
        self._listener, self._prepare, self._work = listener, prepare, work
        self._surroundings = surroundings()
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def serve(self) -> NoReturn:
        """Serve until a signal ends this process."""
        while True:
            for key, _ in self._selector.select():
                if self._selector.get_map().get(key.fd) is key:  # unless the event before it has ended this one
                    key.data()

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.settimeout(_PATIENCE)
        streams: list[int] = []
        try:
            size, streams, _, _ = socket.recv_fds(connection, _SIZE.size, 3)
            request = json.loads(_receive(connection, *_SIZE.unpack(size)))
            if request["surroundings"] != self._surroundings or len(streams) != 3:
                raise ValueError("a job with other surroundings")
            self._fork(connection, streams, request)
        except (OSError, ValueError, struct.error):
            connection.close()  # the command runs by itself
        finally:
            for stream in streams:
                os.close(stream)

    def _fork(self, connection: socket.socket, streams: Sequence[int], request: dict[str, Any]) -> None:
        self._prepare(request["arguments"])
        server, group = os.getpid(), os.getpgid(_peer(connection))
        pid = os.fork()
        if pid == 0:
            run_and_exit(lambda: self._run(connection, streams, request, (server, group)))
        process = os.pidfd_open(pid)
        connection.settimeout(None)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._signal(connection, process))
        self._selector.register(process, selectors.EVENT_READ, lambda: self._end(connection, process, pid))
        with suppress(OSError):
            connection.sendall(FORKED)

    def _run(self, connection: socket.socket, streams: Sequence[int], request: dict[str, Any], ids: tuple[int, int]) -> None:
        """The job, in the forked process."""
        server, group = ids
        connection.close()
        for key in self._selector.get_map().values():
            key.fileobj.close() if isinstance(key.fileobj, socket.socket) else os.close(key.fd)
        self._selector.close()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        die_with_parent(server, signal.SIGKILL)
        os.setpgid(0, group)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())  # type: ignore[union-attr]
        for name in OWN:
            os.environ.pop(name, None)
        os.environ.update(request["own"])
        sys.argv[:] = request["arguments"]
        self._work()

    def _signal(self, connection: socket.socket, process: int) -> None:
        """Pass a signal on. Kill the job whose command has died."""
        try:
            number = connection.recv(1)
        except OSError:
            number = b""
        signal.pidfd_send_signal(process, number[0] if number else signal.SIGKILL)
        if not number:
            self._selector.unregister(connection)

    def _end(self, connection: socket.socket, process: int, pid: int) -> None:
        """Tell the command how its job has ended."""
        _, status = os.waitpid(pid, 0)
        self._selector.unregister(process)
        os.close(process)
        with suppress(KeyError):  # the command has died before
            self._selector.unregister(connection)
        with suppress(OSError):
            connection.sendall(_STATUS.pack(os.waitstatus_to_exitcode(status)))
        connection.close()


def _peer(connection: socket.socket) -> int:
    """The number of the process at the other end."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", found)[0])
