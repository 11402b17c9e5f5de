"""Standard errors of distances: how much they would vary between draws of as many samples from the same model.

The reference is fixed. Its own choice moves the distances of all models together, and is not in these errors.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from fmbench.metrics.frechet import FeatureStatistics, feature_statistics, frechet_distance
from fmbench.metrics.jackknife import group_of_each, jackknife_stderr

GROUPS = 20
"""The number of groups of features. Their number alone gives the error a relative spread of 1 / sqrt(2 * 19), which is 16 %."""
LEAST_SAMPLES = 3
"""The least number of samples with an error: without one of them there must be two."""


def frechet_stderr(
    features: NDArray, statistics: FeatureStatistics, reference: FeatureStatistics, order: NDArray[np.int64] | None = None
) -> float:
    """The standard error of ``frechet_distance(statistics, reference)``, in squared units of the features.

    It is the jackknife of at most :data:`GROUPS` groups. Near the reference the distance of n samples is mostly its own bias,
    and the error is too large there, by about a third.

    Args:
        features: shape (n, D), n >= 3.
        statistics: of these features.
        order: a random order of the features, (n,); by default, they are in random order already.

    Raises:
        ValueError: there are fewer than three features.
    """
    n = len(features)
    _check(n)
    order = np.arange(n) if order is None else order
    group = group_of_each(n, min(GROUPS, n))
    features = features[order]

    def others(g: int) -> FeatureStatistics:
        """The statistics of all groups but one. A covariance of low rank is made anew, because a difference of two is not one."""
        if statistics.factor is not None:
            return feature_statistics(features[group != g])
        return _without(statistics, np.asarray(features[group == g], np.float64))

    return jackknife_stderr([frechet_distance(others(g), reference) for g in range(group[-1] + 1)])


def _without(p: FeatureStatistics, rows: NDArray[np.float64]) -> FeatureStatistics:
    """The statistics without some of the features: the update of Chan, Golub & LeVeque (1983), solved for what was before."""
    n, m = p.n, len(rows)
    mean = rows.mean(0)
    centred, difference = rows - mean, mean - p.mean
    scatter = (n - 1) * p.covariance - centred.T @ centred - n * m / (n - m) * np.outer(difference, difference)
    return FeatureStatistics(p.mean - m / (n - m) * difference, scatter / (n - m - 1), n - m)


def energy_distance_stderr(x: NDArray, y: NDArray, rows: int = 1024) -> float:
    """The standard error of ``energy_distance(x, y)`` over draws of x, in the units of the points.

    It is the jackknife that leaves out one point of x after another. That of the draw of y is ``energy_distance_stderr(y, x)``.

    Args:
        x: shape (n, D), n >= 3.
        y: shape (m, D), m >= 1.
        rows: the number of points of x whose distances are in memory at a time.

    Raises:
        ValueError: x has fewer than three points.
    """
    n, m = len(x), len(y)
    _check(n)
    blocks = range(0, n, rows)
    between, within = (np.concatenate([cdist(x[i : i + rows], z).sum(1) for i in blocks]) for z in (y, x))
    # The part of y alone is the same in all values.
    left_out = 2 * (between.sum() - between) / ((n - 1) * m) - (within.sum() - 2 * within) / ((n - 1) * (n - 2))
    return jackknife_stderr(left_out)


def _check(n: int) -> None:
    if n < LEAST_SAMPLES:
        raise ValueError(f"a standard error needs at least {LEAST_SAMPLES} samples, not {n}")
