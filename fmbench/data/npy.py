"""Arrays in .npy files that are read and written in pieces of rows, so that memory stays constant."""

import hashlib
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

PIECE_BYTES = 4_000_000
"""About how many bytes of a split are in memory at a time, in each of the few places that hold a piece."""


def rows_per_piece(row_bytes: int) -> int:
    """The number of samples in a piece."""
    return max(1, PIECE_BYTES // max(row_bytes, 1))


class ArrayFile:
    """An .npy file that grows by rows. Its bytes are those that ``np.save`` writes for the whole array.

    The file is written, not memory-mapped, so rows on the disk take no memory of this process.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.n = path, 0
        self._file: IO[bytes] | None = None
        self._shape: tuple[int, ...] = ()
        self._dtype = np.dtype(np.uint8)
        self._digest = hashlib.sha256()

    def append(self, rows: NDArray) -> None:
        """Add rows (n, ...), all of the shape and type of the first."""
        if self._file is None:
            self._shape, self._dtype = rows.shape[1:], rows.dtype
            self._file = open(self.path, "w+b")  # noqa: SIM115 - closed by close
            self._header()
        content = rows.tobytes()
        self._file.write(content)
        self._digest.update(content)
        self.n += len(rows)

    @property
    def digest(self) -> str:
        """The sha256 of the rows that were written, in hex: of the bytes as they should be on the disk."""
        return self._digest.hexdigest()

    def reopen(self, n: int, digest: str) -> None:
        """Continue after the first n rows of an existing file, and drop the rows after them.

        Args:
            digest: :attr:`digest` of these rows.

        Raises:
            ValueError: the file has fewer than n rows, or other ones.
        """
        self._file = open(self.path, "r+b")  # noqa: SIM115 - closed by close
        shape, self._dtype = read_header(self._file)
        self._shape, self.n = shape[1:], n
        start = self._file.tell()
        end = start + n * math.prod(self._shape) * self._dtype.itemsize
        if self._file.seek(0, os.SEEK_END) < end:
            raise ValueError(f"{self.path} is shorter than {n} rows")
        self._file.seek(start)
        for left in range(end - start, 0, -PIECE_BYTES):
            self._digest.update(read_exactly(self._file, min(left, PIECE_BYTES)))
        if self.digest != digest:
            raise ValueError(f"{self.path}: the bytes on the disk are not those that were written")
        self._file.truncate(end)
        self._file.seek(end)

    def _header(self) -> None:
        # numpy pads the header for any number of rows, so a header with more rows fits in its place.
        assert self._file is not None
        values = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (self.n, *self._shape)}
        np.lib.format.write_array_header_1_0(self._file, values)

    def sync(self) -> None:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write the number of rows and flush everything to the disk."""
        if self._file is not None:
            self._file.seek(0)
            self._header()
            self.sync()
            self._file.close()
            self._file = None


def read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Read shape and type of the array in an .npy stream, up to its first number.

    Raises:
        ValueError: the stream is not an .npy file, is in Fortran order, or holds Python objects.
    """
    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"fmbench does not know version {version} of the .npy format")
    shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which fmbench does not load")
    if fortran and len(shape) > 1:
        raise ValueError("it is in Fortran order; save np.ascontiguousarray(array) instead")
    return shape, dtype


def read_rows(stream: IO[bytes], n: int | None = None) -> Iterable[NDArray]:
    """The first n rows (or all) of the array in an .npy stream, in pieces of about :data:`PIECE_BYTES`.

    Raises:
        ValueError: as for :func:`read_header`, or the stream ends too early.
    """
    shape, dtype = read_header(stream)
    if not shape:
        raise ValueError("it is a single number")
    total = shape[0] if n is None else n
    row = math.prod(shape[1:]) * dtype.itemsize
    done = 0
    while done < total:
        count = min(rows_per_piece(row), total - done)
        data = read_exactly(stream, count * row)
        if len(data) < count * row:
            raise ValueError(f"it ends in row {done + len(data) // max(row, 1)} of {total}")
        yield np.frombuffer(data, dtype).reshape(count, *shape[1:])
        done += count


def read_exactly(stream: IO[bytes], count: int) -> bytes:
    """Read ``count`` bytes, or fewer at the end. One read of a compressed stream may return fewer than asked."""
    parts = []
    while count > 0 and (part := stream.read(count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
