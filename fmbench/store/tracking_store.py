"""MLflow's sqlite database: made whole or not at all, and set aside by itself when it is broken.

MLflow makes its tables in many separate steps. A kill or a full disk between two of them leaves a database that MLflow can never
open again. fmbench therefore makes a new database under another name and moves it into place whole.

A database that cannot be used is renamed to ``mlflow.db.broken-1`` (or the next free number), together with its log files, and a
new one takes its place. Nothing is overwritten or deleted. A full disk, a database that another process locks and a folder
without write permission say nothing about the file: they are errors, and the file stays.
"""

import os
import re
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from fmbench.errors import first_line
from fmbench.store.tracking_check import BrokenDatabaseError, connect, examine, passing

DATABASE = "mlflow.db"
ARTIFACTS = "artifacts"
BROKEN, OUTDATED = "broken", "outdated"
MAKING = ".fmbench-making"
"""The folder in which a database is made. It is used under the lock only, so a process that was killed left what is in it."""
READY = "ready.db"
"""The name of a database in :data:`MAKING` that is whole."""
COMPANIONS = ("", "-wal", "-shm", "-journal")
"""The endings of the files of a sqlite database."""
_ASIDE = re.compile(rf"({re.escape(DATABASE)}|{ARTIFACTS})\.({BROKEN}|{OUTDATED})-\d+({'|'.join(map(re.escape, COMPANIONS))})")
QUIET = 5.0
"""Seconds since the last write after which no other program, such as MLflow's server, is still making a database's tables."""
PATIENCE = 60.0
"""The most seconds to wait for such a program."""


def make_usable(folder: Path, check_up_to: float, warn: Callable[[str], None]) -> bool:
    """Make ``mlflow.db`` in a folder a database that the installed MLflow can use, and return whether it is a new file.

    The caller holds the lock of the store.

    Args:
        check_up_to: the largest size (bytes) of a database that is read whole to check it. Of a larger one only the header and
            the tables are checked, which takes milliseconds.
        warn: called with one message for each file that is set aside.

    Raises:
        Exception: nothing can be said about the database, or no new one can be made: the disk is full, another process locks the
            database, the folder cannot be written. Then no file was set aside.
    """
    database, making = folder / DATABASE, folder / MAKING
    if os.path.lexists(folder / ARTIFACTS) and not (folder / ARTIFACTS).is_dir():
        aside = set_aside(folder / ARTIFACTS, BROKEN)
        warn(f"warning: {folder / ARTIFACTS} is not a folder, so MLflow cannot use it; fmbench renamed it to {aside.name}")
    if not os.path.lexists(database):
        if not (making / READY).is_file():
            _make(making)
        _move_into_place(making, database, BROKEN)  # sets aside log files whose database is gone
        return True
    try:
        found = _schema_of(database, check_up_to)
        if found == _newest_schema():
            return False
        _update(making, database, found)
    except BrokenDatabaseError as error:
        _make(making)
        aside = _move_into_place(making, database, BROKEN)
        warn(
            f"warning: MLflow's database {database} cannot be used: {error}. fmbench renamed it to {aside.name} and made a new "
            "one. `fmbench mlflow-rebuild` writes all trainings of the results into it"
        )
    else:
        aside = _move_into_place(making, database, OUTDATED)
        warn(
            f"warning: MLflow's database {database} was made by an older MLflow. fmbench updated a copy of it, which takes its "
            f"place; the old one is now {aside.name}"
        )
    return True


def replace_broken(folder: Path, reason: str, warn: Callable[[str], None]) -> None:
    """Set a database aside that passed all checks and with which MLflow fails nevertheless. The caller holds the lock."""
    _make(folder / MAKING)
    aside = _move_into_place(folder / MAKING, folder / DATABASE, BROKEN)
    where = folder / DATABASE
    warn(f"warning: MLflow fails with its database {where} ({reason}). fmbench renamed it to {aside.name} and made a new one")


def adopt(folder: Path) -> None:
    """Let readers and writers of a sound database not wait for each other, and its artifacts lie in this folder.

    The folder may have been moved or copied. MLflow stores absolute paths, so a copy would write into the folder that it was
    copied from. Only local folders named :data:`ARTIFACTS` are changed: an experiment that somebody gave another place keeps it.
    """
    here = (folder / ARTIFACTS).as_uri()
    with closing(connect(folder / DATABASE)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        rows = connection.execute(
            "SELECT experiment_id, artifact_location FROM experiments WHERE name LIKE 'fmbench/%'"
        ).fetchall()
        for experiment, there in rows:
            if there and there != here and there.startswith("file:") and there.endswith(f"/{ARTIFACTS}"):
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (here, experiment))
                connection.execute(
                    "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
                    "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
                    (here, len(there) + 1, experiment, len(there) + 1, f"{there}/"),
                )
                connection.execute("COMMIT")


def set_aside(path: Path, word: str) -> Path:
    """Rename a file, folder or link, with the files of a sqlite database beside it, to a free name, and return the new path."""
    number = 1
    while any(os.path.lexists(f"{path}.{word}-{number}{ending}") for ending in COMPANIONS):
        number += 1
    aside = Path(f"{path}.{word}-{number}")
    for ending in COMPANIONS:
        if os.path.lexists(f"{path}{ending}"):
            os.rename(f"{path}{ending}", f"{aside}{ending}")
    return aside


def is_aside(path: Path) -> bool:
    """Whether a path has a name that :func:`set_aside` gives."""
    return _ASIDE.fullmatch(path.name) is not None


def _move_into_place(making: Path, database: Path, word: str) -> Path:
    """Put the database that is ready in the place of another one, which is set aside under the returned name."""
    aside = set_aside(database, word)
    os.replace(making / READY, database)  # a process that was killed just before this is continued by the next one
    _clear(making)
    return aside


def _clear(making: Path) -> None:
    if making.is_dir() and not making.is_symlink():
        shutil.rmtree(making)
    elif os.path.lexists(making):
        making.unlink()


def _schema_of(database: Path, check_up_to: float) -> str:
    """The schema of a database, as in :func:`examine`. Waits while another program is still making its tables."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            found = examine(database, check_up_to)
            if found == _newest_schema():
                return found
            unfinished, error = True, None
        except BrokenDatabaseError as broken:
            unfinished, error = broken.unfinished, broken
        if not unfinished or time.time() - _last_write(database) > QUIET or time.monotonic() > deadline:
            if error is not None:
                raise error
            return found
        time.sleep(0.5)


def _last_write(database: Path) -> float:
    return max(os.stat(f"{database}{ending}").st_mtime for ending in ("", "-wal") if os.path.exists(f"{database}{ending}"))


def _newest_schema() -> str:
    """The revision of the tables that the installed MLflow uses."""
    from mlflow.store.db import utils

    return str(utils._get_latest_schema_revision())


def _update(making: Path, database: Path, found: str) -> None:
    """Make an updated copy of a database whose tables have the revision ``found``.

    Raises:
        BrokenDatabaseError: MLflow cannot update it: it is newer than the installed MLflow, or was updated only in part.
    """
    try:
        _make(making, database)
    except Exception as error:
        if passing(error):
            raise
        reason = f"its tables are those of another MLflow (schema {found}, expected {_newest_schema()}): {first_line(error)}"
        raise BrokenDatabaseError(reason) from error


def _make(making: Path, original: Path | None = None) -> None:
    """Make an empty database, or an updated copy of ``original``, in the folder ``making`` under the name :data:`READY`."""
    _clear(making)
    making.mkdir()
    try:
        _grow(making, original)
    except BrokenDatabaseError as error:
        _clear(making)
        if original is None:  # the check is wrong, or this MLflow: a good database must not be set aside for it
            raise RuntimeError(f"the database that MLflow made is not as expected: {error}") from error
        raise
    except BaseException:
        _clear(making)  # it may fill the disk
        raise


def _grow(making: Path, original: Path | None) -> None:
    from mlflow.store.db import utils
    from sqlalchemy import event

    path = making / "growing.db"
    if original is not None:
        with closing(connect(original)) as source, closing(sqlite3.connect(path)) as copy:
            source.backup(copy)
    engine = utils.create_sqlalchemy_engine(f"sqlite:///{path}")
    # MLflow makes its tables in hundreds of steps. It is enough that the whole file is on the disk before it is used.
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
    try:
        if original is None:
            utils._initialize_tables(engine)
        else:
            utils._upgrade_db(engine)
    finally:
        engine.dispose()
    examine(path, float("inf"))
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())
    os.replace(path, making / READY)
