"""Archives of result sets: unpacking, with every name, size and hash checked.

An archive may come from anyone. Nothing is written outside of the target folder, and nothing in an archive is ever executed.
"""

import contextlib
import hashlib
import json
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from fmbench.errors import DataError
from fmbench.store.archive import FORMAT, INDEX, archive_kind
from fmbench.store.benchmark import FILE, read_benchmark
from fmbench.store.files import atomic_folder, check_new_or_empty
from fmbench.store.result_set import is_member

LARGEST = 8 << 30
"""The largest number of bytes that an archive may unpack to."""


class _Entry(NamedTuple):
    """A member as the archive lists it.

    ``plain``: a regular file, neither a folder nor a link. ``open``: gives a stream of the content.
    """

    name: str
    size: int
    plain: bool
    open: Callable[[], IO[bytes]]


@contextlib.contextmanager
def opened(results: Path) -> Iterator[Path]:
    """A results folder: ``results`` itself, or a temporary folder with the content of the archive ``results``.

    Raises:
        DataError: ``results`` is neither a folder nor an archive.
    """
    if results.is_dir():
        yield results
    elif results.exists() or results.name.endswith((".zip", ".tar.gz", ".tgz")):
        with tempfile.TemporaryDirectory(prefix="fmbench-") as folder:
            unpack(results, Path(folder) / "results")
            yield Path(folder) / "results"
    else:
        raise DataError(f"there is no results folder or archive {results}")


def unpack(archive: Path, out: Path) -> int:
    """Unpack an archive of :func:`fmbench.store.archive.export` into ``out``, a new or empty folder; return the number of files.

    ``out`` appears only after every check: the members are those of the index, their names are such as a result set has, and
    their sizes and hashes are right.

    Raises:
        DataError: the archive is missing, truncated or changed, or a member lies outside the folder; or ``out`` is not empty.
    """
    check_new_or_empty(out)
    opened_by = _zip_entries if archive_kind(archive) == "zip" else _tar_entries
    if not archive.is_file():
        raise DataError(f"there is no archive {archive}")
    with atomic_folder(out) as folder:
        try:
            with opened_by(archive) as entries:
                return _extract(archive, entries, folder)
        except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk is at fault, not the archive
            raise DataError(f"{archive} is truncated or damaged ({error}); get it again") from None


@contextlib.contextmanager
def _zip_entries(archive: Path) -> Iterator[list[_Entry]]:
    def is_plain(info: zipfile.ZipInfo) -> bool:
        return not info.filename.endswith("/") and stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)

    with zipfile.ZipFile(archive) as bundle:
        yield [_Entry(i.filename, i.file_size, is_plain(i), partial(bundle.open, i)) for i in bundle.infolist()]


@contextlib.contextmanager
def _tar_entries(archive: Path) -> Iterator[list[_Entry]]:
    with tarfile.open(archive, "r:gz") as tar:
        yield [_Entry(i.name, i.size, i.isreg(), partial(tar.extractfile, i)) for i in tar]  # type: ignore[arg-type]


def _extract(archive: Path, entries: list[_Entry], folder: Path) -> int:
    """Write the members that the index lists into ``folder`` and return their number."""
    _check_names(archive, entries)
    by_name = {entry.name: entry for entry in entries}
    with by_name[INDEX].open() as stream:
        index = _read_index(archive, stream.read(by_name[INDEX].size))
    listed = index["members"]
    if {INDEX, *listed} != set(by_name):
        other = sorted(set(listed) ^ (set(by_name) - {INDEX}))
        raise DataError(f"{archive} and its {INDEX} name different files: {', '.join(other)}")
    for name, expected in sorted(listed.items()):
        _extract_one(archive, by_name[name], expected, folder / name)
    described = read_benchmark(folder)["hash"]
    if described != index["hash"]:
        raise DataError(f"{archive} says it belongs to config {index['hash']}, but its {FILE} belongs to {described}")
    return len(listed)


def _check_names(archive: Path, entries: list[_Entry]) -> None:
    """Check that every member is a plain file that a result set may have, that none is there twice, and their total size."""
    names = [entry.name for entry in entries]
    for entry in entries:
        parts = PurePosixPath(entry.name).parts
        inside = entry.name == "/".join(parts) and not entry.name.startswith("/") and ".." not in parts
        if not inside or not entry.plain or any(c in entry.name for c in "\\:\0"):
            raise DataError(f"{archive} holds {entry.name!r}, which is not a plain file inside the folder; it is not unpacked")
        if entry.name != INDEX and not is_member(entry.name):
            raise DataError(
                f"{archive} holds {entry.name!r}, which `fmbench export` does not pack (parquet at the top and in theory/, csv, "
                f"md and tex at the top, data/*/manifest.json, {FILE}); it is not unpacked"
            )
    if len(set(names)) != len(names):
        raise DataError(f"{archive} holds {next(n for n in names if names.count(n) > 1)} twice; it is not unpacked")
    if sum(entry.size for entry in entries) > LARGEST:
        raise DataError(f"{archive} would unpack to more than {LARGEST >> 30} GiB; it is not unpacked")
    if INDEX not in names:
        raise DataError(f"{archive} has no {INDEX}, so `fmbench export` did not make it")


def _read_index(archive: Path, text: bytes) -> dict[str, Any]:
    try:
        index = json.loads(text)
        entries = index["members"].values()
        whole = all(isinstance(e["bytes"], int) and isinstance(e["sha256"], str) for e in entries) and index["hash"]
    except (ValueError, KeyError, TypeError, AttributeError):
        whole, index = False, {}
    if not whole or FILE not in index["members"]:
        raise DataError(f"{INDEX} in {archive} is not an index of an archive; `fmbench export` did not make it")
    if index.get("format") != FORMAT:
        raise DataError(f"{archive} has format {index.get('format')!r}; this version of fmbench reads format {FORMAT}")
    return dict(index)


def _extract_one(archive: Path, entry: _Entry, expected: dict[str, Any], path: Path) -> None:
    """Write one member to ``path``; no more bytes than the index says."""
    digest, size = hashlib.sha256(), 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with entry.open() as source, open(path, "wb") as target:
        while chunk := source.read(1 << 20):
            size += len(chunk)
            if size > expected["bytes"]:
                break
            digest.update(chunk)
            target.write(chunk)
    if size != expected["bytes"] or digest.hexdigest() != expected["sha256"]:
        raise DataError(f"{entry.name} in {archive} is not the file that was packed (its size or sha256 differs); get it again")
