"""Likelihood of a continuous normalising flow, and what a bit per dimension is.

The pair (x, log p) is solved backwards from data, eq. 31 of Lipman et al. 2023; then log p1(x1) = log p0(x0) - f(0).
The joint state's error norm is the RMS over the D coordinates of x and the one of log p together, each scaled by
atol + rtol |.|; the joint solve takes other steps than x alone, so its NFE is counted apart.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fmbench.fields import Field, exact_divergence, hutchinson_divergence
from fmbench.solvers.adaptive import dopri5


@dataclass(frozen=True)
class LogLikelihood:
    """log p1(x1) in nats, shape (B,), with the evaluations spent and the samples on which the solve failed."""

    log_p: Tensor
    nfe: Tensor
    failed: Tensor


def log_likelihood(
    field: Field,
    x1: Tensor,
    t_min: float,
    t_max: float,
    *,
    base_std: float = 1.0,
    probes: Tensor | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> LogLikelihood:
    """log p1 of data under the flow that ``field`` carries from N(0, base_std^2 I) at t_min to t_max.

    Args:
        x1: data, shape (B, *).
        probes: shape (K, B, *) for Hutchinson's estimate, drawn once for the whole solve; None for the exact trace.

    Returns:
        log densities with respect to x1's own coordinates. One step size for the batch, as in the paper.
    """
    batch, dimensions = x1.shape[0], x1[0].numel()

    def joint(t: Tensor, state: Tensor) -> Tensor:
        x = state[:, :dimensions].reshape(x1.shape)
        if probes is None:
            v, divergence = exact_divergence(field, t, x)
        else:
            v, divergence = hutchinson_divergence(field, t, x, probes)
        # d/dt of log p along the flow is minus the divergence.
        return torch.cat([v.reshape(batch, -1), -divergence[:, None]], 1)

    start = torch.cat([x1.reshape(batch, -1), x1.new_zeros(batch, 1)], 1)
    solution = dopri5(joint, start, t_max, t_min, rtol=rtol, atol=atol, per_sample=False)
    x0, change = solution.x[:, :dimensions].double(), solution.x[:, dimensions].double()
    # change = -(log p1 - log p0), gathered while going from t_max down to t_min.
    return LogLikelihood(gaussian_log_density(x0, base_std) - change, solution.nfe, solution.failed)


def gaussian_log_density(x: Tensor, std: float) -> Tensor:
    """log N(x; 0, std^2 I) of shape (B,) for x of shape (B, D)."""
    dimensions = x.shape[1]
    return -(x**2).sum(1) / (2 * std**2) - dimensions * (math.log(std) + 0.5 * math.log(2 * math.pi))


def bits_per_dimension(log_p: Tensor, dimensions: int, levels: int) -> Tensor:
    """BPD of data with ``levels`` integer values scaled to [-1, 1] by 2 (x + u) / levels - 1, eq. 36-37.

    The change of scale is log2(levels / 2) a dimension: 7 for 256 levels.
    """
    return -log_p / (dimensions * math.log(2)) + math.log2(levels / 2)
