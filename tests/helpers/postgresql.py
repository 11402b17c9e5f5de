"""A PostgreSQL database for tests, on the loopback, from the packages of the system."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow_server import free_port

USER = "postgres"


def programs() -> Path:
    """The folder of PostgreSQL's programs, or the test is skipped."""
    found = shutil.which("initdb")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin")) if found is None else [Path(found).parent]
    if not folders:
        pytest.skip("no PostgreSQL: install it, on Debian by `apt-get install postgresql`")
    return folders[-1]


@contextlib.contextmanager
def database() -> Iterator[str]:
    """A database server until the block ends. Yields the URI of its database. It refuses to run as root, so it gets a user."""
    where, port = programs(), free_port()
    as_user: list[str] = []
    with tempfile.TemporaryDirectory(prefix="fmbench-postgresql-", dir="/tmp") as folder:
        if os.geteuid() == 0:
            try:
                owner = pwd.getpwnam(USER)
            except KeyError:
                pytest.skip(f"PostgreSQL does not run as root, and there is no user {USER}")
            os.chown(folder, owner.pw_uid, owner.pw_gid)
            as_user = ["runuser", "-u", USER, "--"]
        data = f"{folder}/data"
        control = [*as_user, str(where / "pg_ctl"), "-D", data, "-w"]
        initialise = [*as_user, str(where / "initdb"), "-D", data, "-U", USER, "--auth=trust", "--no-sync"]
        subprocess.run(initialise, check=True, stdout=subprocess.DEVNULL, cwd="/")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        start = [*control, "-o", options, "-l", f"{folder}/log", "start"]
        subprocess.run(start, check=True, stdout=subprocess.DEVNULL, cwd="/")
        try:
            yield f"postgresql://{USER}@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=True, stdout=subprocess.DEVNULL, cwd="/")
