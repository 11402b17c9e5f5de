"""CIFAR-10 from its Python batches, which are pickles. Our unpickler loads plain values and arrays only."""

import codecs
import hashlib
import io
import os
import pickle
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmbench.data.download import Remote, cache, fetch, folder
from fmbench.data.raw import Piece, RawData, Stream
from fmbench.data.writer import pieces
from fmbench.errors import DataError

ARCHIVE = Remote(
    "cifar-10-python.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    "sha256:6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
)
FOLDER = "cifar-10-batches-py"
BATCHES = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
"""The batches and their md5, the same in the archive and extracted."""
ROWS = 10_000
WHERE = f"CIFAR-10 for Python is {ARCHIVE.url} ({ARCHIVE.hash}); download: true downloads it"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def _allowed() -> dict[tuple[str, str], Any]:
    # Under the names of numpy before 2 and after, and without importing what a pickle names.
    from numpy._core import multiarray

    found: dict[tuple[str, str], Any] = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        found[module, "_reconstruct"] = multiarray._reconstruct
        found[module, "scalar"] = multiarray.scalar
    found["_codecs", "encode"] = codecs.encode
    return found


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _allowed()[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which could run code, so fmbench does not load it"
            ) from None


def unpickle(data: bytes, file: str, where: str = WHERE) -> Any:
    """The content of a pickle of plain values and arrays. Python 2's texts come as bytes.

    Raises:
        DataError: it is truncated, or asks for anything but numpy's arrays.
    """
    try:
        return _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise anything
        raise DataError(f"{file} cannot be unpickled: {error}. {where}") from None


def read_batch(data: bytes, file: str, md5: str | None = None) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, 3, 32, 32) and labels (N,) of a batch.

    Raises:
        DataError: the hash or the content of the batch is not CIFAR-10's.
    """
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if md5 is not None and found != md5:
        raise DataError(f"{file} ({len(data)} bytes) has the md5 {found}, expected {md5}. {WHERE}")
    batch = unpickle(data, file)
    if not isinstance(batch, dict) or not {b"data", b"labels"} <= set(batch):
        keys = sorted(map(str, batch)) if isinstance(batch, dict) else type(batch).__name__
        raise DataError(f"{file}: expected a dictionary with b'data' and b'labels', found {keys}. {WHERE}")
    images, labels = batch[b"data"], batch[b"labels"]
    shape, kind = getattr(images, "shape", None), getattr(images, "dtype", type(images).__name__)
    if shape != (ROWS, 3 * 32 * 32) or kind != np.uint8 or len(labels) != ROWS:
        raise DataError(
            f"{file}: expected {ROWS} images as rows of 3072 uint8 and as many labels, found shape {shape} of {kind} "
            f"and {len(labels)} labels. {WHERE}"
        )
    if not all(isinstance(label, int) and 0 <= label < len(CLASSES) for label in labels):
        raise DataError(f"{file}: expected labels from 0 to 9, found {sorted(set(map(str, labels)))[:20]}. {WHERE}")
    return images.reshape(-1, 3, 32, 32), np.array(labels, np.int64)


def cifar10(path: str | None = None, download: bool | None = None) -> RawData:
    """CIFAR-10: 50,000 train and 10,000 test images of 32 x 32, three channels, ten classes.

    Args:
        path: the archive for Python, the folder extracted from it, or a folder with either. By default the cache.
        download: true downloads the archive; false never does; None does if nothing is found.

    Raises:
        DataError: a batch is missing or not the original.
    """
    found = None
    if path is not None and Path(os.path.expanduser(path)).is_file():
        found = Path(os.path.expanduser(path))
    elif path is not None or not download:
        known = [ARCHIVE.name, FOLDER, *BATCHES]
        place = folder(path, [cache("cifar10")], known, "the archive or its batches", WHERE)
        if place is not None:
            found = next(
                place / name if name not in BATCHES else place
                for name in (FOLDER, *BATCHES, ARCHIVE.name)
                if (place / name).exists()
            )
    if found is None:
        if download is False:
            raise DataError(f"CIFAR-10 is not in {cache('cifar10')}. {WHERE}")
        found = fetch("cifar10", [ARCHIVE]) / ARCHIVE.name
    read = _of_archive(found) if found.is_file() else _of_folder(found)
    missing = [name for name in BATCHES if name not in read]
    if missing:
        raise DataError(f"{found}: {', '.join(missing)} missing, found {', '.join(read) or 'no batch'}. {WHERE}")
    batches = [read_batch(read.pop(name), f"{found}/{name}", md5) for name, md5 in BATCHES.items()]
    return RawData(
        train=_stream(batches[:-1]),
        test=_stream(batches[-1:]),
        description="CIFAR-10 (Krizhevsky 2009), its own train and test split",
        levels=256,
        class_names=CLASSES,
    )


def _stream(batches: list[tuple[NDArray[np.uint8], NDArray[np.int64]]]) -> Stream:
    # One batch after the other: concatenated, they would be in memory twice.
    def split(start: int, workers: int) -> Iterator[Piece]:
        for images, labels in batches:
            yield from pieces(images, labels)

    return Stream(split, n=sum(len(images) for images, _ in batches))


def _of_folder(found: Path) -> dict[str, bytes]:
    return {name: (found / name).read_bytes() for name in BATCHES if (found / name).exists()}


def _of_archive(found: Path) -> dict[str, bytes]:
    # Nothing is extracted, so no name in the archive can write a file. One pass, since going back would decompress again.
    read: dict[str, bytes] = {}
    try:
        with tarfile.open(found, "r|*") as archive:
            for member in archive:
                name = Path(member.name).name
                if member.isfile() and name in BATCHES and (stream := archive.extractfile(member)) is not None:
                    read[name] = stream.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{found} ({found.stat().st_size} bytes) is truncated or not a tar archive: {error}. {WHERE}") from None
    return read
