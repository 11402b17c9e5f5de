"""What a data source returns: arrays, or streams of pieces."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fmbench.errors import DataError

Samples = Annotated[int, Field(ge=2)]
"""Type of a source's parameter for the number of samples of a split."""
PerColumn = float | Sequence[float]
"""A number for all columns of points, or one for each column."""
Piece = tuple[NDArray, NDArray | None]
"""Some samples of a split, in order, with their labels or None."""


@dataclass(frozen=True)
class Stream:
    """A split given in pieces, so that it need not fit into memory.

    Attributes:
        pieces: ``pieces(start, workers)`` yields the samples from ``start`` on, in order, and may use ``workers`` processes.
            ``start`` is 0 unless the stream has a ``prefix``.
        n: the number of samples, or None if it is not known.
        prefix: ``prefix(n)`` is a text that changes whenever the first n samples may have changed. A stream with a prefix can
            be resumed after an interruption.
    """

    pieces: Callable[[int, int], Iterable[Piece]]
    n: int | None = None
    prefix: Callable[[int], str] | None = None


@dataclass(frozen=True)
class RawData:
    """A data set before it is written.

    Attributes:
        train, test: points, floats (N, D), or images, uint8 (N, C, H, W) with values 0 .. levels - 1; or a stream of these.
            Points become float32, after the shift is subtracted. A conversion that loses what they vary in is an error.
        levels: the number of values that a pixel can take; None for points.
        scale: points are multiplied by this before the network sees them (1 for images, which go to [-1, 1]).
        shift: this is subtracted from points in float64 before they become float32 (0 for images, and for points with a support).
            All that fmbench stores and reports of the points is in these shifted coordinates.
        train_labels, test_labels: numbers or text (N,), or None; the labels of a stream are in its pieces. They become class
            numbers in the sorted order of the training split's labels.
        support: a name of :data:`fmbench.metrics.points.SUPPORTS`, or None if the support is not known.
        entropy: the entropy of the true density in nats, or None. No model's NLL can be lower in expectation.
        description: source, variant and split, for the manifest.
        variant: the release of the data, if there are several.
        preprocessing: what was done to the samples between the source's files and these arrays.
        class_names: the names of the classes if the labels are numbers into these names.
        notes: sentences on what a reader should know, such as how many files were left out; for the console and the manifest.
        decline: how a config prepares the samples without labels, for messages, such as "the parameter label: none".
    """

    train: NDArray | Stream
    test: NDArray | Stream
    description: str
    levels: int | None = None
    scale: PerColumn = 1.0
    train_labels: NDArray | None = None
    test_labels: NDArray | None = None
    support: str | None = None
    entropy: float | None = None
    variant: str | None = None
    preprocessing: str = "none"
    class_names: tuple[str, ...] | None = None
    shift: PerColumn = 0.0
    notes: tuple[str, ...] = ()
    decline: str = ""

    def check(self) -> None:
        """Check the numbers that a source gives.

        Raises:
            DataError: levels, scale or shift cannot be used.
        """
        levels = self.levels
        if levels is not None and (
            isinstance(levels, bool) or not isinstance(levels, int | np.integer) or not 2 <= levels <= 256
        ):
            raise DataError(f"levels must be a whole number between 2 and 256, not {levels!r}")
        scale, shift = per_column("scale", self.scale), per_column("shift", self.shift)
        if not (scale > 0).all():
            raise DataError(f"scale must be positive, not {self.scale}")
        if levels is not None and ((scale != 1).any() or shift.any()):
            raise DataError(
                f"scale and shift are for points, not for images, which always go to [-1, 1]; found scale {self.scale} and shift "
                f"{self.shift}"
            )
        if self.support is not None and shift.any():
            raise DataError(f"points with the known support {self.support!r} take no shift, because the support would not move")


def per_column(name: str, value: PerColumn) -> NDArray[np.float64]:
    """A number or a list of numbers as float64 of shape () or (D,).

    Raises:
        DataError: it is neither, or not finite.
    """
    try:
        found = np.asarray(value)
        found = found.astype(np.float64) if found.dtype.kind in "iuf" else np.array(np.nan)
    except (TypeError, ValueError):
        found = np.array(np.nan)
    if found.ndim > 1 or not found.size or not np.isfinite(found).all():
        raise DataError(f"{name} must be a finite number, or a list with one for each column, not {value!r}")
    return found
