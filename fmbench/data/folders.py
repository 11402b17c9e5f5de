"""Folders of image files, with a folder for each class if there are classes."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from fmbench.data.images import Item, Recipe, Resize, decoded, image_size
from fmbench.data.npy import rows_per_piece
from fmbench.data.raw import Piece, RawData, Stream
from fmbench.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")

Found = tuple[str, str]
"""A file's path below its folder, with / between names, and its size and time of change, which tell whether it was replaced."""


def listing(root: Path) -> list[Found]:
    """All image files below a folder, in the order of a hash of their paths.

    That order is the same everywhere and mixes the classes, so the first n samples are of all classes.

    Raises:
        DataError: the folder does not exist.
    """
    if not root.is_dir():
        raise DataError(f"{root}: expected a folder of images, found {'a file' if root.exists() else 'nothing'}")
    found: list[Found] = []
    start = len(os.path.join(root, ""))
    waiting = [os.fspath(root)]  # strings, since there may be a million files and a Path takes ten times as long
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    waiting.append(entry.path)
                elif entry.name.lower().endswith(SUFFIXES):
                    about = entry.stat()
                    found.append((entry.path[start:].replace(os.sep, "/"), f"{about.st_size}:{about.st_mtime_ns}"))
    return sorted(found, key=lambda f: _digest("order", f[0]))


def _digest(salt: str, name: str) -> bytes:
    return hashlib.sha256(f"{salt}/{name}".encode("utf-8", "surrogateescape")).digest()[:8]


def in_test(name: str, share: float) -> bool:
    """Whether a file belongs to the test split. This depends on its path alone, so new files move no other."""
    return int.from_bytes(_digest("split", name), "big") < share * 2**64


def classes_of(files: Iterable[Found], root: Path) -> tuple[str, ...] | None:
    """The classes, which are the first folders of the files' paths, sorted; None if there are no folders.

    Raises:
        DataError: some files are in folders and some are not.
    """
    outside, names = None, set()
    for name, _ in files:
        if "/" in name:
            names.add(name.split("/", 1)[0])
        else:
            outside = name
    if names and outside is not None:
        shown = ", ".join(sorted(names)[:5])
        raise DataError(
            f"{root}: {outside} is in no class folder, but there are the folders {shown}; put every image into a class folder, "
            "or none"
        )
    return tuple(sorted(names)) if names else None


def stream(root: Path, files: Sequence[Found], recipe: Recipe, labels: dict[str, int] | None) -> Stream:
    """A resumable stream of a listing. ``labels`` maps the first folder of a path, or the whole path, to its class."""

    def label(name: str) -> int | None:
        if labels is None:
            return None
        return labels[name] if name in labels else labels[name.split("/", 1)[0]]

    def pieces(start: int, workers: int) -> Iterator[Piece]:
        items = (Item(str(root / name), label(name)) for name, _ in files[start:])
        return decoded(items, recipe, workers, rows_per_piece(recipe.bytes))

    def prefix(n: int) -> str:
        digest = hashlib.sha256(f"{recipe.describe()};{root}".encode())
        for name, state in files[:n]:
            digest.update(f"{name}:{state}:{label(name)};".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    return Stream(pieces, len(files), prefix)


def folder(
    path: str,
    size: int | None = None,
    channels: int = 3,
    resize: Resize = "area",
    test_share: Annotated[float, Field(gt=0, lt=1)] | None = None,
) -> RawData:
    """A folder of images. Its sub-folders, if any, are the classes.

    Args:
        path: the folder; without ``test_share`` it has the sub-folders ``train`` and ``test`` (or ``val``).
        size: side of the images after a centre crop to a square; by default all images must have the same size, and keep it.
        channels: 3, or 1 for the luma.
        resize: ``area`` or ``antialias``; see :class:`~fmbench.data.images.Recipe`.
        test_share: share of the files that becomes the test split, chosen by a hash of each path below ``path``.

    Raises:
        DataError: a folder is missing or empty, or an image cannot be read.
    """
    root = Path(os.path.expanduser(path))
    if test_share is None:
        test_name = "test" if (root / "test").is_dir() or not (root / "val").is_dir() else "val"
        if not ((root / "train").is_dir() and (root / test_name).is_dir()):
            raise DataError(
                f"{root}: expected the folders train and test (or val); to split one folder, give test_share, such as 0.1"
            )
        roots = (root / "train", root / test_name)
        splits = [listing(r) for r in roots]
    else:
        roots, files = (root, root), listing(root)
        splits = [[f for f in files if in_test(f[0], test_share) == test] for test in (False, True)]
    for name, place, files in zip(("train", "test"), roots, splits, strict=True):
        if len(files) < 2:
            share = "" if test_share is None else f" in a test share of {test_share:g}"
            raise DataError(f"{place}: expected two images or more for {name}, found {len(files)}{share} ({' '.join(SUFFIXES)})")
    classes = classes_of(splits[0], roots[0])
    if test_share is not None:
        classes = classes_of((f for files in splits for f in files), root)
    else:
        of_test = classes_of(splits[1], roots[1])
        if (of_test is None) != (classes is None) or not set(of_test or ()) <= set(classes or ()):
            shown = ["(none)" if c is None else c for c in (of_test, classes)]
            raise DataError(f"{roots[1]}: its classes {shown[0]} differ from those of train: {shown[1]}")
    if size is None:
        height, width = image_size(Item(str(roots[0] / splits[0][0][0])))
        recipe = Recipe(height, width, channels, None)
    else:
        recipe = Recipe(size, size, channels, resize)
    labels = None if classes is None else {name: i for i, name in enumerate(classes)}
    return RawData(
        train=stream(roots[0], splits[0], recipe, labels),
        test=stream(roots[1], splits[1], recipe, labels),
        description=f"images of the folder {root.name}",
        levels=256,
        preprocessing=recipe.describe(),
        class_names=classes,
    )
