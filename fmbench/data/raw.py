"""What a data source returns."""

from dataclasses import dataclass

from numpy.typing import NDArray


@dataclass(frozen=True)
class RawData:
    """A data set before it is written.

    Attributes:
        train, test: points, float32 (N, D), or images, uint8 (N, C, H, W) with values 0 .. levels - 1.
        levels: how many values a pixel takes; None for points.
        scale: points are multiplied by this before the network sees them (1 for images, which go to [-1, 1]).
        train_labels, test_labels: integers (N,), where there are any.
        support: a name of :data:`fmbench.metrics.points.SUPPORTS`, where the support is known.
        entropy: the entropy of the true density in nats, where known: no model's NLL can be lower in expectation.
        description: source, variant and split, for the manifest.
    """

    train: NDArray
    test: NDArray
    description: str
    levels: int | None = None
    scale: float = 1.0
    train_labels: NDArray | None = None
    test_labels: NDArray | None = None
    support: str | None = None
    entropy: float | None = None
