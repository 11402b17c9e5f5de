"""A Slurm cluster of one node on the loopback, for tests: munge, slurmctld and slurmd from the packages of the system."""

import contextlib
import os
import pwd
import secrets
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import slurm_accounting
from daemons import find, logs, missing, start, wait
from mlflow_server import free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "sinfo")
"""The programs that are needed. Debian has them in the packages munge, slurmctld, slurmd and slurm-client."""


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

    def logs(self) -> str:
        """The ends of the logs of the daemons."""
        return logs(self.folder)


def require(accounting: bool) -> None:
    """Skip the test where a program is missing, or where it may not start the daemons."""
    if absent := missing(PROGRAMS):
        pytest.skip(f"no {absent}: install Slurm, on Debian by `apt-get install slurmctld slurmd slurm-client munge`")
    if os.geteuid() != 0:
        pytest.skip("only root can start the daemons of Slurm for a test")
    try:
        pwd.getpwnam("munge")
    except KeyError:
        pytest.skip("there is no user munge")
    if accounting:
        slurm_accounting.require()


@contextlib.contextmanager
def cluster(memory: int, accounting: bool) -> Iterator[Cluster]:
    """A cluster until the block ends; its daemons and their jobs are ended then.

    Args:
        memory: of its node, in MiB.
        accounting: by slurmdbd. Without it, ``sacct`` is installed but knows nothing.
    """
    with tempfile.TemporaryDirectory(prefix="fmbench-slurm-", dir="/tmp") as name, contextlib.ExitStack() as daemons:
        folder = Path(name)
        folder.chmod(0o755)
        munge, dbd = _munge(folder, daemons), free_port()
        storage = slurm_accounting.settings(dbd, munge) if accounting else {"AccountingStorageType": "accounting_storage/none"}
        (folder / "slurm.conf").write_text(_config(folder, munge, memory, storage))
        path = f"{_launcher(folder)}{os.pathsep}{os.environ['PATH']}"
        found = Cluster(folder, os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": path})
        if accounting:
            slurm_accounting.start_accounting(daemons, folder, munge, dbd, found.environment)

        def said(*command: str) -> str:
            return subprocess.run(command, env=found.environment, capture_output=True, text=True, timeout=60).stdout

        for daemon in ("slurmctld", "slurmd"):
            start(daemons, folder / f"{daemon}.log", [find(daemon), "-D", "-c"], found.environment)
        wait(lambda: "idle" in said("sinfo", "--noheader", "--format=%t"), folder)
        try:
            yield found
        finally:
            said("scancel", "--user=root")
            wait(lambda: not said("squeue", "--noheader"), folder)


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
    command = ["runuser", "-u", "munge", "--", find("munged"), "--foreground", *options]
    start(daemons, folder / "munged.log", command)
    wait((home / "socket").exists, folder)
    return home / "socket"


def _launcher(folder: Path) -> Path:
    """A folder with a ``srun`` that knows the config. Snakemake does not pass on the variable that says where it is."""
    script = folder / "bin" / "srun"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nSLURM_CONF={folder / "slurm.conf"} exec {find("srun")} "$@"\n')
    script.chmod(0o755)
    return script.parent


def _config(folder: Path, munge: Path, memory: int, storage: dict[str, object]) -> str:
    """The content of ``slurm.conf``."""
    host = socket.gethostname().split(".")[0]
    values = {
        "ClusterName": "fmbench",
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "SlurmctldPort": free_port(),
        "SlurmdPort": free_port(),
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
        "KillWait": 5,
        "MinJobAge": 7200,  # so that squeue shows all jobs of a test
        "ReturnToService": 2,
        "SlurmdParameters": "config_overrides",  # the node may have fewer processors than it says
    } | storage
    lines = [f"{key}={value}" for key, value in values.items()]
    lines.append(f"NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory={memory} State=UNKNOWN")
    lines.append("PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP")
    return "\n".join(lines) + "\n"
