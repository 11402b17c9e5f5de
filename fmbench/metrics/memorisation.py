"""Whether a model copies its training set: how near generated features are to training features, judged by fresh test features.

T is the training set, d_T(x) the distance of x to its nearest point of T.

* C_T (Meehan, Chaudhuri & Dasgupta 2020, sec. 3.1, with the whole space as one cell): the Mann-Whitney statistic of d_T of
  generated against test points, as a z-score. If a model draws from the distribution of the test set, z has mean 0 and variance
  1, whatever T is and in whatever features. Copies are nearer to T, so their z is negative.
* The ratio of the median of d_T of generated points to that of test points: how much nearer.
* Authenticity (AuthPct, Alaa et al. 2022, sec. 4.3): a generated point is authentic if its nearest training point is nearer to
  another training point than to it. The share for fresh data depends on the dimension, so compare it with that of the test set.

T may be a random part of the training set. Copies of the other points then go unseen; the null hypothesis stays what it was.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmbench.metrics.neighbours import as_pair, nearest, nearest_others

LEAST_SAMPLES = 10
"""The least number of generated and of test points: C_T of fewer is not normal."""


class Memorisation(NamedTuple):
    """How near generated points are to the training set."""

    c_t: float
    """Standard normal for a model that draws fresh data; negative for copies."""
    train_distance_ratio: float
    """About 1 for fresh data, 0 for exact copies. Infinite if more than half of the test points are training points."""
    authenticity: float
    """The share of authentic points, in [0, 1]."""


def memorisation(train: NDArray | Tensor, test: NDArray | Tensor, generated: NDArray | Tensor) -> Memorisation:
    """How near generated features (n, D) are to training features (m, D), m >= 2, against test features (l, D), in float64.

    Raises:
        ValueError: n or l is below :data:`LEAST_SAMPLES`, m is 1, the dimensions differ, or a value is not
            finite.
    """
    centred, fakes = as_pair(train, generated)
    _, others = as_pair(train, test)
    if len(centred) < 2 or min(len(fakes), len(others)) < LEAST_SAMPLES:
        raise ValueError(
            f"need at least 2 training points and {LEAST_SAMPLES} test and generated ones, "
            f"not {len(centred)}, {len(others)} and {len(fakes)}"
        )
    n, found = len(fakes), nearest(torch.cat([fakes, others]), centred)
    mine, fresh = found.distances[:n].cpu().numpy(), found.distances[n:].cpu().numpy()
    chosen, back = torch.unique(found.indices[:n], return_inverse=True)
    own = nearest_others(centred, chosen).distances[back]
    authentic = float((own < found.distances[:n]).double().mean())
    medians = float(np.median(mine)), float(np.median(fresh))
    ratio = medians[0] / medians[1] if medians[1] else (math.inf if medians[0] else 1.0)
    return Memorisation(mann_whitney_z(mine, fresh), ratio, authentic)


def mann_whitney_z(x: NDArray, y: NDArray) -> float:
    """The z-score of the Mann-Whitney statistic of x (n,) against y (m,): negative if x tends to be the smaller.

    Equal values have the mean of their ranks, and the variance is corrected for them. It is 0 if all values are equal.
    """
    n, m = len(x), len(y)
    _, place, times = np.unique(np.concatenate([x, y]), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(times) - (times - 1) / 2)[place]
    u = float(ranks[:n].sum()) - n * (n + 1) / 2
    ties = float((times.astype(np.float64) ** 3 - times).sum()) / ((n + m) * (n + m - 1))
    variance = n * m / 12 * (n + m + 1 - ties)
    return (u - n * m / 2) / math.sqrt(variance) if variance > 0 else 0.0
