"""The density p_t of a mixture on the line under every path, and the trajectories of the flow that makes it."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from fmbench.flow.oracle import MixtureOracle
from fmbench.flow.paths import AffinePath
from fmbench.flow.solvers.adaptive import dopri5
from fmbench.stages.theory.problems import PATHS, mixture_1d


def density_rows() -> Iterator[dict[str, Any]]:
    """p_t(x) on a grid (particle -1) and trajectories of the flow (eq. 6, 8), which start at quantiles of the noise.

    x is in units of the standard deviation of p_t, which makes paths of every scale comparable.
    """
    oracle = mixture_1d()
    axis = torch.linspace(-2.5, 2.5, 101, dtype=torch.float64)
    quantiles = torch.linspace(0.04, 0.96, 12, dtype=torch.float64)
    for name, path in PATHS.items():
        times = torch.linspace(path.t_min, path.t_max, 61, dtype=torch.float64)
        c = path.coefficients(times)
        scales = (c.a**2 * standard_deviation(oracle) ** 2 + c.s**2).sqrt()
        starts = path.base_std * torch.special.ndtri(quantiles)[:, None]
        states = trajectory(oracle, path, starts, times.tolist())
        for t, scale, x in zip(times, scales.tolist(), states, strict=True):
            density = torch.exp(oracle.log_density(path, t, axis[:, None] * scale)) * scale
            for position, value in zip(axis.tolist(), density.tolist(), strict=True):
                yield {"path": name, "particle": -1, "t": t.item(), "x": position, "density": value}
            for particle, position in enumerate((x[:, 0] / scale).tolist()):
                yield {"path": name, "particle": particle, "t": t.item(), "x": position, "density": None}


def standard_deviation(oracle: MixtureOracle) -> float:
    """The standard deviation of a mixture on the line."""
    weights = oracle.log_weights.exp()[:, None]
    mean = (weights * oracle.means).sum()
    return float(((weights * (oracle.eigenvalues + oracle.means**2)).sum() - mean**2).sqrt())


def trajectory(oracle: MixtureOracle, path: AffinePath, x: Tensor, times: list[float]) -> Iterator[Tensor]:
    """The states of the flow dx/dt = u_t(x) at ``times``, from ``x`` of shape (B, 1) at the first of them."""

    def field(t: Tensor, x: Tensor) -> Tensor:
        return oracle.velocity(path, t.clamp(path.t_min, path.t_max), x)

    yield x
    for start, end in pairwise(times):
        x = dopri5(field, x, start, end, rtol=1e-6, atol=1e-6).x
        yield x
