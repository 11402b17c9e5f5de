"""Data sets from .npy and .npz files, read in pieces, so they need not fit into memory."""

import contextlib
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from fmbench.data.npy import read_header, read_rows
from fmbench.data.raw import Piece, RawData, Stream
from fmbench.data.tree import stand_in_at
from fmbench.errors import DataError, first_few

Layout = Literal["CHW", "HWC", "HW"]


@contextlib.contextmanager
def opened(path: Path, key: str | None, where: str = "") -> Iterator[IO[bytes]]:
    """The stream of an .npy file, or with ``key`` of an array in an .npz file.

    Raises:
        DataError: the file is missing, truncated or damaged, or has no such array; also while the stream is read.
    """
    try:
        if key is None:
            with open(path, "rb") as stream:
                yield stream
            return
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            if key not in names:
                raise DataError(f"{path} has no array {key!r}; it has {', '.join(names) or 'none'}. {where}".rstrip())
            with archive.open(f"{key}.npy") as member:
                yield member
    except FileNotFoundError:
        raise DataError(f"{path} is missing. {where}".rstrip()) from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        of = f"{path}[{key}]" if key else path
        why = stand_in_at(path) or f"{error}; truncated or damaged?"
        raise DataError(f"{of} cannot be read: {why} {where}".rstrip()) from None


def header(path: Path, key: str | None, where: str = "") -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array, without reading it.

    Raises:
        DataError: as :func:`opened`.
    """
    with opened(path, key, where) as stream:
        return read_header(stream)


def rows(path: Path, key: str | None, where: str = "") -> Iterable[NDArray]:
    """An array in pieces.

    Raises:
        DataError: as :func:`opened`.
    """
    with opened(path, key, where) as stream:
        yield from read_rows(stream)
        stream.read(1)  # zipfile compares the checksum at the end


def whole(path: Path, key: str | None, where: str = "") -> NDArray:
    """An array that fits into memory.

    Raises:
        DataError: as :func:`opened`.
    """
    shape, dtype = header(path, key, where)
    return np.concatenate([np.empty((0, *shape[1:]), dtype), *rows(path, key, where)])


# Many parameters: the config gives them by name.
def array(
    path: str,
    train: str = "train",
    test: str = "test",
    train_labels: str | None = None,
    test_labels: str | None = None,
    layout: Layout = "CHW",
    levels: int | None = None,
    scale: float | list[float] = 1.0,
    shift: float | list[float] = 0.0,
) -> RawData:
    """Arrays from files. uint8 (N, C, H, W), (N, H, W, C) or (N, H, W) are images; floats (N, D) are points.

    Args:
        path: an .npz file, or a folder of .npy files.
        train, test, train_labels, test_labels: names of arrays in the .npz, or of files in the folder (without .npy).
        layout: the order of an image's axes.
        levels: the number of values that a pixel can take, 256 by default; not for points.
        scale: points are multiplied by this before the network sees them. A number, or a list with one for each column.
        shift: this is subtracted from points in float64, before they become float32 and before ``scale``. As ``scale``.

    Raises:
        DataError: a file or an array is missing, damaged or of the wrong shape or type.
    """
    place = Path(os.path.expanduser(path))
    if layout not in ("CHW", "HWC", "HW"):
        raise ValueError(f"layout must be CHW, HWC or HW, not {layout!r}")
    if train == test:
        raise ValueError(f"train and test are both the array {train}; give two arrays")
    file, key = _find(place, train)
    shape, dtype = header(file, key)
    images = dtype == np.uint8
    wanted = {"CHW": 4, "HWC": 4, "HW": 3}[layout] if images else 2
    if len(shape) != wanted or not (images or dtype.kind == "f"):
        raise DataError(
            f"{file}: {train} has shape {shape} of {dtype}; expected images of uint8 with axes N{layout} (parameter layout), or "
            "points (N, D) of floats. Images of floats: round them to uint8 first. Points of integers: save them as float64"
        )
    if not images and levels is not None:
        raise DataError(
            f"{file}: {train} holds floats (N, D), which are points; levels are for images, so leave out levels: {levels}"
        )
    arranged = layout if images else None
    return RawData(
        train=_stream(place, train, train_labels, arranged),
        test=_stream(place, test, test_labels, arranged),
        description=f"arrays {train} and {test} of {place.name}",
        levels=256 if images and levels is None else levels,
        scale=scale,
        shift=shift,
        notes=_unused(place, {train, test, train_labels, test_labels}),
        decline="leave out the parameters train_labels and test_labels",
    )


def sample_shape(path: str, train: str = "train", layout: Layout = "CHW", **_: Any) -> tuple[int, ...] | None:
    """The shape of one sample of :func:`array`, from the header of its file; None if it cannot be read."""
    try:
        shape, dtype = header(*_find(Path(path).expanduser(), train))
    except DataError:
        return None
    if dtype != np.uint8:
        return shape[1:] if len(shape) == 2 else None
    if layout == "HW":
        return (1, *shape[1:]) if len(shape) == 3 else None
    return (shape[1:] if layout == "CHW" else (shape[3], shape[1], shape[2])) if len(shape) == 4 else None


def _find(place: Path, name: str) -> tuple[Path, str | None]:
    """The file of an array, and its key if the file is an .npz."""
    return (place / f"{name.removesuffix('.npy')}.npy", None) if place.is_dir() else (place, name)


def _unused(place: Path, used: set[str | None]) -> tuple[str, ...]:
    """A sentence on the arrays and files that no parameter names, such as labels."""
    if place.is_dir():
        taken = {_find(place, name)[0].name for name in used if name is not None}
        others = sorted(entry.name for entry in place.iterdir() if entry.name not in taken and not entry.name.startswith("."))
    else:
        with zipfile.ZipFile(place) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
        others = sorted(names - used)
    return (f"left out of {place.name}, as no parameter names them: {first_few(others)}",) if others else ()


def _stream(place: Path, values: str, labels: str | None, layout: Layout | None) -> Stream:
    """The samples of one split with their labels, in pieces."""
    shape, _ = header(*_find(place, values))
    if not shape:
        raise DataError(f"{place}: {values} is a single number")

    def pieces(start: int, workers: int) -> Iterable[Piece]:
        all_labels = None if labels is None else whole(*_find(place, labels))
        done = 0
        for piece in rows(*_find(place, values)):
            yield _arranged(piece, layout), None if all_labels is None else all_labels[done : done + len(piece)]
            done += len(piece)
        if all_labels is not None and len(all_labels) != done:
            raise DataError(f"{place}: {labels} has {len(all_labels)} labels for {done} samples of {values}")

    return Stream(pieces, n=shape[0])


def _arranged(values: NDArray, layout: Layout | None) -> NDArray:
    if layout == "HWC" and values.ndim == 4:
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))
    return values[:, None] if layout == "HW" else values
