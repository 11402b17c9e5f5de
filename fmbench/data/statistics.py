"""Mean and standard deviation of a split, gathered piece by piece."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Histogram:
    """How often each level occurs in each channel. The statistics are exact and do not depend on the pieces."""

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] | None = None
        self.equal = True  # whether all channels of every image are equal

    def add(self, values: NDArray) -> None:
        """Images (n, C, H, W) of uint8."""
        self.equal = self.equal and bool((values == values[:, :1]).all())
        found = np.stack([np.bincount(values[:, c].ravel(), minlength=256) for c in range(values.shape[1])])
        self.counts = found if self.counts is None else self.counts + found

    def summary(self) -> dict[str, Any]:
        """Mean and standard deviation over all numbers, and for each channel."""
        assert self.counts is not None
        (mean, std), channels = of_counts(self.counts.sum(0)), [of_counts(c) for c in self.counts]
        return {"mean": mean, "std": std, "channel_mean": [m for m, _ in channels], "channel_std": [s for _, s in channels]}


def of_counts(counts: NDArray[np.int64]) -> tuple[float, float]:
    """Mean and standard deviation of levels, from how often each occurs (L,)."""
    levels = np.arange(len(counts), dtype=np.float64)
    mean = float(counts @ levels) / float(counts.sum())
    return mean, math.sqrt(float(counts @ (levels - mean) ** 2) / float(counts.sum()))


class Columns:
    """Mean, standard deviation and ends of each column in float64, by the update of Chan, Golub & LeVeque (1979)."""

    def __init__(self) -> None:
        self.n = 0
        self.mean = self.squares = np.zeros(())
        self.low, self.high = np.array(np.inf), np.array(-np.inf)

    def add(self, values: NDArray) -> None:
        """Points (n, D), at least one, of float64 or wider."""
        n, mean = self.n + len(values), values.mean(0).astype(np.float64)
        away = mean - self.mean
        scatter = np.square(values - mean).sum(0).astype(np.float64)
        self.squares = self.squares + scatter + away * away * (self.n * len(values) / n)
        self.mean = self.mean + away * (len(values) / n)
        self.low = np.minimum(self.low, values.min(0)).astype(np.float64)
        self.high = np.maximum(self.high, values.max(0)).astype(np.float64)
        self.n = n

    @property
    def std(self) -> NDArray[np.float64]:
        """The standard deviations (D,)."""
        out: NDArray[np.float64] = np.sqrt(self.squares / self.n)
        return out


class Moments:
    """Mean and standard deviation in float64, gathered from pieces by the update of Chan, Golub & LeVeque (1979)."""

    def __init__(self) -> None:
        self.n, self.mean, self.squares = 0, 0.0, 0.0
        self.columns = Columns()

    def add(self, values: NDArray) -> None:
        """Points (n, D)."""
        x = values.astype(np.float64)
        self.columns.add(x)
        n, mean = self.n + x.size, float(x.mean())
        away = mean - self.mean
        self.squares += float(((x - mean) ** 2).sum()) + away * away * self.n * x.size / n
        self.mean += away * x.size / n
        self.n = n

    def summary(self) -> dict[str, Any]:
        """Mean and standard deviation over all numbers, and of each column."""
        of_columns = {"column_mean": self.columns.mean.tolist(), "column_std": self.columns.std.tolist()}
        return {"mean": self.mean, "std": math.sqrt(self.squares / self.n)} | of_columns
