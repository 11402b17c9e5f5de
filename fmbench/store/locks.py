"""Locks of folders that come and go: a folder is removed only by who holds its lock, and a lock counts only while it is there."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = "lock"
"""The file in a folder that is locked while a process works in the folder."""


class FolderLock:
    """The lock of a folder, which is made if it is not there.

    The holder may remove the folder with :meth:`remove`. A process that opened the lock file just before holds the lock of a file
    that is gone, so after each locking the file is looked for again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: FileLock | None = None

    def acquire(self) -> None:
        """Lock the folder at once.

        Raises:
            filelock.Timeout: another process, or another lock of this one, holds it.
        """
        while True:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                lock = FileLock(self.folder / LOCK)
                lock.acquire(timeout=0)
            except (FileNotFoundError, FileExistsError):
                if self.folder.exists() and not self.folder.is_dir():
                    raise
                continue  # the folder was removed in between
            except Timeout:
                if self._removed():
                    continue
                raise
            if self._is_the_file(lock):
                self._lock = lock
                return
            lock.release()

    def _removed(self) -> bool:
        """Whether the lock file is gone, and with it the lock that was in the way."""
        return not (self.folder / LOCK).exists()

    def _is_the_file(self, lock: FileLock) -> bool:
        """Whether the file that is locked is the one in the folder."""
        try:
            there = os.stat(self.folder / LOCK)
            handle = lock._context.lock_file_fd
            return handle is None or os.path.samestat(os.fstat(handle), there)
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Give the lock back, if it is held."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def remove(self, chosen: Callable[[Path], bool] = lambda entry: True) -> None:
        """Remove the folder, which must be locked, and give the lock back. The lock file goes last, so nobody can come between.

        What cannot be removed stays, without an error, and so does the folder then.

        Args:
            chosen: whether to remove an entry of the folder.
        """
        assert self._lock is not None, "lock the folder first"
        with contextlib.suppress(OSError):
            for entry in sorted(self.folder.iterdir()):
                if entry.name == LOCK or not chosen(entry):
                    continue
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            (self.folder / LOCK).unlink(missing_ok=True)
        # Another process may have made the folder its own since, and then it is not empty.
        with contextlib.suppress(OSError):
            self.folder.rmdir()
        self.release()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[FolderLock]:
    """Hold the lock of a folder in a block.

    Raises:
        filelock.Timeout: another process holds it.
    """
    lock = FolderLock(folder)
    lock.acquire()
    try:
        yield lock
    finally:
        lock.release()
