"""Mean and standard deviation of a split, gathered piece by piece."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Histogram:
    """How often each level occurs in each channel. The statistics are exact and do not depend on the pieces."""

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] | None = None

    def add(self, values: NDArray) -> None:
        """Images (n, C, H, W) of uint8."""
        found = np.stack([np.bincount(values[:, c].ravel(), minlength=256) for c in range(values.shape[1])])
        self.counts = found if self.counts is None else self.counts + found

    def summary(self) -> dict[str, Any]:
        """Mean and standard deviation over all numbers, and for each channel."""
        assert self.counts is not None
        (mean, std), channels = _of_counts(self.counts.sum(0)), [_of_counts(c) for c in self.counts]
        return {"mean": mean, "std": std, "channel_mean": [m for m, _ in channels], "channel_std": [s for _, s in channels]}


def _of_counts(counts: NDArray[np.int64]) -> tuple[float, float]:
    levels = np.arange(256, dtype=np.float64)
    mean = float(counts @ levels) / float(counts.sum())
    return mean, math.sqrt(float(counts @ (levels - mean) ** 2) / float(counts.sum()))


class Moments:
    """Mean and standard deviation in float64, gathered from pieces by the update of Chan, Golub & LeVeque (1979)."""

    def __init__(self) -> None:
        self.n, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, values: NDArray) -> None:
        """Points (n, D)."""
        x = values.astype(np.float64)
        n, mean = self.n + x.size, float(x.mean())
        away = mean - self.mean
        self.squares += float(((x - mean) ** 2).sum()) + away * away * self.n * x.size / n
        self.mean += away * x.size / n
        self.n = n

    def summary(self) -> dict[str, Any]:
        """Mean and standard deviation over all numbers."""
        return {"mean": self.mean, "std": math.sqrt(self.squares / self.n)}
