"""The time grid with the smallest sum of local errors on reference trajectories, by dynamic programming (GITS, Chen et al. 2024).

From each time of a fine grid of candidates, one step of DDIM starts on the reference trajectory and jumps to each later
candidate. How far it lands from the trajectory is the local error of that step. A grid of N steps is a way through the
candidates, and its cost the sum of its local errors (arXiv:2405.11326). The cheapest way is found exactly, for every N from one
table.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmbench.config.names import OPTIMAL_STEPS
from fmbench.flow.fields import Field
from fmbench.flow.paths import AffinePath
from fmbench.flow.prediction import EPSILON, VELOCITY, X, convert
from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.tableaux import MIDPOINT

SUBSTEPS = 2
"""Steps of the midpoint method between two candidates, for the reference."""


def candidates(t0: float, t1: float) -> Tensor:
    """The times that an optimal grid may choose, float64, equally spaced, with both ends."""
    return torch.linspace(t0, t1, OPTIMAL_STEPS + 1, dtype=torch.float64)


def local_errors(field: Field, x: Tensor, times: Tensor, path: AffinePath) -> NDArray:
    """The root mean squared error per coordinate of a step of DDIM from times[i] to times[j], at [i, j]; 0 unless i < j.

    It costs (2 SUBSTEPS + 1) evaluations of each sample for each interval.

    Args:
        field: the velocity.
        x: states at the first time, shape (B, *).
        times: increasing candidates, float64, shape (M + 1,).
    """
    m = len(times) - 1
    parts = (times[:-1, None] + times.diff()[:, None] * torch.arange(SUBSTEPS) / SUBSTEPS).flatten()
    fine = torch.cat([parts, times[-1:]])
    states = integrate(field, x, fine, MIDPOINT, keep=True)[::SUBSTEPS]
    a, s = (v.to(x.dtype) for v in path.coefficients(times.to(x.device))[:2])
    errors = np.zeros((m + 1, m + 1))
    for i in range(m):
        t = times[i].to(x.device)
        velocity = field(t, states[i])
        data, noise = (convert(velocity, states[i], t, path, VELOCITY, kind) for kind in (X, EPSILON))
        for j in range(i + 1, m + 1):
            errors[i, j] = float((a[j] * data + s[j] * noise - states[j]).double().square().mean().sqrt())
    return errors


def optimal_grid(errors: NDArray, times: Tensor, steps: int) -> Tensor:
    """The grid of ``steps`` steps through ``times`` with the smallest sum of local errors, float64, shape (steps + 1,).

    Raises:
        ValueError: there are not as many intervals as steps.
    """
    last = len(times) - 1
    if not 1 <= steps <= last:
        raise ValueError(f"an optimal grid has from 1 to {last} steps, not {steps}")
    allowed = np.where(np.triu(np.ones_like(errors, dtype=bool), 1), np.nan_to_num(errors, nan=np.inf), np.inf)
    cost, before = np.where(np.arange(last + 1) == 0, 0.0, np.inf), []
    for _ in range(steps):
        through = cost[:, None] + allowed
        before.append(through.argmin(0))
        cost = through.min(0)
    way = [last]
    for previous in reversed(before):
        way.append(int(previous[way[-1]]))
    return times[way[::-1]].clone()
