"""Stochastic samplers: other ways through the same marginals p_t, at other cost.

For any g(t) >= 0 the equation, forwards in our t (noise to data),

    dx = [u_t(x) + g(t)^2 / 2 grad log p_t(x)] dt + g(t) dW,

has the marginals of the flow dx = u_t(x) dt (Song et al. 2021, eq. 6 and 13; Karras et al. 2022, eq. 6). g = 0 is the flow. With
g^2 = 2 s^2 (a'/a - s'/s) it is the reverse of the diffusion that makes the path: beta(1 - t) on the VP path.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fmbench.flow.fields import Field
from fmbench.flow.paths import AffinePath
from fmbench.flow.prediction import SCORE, VELOCITY, X, convert

Diffusion = Callable[[AffinePath, Tensor], Tensor]
"""g^2 from the path and times, float64 of the shape of t."""

DIFFUSIONS: dict[str, Diffusion] = {
    "none": lambda path, t: torch.zeros_like(t, dtype=torch.float64),
    # The reverse of the path's own diffusion; infinite where a = 0.
    "reverse_sde": lambda path, t: path.diffusion_squared(t),
    # Finite at both ends of every path, and gone where the noise is.
    "two_sigma": lambda path, t: 2 * path.coefficients(t).s,
}


def euler_maruyama(
    field: Field,
    x: Tensor,
    grid: Tensor,
    path: AffinePath,
    noise: Callable[[int], Tensor],
    diffusion: Diffusion = DIFFUSIONS["reverse_sde"],
) -> Tensor:
    """The equation above (Song et al. 2021, eq. 6) by Euler and Maruyama's method: one evaluation a step, weak order 1.

    Args:
        field: the velocity u_t(x), called with t of shape ().
        x: noise at the first time, shape (B, *).
        grid: increasing times, float64, shape (N + 1,).
        noise: the standard normal numbers of step k, of the shape of x.

    Returns:
        Samples at the last time, shape (B, *).

    Raises:
        ValueError: the grid does not increase, or g or the score is infinite at a time it starts a step from.
    """
    _check_increasing(grid)
    times, sizes = grid.to(x.device), (grid[1:] - grid[:-1]).tolist()
    squared = diffusion(path, grid[:-1])
    at_end = (path.coefficients(grid[:-1]).s == 0) & (squared != 0)  # the score, which only noise needs, is infinite there
    if not (torch.isfinite(squared) & ~at_end).all():
        at = grid[:-1][~(torch.isfinite(squared) & ~at_end)][0].item()
        raise ValueError(
            f"the noise of the sampler is infinite at t = {at:g}; start later, or take another diffusion (two_sigma)"
        )
    for k, (h, g2) in enumerate(zip(sizes, squared.tolist(), strict=True)):
        velocity = field(times[k], x)
        drift = velocity
        if g2:
            drift = velocity + (g2 / 2) * convert(velocity, x, times[k], path, VELOCITY, SCORE)
        x = torch.add(x, drift, alpha=h)
        if g2:
            x = x + math.sqrt(g2 * h) * noise(k).to(x)
    return x


def heun_churn(
    field: Field,
    x: Tensor,
    grid: Tensor,
    path: AffinePath,
    noise: Callable[[int], Tensor],
    churn: float = 0.0,
    level_min: float = 0.0,
    level_max: float = math.inf,
    noise_scale: float = 1.0,
) -> Tensor:
    """Heun's method in noise levels with churn (Karras et al. 2022, algorithm 2), on any path.

    Its variables are z = x / a and sigma = s / a: before each step fresh noise raises the level by a factor of at most sqrt(2),
    then one step of Heun's method on dz/dsigma = (z - x1(z)) / sigma goes down to the next level; to a level of zero, one
    step of Euler's. Two evaluations a step (one for that last). Without churn it is deterministic.

    Args:
        field: the velocity u_t(x), called with t of shape ().
        x: noise at the first time, shape (B, *).
        grid: increasing times, float64, shape (N + 1,), such as
            :func:`~fmbench.flow.solvers.grids.karras_grid`; the first with a > 0.
        noise: the standard normal numbers of step k, of the shape of x.
        churn: S_churn, spread over the steps; ``level_min``, ``level_max``: the levels it is done at; ``noise_scale``: S_noise.

    Raises:
        ValueError: the grid does not increase or starts where a = 0; churn is negative.
    """
    _check_increasing(grid)
    if churn < 0:
        raise ValueError(f"churn must not be negative, not {churn}")
    if not level_min < level_max:
        raise ValueError(f"level_min must be below level_max, not {level_min} and {level_max}: there would be no churn")
    steps = len(grid) - 1
    c = path.coefficients(grid)
    if not c.a[0] > 0:
        raise ValueError(f"sigma = s / a is infinite at t = {grid[0].item():g}; start the grid where a > 0")
    sigmas, scales = (c.s / c.a).tolist(), c.a.tolist()
    highest = math.exp(-float(path.log_snr(torch.tensor(path.t_min, dtype=torch.float64))) / 2)

    def slope(z: Tensor, t: Tensor, a: float, sigma: float) -> Tensor:
        x_t = a * z
        data = convert(field(t, x_t), x_t, t, path, VELOCITY, X)
        return (z - data) / sigma

    z, times = x / scales[0], grid.to(x.device)
    for k in range(steps):
        sigma, following, t, a = sigmas[k], sigmas[k + 1], times[k], scales[k]
        gamma = min(churn / steps, math.sqrt(2) - 1) if level_min <= sigma <= level_max else 0.0
        raised = min(sigma * (1 + gamma), highest)  # there is no noisier time than the path's first
        if raised > sigma:
            z = z + math.sqrt(raised**2 - sigma**2) * noise_scale * noise(k).to(z)
            sigma = raised
            t = path.time_of_log_snr(torch.tensor(-2 * math.log(sigma), dtype=torch.float64)).to(x.device)
            a = float(path.coefficients(t).a)
        first = slope(z, t, a, sigma)
        proposal = z + (following - sigma) * first
        if following > 0:
            second = slope(proposal, times[k + 1], scales[k + 1], following)
            z = z + (following - sigma) * (first + second) / 2
        else:
            z = proposal
    return scales[-1] * z


def _check_increasing(grid: Tensor) -> None:
    if len(grid) < 2 or not (grid[1:] > grid[:-1]).all():
        raise ValueError("a stochastic sampler runs from noise to data: the grid must have two times at least, and increase")
