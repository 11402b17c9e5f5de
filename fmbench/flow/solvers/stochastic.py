"""Stochastic samplers, which have the same marginals p_t as the flow but another cost.

For any g(t) >= 0 the equation, forwards in our t (noise to data),

    dx = [u_t(x) + g(t)^2 / 2 grad log p_t(x)] dt + g(t) dW,

has the marginals of the flow dx = u_t(x) dt (Song et al. 2021, eq. 6 and 13; Karras et al. 2022, eq. 6). g = 0 is the flow. With
g^2 = 2 s^2 (a'/a - s'/s) it is the reverse of the diffusion that makes the path: beta(1 - t) on the VP path.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fmbench.flow.broadcast import check_shape
from fmbench.flow.fields import Field, checked
from fmbench.flow.paths import AffinePath
from fmbench.flow.prediction import SCORE, VELOCITY, X, convert
from fmbench.flow.solvers.constant import check_constant

Diffusion = Callable[[AffinePath, Tensor], Tensor]
"""g^2 from the path and times, float64 of the shape of t."""

DIFFUSIONS: dict[str, Diffusion] = {
    "none": lambda path, t: torch.zeros_like(t, dtype=torch.float64),
    # The reverse of the path's own diffusion; infinite where a = 0.
    "reverse_sde": lambda path, t: path.diffusion_squared(t),
    # Finite at both ends of every path, and zero where s is.
    "two_sigma": lambda path, t: 2 * path.coefficients(t).s,
}
"""Choices of g^2 by name."""


def euler_maruyama(
    field: Field,
    x: Tensor,
    grid: Tensor,
    path: AffinePath,
    noise: Callable[[int], Tensor],
    diffusion: Diffusion = DIFFUSIONS["reverse_sde"],
) -> Tensor:
    """Samples by the Euler-Maruyama method on the equation above (Song et al. 2021, eq. 6): one evaluation a step, weak order 1.

    Args:
        field: the velocity u_t(x), called with t of shape ().
        x: noise at the first time, shape (B, *).
        grid: increasing times, float64, shape (N + 1,).
        noise: the standard normal numbers of step k, of the shape of x.

    Returns:
        Samples at the last time, shape (B, *).

    Raises:
        ValueError: the grid does not increase or requires a gradient, g or the score is infinite where a step starts, or the
            field or the noise does not have the shape of x.
    """
    _check_increasing(grid)
    field = checked(field)
    times, sizes = grid.to(x.device), (grid[1:] - grid[:-1]).tolist()
    squared = diffusion(path, grid[:-1])
    at_end = (path.coefficients(grid[:-1]).s == 0) & (squared != 0)  # the score is infinite there, and noise needs it
    if not (torch.isfinite(squared) & ~at_end).all():
        at = grid[:-1][~(torch.isfinite(squared) & ~at_end)][0].item()
        raise ValueError(
            f"the sampler's noise or the score is infinite at t = {at:g}; leave that time out of the grid, or take another "
            "diffusion (two_sigma)"
        )
    for k, (h, g2) in enumerate(zip(sizes, squared.tolist(), strict=True)):
        velocity = field(times[k], x)
        drift = velocity
        if g2:
            drift = velocity + (g2 / 2) * convert(velocity, x, times[k], path, VELOCITY, SCORE)
        x = torch.add(x, drift, alpha=h)
        if g2:
            x = x + math.sqrt(g2 * h) * _drawn(noise, k, x)
    return x


@dataclass(frozen=True)
class Churn:
    """How much fresh noise :func:`heun_churn` adds before its steps (Karras et al. 2022, algorithm 2).

    Attributes:
        amount: S_churn, spread evenly over the steps; 0 for none.
        level_min, level_max: the levels sigma = s / a at which noise is added (S_min, S_max).
        noise_scale: S_noise, the standard deviation of the added noise.

    Raises:
        ValueError: the amount is negative, or no level is between the bounds.
    """

    amount: float = 0.0
    level_min: float = 0.0
    level_max: float = math.inf
    noise_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.amount < 0:
            raise ValueError(f"the amount of churn must not be negative, not {self.amount}")
        if not self.level_min < self.level_max:
            raise ValueError(f"level_min must be below level_max, not {self.level_min} and {self.level_max}")

    def raised(self, sigma: float, steps: int) -> float:
        """The level after fresh noise at level ``sigma``, at most sqrt(2) ``sigma``; ``steps`` is the number of steps."""
        gamma = min(self.amount / steps, math.sqrt(2) - 1) if self.level_min <= sigma <= self.level_max else 0.0
        return sigma * (1 + gamma)


def heun_churn(
    field: Field, x: Tensor, grid: Tensor, path: AffinePath, noise: Callable[[int], Tensor], churn: Churn | None = None
) -> Tensor:
    """Samples by Heun's method in noise levels with churn (Karras et al. 2022, algorithm 2), on any path.

    The variables are z = x / a and sigma = s / a. Before each step fresh noise raises the level. One step of Heun's method on
    dz/dsigma = (z - x1(z)) / sigma then goes down to the next level, or one of Euler's method if that level is zero. A step costs
    two evaluations (one if Euler's). Without churn the method is deterministic.

    Args:
        field: the velocity u_t(x), called with t of shape ().
        x: noise at the first time, shape (B, *).
        grid: increasing times, float64, shape (N + 1,), such as
            :func:`~fmbench.flow.solvers.grids.karras_grid`; the first with a > 0.
        noise: the standard normal numbers of step k, of the shape of x.
        churn: the fresh noise; None for none.

    Returns:
        Samples at the last time, shape (B, *).

    Raises:
        ValueError: the grid does not increase, requires a gradient or starts where a = 0, or the field or the noise does not have
            the shape of x.
    """
    _check_increasing(grid)
    field = checked(field)
    churn = churn or Churn()
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
        raised = min(churn.raised(sigma, steps), highest)  # the path's first time is its noisiest
        if raised > sigma:
            z = z + math.sqrt(raised**2 - sigma**2) * churn.noise_scale * _drawn(noise, k, z)
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


def _drawn(noise: Callable[[int], Tensor], step: int, x: Tensor) -> Tensor:
    drawn = noise(step)
    check_shape(f"the noise of step {step}", drawn, x.shape)
    return drawn.to(x)


def _check_increasing(grid: Tensor) -> None:
    check_constant("grid", grid)
    if len(grid) < 2 or not (grid[1:] > grid[:-1]).all():
        raise ValueError("a stochastic sampler runs from noise to data: the grid must have at least two times, and increase")
