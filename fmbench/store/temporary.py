"""Temporary folders of writers: each has a name that only fmbench gives, and a lock that its writer holds as long as it lives.

A writer makes its files in such a folder, beside their final place. Some libraries put files of their own beside the one that
they write (safetensors does); these then lie in the folder, too. A writer that is killed leaves the folder behind. Nobody holds
its lock any more, so the next writer of the same target removes it, and ``fmbench prune`` finds it.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

PREFIX = ".fmbench-tmp-"
"""The beginning of every temporary folder's name. The name of the target and 16 random hex digits follow."""
LOCK = ".lock"
"""The file in a temporary folder that its writer has locked."""
LONGEST = 200
"""The largest number of bytes of a target's name in a temporary name. A longer one is replaced by its hash."""
_NAME = re.compile(re.escape(PREFIX) + r".*\.[0-9a-f]{16}", re.DOTALL)


def is_temporary(path: Path) -> bool:
    """Whether a path is a temporary folder that fmbench made."""
    return _NAME.fullmatch(path.name) is not None and path.is_dir() and not path.is_symlink()


def abandoned(path: Path) -> bool:
    """Whether a path is a temporary folder whose writer has ended without removing it.

    It is False on a file system that knows no locks, because the writer may then still be alive.
    """
    if not is_temporary(path):
        return False
    try:
        handle = os.open(path / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return path.is_dir()  # its writer ended before it made the lock, or makes another folder if this one is taken away
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def remove_abandoned(folder: Path, target: str | None = None) -> None:
    """Remove the temporary folders in ``folder`` that killed writers left.

    Args:
        target: only those of writers of the file or folder with this name; None for all.
    """
    beginning = PREFIX if target is None else f"{PREFIX}{_label(target)}."
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(folder):
            if name.startswith(beginning) and abandoned(folder / name):
                shutil.rmtree(folder / name, ignore_errors=True)


@contextlib.contextmanager
def temporary_folder(parent: Path, target: str) -> Iterator[Path]:
    """A new temporary folder in ``parent``, for a writer of the file or folder ``target`` in it. It is removed at the end.

    What killed writers of the same target left is removed first. The umask decides who may read the folder.

    Raises:
        OSError: the folder cannot be made.
    """
    parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(parent, target)
    folder, handle = _locked_folder(parent, target)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _locked_folder(parent: Path, target: str) -> tuple[Path, int]:
    """A new folder and the handle of its lock. Another process may take it for abandoned until the lock is held."""
    while True:
        folder = parent / f"{PREFIX}{_label(target)}.{secrets.token_hex(8)}"
        folder.mkdir()
        try:
            handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            if parent.is_dir():
                continue  # another process removed the folder
            raise
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass  # another process looks at the folder, and will remove it
        except OSError:
            return folder, handle  # the file system knows no locks, so nobody takes the folder for abandoned
        else:
            if (folder / LOCK).exists():
                return folder, handle
        os.close(handle)
        shutil.rmtree(folder, ignore_errors=True)


def _label(target: str) -> str:
    return target if len(os.fsencode(target)) <= LONGEST else hashlib.sha256(os.fsencode(target)).hexdigest()
