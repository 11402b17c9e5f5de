"""Stochastic samplers, which have the same marginals p_t as the flow but another cost.

For any g(t) >= 0 the equation, forwards in our t (noise to data),

    dx = [u_t(x) + g(t)^2 / 2 grad log p_t(x)] dt + g(t) dW,

has the marginals of the flow dx = u_t(x) dt (Song et al. 2021, eq. 6 and 13; Karras et al. 2022, eq. 6). g = 0 is the flow. With
g^2 = 2 s^2 (a'/a - s'/s) it is the reverse of the diffusion that makes the path: beta(1 - t) on the VP path.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fmbench.flow.broadcast import check_shape
from fmbench.flow.fields import Field, checked
from fmbench.flow.paths import AffinePath
from fmbench.flow.prediction import SCORE, VELOCITY, convert
from fmbench.flow.solvers.constant import check_constant
from fmbench.flow.solvers.ddim import ddim
from fmbench.flow.solvers.edm_heun import edm_heun

Diffusion = Callable[[AffinePath, Tensor], Tensor]
"""g^2 from the path and times, float64 of the shape of t."""
Noise = Callable[[int], Tensor]
"""The standard normal numbers of step k, of the shape of the state."""

DIFFUSIONS: dict[str, Diffusion] = {
    "none": lambda path, t: torch.zeros_like(t, dtype=torch.float64),
    # The reverse of the path's own diffusion; infinite where a = 0.
    "reverse_sde": lambda path, t: path.diffusion_squared(t),
    # Finite at both ends of every path, and zero where s is.
    "two_sigma": lambda path, t: 2 * path.coefficients(t).s,
}
"""Choices of g^2 by name."""


def scaled(diffusion: Diffusion, scale: float) -> Diffusion:
    """``diffusion`` with g times ``scale``, and 0 where g or the score is infinite: a step from there is one of Euler's method.

    That is where a = 0 for ``reverse_sde``, and where s = 0. The marginals are those of the path for any g. From a = 0 the weak
    order of ``reverse_sde`` is 2 ``scale``^2 where that is below 1, since so slowly it forgets the error of the first step.
    """

    def squared(path: AffinePath, t: Tensor) -> Tensor:
        g2 = scale**2 * diffusion(path, t)
        return torch.where(g2.isfinite() & (path.coefficients(t).s > 0), g2, 0.0)

    return squared


def euler_maruyama(
    field: Field,
    x: Tensor,
    grid: Tensor,
    path: AffinePath,
    noise: Noise,
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


def heun_churn(field: Field, x: Tensor, grid: Tensor, path: AffinePath, noise: Noise, churn: Churn | None = None) -> Tensor:
    """Samples by Heun's method in noise levels with churn (Karras et al. 2022, algorithm 2), on any path.

    The variables are z = x / a and sigma = s / a. Before a step fresh noise raises the level. One step of Heun's method then goes
    down to the next level, or one of Euler's where a level is zero or infinite. A step costs two evaluations (one if Euler's).
    Without churn the method is :func:`~fmbench.flow.solvers.edm_heun.edm_heun`, to the bit.

    Args:
        field: the velocity u_t(x), called with t of shape ().
        x: noise at the first time, shape (B, *).
        grid: increasing times, float64, shape (N + 1,), such as
            :func:`~fmbench.flow.solvers.grids.karras_grid`. Where a = 0 there is nothing but noise, and none is added.
        noise: the standard normal numbers of step k, of the shape of x.
        churn: the fresh noise; None for none.

    Returns:
        Samples at the last time, shape (B, *).

    Raises:
        ValueError: the grid does not increase or requires a gradient, or the field or the noise does not have the shape of x.
    """
    return _with_churn(edm_heun, field, x, grid, path, noise, churn or Churn())


def ddim_churn(field: Field, x: Tensor, grid: Tensor, path: AffinePath, noise: Noise, churn: Churn | None = None) -> Tensor:
    """:func:`heun_churn` with DDIM, which is Euler's method in sigma, in place of Heun's: every step costs one evaluation."""
    return _with_churn(_ddim, field, x, grid, path, noise, churn or Churn())


def _ddim(field: Field, x: Tensor, grid: Tensor, path: AffinePath) -> Tensor:
    return ddim(field, x, grid, path, VELOCITY)


# Many parameters: the deterministic solver, and the parameters of heun_churn.
def _with_churn(
    solve: Callable[[Field, Tensor, Tensor, AffinePath], Tensor],
    field: Field,
    x: Tensor,
    grid: Tensor,
    path: AffinePath,
    noise: Noise,
    churn: Churn,
) -> Tensor:
    """The solver ``solve`` on the pieces of a grid between additions of fresh noise."""
    _check_increasing(grid)
    steps = len(grid) - 1
    c = path.coefficients(torch.cat([torch.full_like(grid[:1], path.t_min), grid]))
    (highest, *sigmas), scales = (c.s / c.a).tolist(), c.a[1:].tolist()  # the path's first time is its noisiest
    raised = [min(churn.raised(sigma, steps), highest) for sigma in sigmas[:-1]]
    fresh = [k for k in range(steps) if sigmas[k] < raised[k]]
    for k, end in itertools.pairwise(sorted({0, *fresh, steps})):
        times = grid[k : end + 1].clone()
        if k in fresh:
            times[0] = path.time_of_log_snr(torch.tensor(-2 * math.log(raised[k]), dtype=torch.float64))
            added = math.sqrt(raised[k] ** 2 - sigmas[k] ** 2) * churn.noise_scale
            x = float(path.coefficients(times[0]).a) * (x / scales[k] + added * _drawn(noise, k, x))
        x = solve(field, x, times, path)
    return x


def _drawn(noise: Noise, step: int, x: Tensor) -> Tensor:
    drawn = noise(step)
    check_shape(f"the noise of step {step}", drawn, x.shape)
    return drawn.to(x)


def _check_increasing(grid: Tensor) -> None:
    check_constant("grid", grid)
    if len(grid) < 2 or not (grid[1:] > grid[:-1]).all():
        raise ValueError("a stochastic sampler runs from noise to data: the grid must have at least two times, and increase")
