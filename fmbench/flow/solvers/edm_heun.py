"""Karras et al.'s deterministic sampler (2022, arXiv:2206.00364, algorithm 1): Heun's method on z = x / a in sigma = s / a.

It is DDIM of second order in the form `epsilon` (:mod:`fmbench.flow.solvers.ddim`). A step to sigma = 0 (s = 0) is that of
DDIM, as in the paper. So is a step from sigma = infinity (a = 0), where the mean of two slopes has no limit. Such a step costs
one evaluation instead of two.
"""

from itertools import groupby

from torch import Tensor

from fmbench.flow.fields import Field
from fmbench.flow.paths import AffinePath
from fmbench.flow.prediction import VELOCITY
from fmbench.flow.solvers.ddim import ddim


def edm_heun(field: Field, x: Tensor, grid: Tensor, path: AffinePath) -> Tensor:
    """Integrate along ``grid`` (N + 1 times, either direction) from x (B, *); ``field`` is the velocity."""
    c = path.coefficients(grid)
    zero = (c.a * c.s == 0).tolist()
    for plain, steps in groupby(range(len(grid) - 1), lambda k: zero[k] or zero[k + 1]):
        first, *others = steps
        times = grid[first : first + len(others) + 2]
        x = ddim(field, x, times, path, VELOCITY) if plain else ddim(field, x, times, path, VELOCITY, "epsilon", 2)
    return x
