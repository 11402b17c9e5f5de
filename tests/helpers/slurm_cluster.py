"""A Slurm cluster of one node on the loopback, for tests: munge, slurmctld and slurmd from the packages of the system."""

import contextlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "sinfo")
"""The programs that are needed. Debian has them in the packages munge, slurmctld, slurmd and slurm-client."""
PATIENCE = 120
"""Seconds to wait for a program to be ready."""


@dataclass(frozen=True)
class Cluster:
    """A running cluster.

    Attributes:
        folder: its files, with the logs of all daemons.
        environment: for programs that use the cluster.
    """

    folder: Path
    environment: dict[str, str]

    def run(self, *command: str) -> str:
        """The output of a command such as ``squeue``."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}{self.logs()}"
        return done.stdout

    def cancel(self) -> None:
        """End all jobs."""
        subprocess.run(["scancel", "--user=root"], env=self.environment, capture_output=True, timeout=60)

    def logs(self) -> str:
        """The ends of the logs of the daemons."""
        return "".join(f"\n--- {log.name}\n{log.read_text()[-3000:]}" for log in sorted(self.folder.glob("*.log")))


def require() -> None:
    """Skip the test where a program is missing, or where it may not start the daemons."""
    missing = [program for program in PROGRAMS if _find(program) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: install Slurm, on Debian by `apt-get install slurmctld slurmd slurm-client munge`")
    if os.geteuid() != 0:
        pytest.skip("only root can start the daemons of Slurm for a test")
    try:
        pwd.getpwnam("munge")
    except KeyError:
        pytest.skip("there is no user munge")


@contextlib.contextmanager
def cluster(memory: int, cpus: int = 2) -> Iterator[Cluster]:
    """A cluster without accounting until the block ends; its daemons and their jobs are ended then.

    Args:
        memory: of the node, in MiB.
        cpus: of the node. There may be fewer in the machine.
    """
    require()
    with tempfile.TemporaryDirectory(prefix="fmbench-slurm-", dir="/tmp") as name, contextlib.ExitStack() as daemons:
        folder = Path(name)
        folder.chmod(0o755)
        key = _munge(folder, daemons)
        (folder / "slurm.conf").write_text(_config(folder, key, memory, cpus))
        path = f"{_launcher(folder)}{os.pathsep}{os.environ['PATH']}"
        found = Cluster(folder, os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": path})
        daemons.callback(
            lambda: subprocess.run(["scancel", "--user=root"], env=found.environment, capture_output=True, timeout=60)
        )
        _start(daemons, folder, "slurmctld", [_find("slurmctld"), "-D", "-c"], found.environment)
        _start(daemons, folder, "slurmd", [_find("slurmd"), "-D", "-c"], found.environment)
        _wait(
            lambda: (
                "idle"
                in subprocess.run(
                    ["sinfo", "--noheader", "--format=%t"], env=found.environment, capture_output=True, text=True
                ).stdout
            ),
            found,
        )
        yield found


def _find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _munge(folder: Path, daemons: contextlib.ExitStack) -> Path:
    """Start munge with a key of its own, and return its socket."""
    home, owner = folder / "munge", pwd.getpwnam("munge")
    home.mkdir(mode=0o755)
    key = home / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    for path in (home, key):
        os.chown(path, owner.pw_uid, owner.pw_gid)
    where = {"socket": "socket", "key-file": "munge.key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    options = [f"--{option}={home / file}" for option, file in where.items()]
    _start(
        daemons, folder, "munged", ["runuser", "-u", "munge", "--", _find("munged"), "--foreground", *options], dict(os.environ)
    )
    deadline = time.monotonic() + PATIENCE
    while not (home / "socket").exists():
        assert time.monotonic() < deadline, (folder / "munged.log").read_text()
        time.sleep(0.05)
    return home / "socket"


def _start(daemons: contextlib.ExitStack, folder: Path, name: str, command: list, environment: dict[str, str]) -> None:
    """Start a daemon in the foreground, and end it with the block."""
    with open(folder / f"{name}.log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def end() -> None:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    daemons.callback(end)


def _wait(ready: Callable[[], bool], found: Cluster) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < deadline, f"the node is not idle{found.logs()}"
        time.sleep(0.2)


def _launcher(folder: Path) -> Path:
    """A folder with a ``srun`` that knows the config. Snakemake does not pass on the variable that says where it is."""
    script = folder / "bin" / "srun"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nSLURM_CONF={folder / "slurm.conf"} exec {_find("srun")} "$@"\n')
    script.chmod(0o755)
    return script.parent


def _config(folder: Path, munge: Path, memory: int, cpus: int) -> str:
    """The content of ``slurm.conf``."""
    host = socket.gethostname().split(".")[0]
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    values = {
        "ClusterName": "fmbench",
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "SlurmctldPort": ports[0],
        "SlurmdPort": ports[1],
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={munge}",
        "CredType": "cred/munge",
        "SlurmUser": "root",
        "SlurmdUser": "root",
        "StateSaveLocation": folder / "state",
        "SlurmdSpoolDir": folder / "spool",
        "SlurmctldPidFile": folder / "slurmctld.pid",
        "SlurmdPidFile": folder / "slurmd.pid",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "MailProg": "/bin/true",
        "MpiDefault": "none",
        "SwitchType": "switch/none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_CPU_Memory",
        "JobAcctGatherType": "jobacct_gather/none",
        "AccountingStorageType": "accounting_storage/none",
        "KillWait": 5,
        "MinJobAge": 7200,  # so that squeue shows all jobs of a test
        "ReturnToService": 2,
        "SlurmdParameters": "config_overrides",  # the node may have fewer processors than it says
    }
    lines = [f"{key}={value}" for key, value in values.items()]
    lines.append(f"NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN")
    lines.append("PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP")
    return "\n".join(lines) + "\n"
