"""When structure appears on the way from noise to data (what Fig. 4 and 6 of Lipman et al. 2023 show): the half-way time.

The remaining way from noise to data at t is the energy distance between the states at t and the final states, divided by its
value at the first time. Both sets of states are first brought to the same overall mean and spread, because a path may shrink or
stretch its noise, and this is not structure. The distance of each state to its own final state is not a useful measure: a flow
moves a noise point to nearby data, so in few dimensions the noise point already predicts its final state.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

from fmbench.metrics.jackknife import group_of_each, jackknife_stderr

GROUPS = 10
"""The groups of samples that the jackknife leaves out in turn."""
LEAST_TIMES, LEAST_SAMPLES, MOST_SAMPLES = 3, 2 * GROUPS, 2000
"""The times and samples that are needed, and the samples that are used: the number of distances between them is its square."""


class HalfWay(NamedTuple):
    """The first time at which half of the way is covered, its standard error over samples, and the largest step between times."""

    t: float
    stderr: float
    spacing: float


def half_way(times: Sequence[float], states: ArrayLike) -> HalfWay | None:
    """The half-way time of states.

    Args:
        times: (T,), increasing, from noise to data.
        states: (T, n, *), of the same n samples at each time, in random order. The first :data:`MOST_SAMPLES` are used.

    Returns:
        The half-way time, by linear interpolation between the times. None for fewer times or samples than
        :data:`LEAST_TIMES` and :data:`LEAST_SAMPLES`, and where the first states are as near to the final ones as these are to
        each other, so that there is no way.
    """
    x = np.asarray(states, np.float64)
    x = x.reshape(*x.shape[:2], -1)[:, :MOST_SAMPLES]
    if len(times) < LEAST_TIMES or x.shape[1] < LEAST_SAMPLES:
        return None
    covered = way_covered(x)
    if covered is None:
        return None
    t = half_time(np.asarray(times, np.float64), covered)
    return HalfWay(float(t[0]), jackknife_stderr(t[1:]), float(np.diff(times).max()))


def way_covered(x: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The share of the way that states (T, n, D) have covered at each time, (1 + groups, T): of all, then without each group."""
    x = x - x.mean((1, 2), keepdims=True)
    x /= x.std((1, 2), keepdims=True).clip(min=1e-12)
    end = x[-1]
    within_end = mean_distances(end, end)
    ways = np.stack([2 * mean_distances(at, end) - mean_distances(at, at) - within_end for at in x], 1)
    return 1 - ways / ways[:, :1] if (ways[:, 0] > 0).all() else None


def mean_distances(x: NDArray, y: NDArray) -> NDArray[np.float64]:
    """The mean distance between different samples, i of x and j of y (n, D) with i not j: of all, then without each group.

    The result has shape (1 + groups,). i and j start from different noise, so leaving out i = j makes the energy distance
    unbiased, even for x and y of the same flow.
    """
    n = len(x)
    group = group_of_each(n, GROUPS)
    starts = np.searchsorted(group, np.arange(GROUPS))
    distances = cdist(x, y)
    np.fill_diagonal(distances, 0.0)
    blocks = np.add.reduceat(np.add.reduceat(distances, starts, 0), starts, 1)
    total = blocks.sum()
    left = total - blocks.sum(0) - blocks.sum(1) + np.diag(blocks)
    kept = n - np.bincount(group)
    return np.concatenate([[total / (n * (n - 1))], left / (kept * (kept - 1))])


def half_time(times: NDArray, covered: NDArray) -> NDArray:
    """The first time at which ``covered`` (..., times) reaches one half, by linear interpolation; NaN if it never does."""
    covered = np.atleast_2d(covered)
    reached = covered >= 0.5
    first = reached.argmax(-1)
    rows = np.arange(len(covered))
    earlier = np.maximum(first - 1, 0)
    low, high = covered[rows, earlier], covered[rows, first]
    step = np.divide(0.5 - low, high - low, out=np.zeros(len(rows)), where=high != low)
    found = times[earlier] + np.clip(step, 0, 1) * (times[first] - times[earlier])
    found = np.where(first == 0, times[0], found)
    return np.where(reached.any(-1), found, np.nan)
