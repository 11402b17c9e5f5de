"""The Frechet distance of infinitely many samples, by extrapolation (Chong & Forsyth 2020).

The distance of N samples exceeds its limit by about slope / N. The slope depends on the model, so at equal N a worse model can
have the lower distance. Here the distance is computed at several N, and a line in 1 / N is fitted: its intercept is the limit.
The bias of the reference, whose size is fixed, remains.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmbench.metrics.frechet import FeatureAccumulator, FeatureStatistics, frechet_distance


class Extrapolation(NamedTuple):
    """The line value = intercept + slope / n, fitted by least squares.

    ``error`` is the standard error of the intercept, and ``residual`` the root mean square of the residuals. The subsets are
    nested, so the errors of their distances are correlated: the true uncertainty is larger than ``error``.
    """

    intercept: float
    slope: float
    error: float
    residual: float
    sizes: NDArray[np.int64]
    values: NDArray[np.float64]


def extrapolate(sizes: NDArray[np.int64] | list[int], values: NDArray[np.float64] | list[float]) -> Extrapolation:
    """The line in 1 / n fitted to ``values`` at ``sizes``, of which at least three differ.

    Raises:
        ValueError: the lengths differ, there are fewer than three different sizes, or a value is not finite.
    """
    n, v = np.asarray(sizes, np.int64), np.asarray(values, np.float64)
    if n.shape != v.shape or n.ndim != 1 or len(np.unique(n)) < 3 or n.min() < 1 or not np.isfinite(v).all():
        raise ValueError(f"need finite values at three or more different sizes, not {v.tolist()} at {n.tolist()}")
    x = 1 / n
    centred = x - x.mean()
    spread = centred @ centred
    slope = float(centred @ v / spread)
    intercept = float(v.mean() - slope * x.mean())
    squares = float(((v - intercept - slope * x) ** 2).sum())
    error = np.sqrt(squares / (len(n) - 2) * (1 / len(n) + x.mean() ** 2 / spread))
    return Extrapolation(intercept, slope, float(error), float(np.sqrt(squares / len(n))), n, v)


def frechet_infinity(
    features: NDArray | Tensor,
    reference: FeatureStatistics,
    generator: torch.Generator | None = None,
    points: int = 15,
    smallest: int | None = None,
) -> Extrapolation:
    """The limit of the distances of nested subsets of ``features`` (n, D) to ``reference``, of sizes from ``smallest`` to n.

    The subsets are the beginnings of one random order, so one pass over the features gives all their statistics.

    Args:
        generator: draws the order; by default, the order is that of the features.
        points: the number of sizes, evenly spaced in n as in the paper.
        smallest: by default n / 10, as the paper's 5,000 of 50,000. Below D the distance is no longer linear in 1 / N.

    Raises:
        ValueError: there are fewer than three sizes between ``smallest`` and n, or the features are not finite.
    """
    n = len(features)
    smallest = max(2, n // 10) if smallest is None else smallest
    if not 2 <= smallest < n or points < 3 or n - smallest < points - 1:
        raise ValueError(f"no {points} different sizes (at least 3) between {smallest} and {n} features")
    sizes = np.linspace(smallest, n, points).round().astype(np.int64)
    order = torch.arange(n) if generator is None else torch.randperm(n, generator=generator)
    accumulator, values = FeatureAccumulator(), []
    for start, end in zip([0, *sizes[:-1]], sizes, strict=True):
        chosen = order[start:end]
        accumulator.update(features[chosen.to(features.device)] if isinstance(features, Tensor) else features[chosen.numpy()])
        values.append(frechet_distance(accumulator.statistics(), reference))
    return extrapolate(sizes, values)
