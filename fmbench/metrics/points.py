"""Distances between sets of points in the plane (or in any few dimensions), and the supports of known densities."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from fmbench.metrics.mmd import gaussian_kernel, median_distance, unbiased_mmd


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


def sliced_wasserstein(x: NDArray, y: NDArray, projections: NDArray, order: int = 2, elements: int = 2**24) -> float:
    """The sliced Wasserstein distance (Rabin et al. 2011; Bonneel et al. 2015), in the points' units.

        SW_p = ( mean over directions of W_p^p of the projected sets )^(1/p)

    Exact for each direction: in one dimension the sorted points are coupled, and for n != m each pair of neighbouring
    quantiles, which are multiples of 1 / n and 1 / m, by its own weight. Unlike the energy distance it has a positive bias.

    Args:
        x: shape (n, D); y: shape (m, D); n, m >= 1.
        projections: directions (P, D), not 0, scaled to length 1 here: draw them normal, from a named seed.
        order: p, 1 or larger.
        elements: how many projected numbers are held at a time.

    Raises:
        ValueError: shapes that do not fit, a direction without length, an order below 1, or points that are not finite.
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
        raise ValueError("points are not all finite; what they come from has diverged")
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
    """The optimal coupling of n and m sorted points of equal weight: weights, and which points they couple."""
    # Quantiles as integers in units of 1 / (n m): as floats, i / n and j / m that are equal would come out different.
    levels = np.union1d(np.arange(n + 1, dtype=np.int64) * m, np.arange(m + 1, dtype=np.int64) * n)
    return np.diff(levels) / (n * m), levels[:-1] // m, levels[:-1] // n


def gaussian_mmd(x: NDArray, y: NDArray, bandwidths: list[float] | None = None, rows: int = 1024) -> float:
    """The unbiased squared MMD of x (n, D) and y (m, D) with Gaussian kernels, see :mod:`fmbench.metrics.mmd`.

    Args:
        bandwidths: of the kernels, which are averaged; by default one, the median distance between two points of either
            set. That one depends on the sets compared: to compare values of several models, state the bandwidths.
    """
    if bandwidths is None:
        bandwidths = [median_distance(x, y)]
    return unbiased_mmd(x, y, gaussian_kernel(bandwidths), rows)


Support = Callable[[NDArray], NDArray[np.bool_]]
"""From points (n, D) to whether each lies on the support of a density."""


def off_support(x: NDArray, support: Support) -> float:
    """The fraction of points (n, D), n >= 1, that are not on the support; one that is not finite is on none."""
    if not len(x):
        raise ValueError("no points, so no fraction of them")
    with np.errstate(invalid="ignore"):
        return 1 - float((support(x) & np.isfinite(x).all(1)).mean())


def on_checkerboard(x: NDArray) -> NDArray[np.bool_]:
    """Which points of shape (n, 2) lie on the filled squares of the 4 x 4 board on [-2, 2]^2."""
    cell = np.floor(x)
    inside = (np.abs(x) <= 2).all(1)
    return inside & (cell.sum(1) % 2 == 0)


def on_rings(radii: list[float], width: float) -> Support:
    """The support of rings around 0: whether a point's radius is within half a ``width`` of one of ``radii``."""

    def support(x: NDArray) -> NDArray[np.bool_]:
        distances = np.abs(np.linalg.norm(x, axis=1)[:, None] - np.asarray(radii))
        return (distances <= width / 2).any(1)

    return support


def near_points(centres: NDArray, radius: float) -> Support:
    """The support of balls: whether a point is within ``radius`` of one of ``centres`` (K, D).

    For a mixture of Gaussians, whose support is everywhere, with a radius of a few deviations: the fraction between modes.
    """

    def support(x: NDArray) -> NDArray[np.bool_]:
        blocks = [x[i : i + 65536] for i in range(0, len(x), 65536)]
        return np.concatenate([(cdist(block, centres) <= radius).any(1) for block in blocks])

    return support


SUPPORTS: dict[str, Support] = {"checkerboard": on_checkerboard}
"""Data sets whose support is known: from points to whether they lie on it."""
