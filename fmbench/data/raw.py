"""What a data source returns: arrays, or streams of pieces."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated

from numpy.typing import NDArray
from pydantic import Field

Samples = Annotated[int, Field(ge=2)]
"""Type of a source's parameter for the number of samples of a split."""
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
        train, test: points, float32 (N, D), or images, uint8 (N, C, H, W) with values 0 .. levels - 1; or a stream of these.
        levels: the number of values that a pixel can take; None for points.
        scale: points are multiplied by this before the network sees them (1 for images, which go to [-1, 1]).
        train_labels, test_labels: integers (N,), or None; the labels of a stream are in its pieces.
        support: a name of :data:`fmbench.metrics.points.SUPPORTS`, or None if the support is not known.
        entropy: the entropy of the true density in nats, or None. No model's NLL can be lower in expectation.
        description: source, variant and split, for the manifest.
        variant: the release of the data, if there are several.
        preprocessing: what was done to the samples between the source's files and these arrays.
        class_names: the names of the labels, in their order.
    """

    train: NDArray | Stream
    test: NDArray | Stream
    description: str
    levels: int | None = None
    scale: float = 1.0
    train_labels: NDArray | None = None
    test_labels: NDArray | None = None
    support: str | None = None
    entropy: float | None = None
    variant: str | None = None
    preprocessing: str = "none"
    class_names: tuple[str, ...] | None = None
