"""How far the mean of new seeds may be from the mean of reference seeds: an interval of each number, a test of all numbers.

Rows are numbers, columns are seeds, and NaN is a seed without a value. The run and the reference may share seeds. Values of one
seed on two machines are positively correlated, so the difference of the two means then has a smaller variance than that of
independent seeds. Every test here assumes independent seeds. With shared seeds it rejects an equal run less often, never more.
"""

import itertools
import math

import numpy as np
from numpy.typing import NDArray
from scipy import special

PARTITIONS = 5000
"""The largest number of partitions of the seeds in the joint test; of more, a random choice."""


def moments(values: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Return number, mean and standard deviation (n - 1) of the values in each row; NaN where there are too few."""
    there = np.isfinite(values)
    n = there.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(there, values, 0).sum(axis=1) / n
        square = np.where(there, values - mean[:, None], 0.0) ** 2
        return n, mean, np.where(n > 1, np.sqrt(square.sum(axis=1) / np.maximum(n - 1, 1)), np.nan)


def standard_error(spread: NDArray, n: NDArray, m: NDArray) -> NDArray:
    """Return the standard error of the difference between a mean of m new seeds and the mean of n reference seeds.

    It is s sqrt(1/m + 1/n). If s is the spread of the reference and the values are normal, the difference in this unit has
    Student's distribution with n - 1 degrees of freedom.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return spread * np.sqrt(1 / m + 1 / n)


def p_values(z: NDArray, n: NDArray) -> NDArray:
    """Return the two-sided p-values of differences ``z`` in units of the standard error, with n reference seeds."""
    return 2 * special.stdtr(np.where(n > 1, n - 1.0, np.nan), -np.abs(z))


def quantile(level: float, n: NDArray) -> NDArray:
    """Return the value that |z| exceeds with probability ``level``, with n reference seeds."""
    return -special.stdtrit(np.where(n > 1, n - 1.0, np.nan), level / 2)


def holm(p: NDArray, level: float) -> tuple[NDArray, float]:
    """Return which p-values are significant by Holm's procedure, and the level that each of them was below at the end.

    The probability of any significant p-value in an equal run is at most ``level``, however the numbers depend on each other. A
    p-value is significant exactly if it is at most the level returned. NaN is no test.
    """
    ordered = np.sort(p[np.isfinite(p)])
    count = len(ordered)
    rejected = 0
    while rejected < count and ordered[rejected] <= level / (count - rejected):
        rejected += 1
    last = level / max(count - rejected, 1)
    return np.isfinite(p) & (p <= (ordered[rejected - 1] if rejected else -1.0)), last


def joint_p(reference: NDArray, run: NDArray) -> float:
    """Return the p-value of "run and reference have the same distribution", for all numbers together.

    This is a permutation test. Its statistic is the squared difference between the mean of the run's seeds and that of the
    reference's, in units of the variance over all seeds, averaged over numbers (a permutational analysis of variance on
    standardised numbers, Anderson 2001). It is compared with the same statistic for every other choice of as many seeds out of
    all. The seeds stay whole, so the test is exact for any dependence between numbers. The smallest p-value is one over the
    number of choices: 1/45 with 8 and 2 seeds.

    Only rows with a value at every seed and a spread count. Without such a row the result is NaN.
    """
    m, n = run.shape[1], reference.shape[1]
    values = np.concatenate([run, reference], axis=1)
    values = values[np.isfinite(values).all(axis=1)]
    centred = values - values.mean(axis=1, keepdims=True)
    scale = np.sqrt((centred**2).mean(axis=1, keepdims=True))
    varies = scale[:, 0] > 1e-12 * np.abs(values).max(axis=1, initial=0)
    if not varies.any():
        return math.nan
    contrasts = _contrasts(m, n)
    statistics = (((centred[varies] / scale[varies]) @ contrasts) ** 2).mean(axis=0)
    return float((statistics >= statistics[0] * (1 - 1e-9)).mean())


def _contrasts(m: int, n: int) -> NDArray:
    """The weights of the difference of means, one column for each choice of m seeds out of m + n; the run's own first."""
    if math.comb(m + n, m) <= PARTITIONS:
        chosen = [list(choice) for choice in itertools.combinations(range(m + n), m)]
    else:
        generator = np.random.default_rng(0)
        chosen = [list(range(m)), *(list(generator.permutation(m + n)[:m]) for _ in range(PARTITIONS - 1))]
    weights = np.full((m + n, len(chosen)), -1 / n)
    for column, choice in enumerate(chosen):
        weights[choice, column] = 1 / m
    return weights
