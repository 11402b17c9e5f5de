"""Appendix D of Lipman et al. 2023: the VP path's field is the drift of the probability-flow ODE of the VP diffusion.

The path's side is Theorem 3's conditional field (eq. 15), and its marginal (eq. 8) for a mixture of Gaussians. The diffusion's
side runs in its own time r = 1 - t, from noise schedule and density alone: beta(r) is linear, B(r) is its integral from 0 to r
by Gauss-Legendre quadrature, p_r is a mixture of Gaussians of means exp(-B/2) mu_i and covariances exp(-B) Sigma_i +
(1 - exp(-B)) I, and the gradient of log p_r comes from automatic differentiation.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fmbench.flow.paths import VariancePreserving
from fmbench.flow.prediction import VELOCITY, X, convert
from fmbench.stages.theory.problems import mixture_2d
from fmbench.system.rng import generator

TIMES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999)
N = 256
"""Points at each time."""


@dataclass(frozen=True)
class Gaussians:
    """A mixture of Gaussians: ``means`` (K, D), ``covariances`` (K, D, D) and ``weights`` (K,), float64."""

    means: Tensor
    covariances: Tensor
    weights: Tensor


def identity_rows() -> Iterator[dict[str, Any]]:
    """The largest difference between the two sides at points of p_t; ``scale`` is the largest component of the field."""
    path = VariancePreserving()
    g = generator(0, "theory/identities")
    oracle = mixture_2d()
    point = torch.tensor([0.75, 0.75], dtype=torch.float64)
    covariances = oracle.vectors @ torch.diag_embed(oracle.eigenvalues) @ oracle.vectors.mT
    mixture = Gaussians(oracle.means, covariances, oracle.log_weights.exp())
    one_point = Gaussians(point[None], torch.zeros(1, 2, 2, dtype=torch.float64), torch.ones(1).double())

    for t in TIMES:
        x = _noisy(path, t, point.expand(N, 2), g)
        ours = convert(point.expand(N, 2), x, _time(t), path, X, VELOCITY)
        yield _row("conditional field of one point", t, ours, -probability_flow(path, 1 - t, x, one_point))  # dx/dt = -dx/dr
    for t in TIMES:
        x = _noisy(path, t, oracle.sample(N, g), g)
        ours = oracle.velocity(path, _time(t), x)
        yield _row("marginal field of a mixture", t, ours, -probability_flow(path, 1 - t, x, mixture))


def probability_flow(schedule: VariancePreserving, r: float, x: Tensor, data: Gaussians) -> Tensor:
    """dx/dr = -beta(r) (x + grad log p_r(x)) / 2 (eq. 46), of the shape of x: (B, D).

    Only beta_min and beta_max are taken from ``schedule``, so that the path's own formulas are not compared with themselves.
    """
    rate = beta(schedule, torch.tensor(r, dtype=torch.float64))
    return -rate * (x + score(schedule, r, x, data)) / 2


def beta(schedule: VariancePreserving, r: Tensor) -> Tensor:
    """beta(r) = beta_min + (beta_max - beta_min) r."""
    return schedule.beta_min + (schedule.beta_max - schedule.beta_min) * r


def integral_of_beta(schedule: VariancePreserving, r: float) -> Tensor:
    """B(r), the integral of beta from 0 to r, by Gauss-Legendre quadrature with 8 nodes."""
    nodes, shares = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(8))
    return r / 2 * (shares * beta(schedule, r * (nodes + 1) / 2)).sum()


def score(schedule: VariancePreserving, r: float, x: Tensor, data: Gaussians) -> Tensor:
    """grad log p_r(x) by automatic differentiation of the density."""
    integral = integral_of_beta(schedule, r)
    kept, spread = torch.exp(-integral / 2), -torch.expm1(-integral) * torch.eye(x.shape[1], dtype=torch.float64)
    parts = torch.distributions.MultivariateNormal(kept * data.means, kept**2 * data.covariances + spread)
    point = x.clone().requires_grad_()
    log_density = torch.logsumexp(data.weights.log() + parts.log_prob(point[:, None]), 1)
    (gradient,) = torch.autograd.grad(log_density.sum(), point)
    return gradient


def _time(t: float) -> Tensor:
    return torch.tensor(t, dtype=torch.float64)


def _noisy(path: VariancePreserving, t: float, x1: Tensor, g: torch.Generator) -> Tensor:
    x_t, _ = path.interpolate(torch.randn(N, 2, generator=g, dtype=torch.float64), x1, _time(t).expand(N))
    return x_t


def _row(identity: str, t: float, ours: Tensor, theirs: Tensor) -> dict[str, Any]:
    scale, difference = ours.abs().max().item(), (ours - theirs).abs().max().item()
    return {"identity": identity, "path": "vp", "t": t, "max_difference": difference, "scale": scale, "n": N}
