"""Image files to arrays: decode, crop, resize, in several processes and in the given order.

This module imports little, because each process imports it again.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fmbench.data.opening import shown
from fmbench.data.raw import Piece
from fmbench.errors import DataError

Resize = Literal["area", "antialias"]
AS_SHOWN = "as viewers show it (EXIF orientation applied, transparency on white, first frame, no colour profile)"
"""What is done to every image before anything else, for the manifest."""


@dataclass(frozen=True)
class Recipe:
    """How an image is resized and converted.

    Attributes:
        height, width: of the result.
        channels: 3 for RGB, 1 for its luma.
        resize: ``area`` averages the area under each new pixel (a box filter), ``antialias`` is bicubic with a kernel as wide as
            the reduction. Both take the largest centred square. None takes only images of the right size.
    """

    height: int
    width: int
    channels: int = 3
    resize: Resize | None = "area"

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, not {self.channels}")
        if self.resize not in ("area", "antialias", None):
            raise ValueError(f"resize must be area or antialias, not {self.resize!r}")
        if not (0 < self.height <= 4096 and 0 < self.width <= 4096):
            raise ValueError(f"the size must be between 1 and 4096, not {self.height} x {self.width}")

    def describe(self) -> str:
        """The recipe in words, for the manifest."""
        import PIL

        colour = "RGB" if self.channels == 3 else "luma"
        if self.resize is None:
            return f"{AS_SHOWN}, {colour}, not resized (Pillow {PIL.__version__})"
        how = {"area": "box (area) filter", "antialias": "antialiased bicubic filter"}[self.resize]
        size = f"{self.height} x {self.width}"
        return f"{AS_SHOWN}, largest centred square, {how} to {size}, {colour} (Pillow {PIL.__version__})"

    @property
    def bytes(self) -> int:
        """The bytes of one image of the result."""
        return self.channels * self.height * self.width


@dataclass(frozen=True)
class Item:
    """An image: a file name, or ``content`` (encoded bytes) with a name for messages; and its label or None."""

    name: str
    label: Any = None
    content: bytes | None = None


def image_size(item: Item) -> tuple[int, int]:
    """Height and width of an image as :func:`decode` sees it.

    Raises:
        DataError: the image cannot be used.
    """
    picture = shown(item.name, item.content, "L")
    return picture.height, picture.width


def recipe_of(size: int | None, channels: int, resize: Resize | None, example: Callable[[], Item]) -> Recipe:
    """The recipe of squares of a size; without one, that of images which all have the size of an example and keep it.

    Raises:
        DataError: the example cannot be used.
    """
    if size is None:
        height, width = image_size(example())
        return Recipe(height, width, channels, None)
    return Recipe(size, size, channels, resize)


def decode(item: Item, recipe: Recipe) -> NDArray[np.uint8]:
    """An image as uint8 (C, H, W), as viewers show it (:func:`fmbench.data.opening.shown`), then cropped and resized.

    Raises:
        DataError: the image is truncated or not an image, has more than 8 bits a channel, or has another size than promised.
    """
    from PIL import Image

    # Converted before resizing: a palette or two levels cannot be averaged.
    picture = shown(item.name, item.content, "RGB" if recipe.channels == 3 else "L")
    if recipe.resize is not None:
        side = min(picture.size)
        left, top = (picture.width - side) / 2, (picture.height - side) / 2
        kernel = Image.Resampling.BOX if recipe.resize == "area" else Image.Resampling.BICUBIC
        square = (int(left), int(top), int(left) + side, int(top) + side)
        picture = picture.resize((recipe.width, recipe.height), kernel, box=square)
    if (picture.height, picture.width) != (recipe.height, recipe.width):
        raise DataError(
            f"{item.name} has {picture.height} x {picture.width} pixels, others {recipe.height} x {recipe.width}; "
            "set the parameter size to crop all to a square and resize them"
        )
    pixels = np.asarray(picture)
    return pixels[None] if recipe.channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def decode_all(items: Sequence[Item], recipe: Recipe) -> Piece:
    """Images (n, C, H, W), and labels (n,) if any item has one; then an item without one has the label None."""
    images = np.stack([decode(item, recipe) for item in items])
    labels = np.fromiter((item.label for item in items), object, len(items))
    return images, None if all(label is None for label in labels) else labels


def decoded(items: Iterable[Item], recipe: Recipe, workers: int, rows: int) -> Iterator[Piece]:
    """Pieces of ``rows`` images, in order, by up to ``workers`` processes.

    Raises:
        DataError: as for :func:`decode`, or a process died.
    """
    source = iter(items)
    if workers <= 1:
        while chunk := list(islice(source, rows)):
            yield decode_all(chunk, recipe)
        return
    # Spawn, not fork, since the parent has torch's threads. Two pieces per worker keep all busy and memory small.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _begin)
    waiting: deque[Future[Piece]] = deque()
    try:
        while True:
            while len(waiting) < 2 * workers and (chunk := list(islice(source, rows))):
                waiting.append(pool.submit(decode_all, chunk, recipe))
            if not waiting:
                return
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise DataError("a process that decodes images was killed, perhaps because memory ran out; rerun to continue") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Set up a worker process: it ignores Ctrl-C, which is the parent's, and ends when the parent ends, even by a kill."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
