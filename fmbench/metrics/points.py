"""Distances between sets of points in the plane (or in a few dimensions), and the supports of known densities."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist


def energy_distance(x: NDArray, y: NDArray) -> float:
    """The squared energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'| (Szekely & Rizzo 2013), unbiased.

    Pairs of a point with itself are left out, so the estimate may be slightly negative for equal distributions.

    Args:
        x: shape (n, D), n >= 2.
        y: shape (m, D), m >= 2.

    Raises:
        ValueError: a set has fewer than two points.
    """
    if len(x) < 2 or len(y) < 2:
        raise ValueError(f"need at least two points on each side, not {len(x)} and {len(y)}")
    n, m = len(x), len(y)
    between = _sum_of_distances(x, y) / (n * m)
    return 2 * between - _sum_of_distances(x, x) / (n * (n - 1)) - _sum_of_distances(y, y) / (m * (m - 1))


def _sum_of_distances(x: NDArray, y: NDArray, rows: int = 1024) -> float:
    # In blocks of rows: 10,000 x 10,000 distances at once would take 800 MB.
    return sum(float(cdist(x[i : i + rows], y).sum()) for i in range(0, len(x), rows))


def sliced_wasserstein(x: NDArray, y: NDArray, projections: NDArray, order: int = 2, elements: int = 2**24) -> float:
    """The sliced Wasserstein distance (Rabin et al. 2011; Bonneel et al. 2015), in the points' units.

        SW_p = ( mean over directions of W_p^p of the projected sets )^(1/p)

    The distance along each direction is exact: in one dimension the optimal coupling pairs the sorted points. For n != m the
    quantiles of both sets are constant between neighbouring multiples of 1 / n and 1 / m, and the length of each such interval
    is its weight. Unlike the energy distance, the result has a positive bias.

    Args:
        x: shape (n, D), n >= 1.
        y: shape (m, D), m >= 1.
        projections: directions (P, D), not 0; this function scales them to length 1. Draw them from a
            normal distribution, with a named seed.
        order: p, 1 or larger.
        elements: the number of projected values in memory at a time.

    Raises:
        ValueError: the shapes do not fit, a direction has length 0, the order is below 1, or a value is not finite.
    """
    x, y, directions = (np.asarray(z, np.float64) for z in (x, y, projections))
    if not (x.ndim == y.ndim == directions.ndim == 2 and x.shape[1] == y.shape[1] == directions.shape[1]):
        raise ValueError(f"need (n, D), (m, D) and (P, D), not {x.shape}, {y.shape} and {directions.shape}")
    if not (len(x) and len(y) and len(directions)) or order < 1:
        raise ValueError(f"need points, directions and an order >= 1, not {len(x)}, {len(y)}, {len(directions)}, {order}")
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise ValueError("a projection has no direction: its length is 0 or not finite")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("points are not all finite; the samples they come from have diverged")
    weights, i, j = _coupling(len(x), len(y))
    step = max(1, elements // len(weights))
    total = 0.0
    for start in range(0, len(directions), step):
        chosen = (directions[start : start + step] / lengths[start : start + step]).T
        a, b = np.sort((x @ chosen).T, axis=1), np.sort((y @ chosen).T, axis=1)
        gaps = np.abs(a - b) if len(x) == len(y) else np.abs(a[:, i] - b[:, j])
        total += float(((gaps**order) @ weights).sum())
    return float((total / len(directions)) ** (1 / order))


def _coupling(n: int, m: int) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """The optimal coupling of n and m sorted points of equal weight: the weights, and the indices of the points they pair."""
    # Quantiles as integers in units of 1 / (n m). As floats, equal quantiles i / n and j / m could differ by rounding.
    levels = np.union1d(np.arange(n + 1, dtype=np.int64) * m, np.arange(m + 1, dtype=np.int64) * n)
    return np.diff(levels) / (n * m), levels[:-1] // m, levels[:-1] // n


Support = Callable[[NDArray], NDArray[np.bool_]]
"""From points (n, D) to whether each lies on the support of a density."""


def on_checkerboard(x: NDArray) -> NDArray[np.bool_]:
    """Whether each point (n, 2) lies on a filled square of the 4 x 4 board on [-2, 2]^2."""
    cell = np.floor(x)
    inside = (np.abs(x) <= 2).all(1)
    return inside & (cell.sum(1) % 2 == 0)


SUPPORTS: dict[str, Support] = {"checkerboard": on_checkerboard}
"""Supports by name: functions from points to whether they lie on it."""
