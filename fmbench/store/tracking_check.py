"""What is wrong with a sqlite database of MLflow, told apart from what happens to a sound one.

sqlite notices damage only where it reads. MLflow would open a damaged or half-made database, and then fail on every later use.
"""

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

BUSY = 20.0
"""Seconds to wait for another process that writes to the database."""
DAMAGE = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_NOTADB}
"""The codes of sqlite that speak of the content of the file."""


class BrokenDatabaseError(Exception):
    """A database that MLflow cannot use.

    Args:
        unfinished: whether another program may still be making it.
    """

    def __init__(self, reason: str, unfinished: bool = False) -> None:
        super().__init__(reason)
        self.unfinished = unfinished


def connect(database: Path) -> sqlite3.Connection:
    """A connection to a database that exists, in autocommit mode."""
    return sqlite3.connect(f"file:{quote(str(database))}?mode=rw", uri=True, timeout=BUSY, isolation_level=None)


def examine(database: Path, check_up_to: float) -> str:
    """The revision of a database's tables (alembic's).

    Args:
        check_up_to: the largest size (bytes) of a database that is read whole: pages, indices, constraints and texts.

    Raises:
        BrokenDatabaseError: MLflow cannot use the database.
        OSError, sqlite3.Error: nothing can be said about it; for example another process locks it.
    """
    size = _size(database)
    try:
        with closing(connect(database)) as connection:
            connection.execute("BEGIN IMMEDIATE")  # fails if the header says that the file is read-only
            connection.execute("ROLLBACK")
            tables = _tables(connection)
            revision = _revision(connection, set(tables))
            if size <= check_up_to:
                _check_content(connection, list(tables))
    except sqlite3.Error as error:
        reason = _reason(error, database)
        if reason is None:
            raise
        raise BrokenDatabaseError(reason) from error
    _check_columns(tables, revision)
    return revision


def passing(error: BaseException) -> bool:
    """Whether an exception comes from the disk, the network or another process, and says nothing about the database."""
    return any(
        isinstance(e, OSError | MemoryError) or (isinstance(e, sqlite3.Error) and _code(e) not in DAMAGE | {0})
        for e in _causes(error)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = (
            getattr(error, "orig", None) or error.__cause__ or error.__context__
        )  # orig: sqlalchemy keeps sqlite's error there


def _code(error: sqlite3.Error) -> int:
    """sqlite's primary code of an error; 0 for an error of Python's own module."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _size(database: Path) -> int:
    """The size of the file in bytes."""
    try:
        found = os.stat(database)
    except FileNotFoundError:
        raise BrokenDatabaseError("it is a link to a file that does not exist") from None
    except OSError as error:
        if database.is_symlink():
            raise BrokenDatabaseError(f"it is a link that cannot be followed ({error.strerror})") from None
        raise
    if not stat.S_ISREG(found.st_mode):
        raise BrokenDatabaseError("it is a folder" if stat.S_ISDIR(found.st_mode) else "it is not a regular file")
    if found.st_size == 0:
        raise BrokenDatabaseError("it is empty", unfinished=True)
    if not os.access(database, os.R_OK | os.W_OK):
        if found.st_uid != os.geteuid():
            raise PermissionError(f"{database} belongs to another user, who does not allow writing it")
        raise BrokenDatabaseError("its permissions do not allow reading and writing")
    return found.st_size


def _reason(error: sqlite3.Error, database: Path) -> str | None:
    """Why an error of sqlite means that the file is broken; None if it does not mean that."""
    if _code(error) in DAMAGE:
        return f"sqlite says: {error}"
    # A flipped bit in the header makes sqlite take the file for one of a later version, which it only reads.
    read_only = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY
    if read_only and os.access(database, os.W_OK) and os.access(database.resolve().parent, os.W_OK):
        return "its header says that it is read-only"
    return "a text in it is not valid UTF-8" if _code(error) == 0 and "UTF-8" in str(error) else None


def _tables(connection: sqlite3.Connection) -> dict[str, set[str]]:
    """The columns of each table, with those that sqlite computes."""
    found: dict[str, set[str]] = {}
    query = "SELECT m.name, c.name FROM sqlite_master m, pragma_table_xinfo(m.name) c WHERE m.type = 'table'"
    for table, column in connection.execute(query):
        found.setdefault(table, set()).add(column)
    return found


def _revision(connection: sqlite3.Connection, tables: set[str]) -> str:
    if tables and not tables & {"experiments", "runs", "alembic_version"}:
        raise BrokenDatabaseError("it is a database of another program")
    rows = connection.execute("SELECT version_num FROM alembic_version").fetchall() if "alembic_version" in tables else []
    if len(rows) != 1 or not {"experiments", "runs"} <= tables:
        raise BrokenDatabaseError("its tables were made only in part", unfinished=True)
    return str(rows[0][0])


def _check_columns(tables: dict[str, set[str]], revision: str) -> None:
    """Check that a database of the installed MLflow's schema has all its tables and columns."""
    from mlflow.store.db import utils
    from mlflow.store.db.base_sql_model import Base

    if revision != utils._get_latest_schema_revision():
        return
    for name, table in Base.metadata.tables.items():
        missing = {column.name for column in table.columns} - tables.get(name, set())
        if missing:
            raise BrokenDatabaseError(f"it lacks {', '.join(sorted(missing))} of the table {name}", unfinished=True)


def _check_content(connection: sqlite3.Connection, tables: list[str]) -> None:
    """Read the whole database: pages, indices and constraints by sqlite, and every text by Python, as MLflow will."""
    (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise BrokenDatabaseError(f"it is damaged ({' '.join(str(found).split())})")
    for table in tables:
        for _ in connection.execute(f'SELECT * FROM "{table}"'):
            pass
