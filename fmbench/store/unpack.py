"""Archives of result sets: unpacking, with every name, size and hash checked.

An archive may come from anyone. Nothing is written outside of the target folder, and nothing in an archive is ever executed. What
an archive unpacks to is limited (:mod:`fmbench.store.limits`), and each member is read once, in the order of the archive.
"""

import contextlib
import errno
import gzip
import hashlib
import itertools
import lzma
import stat
import struct
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from fmbench.config.messages import shortened
from fmbench.errors import DataError, first_few
from fmbench.store import limits
from fmbench.store.archive import FORMAT, INDEX, archive_kind
from fmbench.store.benchmark import FILE, read_benchmark
from fmbench.store.files import atomic_folder, check_new_or_empty
from fmbench.store.result_set import is_member
from fmbench.store.usable import usable

END_OF_ZIP = struct.Struct("<4s4H2LH")
"""The last bytes of a zip file: mark, numbers of disks, numbers of members, bytes and place of the list of members, comment."""
LISTED = 1 << 20
"""The largest list of members of a zip file in bytes. A member takes at most about 600."""
_OF_FORMATS = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error)
DAMAGED = (*_OF_FORMATS, EOFError, OSError, LookupError, RuntimeError, ValueError, OverflowError, MemoryError)
"""What the standard library raises for a damaged archive; RuntimeError and ValueError include errors of recursion and of text."""


PIECE = 1 << 16
"""Bytes of a member that are read at once."""


class _Entry(NamedTuple):
    """A member as the archive lists it.

    ``plain``: a regular file, neither a folder nor a link. ``open``: gives a stream of the content.
    """

    name: str
    size: int
    plain: bool
    open: Callable[[], IO[bytes]]


class _Found(NamedTuple):
    """A member as it was unpacked."""

    bytes: int
    sha256: str


@contextlib.contextmanager
def opened(results: Path) -> Iterator[Path]:
    """A results folder: ``results`` itself, or a temporary folder with the content of the archive ``results``.

    Raises:
        DataError: ``results`` is neither a folder nor an archive, or the block cannot use its values (:func:`usable`).
    """
    with usable(str(results)), _opened(results) as folder:
        yield folder


@contextlib.contextmanager
def _opened(results: Path) -> Iterator[Path]:
    if results.is_dir():
        yield results
    elif results.exists() or results.name.endswith((".zip", ".tar.gz", ".tgz")):
        with tempfile.TemporaryDirectory(prefix="fmbench-") as folder:
            unpack(results, Path(folder) / "results")
            yield Path(folder) / "results"
    else:
        raise DataError(
            f"there is no results folder or archive {results}; give the folder of a run, or an archive of `fmbench export`"
        )


def unpack(archive: Path, out: Path) -> int:
    """Unpack an archive of :func:`fmbench.store.archive.export` into ``out``, a new or empty folder; return the number of files.

    ``out`` appears only after every check: the members are those of the index, their names are such as a result set has, and
    their sizes and hashes are right.

    Raises:
        DataError: the archive is missing, truncated, changed or too large, or a member lies outside the folder; or ``out`` is not
            empty.
    """
    check_new_or_empty(out)
    opened_by = _zip_entries if archive_kind(archive) == "zip" else _tar_entries
    if not archive.is_file():
        raise DataError(f"there is no archive {archive}; `fmbench export` makes one")
    with atomic_folder(out) as folder:
        try:
            with opened_by(archive) as entries:
                found, index = _extract(archive, entries, folder)
        except DAMAGED as error:
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise  # the disk is at fault, not the archive
            said = "there is not enough memory" if isinstance(error, MemoryError) else str(error) or "it ends too early"
            raise DataError(f"{archive} is truncated or damaged ({said}); get it again") from None
        _check_index(archive, found, _read_index(archive, index), folder)
    return len(found)


@contextlib.contextmanager
def _zip_entries(archive: Path) -> Iterator[Iterator[_Entry]]:
    _check_end_of_zip(archive)
    with zipfile.ZipFile(archive) as bundle:
        infos = sorted(bundle.infolist(), key=lambda info: info.header_offset)
        for info, following in itertools.pairwise(infos):
            if info.header_offset + info.compress_size >= following.header_offset:
                raise DataError(f"members of {archive} share their bytes; it is not unpacked")
        yield (_zip_entry(archive, bundle, info) for info in infos)


def _check_end_of_zip(archive: Path) -> None:
    """Check how many members a zip file lists, before Python reads the list."""
    with open(archive, "rb") as stream:
        stream.seek(-min(END_OF_ZIP.size + 20, archive.stat().st_size), 2)
        end = stream.read()
    if len(end) < END_OF_ZIP.size or end[-END_OF_ZIP.size :][:4] != b"PK\5\6":
        raise DataError(f"{archive} is truncated or damaged (a zip file of `fmbench export` ends with its list); get it again")
    _, _, _, _, members, listed, _, _ = END_OF_ZIP.unpack(end[-END_OF_ZIP.size :])
    if end.startswith(b"PK\6\7") or members > limits.MEMBERS + 1 or listed > LISTED:
        raise DataError(f"{archive} lists more than {limits.MEMBERS} members, or too long a list; it is not unpacked")


def _zip_entry(archive: Path, bundle: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Entry:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 0x1:
        raise DataError(
            f"{archive} holds {info.filename!r} encrypted or packed by method {info.compress_type}; fmbench reads stored and "
            "deflated members, which `fmbench export` writes. It is not unpacked"
        )
    kind = stat.S_IFMT(info.external_attr >> 16)
    plain = not info.filename.endswith("/") and kind in (0, stat.S_IFREG) and info.orig_filename == info.filename
    return _Entry(info.orig_filename, info.file_size, plain, lambda: bundle.open(info))


@contextlib.contextmanager
def _tar_entries(archive: Path) -> Iterator[Iterator[_Entry]]:
    limited = _Limited(archive)
    with contextlib.closing(limited), tarfile.open(fileobj=limited, mode="r:") as tar:  # type: ignore[call-overload]

        def entry(info: tarfile.TarInfo) -> _Entry:
            plain = info.isreg() and not info.issparse()
            return _Entry(info.name, info.size, plain, lambda: tar.extractfile(info))

        yield map(entry, limited.headers(tar))


class _Limited:
    """The unpacked bytes of a .tar.gz, at most as many as an archive may unpack to; for :mod:`tarfile`, which reads forwards."""

    HEADER = 1 << 12
    """The most bytes of a header that are read at once. A header with the longest name has about 600."""

    def __init__(self, archive: Path) -> None:
        self.archive, self.stream, self.place = archive, gzip.GzipFile(archive), 0
        self.allowed, self.largest = limits.archive_limit(archive), self.HEADER

    def headers(self, tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
        """The headers of the members. tarfile reads a header at once, however large the archive says it is."""
        for info in tar:
            self.largest = PIECE
            yield info
            self.largest = self.HEADER

    def read(self, count: int) -> bytes:
        if count > self.largest:
            raise DataError(f"{self.archive} holds a header of {count} bytes; it is not unpacked")
        found = self.stream.read(count)
        self._move(self.place + len(found))
        return found

    def seek(self, place: int) -> int:
        if place < self.place:
            raise DataError(f"{self.archive} would have to be read backwards; it is not unpacked")
        self._move(place)
        return self.stream.seek(place)

    def tell(self) -> int:
        return self.place

    def close(self) -> None:
        self.stream.close()

    def _move(self, place: int) -> None:
        _check_size(self.archive, place, self.allowed)
        self.place = place


def _check_size(archive: Path, size: int, allowed: int) -> None:
    if size > allowed:
        raise DataError(f"{archive} would unpack to more than {allowed >> 20} MiB, more than its size allows; it is not unpacked")


def _extract(archive: Path, entries: Iterator[_Entry], folder: Path) -> tuple[dict[str, _Found], bytes]:
    """Write every member but the index into ``folder``, and return what was written and the index.

    Raises:
        DataError: a member is not one that a result set may have, is there twice or is too large; or there is no index.
    """
    found: dict[str, _Found] = {}
    index, spellings, total, allowed = None, set(), 0, limits.archive_limit(archive)
    for entry in entries:
        _check_entry(archive, entry)
        spelling = unicodedata.normalize("NFKC", entry.name).casefold()
        if spelling in spellings:
            raise DataError(f"{archive} holds {entry.name!r} twice, or in two spellings that some disks take for one name")
        spellings.add(spelling)
        total += entry.size
        _check_size(archive, total, allowed)
        if len(spellings) > limits.MEMBERS + 1:
            raise DataError(f"{archive} has more than {limits.MEMBERS} members; it is not unpacked")
        if entry.name == INDEX:
            with entry.open() as stream:
                index = stream.read(limits.DOCUMENT)
        else:
            found[entry.name] = _extract_one(archive, entry, folder / entry.name)
    if index is None:
        raise DataError(f"{archive} has no {INDEX}, so `fmbench export` did not make it")
    return found, index


def _check_entry(archive: Path, entry: _Entry) -> None:
    """Check that a member is a plain file that a result set may have, and not too large for its kind."""
    parts = PurePosixPath(entry.name).parts
    inside = entry.name == "/".join(parts) and not entry.name.startswith("/") and ".." not in parts
    said = shortened(repr(entry.name), 100)
    if not inside or not entry.plain or any(c in entry.name for c in "\\:\0"):
        raise DataError(f"{archive} holds {said}, which is not a plain file inside the folder; it is not unpacked")
    if entry.name != INDEX and not is_member(entry.name):
        raise DataError(
            f"{archive} holds {said}, which `fmbench export` does not pack (parquet at the top and in theory/, csv, "
            f"md and tex at the top, data/*/manifest.json, {FILE}); it is not unpacked"
        )
    if entry.name.endswith(".json") and entry.size > limits.DOCUMENT:
        raise DataError(f"{said} in {archive} has {entry.size} bytes; fmbench reads JSON of at most {limits.DOCUMENT >> 20} MiB")


def _extract_one(archive: Path, entry: _Entry, path: Path) -> _Found:
    """Write one member to ``path``; no more bytes than the archive lists for it."""
    digest, size = hashlib.sha256(), 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with entry.open() as source, open(path, "wb") as target:
        while chunk := source.read(PIECE):
            size += len(chunk)
            if size > entry.size:
                raise DataError(f"{entry.name} in {archive} is larger than the archive says; it is not unpacked")
            digest.update(chunk)
            target.write(chunk)
    return _Found(size, digest.hexdigest())


def _read_index(archive: Path, text: bytes) -> dict[str, Any]:
    try:
        index = limits.parse_document(text)
        entries = index["members"].values()
        whole = all(isinstance(e["bytes"], int) and isinstance(e["sha256"], str) for e in entries)
        whole = whole and isinstance(index["hash"], str) and isinstance(index["format"], int)
    except (ValueError, KeyError, TypeError, AttributeError):
        whole, index = False, {}
    if not whole or FILE not in index["members"]:
        raise DataError(f"{INDEX} in {archive} is not an index of an archive; `fmbench export` did not make it")
    if index["format"] != FORMAT:
        raise DataError(f"{archive} has format {index['format']}; this version of fmbench reads format {FORMAT}")
    return dict(index)


def _check_index(archive: Path, found: dict[str, _Found], index: dict[str, Any], folder: Path) -> None:
    """Check that the members are those of the index, with its sizes and hashes, and that all belong to one config."""
    listed = index["members"]
    if set(listed) != set(found):
        other = first_few([shortened(name, 100) for name in sorted(set(listed) ^ set(found))], 5)
        raise DataError(f"{archive} and its {INDEX} name different files: {other}")
    for name, expected in sorted(listed.items()):
        if found[name] != (expected["bytes"], expected["sha256"]):
            raise DataError(f"{name} in {archive} is not the file that was packed (its size or sha256 differs); get it again")
    described = read_benchmark(folder)["hash"]
    if described != index["hash"]:
        raise DataError(f"{archive} says it belongs to config {index['hash']}, but its {FILE} belongs to {described}")
