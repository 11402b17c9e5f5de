"""What a data source returns."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated

from numpy.typing import NDArray
from pydantic import Field

Samples = Annotated[int, Field(ge=2)]
"""A source's parameter that says how many samples a split has."""
Piece = tuple[NDArray, NDArray | None]
"""Some samples of a split, in order, and their labels, where there are any."""


@dataclass(frozen=True)
class Stream:
    """A split that is given in pieces, so that it never has to be in memory as a whole.

    Attributes:
        pieces: ``pieces(start, workers)`` yields what comes from sample ``start`` on, in order, and may use so many processes.
            Only a stream with a ``prefix`` is asked for another start than 0.
        n: how many samples there will be, where that is known.
        prefix: ``prefix(n)`` is a text that differs when the first n samples might. With it, writing that was interrupted
            goes on where it stopped.
    """

    pieces: Callable[[int, int], Iterable[Piece]]
    n: int | None = None
    prefix: Callable[[int], str] | None = None


@dataclass(frozen=True)
class RawData:
    """A data set before it is written.

    Attributes:
        train, test: points, float32 (N, D), or images, uint8 (N, C, H, W) with values 0 .. levels - 1; or a stream of these.
        levels: how many values a pixel takes; None for points.
        scale: points are multiplied by this before the network sees them (1 for images, which go to [-1, 1]).
        train_labels, test_labels: integers (N,), where there are any; those of a stream are in its pieces.
        support: a name of :data:`fmbench.metrics.points.SUPPORTS`, where the support is known.
        entropy: the entropy of the true density in nats, where known: no model's NLL can be lower in expectation.
        description: source, variant and split, for the manifest.
        variant: which of several releases of the data this is, where there are several.
        preprocessing: what was done to the samples between the source's files and these arrays.
        class_names: what the labels mean, in their order.
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
