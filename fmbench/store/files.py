"""Files and folders that are written whole or not at all, hashes, and JSON."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmbench.errors import DataError
from fmbench.store.seal import append_seal, check_seal
from fmbench.store.temporary import abandoned, temporary_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A path with the name of ``path`` in a temporary folder beside it.

    The file that the block writes there replaces ``path`` if the block ends without an exception, and is removed otherwise.
    Whatever kills the writer, a reader sees the old file or the new one, never half a file. The umask decides who may read it.
    """
    with temporary_folder(path.parent, path.name) as folder:
        temporary = folder / path.name
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        _obey_umask(temporary, folder)
        os.replace(temporary, path)


def _obey_umask(file: Path, folder: Path) -> None:
    """Give a file the permissions of a new one; some libraries make files that only their owner may read."""
    wanted, found = (path.stat().st_mode & 0o666 for path in (folder, file))
    if found != wanted:
        file.chmod(wanted)


@contextlib.contextmanager
def atomic_array(path: Path, shape: tuple[int, ...]) -> Iterator["NDArray"]:
    """A memory-mapped float32 array to fill piece by piece. It is at ``path`` as .npy if the block ends without an exception.

    The file has a seal after its last number, which :func:`open_array` checks.

    The disk space is reserved at once: if the disk were full on a later write to mapped memory, the system would kill the
    process without a message.

    Raises:
        OSError: the disk has no room for the array.
    """
    import numpy as np

    with atomic(path) as temporary:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
        if hasattr(os, "posix_fallocate"):
            with open(temporary, "r+b") as stream:
                os.posix_fallocate(stream.fileno(), 0, os.fstat(stream.fileno()).st_size)
        yield array
        array.flush()
        append_seal(temporary)


def open_array(path: Path) -> "NDArray":
    """The array that :func:`atomic_array` wrote, memory-mapped.

    Raises:
        ValueError, OSError: the file is missing, is damaged or has no seal.
    """
    import numpy as np

    check_seal(path)
    array: NDArray = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


@contextlib.contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """A temporary folder. Its content moves to ``out`` if the block ends without an exception, and is removed otherwise.

    A folder ``out`` that exists stays the same folder, whether it is the working folder, the target of a link or a mount. Then
    the entries move one after the other.
    """
    exists = out.is_dir()
    with temporary_folder(out if exists else out.parent, out.name) as workplace:
        content = workplace / "content"
        content.mkdir()
        yield content
        if exists:
            for entry in sorted(content.iterdir()):
                os.replace(entry, out / entry.name)
        else:
            os.replace(content, out)


def check_new_or_empty(folder: Path) -> None:
    """Check that ``folder`` does not exist or is an empty folder. What a killed writer left in it does not count.

    Raises:
        DataError: it is something else.
    """
    if folder.exists() and (not folder.is_dir() or any(not abandoned(entry) for entry in folder.iterdir())):
        raise DataError(f"{folder} is not an empty folder; give an empty one, or one that does not exist yet")


def sha256(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, values: Any) -> None:
    """Write JSON for people, keys sorted, atomically. :mod:`fmbench.store.documents` writes what numbers depend on."""
    write_text(path, json.dumps(values, indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON without a seal.

    Raises:
        DataError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} is missing; run the stage that makes it first (snakemake does so by itself)") from None
    except (ValueError, RecursionError) as error:  # the file is not JSON, or not even text, or nested too deeply
        raise DataError(f"{path} is not valid JSON ({error}); delete it and rerun") from None
