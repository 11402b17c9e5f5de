"""The jackknife: the standard error of a number, from its values without one group of samples after another.

    error^2 = (g - 1) / g * sum over the g groups of (value without the group - mean of these values)^2

(Tukey 1958; Efron & Tibshirani 1993, eq. 11.5). It needs no new samples. For a mean with one sample a group it is the usual
standard error, s / sqrt(n). For other numbers it is on average too large rather than too small (Efron & Stein 1981).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def group_of_each(n: int, groups: int) -> NDArray[np.int64]:
    """The group of each of n samples, shape (n,): neighbours share one, and the sizes differ by at most 1.

    The samples must be in random order.

    Raises:
        ValueError: there are more groups than samples, or fewer than two.
    """
    if not 2 <= groups <= n:
        raise ValueError(f"a jackknife of {n} samples needs from 2 to {n} groups, not {groups}")
    return np.arange(n) * groups // n


def jackknife_stderr(left_out: ArrayLike) -> float:
    """The standard error of a number from its values without each group, shape (groups,); NaN if one of them is."""
    values = np.asarray(left_out, np.float64)
    return float(np.sqrt((len(values) - 1) * values.var()))
