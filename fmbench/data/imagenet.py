"""ImageNet: the downsampled releases in .npz batches, and ILSVRC 2012 from its folders of JPEG files."""

import csv
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np

from fmbench.data.arrays import header, rows, whole
from fmbench.data.download import cache
from fmbench.data.folders import classes_of, filtered, listing, stream
from fmbench.data.image_files import Found
from fmbench.data.images import Recipe, Resize
from fmbench.data.raw import Piece, RawData, Stream
from fmbench.data.size_filter import Smaller
from fmbench.errors import DataError

TRAIN, VALIDATION, CLASSES = 1_281_167, 50_000, 1000
WHERE = "ImageNet is at https://image-net.org/download, for registered users"
VARIANTS = {
    "chrabaszcz2017": "the 2017 release, Chrabaszcz, Loshchilov & Hutter, arXiv:1707.08819",
    "antialiased": "the later re-release with anti-aliased resizing",
}
"""Releases of the downsampled ImageNet. They have the same file names and different likelihoods; no file says which it is."""


def imagenet_downsampled(
    variant: Literal["chrabaszcz2017", "antialiased"], size: Literal[32, 64] = 32, path: str | None = None
) -> RawData:
    """Downsampled ImageNet, 1,281,167 train and 50,000 validation images, three channels, 1000 classes.

    Args:
        variant: the release of the files (:data:`VARIANTS`); required, since the files do not say it.
        size: 32 or 64.
        path: folder with ``train_data_batch_1.npz`` to ``train_data_batch_10.npz`` and ``val_data.npz``.

    Raises:
        DataError: a batch is missing, truncated or of another shape; or the number of images is not ImageNet's.
    """
    place = cache(f"imagenet{size}") if path is None else Path(os.path.expanduser(path))
    batches = [place / f"train_data_batch_{i}.npz" for i in range(1, 11)]
    missing = [file.name for file in (*batches, place / "val_data.npz") if not file.exists()]
    if missing:
        raise DataError(f"{place}: {', '.join(missing)} missing. {WHERE}")

    _check_copies([*batches, place / "val_data.npz"])

    def split(files: list[Path], count: int) -> Stream:
        for file in files:
            shape, dtype = header(file, "data", WHERE)
            if len(shape) != 2 or shape[1] != 3 * size * size or dtype != np.uint8:
                raise DataError(f"{file}: expected rows of 3 x {size} x {size} uint8, found shape {shape} of {dtype}. {WHERE}")
        found = sum(header(file, "data", WHERE)[0][0] for file in files)
        if found != count:
            raise DataError(f"{place}: expected {count} images in {files[0].name} to {files[-1].name}, found {found}. {WHERE}")

        def pieces(start: int, workers: int) -> Iterable[Piece]:
            for file in files:
                labels = np.asarray(whole(file, "labels", WHERE))
                of_data = header(file, "data", WHERE)[0]
                if labels.shape != of_data[:1] or labels.dtype.kind not in "iu" or labels.min() < 1 or labels.max() > CLASSES:
                    raise DataError(
                        f"{file}: expected {of_data[0]} labels from 1 to {CLASSES}, found shape {labels.shape} of {labels.dtype}"
                        + (f" from {labels.min()} to {labels.max()}" if labels.size else "")
                    )
                done = 0
                for piece in rows(file, "data", WHERE):
                    yield piece.reshape(-1, 3, size, size), labels[done : done + len(piece)].astype(np.int64) - 1
                    done += len(piece)

        return Stream(pieces, n=count)

    return RawData(
        train=split(batches, TRAIN),
        test=split([place / "val_data.npz"], VALIDATION),
        description=f"ImageNet downsampled to {size} x {size}, validation set as test",
        levels=256,
        variant=f"{variant}: {VARIANTS[variant]}",
        preprocessing="as released; labels from 0",
        class_names=tuple(str(i) for i in range(1, CLASSES + 1)),  # the release's own numbers
    )


def _check_copies(files: list[Path]) -> None:
    """Refuse two batches of the same images. All but the last batch have as many images, so the counts do not show it.

    Raises:
        DataError: two files have the same images, by the length and the checksum that the archives keep.
    """
    known: dict[tuple[int, int], Path] = {}
    for file in files:
        header(file, "data", WHERE)  # says what is wrong with the file
        with zipfile.ZipFile(file) as archive:
            member = archive.getinfo("data.npy")
        before = known.setdefault((member.file_size, member.CRC), file)
        if before is not file:
            raise DataError(f"{before} and {file.name} have the same images; download {file.name} again. {WHERE}")


def imagenet(size: int = 64, resize: Resize = "area", smaller: Smaller | None = None, path: str | None = None) -> RawData:
    """ImageNet ILSVRC 2012 at any size, centre-cropped: 1,281,167 train and 50,000 validation images, RGB, 1000 classes.

    Args:
        size: side of the images.
        resize: ``area`` or ``antialias``; see :class:`~fmbench.data.images.Recipe`.
        smaller: as for :func:`fmbench.data.folders.folder`. Then there are fewer images.
        path: folder with ``train/<class>/*.JPEG`` and ``val/<class>/*.JPEG``; or ``val/*.JPEG`` with Kaggle's
            ``LOC_val_solution.csv`` beside ``val``. Classes are numbered in the order of their names.

    Raises:
        DataError: images or classes are missing, or one cannot be read.
    """
    root = cache("imagenet") if path is None else Path(os.path.expanduser(path))
    recipe = Recipe(size, size, 3, resize)
    for name in ("train", "val"):
        if not (root / name).is_dir():
            raise DataError(f"{root}: expected the folders train and val, and {name} is not there. {WHERE}")
    listings = {name: listing(root / name) for name in ("train", "val")}
    for (name, found), count in zip(listings.items(), (TRAIN, VALIDATION), strict=True):
        if len(found.files) != count:
            others = found.describe()
            raise DataError(
                f"{root / name}: expected {count} images, found {len(found.files)}{others and f' (and other files: {others})'}; "
                f"for a part of ImageNet, use the source folder. {WHERE}"
            )
    train, val = listings["train"].files, listings["val"].files
    classes = classes_of(train, root / "train") or ()
    if len(classes) != CLASSES:
        raise DataError(f"{root / 'train'}: expected {CLASSES} folders, one for each class, found {len(classes)}. {WHERE}")
    numbers = {name: i for i, name in enumerate(classes)}
    train, small = filtered(root / "train", train, "train", size, smaller)
    val, small_val = filtered(root / "val", val, "val", size, smaller)
    return RawData(
        train=stream(root / "train", train, recipe, numbers),
        test=stream(root / "val", val, recipe, _validation_labels(root, val, numbers)),
        description=f"ImageNet ILSVRC 2012 at {size} x {size}, validation set as test",
        levels=256,
        variant="ILSVRC 2012",
        preprocessing=recipe.describe(),
        class_names=classes,
        notes=(*(note for name, found in listings.items() for note in found.notes(name)), *small, *small_val),
    )


def _validation_labels(root: Path, files: list[Found], numbers: dict[str, int]) -> dict[str, int]:
    """Classes of validation images: by their folders, or by Kaggle's list if all lie in one folder."""
    if all("/" in name for name, _ in files):
        unknown = sorted({name.split("/", 1)[0] for name, _ in files} - set(numbers))
        if unknown:
            raise DataError(f"{root / 'val'}: {', '.join(unknown[:5])} are not classes of train. {WHERE}")
        return numbers
    solution = root / "LOC_val_solution.csv"
    if not solution.exists():
        raise DataError(
            f"{root / 'val'}: expected a folder for each class, or {solution} (as Kaggle gives it) with the classes. {WHERE}"
        )
    told = {}
    try:
        with open(solution, newline="", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                image, boxes = row.get("ImageId"), row.get("PredictionString")
                if image is None or boxes is None:
                    raise ValueError(f"found {dict(row)}")
                told[image] = boxes.split(" ", 1)[0]
    except (ValueError, csv.Error) as error:  # text that is not UTF-8 raises ValueError
        raise DataError(f"{solution}: expected the columns ImageId and PredictionString in UTF-8: {error}. {WHERE}") from None
    try:
        return {name: numbers[told[Path(name).stem]] for name, _ in files}
    except KeyError as error:
        raise DataError(f"{solution}: it lacks the class of {error}, an image of val. {WHERE}") from None
