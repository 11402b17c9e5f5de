"""Folders of image files, with a folder for each class if there are classes."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from fmbench.data.image_files import Found, Listing, scan
from fmbench.data.images import Item, Recipe, Resize, decoded, recipe_of
from fmbench.data.npy import rows_per_piece
from fmbench.data.raw import Piece, RawData, Stream
from fmbench.data.size_filter import Smaller, large_enough, left_out
from fmbench.errors import DataError, first_few

DECLINE = "the parameter label: none"
SPLITS = frozenset({"train", "test", "val", "valid", "validation"})


def listing(root: Path) -> Listing:
    """All image files below a folder, in the order of a hash of their paths, and a count of the other files.

    That order is the same everywhere and mixes the classes, so the first n samples are of all classes.

    Raises:
        DataError: the folder does not exist or cannot be read, or a link is broken or leads to a folder that is listed already.
    """
    found = scan(root)
    found.files.sort(key=lambda f: _digest("order", f[0]))
    return found


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
            f"or none; {DECLINE} takes no classes"
        )
    return tuple(sorted(names)) if names else None


def stream(root: Path, files: Sequence[Found], recipe: Recipe, labels: Mapping[str, str | int] | None) -> Stream:
    """A resumable stream of a listing. ``labels`` maps the first folder of a path, or the whole path, to its class."""

    def label(name: str) -> str | int | None:
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


def filtered(
    root: Path, files: Sequence[Found], name: str, size: int | None, smaller: Smaller | None
) -> tuple[list[Found], tuple[str, ...]]:
    """The files of a split that are large enough, and a sentence on the others; raises as :func:`large_enough`."""
    kept = large_enough((Item(str(root / file)) for file, _ in files), size, smaller)
    return [f for f, keep in zip(files, kept or [True] * len(files), strict=True) if keep], left_out(name, kept, size)


def folder(
    path: str,
    size: int | None = None,
    channels: int = 3,
    resize: Resize = "area",
    smaller: Smaller | None = None,
    test_share: Annotated[float, Field(gt=0, lt=1)] | None = None,
    label: Literal["none"] | None = None,
) -> RawData:
    """A folder of images. Its sub-folders, if any, are the classes.

    Args:
        path: the folder; without ``test_share`` it has the sub-folders ``train`` and ``test`` (or ``val``).
        size: side of the images after a centre crop to a square; by default all images must have the same size, and keep it.
        channels: 3, or 1 for the luma.
        resize: ``area`` or ``antialias``; see :class:`~fmbench.data.images.Recipe`.
        smaller: what happens to images whose short side is below ``size``: ``drop`` leaves them out, ``enlarge`` (the default)
            resizes them like the others.
        test_share: share of the files that becomes the test split, chosen by a hash of each path below ``path``.
        label: ``none`` for images without labels; then the sub-folders are no classes.

    Raises:
        DataError: a folder is missing or empty, or an image cannot be read.
    """
    root = Path(os.path.expanduser(path))
    places = (root, root) if test_share is not None else _places(root)
    listings = [listing(place) for place in dict.fromkeys(places)]
    if test_share is None:
        splits = [found.files for found in listings]
    else:
        splits = [[f for f in listings[0].files if in_test(f[0], test_share) == test] for test in (False, True)]
    dropped: list[str] = []
    for i, (name, place) in enumerate(zip(("train", "test"), places, strict=True)):
        splits[i], said = filtered(place, splits[i], name, size, smaller)
        dropped += said
    for name, found, files in zip(("train", "test"), (listings[0], listings[-1]), splits, strict=True):
        if len(files) < 2:
            share = "" if test_share is None else f" in a test share of {test_share:g}"
            others = found.describe()
            others = f"; other files there: {others}" if others else ""
            raise DataError(f"{found.root}: expected two images or more for {name}, found {len(files)}{share}{others}")
    classes = None if label == "none" else _classes(listings, whole=test_share is not None)
    recipe = recipe_of(size, channels, resize, lambda: Item(str(places[0] / splits[0][0][0])))
    labels = None if classes is None else {name: name for name in classes}
    names = ("train and test",) if test_share is not None else ("train", "test")
    return RawData(
        train=stream(places[0], splits[0], recipe, labels),
        test=stream(places[1], splits[1], recipe, labels),
        description=f"images of the folder {root.name}",
        levels=256,
        preprocessing=recipe.describe(),
        notes=(
            *(note for name, found in zip(names, listings, strict=True) for note in found.notes(name)),
            *(() if test_share is not None else _beside(root, places)),
            *dropped,
        ),
        decline=DECLINE,
    )


def _places(root: Path) -> tuple[Path, Path]:
    """The folders of the two splits.

    Raises:
        DataError: one is missing, or both are the same folder.
    """
    train, test = root / "train", root / ("test" if (root / "test").is_dir() or not (root / "val").is_dir() else "val")
    if not (train.is_dir() and test.is_dir()):
        raise DataError(
            f"{root}: expected the folders train and test (or val); to split one folder, give test_share, such as 0.1"
        )
    if train.samefile(test):
        raise DataError(f"{root}: train and {test.name} are the same folder, by a link; to split one folder, give test_share")
    return train, test


def _classes(listings: list[Listing], whole: bool) -> tuple[str, ...] | None:
    """The classes of the two splits, or of the ``whole`` folder that is split.

    Raises:
        DataError: a class folder has no image, some images are in no class folder, or the splits' classes do not agree.
    """
    found = [classes_of(one.files, one.root) for one in listings]
    for one, classes in zip(listings, found, strict=True):
        if classes is not None:
            one.check_classes(f"{DECLINE} takes no classes")
    train, test = found[0], found[-1]
    if whole and train is not None and "train" in train and set(train) <= SPLITS and len(train) > 1:
        raise DataError(f"{listings[0].root}: it is split into {', '.join(train)} already; leave out the parameter test_share")
    if (test is None) != (train is None) or not set(test or ()) <= set(train or ()):
        new = None if test is None else sorted(set(test) - set(train or ()))
        raise DataError(
            f"{listings[1].root}: its classes {_named(new)} differ from those of train: {_named(train)}; "
            f"{DECLINE} takes no classes"
        )
    return train


def _beside(root: Path, places: tuple[Path, Path]) -> tuple[str, ...]:
    """A sentence on what lies beside the folders of the splits, if anything does."""
    others = sorted(e.name for e in os.scandir(root) if not e.name.startswith(".") and e.name not in {p.name for p in places})
    return (f"left out beside {places[0].name} and {places[1].name}: {first_few(others)}",) if others else ()


def _named(classes: Sequence[str] | None) -> str:
    return "(none)" if classes is None else first_few(classes)
