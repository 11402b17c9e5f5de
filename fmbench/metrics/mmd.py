"""The squared maximum mean discrepancy between two sets, by the unbiased estimator (Gretton et al. 2012, eq. 3).

    MMD^2 = mean over i != j of k(x_i, x_j) + mean over i != j of k(y_i, y_j) - 2 mean of k(x_i, y_j)

The estimator is unbiased, so for equal distributions its mean is 0 and single values may be negative. A negative value is not an
error, and is not clipped.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Kernel = Callable[[Tensor, Tensor], Tensor]
"""From points (n, D) and (m, D), float64, to the values k(x_i, y_j) of shape (n, m)."""


def as_points(x: NDArray | Tensor, least: int = 1) -> Tensor:
    """Points (n, D) as float64.

    Raises:
        ValueError: the shape is another, there are fewer than ``least`` points, or a value is not finite.
    """
    points = torch.as_tensor(x).to(torch.float64)
    if points.ndim != 2 or len(points) < least:
        raise ValueError(f"points must have shape (n, D) with n >= {least}, not {tuple(points.shape)}")
    if not bool(points.isfinite().all()):
        raise ValueError("points are not all finite; the samples they come from have diverged")
    return points


def unbiased_mmd(x: NDArray | Tensor, y: NDArray | Tensor, kernel: Kernel, rows: int = 1024) -> float:
    """MMD^2 of x (n, D) and y (m, D), n, m >= 2, from all pairs, in blocks of ``rows`` by ``rows`` values of the kernel.

    Raises:
        ValueError: there are fewer than two points in a set, the dimensions differ, or a value is not finite.
    """
    x, y = as_points(x, 2), as_points(y, 2)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"points of {x.shape[1]} and {y.shape[1]} dimensions cannot be compared")
    n, m = len(x), len(y)
    between = sum(float(kernel(a, b).sum()) for a in x.split(rows) for b in y.split(rows)) / (n * m)
    return _within(x, kernel, rows) / (n * (n - 1)) + _within(y, kernel, rows) / (m * (m - 1)) - 2 * between


def _within(x: Tensor, kernel: Kernel, rows: int) -> float:
    """The sum of k(x_i, x_j) over i != j: blocks above the diagonal count twice, blocks below it are not computed."""
    blocks = x.split(rows)
    total = 0.0
    for i, a in enumerate(blocks):
        total += float(kernel(a, a).fill_diagonal_(0).sum())
        total += sum(2 * float(kernel(a, b).sum()) for b in blocks[i + 1 :])
    return total


def gaussian_kernel(bandwidths: list[float]) -> Kernel:
    """k(x, y) = the mean over ``bandwidths`` h of exp(-|x - y|^2 / (2 h^2)).

    Raises:
        ValueError: there is no bandwidth, or one is not positive and finite.
    """
    if not bandwidths or not all(0 < h < float("inf") for h in bandwidths):
        raise ValueError(f"bandwidths must be positive and finite, not {bandwidths}")

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        # Differences, not |x|^2 + |y|^2 - 2 x y, which loses all digits for two near points far from 0.
        squares = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square_()
        return torch.stack([torch.exp(squares / (-2 * h * h)) for h in bandwidths]).mean(0)

    return kernel


def median_distance(x: NDArray | Tensor, y: NDArray | Tensor, most: int = 2000) -> float:
    """The median distance between two points of the union of both sets: the usual bandwidth (Gretton et al. 2012, sec. 8).

    At most ``most`` points are used, evenly spaced in the given order, so the result needs no random numbers.

    Raises:
        ValueError: more than half of the pairs coincide, so that the median is 0.
    """
    pooled = torch.cat([as_points(x), as_points(y)])
    if len(pooled) > most:
        pooled = pooled[torch.from_numpy(np.linspace(0, len(pooled) - 1, most).round().astype(np.int64))]
    median = float(np.median(torch.pdist(pooled).numpy()))
    if median == 0:
        raise ValueError("more than half of all pairs of points coincide, so their median distance is 0; give a bandwidth")
    return median
