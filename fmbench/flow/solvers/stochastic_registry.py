"""The stochastic samplers that a config names. With its options and its noise each is a solver like any other.

| name             | step                       | options                                                                    |
|------------------|----------------------------|----------------------------------------------------------------------------|
| `euler_maruyama` | Euler-Maruyama's           | `diffusion`: g^2, by name; `noise`: a factor of g                          |
| `churn`          | EDM's, with Heun's method  | `churn`: S_churn; `noise`: S_noise; `level_min`, `level_max`: S_min, S_max |
| `churn_ddim`     | EDM's, with Euler's (DDIM) | the same                                                                   |
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from fmbench.flow.fields import Field
from fmbench.flow.paths import AffinePath
from fmbench.flow.solvers.registry import Solver, StepSolver
from fmbench.flow.solvers.stochastic import DIFFUSIONS, Churn, Noise, ddim_churn, euler_maruyama, heun_churn, scaled

Sampler = Callable[[Field, Tensor, Tensor, AffinePath, Noise], Tensor]
"""From the velocity field, noise (B, *), the times of a grid (N + 1,), the path and fresh noise to samples (B, *)."""


def _euler_maruyama(noise: float = 1.0, diffusion: str = "two_sigma") -> Sampler:
    return partial(euler_maruyama, diffusion=scaled(DIFFUSIONS[diffusion], noise))


def _churn(churn: float, noise: float = 1.0, level_min: float = 0.0, level_max: float = math.inf) -> Sampler:
    return partial(heun_churn, churn=Churn(churn, level_min, level_max, noise))


def _churn_ddim(churn: float, noise: float = 1.0, level_min: float = 0.0, level_max: float = math.inf) -> Sampler:
    return partial(ddim_churn, churn=Churn(churn, level_min, level_max, noise))


STOCHASTIC: dict[str, tuple[Callable[..., Sampler], int]] = {
    "euler_maruyama": (_euler_maruyama, 1),
    "churn": (_churn, 2),
    "churn_ddim": (_churn_ddim, 1),
}
"""From the options to a sampler, and the evaluations of a step, by the names a config uses."""


def stochastic_solver(name: str, options: dict[str, Any], noise: Noise) -> Solver:
    """The sampler that a config names as a solver: every solve of it adds the same noise."""
    make, cost = STOCHASTIC[name]
    sample = make(**options)
    return StepSolver(lambda field, x, grid, path: sample(field, x, grid, path, noise), cost)
