"""Time grids for fixed-step solvers: uniform in t, uniform in a function of t, or uniform in a function of the noise level.

A grid has N + 1 times, float64, both ends exact. `shift`, `quadratic` and `beta` place them by a function of the part of the
time that has passed. `karras`, `log_snr` and `cosine` choose N + 1 noise levels sigma = s / a and convert them to times through
the path, so every path visits the same levels.

The level at an end may be infinite (noise alone: OT and cosine VP at t = 0) or zero (data alone: cosine VP, and OT with
sigma_min = 0, at t = 1). The N + 1 levels are then spaced as if it were 80 or 0.002, the ends of Karras et al. 2022, and the
end itself takes the place of that level. The grid therefore visits neither 80 nor 0.002: its first step goes from noise alone
to the second level, its last from the last level but one to data alone. Karras et al. go through 0.002 and add a step to zero.
A finite level at an end is kept, whatever its size.
"""

import math
from collections.abc import Callable

import torch
from scipy.special import betaincinv
from torch import Tensor

from fmbench.flow.paths import AffinePath

SIGMA_MIN, SIGMA_MAX, RHO = 0.002, 80.0, 7.0
SHIFT = 3.0


def uniform_grid(t0: float, t1: float, steps: int) -> Tensor:
    """``steps + 1`` equally spaced times, float64, both ends exact, in either direction.

    The grid is made from the number of steps, since adding up step sizes of 1/N gives one step too many for some N.
    """
    if steps < 1:
        raise ValueError(f"a grid needs at least one step, not {steps}")
    return torch.linspace(t0, t1, steps + 1, dtype=torch.float64)


def shift_grid(t0: float, t1: float, steps: int, k: float = SHIFT) -> Tensor:
    """Uniform times shifted towards the noise: the part r of the time that is left becomes k r / (1 + (k - 1) r).

    On the straight path this divides a / s by k, as larger images need (Esser et al. 2024, eq. 23, with k = 3 for SD3).
    """
    if not k > 0:
        raise ValueError(f"the shift must be positive, not {k}")
    return _by_time(t0, t1, steps, lambda tau: 1 - k * (1 - tau) / (1 + (k - 1) * (1 - tau)))


def quadratic_grid(t0: float, t1: float, steps: int) -> Tensor:
    """The part of the time that is left falls as a square (Song, Meng & Ermon 2021, D.3): steps get shorter towards the data."""
    return _by_time(t0, t1, steps, lambda tau: 1 - (1 - tau) ** 2)


def beta_grid(t0: float, t1: float, steps: int, alpha: float = 0.6, beta: float = 0.6) -> Tensor:
    """Equally spaced quantiles of a beta distribution (Lee et al. 2024, arXiv:2407.12173): shorter steps towards both ends."""
    if not (alpha > 0 and beta > 0):
        raise ValueError(f"alpha and beta must be positive, not {alpha} and {beta}")
    return _by_time(t0, t1, steps, lambda tau: torch.from_numpy(betaincinv(alpha, beta, tau.numpy())))


def _by_time(t0: float, t1: float, steps: int, warp: Callable[[Tensor], Tensor]) -> Tensor:
    """Uniform times moved by an increasing function of [0, 1] onto itself."""
    tau = warp(uniform_grid(0.0, 1.0, steps))
    grid = t0 + (t1 - t0) * tau
    grid[0], grid[-1] = t0, t1
    return grid


def karras_grid(path: AffinePath, t0: float, t1: float, steps: int, rho: float = RHO) -> Tensor:
    """sigma^(1/rho) equally spaced (Karras et al. 2022, eq. 5): steps get shorter towards the data."""
    if not rho > 0:
        raise ValueError(f"rho must be positive, not {rho}")
    return _by_level(path, t0, t1, steps, lambda x: torch.exp(-x / (2 * rho)), lambda y: -2 * rho * torch.log(y))


def log_snr_grid(path: AffinePath, t0: float, t1: float, steps: int) -> Tensor:
    """log SNR equally spaced (DPM-Solver, Lu et al. 2022)."""
    return _by_level(path, t0, t1, steps, lambda x: x, lambda y: y)


def cosine_grid(path: AffinePath, t0: float, t1: float, steps: int) -> Tensor:
    """The levels that uniform times have on the cosine schedule (Nichol & Dhariwal 2021), a / s = tan(pi tau / 2)."""
    quarter = math.pi / 2
    return _by_level(
        path, t0, t1, steps, lambda x: torch.atan(torch.exp(x / 2)) / quarter, lambda y: 2 * torch.log(torch.tan(y * quarter))
    )


def _by_level(
    path: AffinePath,
    t0: float,
    t1: float,
    steps: int,
    scale: Callable[[Tensor], Tensor],
    inverse: Callable[[Tensor], Tensor],
) -> Tensor:
    """Times at which ``scale`` of log SNR is equally spaced; the first is t0 and the last t1."""
    if steps < 1:
        raise ValueError(f"a grid needs at least one step, not {steps}")
    if not path.t_min <= t0 < t1 <= path.t_max:
        raise ValueError(f"a grid by noise level runs from t0 up to t1 within [{path.t_min}, {path.t_max}], not {t0} to {t1}")
    ends = path.log_snr(torch.tensor([t0, t1], dtype=torch.float64))
    low = ends[0] if ends[0].isfinite() else torch.tensor(-2 * math.log(SIGMA_MAX), dtype=torch.float64)
    high = ends[1] if ends[1].isfinite() else torch.tensor(-2 * math.log(SIGMA_MIN), dtype=torch.float64)
    first, last = scale(low), scale(high)
    levels = first + (last - first) * torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    grid = path.time_of_log_snr(inverse(levels))
    grid[0], grid[-1] = t0, t1
    if not high > low:
        raise ValueError(
            f"from {t0} to {t1} this path has no noise level between {SIGMA_MAX:g} and {SIGMA_MIN:g}, where a grid by level "
            "has its steps; take a uniform grid, or another interval"
        )
    if not (grid[1:] > grid[:-1]).all():
        raise ValueError(f"{steps} steps from {t0} to {t1} are too many for this grid: its times are no longer distinct")
    return grid


GRIDS: dict[str, Callable[[AffinePath, float, float, int], Tensor]] = {
    "uniform": lambda path, t0, t1, steps: uniform_grid(t0, t1, steps),
    "karras": karras_grid,
    "log_snr": log_snr_grid,
    "cosine": cosine_grid,
    "shift": lambda path, t0, t1, steps: shift_grid(t0, t1, steps),
    "quadratic": lambda path, t0, t1, steps: quadratic_grid(t0, t1, steps),
    "beta": lambda path, t0, t1, steps: beta_grid(t0, t1, steps),
}
"""Grids by the names a config uses: from the path, both ends and the number of steps to N + 1 times."""
