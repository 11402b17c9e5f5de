"""Distances between sets of points in the plane, and the supports of known densities."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist


def energy_distance(x: NDArray, y: NDArray) -> float:
    """The squared energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'| (Szekely & Rizzo 2013), unbiased.

    Pairs of a point with itself are left out, so the estimate may fall a little below 0 for equal distributions.

    Args:
        x: shape (n, D); y: shape (m, D); n, m >= 2.
    """
    if len(x) < 2 or len(y) < 2:
        raise ValueError(f"need at least two points on each side, not {len(x)} and {len(y)}")
    n, m = len(x), len(y)
    between = _sum_of_distances(x, y) / (n * m)
    return 2 * between - _sum_of_distances(x, x) / (n * (n - 1)) - _sum_of_distances(y, y) / (m * (m - 1))


def _sum_of_distances(x: NDArray, y: NDArray, rows: int = 1024) -> float:
    # By blocks of rows: 10,000 x 10,000 distances at once would be 800 MB.
    return sum(float(cdist(x[i : i + rows], y).sum()) for i in range(0, len(x), rows))


def on_checkerboard(x: NDArray) -> NDArray[np.bool_]:
    """Which points of shape (n, 2) lie on the filled squares of the 4 x 4 board on [-2, 2]^2."""
    cell = np.floor(x)
    inside = (np.abs(x) <= 2).all(1)
    return inside & (cell.sum(1) % 2 == 0)


SUPPORTS: dict[str, Callable[[NDArray], NDArray[np.bool_]]] = {"checkerboard": on_checkerboard}
"""Data sets whose support is known: from points to whether they lie on it."""
