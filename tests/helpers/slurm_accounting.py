"""The accounting of the Slurm cluster of a test: slurmdbd, and MariaDB as its database, on the loopback."""

import contextlib
import os
import pwd
import secrets
import subprocess
from pathlib import Path

import pytest
from daemons import find, missing, start, wait
from mlflow_server import free_port

PROGRAMS = ("mariadbd", "mariadb-install-db", "slurmdbd", "sacctmgr", "sacct")
"""The programs that are needed. Debian has them in the packages mariadb-server, slurmdbd and slurm-client."""
OWNER = "mysql"
"""The user that the database runs as."""


def require() -> None:
    """Skip the test where a program or the database's user is missing."""
    if absent := missing(PROGRAMS):
        pytest.skip(f"no {absent}: install them, on Debian by `apt-get install slurmdbd mariadb-server`")
    try:
        pwd.getpwnam(OWNER)
    except KeyError:
        pytest.skip(f"there is no user {OWNER}")


def settings(port: int, munge: Path) -> dict[str, object]:
    """The lines of ``slurm.conf``. As on most clusters, a user without an account may not send jobs."""
    return {
        "AccountingStorageType": "accounting_storage/slurmdbd",
        "AccountingStorageHost": "127.0.0.1",
        "AccountingStoragePort": port,
        "AccountingStoragePass": munge,  # Slurm gives the name of munge's socket this way
        "AccountingStorageEnforce": "associations",
    }


def start_accounting(daemons: contextlib.ExitStack, folder: Path, munge: Path, port: int, environment: dict[str, str]) -> None:
    """Start the database and slurmdbd, which gives root an account.

    Args:
        daemons: its end ends both.
        folder: of the cluster, with its ``slurm.conf``.
        munge: the socket of munge.
        port: that slurmdbd listens on.
        environment: for programs of Slurm.
    """
    password = secrets.token_hex(16)
    values = {
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={munge}",
        "DbdHost": "localhost",
        "DbdPort": port,
        "SlurmUser": "root",
        "PidFile": folder / "slurmdbd.pid",
        "StorageType": "accounting_storage/mysql",
        "StorageHost": "127.0.0.1",
        "StoragePort": _start_database(daemons, folder, password),
        "StorageUser": "slurm",
        "StoragePass": password,
        "StorageLoc": "slurm",
    }
    config = folder / "slurmdbd.conf"
    config.touch(mode=0o600)
    config.write_text("".join(f"{key}={value}\n" for key, value in values.items()))
    start(daemons, folder / "slurmdbd.log", [find("slurmdbd"), "-D"], environment)

    def manage(*arguments: str) -> bool:
        command = ["sacctmgr", "--immediate", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, timeout=60).returncode == 0

    wait(lambda: manage("show", "cluster"), folder)
    assert manage("add", "cluster", "fmbench")


def _start_database(daemons: contextlib.ExitStack, folder: Path, password: str) -> int:
    """Start MariaDB with an empty database, and return its port."""
    home, port = folder / "mariadb", free_port()
    home.mkdir()
    owner, first = pwd.getpwnam(OWNER), home / "first.sql"
    os.chown(home, owner.pw_uid, owner.pw_gid)
    user = f"slurm@127.0.0.1 IDENTIFIED BY '{password}'"
    first.write_text(f"CREATE DATABASE slurm;\nGRANT ALL ON slurm.* TO {user};\n")
    options = [f"--datadir={home / 'data'}", f"--user={OWNER}"]
    log = folder / "mariadb-install.log"
    with open(log, "w") as stream:
        install = [find("mariadb-install-db"), "--no-defaults", "--skip-test-db", *options]
        assert subprocess.run(install, stdout=stream, stderr=stream).returncode == 0, log.read_text()
    options += [f"--socket={home / 'socket'}", f"--pid-file={home / 'pid'}", f"--port={port}", "--bind-address=127.0.0.1"]
    options += ["--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0", f"--init-file={first}"]
    log = folder / "mariadb.log"
    start(daemons, log, [find("mariadbd"), "--no-defaults", *options])
    wait(lambda: "ready for connections" in log.read_text(), folder)
    return port
