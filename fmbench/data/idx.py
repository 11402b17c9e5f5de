"""IDX files, the format of MNIST and its successors, and Fashion-MNIST in it."""

import gzip
import hashlib
import math
import zlib
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fmbench.data.download import Remote, cache, fetch, folder
from fmbench.data.raw import RawData
from fmbench.errors import DataError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
WHERE = (
    "Fashion-MNIST is at https://github.com/zalandoresearch/fashion-mnist and in Debian's package dataset-fashion-mnist; "
    "download: true downloads it"
)
FILES = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
"""The four files and the sha256 of each, uncompressed, since Debian and the authors compress them differently."""
REMOTES = (
    Remote("train-images-idx3-ubyte.gz", f"{URL}/train-images-idx3-ubyte.gz", "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
    Remote("train-labels-idx1-ubyte.gz", f"{URL}/train-labels-idx1-ubyte.gz", "md5:25c81989df183df01b3e8a0aad5dffbe"),
    Remote("t10k-images-idx3-ubyte.gz", f"{URL}/t10k-images-idx3-ubyte.gz", "md5:bef4ecab320f06d8554ea6380940ec79"),
    Remote("t10k-labels-idx1-ubyte.gz", f"{URL}/t10k-labels-idx1-ubyte.gz", "md5:bb300cfdad3c16e7a12a480ee83cd310"),
)
CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def read_idx(path: Path, dimensions: int, sha256: str | None = None, where: str = "") -> NDArray[np.uint8]:
    """The array of unsigned bytes in an IDX file, compressed with gzip if it is called .gz.

    Args:
        dimensions: the number of dimensions that it must have: 3 for images (N, H, W), 1 for labels (N,).
        sha256: of the uncompressed file, where known; ``where`` says where the right one is.

    Raises:
        DataError: the file is truncated, of another type or shape, or has another hash.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}. {where}") from None
    expected = bytes([0, 0, 8, dimensions])  # 8 is for unsigned bytes
    if data[:4] != expected:
        raise DataError(
            f"{path} is not an IDX file of bytes in {dimensions} dimensions: it starts with {data[:4]!r}, not {expected!r}. "
            f"{where}"
        )
    start = 4 + 4 * dimensions
    shape = tuple(int(n) for n in np.frombuffer(data[4:start], ">u4")) if len(data) >= start else ()
    size = math.prod(shape)
    if not shape or len(data) != start + size:
        raise DataError(
            f"{path}: expected {start + size} bytes for the shape {shape}, found {len(data)}: truncated or damaged. {where}"
        )
    if sha256 is not None and (found := hashlib.sha256(data).hexdigest()) != sha256:
        raise DataError(f"{path}: its uncompressed content has the sha256 {found}, expected {sha256}. {where}")
    return np.frombuffer(data, np.uint8, size, start).reshape(shape)


def _file(place: Path, name: str, ends: tuple[str, ...]) -> Path | None:
    return next((place / (name + end) for end in ends if (place / (name + end)).exists()), None)


def fashion_mnist(
    path: str | None = None, pad: Annotated[int, Field(ge=28, le=256)] = 28, download: bool | None = None
) -> RawData:
    """Fashion-MNIST: 60,000 train and 10,000 test images of 28 x 28, one channel, ten classes.

    Args:
        path: folder with the four IDX files, compressed or not. By default the cache, then the folder of Debian's package.
        pad: side of the images after padding with zeros. U-Nets with three halvings need 32.
        download: true downloads even if Debian's files are here; false never downloads; None downloads what the cache lacks.

    Raises:
        DataError: a file is missing or not the original.
    """
    found: Path | None = None
    ends: tuple[str, ...] = ("", ".gz")
    if path is not None:
        known = [name + end for name in FILES for end in ends]
        found = folder(path, [], known, "the four IDX files", WHERE)
    elif not download:
        found = next((p for p in (cache("fashion_mnist"), DEBIAN) if all(_file(p, name, ends) for name in FILES)), None)
    if found is None:
        found = cache("fashion_mnist")
        if download is False:
            raise DataError(f"the four files of Fashion-MNIST are neither in {found} nor in {DEBIAN}. {WHERE}")
        if download:
            ends = (".gz",)  # the downloaded file, even if another form lies beside it
        fetch("fashion_mnist", [r for r in REMOTES if download or not _file(found, r.name.removesuffix(".gz"), ends)])
    arrays = []
    for name, sha256 in FILES.items():
        file = _file(found, name, ends)
        if file is None:
            raise DataError(f"{found / name} is missing, with and without .gz. {WHERE}")
        arrays.append(read_idx(file, 3 if "images" in name else 1, sha256, WHERE))
    before = (pad - 28) // 2
    margins = ((0, 0), (before, pad - 28 - before), (before, pad - 28 - before))
    train, test = (np.pad(images, margins)[:, None] for images in arrays[::2])
    return RawData(
        train=train,
        test=test,
        description="Fashion-MNIST (Xiao, Rasul & Vollgraf 2017), its own train and test split",
        levels=256,
        train_labels=arrays[1].astype(np.int64),
        test_labels=arrays[3].astype(np.int64),
        preprocessing="none" if pad == 28 else f"padded with zeros to {pad} x {pad}",
        class_names=CLASSES,
    )
