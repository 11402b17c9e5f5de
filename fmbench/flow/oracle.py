"""The marginal path of known data in closed form: density, score, field and divergence without learning (eq. 6, 8).

For a finite set of points or a mixture of Gaussians, p_t(x) is a mixture of Gaussians on every affine path. What a perfect
network would predict at x_t follows from a softmax over the components of that mixture:

    E[x1 | x_t],  E[x0 | x_t],  u_t = a' E[x1 | x_t] + s' E[x0 | x_t],  grad log p_t = -E[x0 | x_t] / s.

With component i = N(mu_i, Sigma_i), x_t given i is N(a mu_i, C_i), C_i = a^2 Sigma_i + s^2 I, and score_i = -C_i^-1 (x - a mu_i),
E[x0 | x, i] = -s score_i, E[x1 | x, i] = mu_i - a Sigma_i score_i. Traces of the derivatives, hence div u_t, follow from
d r_i / dx = r_i (score_i - score) for the softmax r. All sums run in float64, since float32 does not have the digits for the
exponents near t = 1, which are differences of squared distances over s^2.

A finite set has Sigma_i = bandwidth^2 I. At bandwidth 0 nothing is defined where s = 0. Given a condition, its points have other
weights (:meth:`FiniteOracle.given`): those of the points with this label, or a kernel around the condition. All else stays.
"""

import math
from abc import ABC, abstractmethod
from copy import copy
from typing import NamedTuple

import torch
from torch import Tensor

from fmbench.flow.broadcast import expand_to
from fmbench.flow.paths import AffinePath, Coefficients


class Posterior(NamedTuple):
    """Density, score and conditional means at (t, x), float64.

    Attributes:
        log_density: log p_t(x), shape (B,).
        score: grad log p_t(x), shape (B, D).
        x1, x0: E[x1 | x_t = x] and E[x0 | x_t = x], shape (B, D).
        trace_x1, trace_x0: traces of their derivatives by x, shape (B,).
    """

    log_density: Tensor
    score: Tensor
    x1: Tensor
    x0: Tensor
    trace_x1: Tensor
    trace_x0: Tensor


class Oracle(ABC):
    """A data distribution whose marginal path is known in closed form (eq. 6, 8).

    Attributes:
        shape: that of one sample. Methods take x of shape (B, *shape) and t of shape () or (B,).
    """

    shape: tuple[int, ...]

    @abstractmethod
    def posterior_at(self, c: Coefficients, x: Tensor) -> Posterior:
        """The posterior at flat float64 points (B, D), coefficients of shape (B, 1)."""

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draws from the data distribution, float64, shape (n, *shape)."""

    def posterior(self, path: AffinePath, t: Tensor, x: Tensor) -> Posterior:
        """The posterior at (t, x), with samples flattened. It has derivatives by x and t.

        Raises:
            ValueError: x is not of this oracle's shape, or t has another batch size.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"x must have shape (B, {', '.join(map(str, self.shape))}), not {tuple(x.shape)}")
        c = path.coefficients(t.to(x.device))
        flat = x.double().reshape(x.shape[0], -1)
        rows = Coefficients(*(expand_to(v, flat).expand(x.shape[0], 1) for v in c))
        return self.posterior_at(rows, flat)

    def velocity_and_divergence(self, path: AffinePath, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """The marginal field u_t(x), eq. 8, of the shape and type of x, and its divergence, shape (B,)."""
        p = self.posterior(path, t, x)
        c = path.coefficients(t.to(x.device))
        da, ds = (expand_to(v, p.x1).expand(x.shape[0], 1) for v in (c.da, c.ds))
        v = (da * p.x1 + ds * p.x0).reshape(x.shape)
        return v.to(x.dtype), (da[:, 0] * p.trace_x1 + ds[:, 0] * p.trace_x0).to(x.dtype)

    def velocity(self, path: AffinePath, t: Tensor, x: Tensor) -> Tensor:
        """The marginal field u_t(x), eq. 8, which flow matching approximates; of the shape and type of x."""
        return self.velocity_and_divergence(path, t, x)[0]

    def score(self, path: AffinePath, t: Tensor, x: Tensor) -> Tensor:
        """grad log p_t(x), the gradient of the logarithm of eq. 6, of the shape and type of x."""
        return self.posterior(path, t, x).score.reshape(x.shape).to(x.dtype)

    def log_density(self, path: AffinePath, t: Tensor, x: Tensor) -> Tensor:
        """log p_t(x), eq. 6, float64, shape (B,)."""
        return self.posterior(path, t, x).log_density

    def marginal_sample(self, path: AffinePath, t: float, n: int, generator: torch.Generator) -> Tensor:
        """Draws from p_t of eq. 6, float64, shape (n, *shape)."""
        c = path.coefficients(torch.tensor(t, dtype=torch.float64))
        noise = torch.randn(n, *self.shape, generator=generator, dtype=torch.float64)
        return c.a * self.sample(n, generator) + c.s * noise


ROWS = 256
"""The number of points x that a :class:`FiniteOracle` evaluates at once."""


class FiniteOracle(Oracle):
    """Finitely many points, each smoothed by a Gaussian of standard deviation ``bandwidth``.

    All have the same weight, unless :meth:`given` others.

    q of eq. 6 is then a sum, and u_t of eq. 8 minimises the flow-matching loss on these points. At bandwidth 0 the field is NaN
    where s = 0. The smaller the bandwidth, the harder the field is to integrate near the end. A running softmax goes through the
    points in pieces, so an evaluation takes the same memory for any number of points.

    Args:
        points: shape (N, *).
        bandwidth: in the units of the points; 0 for the points themselves.
        memory: how many float64 numbers a piece may take; a few pieces are alive at once. Small pieces stay in the processor's
            cache.

    Raises:
        ValueError: the points have the wrong shape or are not finite, or the bandwidth is negative or not finite.
    """

    def __init__(self, points: Tensor, bandwidth: float = 0.0, memory: int = 1 << 18) -> None:
        if points.ndim < 2 or len(points) < 1:
            raise ValueError(f"points must have shape (N, *) with at least one point, not {tuple(points.shape)}")
        if not 0 <= bandwidth < math.inf:
            raise ValueError(f"bandwidth must be zero or more, not {bandwidth}")
        self.points, self.bandwidth, self.memory = points.reshape(len(points), -1), bandwidth, memory
        self.shape = tuple(points.shape[1:])
        # Distances are taken from the mean, where squares are smallest. Pieces keep the float64 copy small.
        total = torch.zeros(self.points.shape[1], dtype=torch.float64, device=points.device)
        for piece in self.points.split(max(1, memory // self.points.shape[1])):
            total = total + piece.double().sum(0)
        if not torch.isfinite(total).all():
            raise ValueError("some points are not finite")
        self.mean = total / len(points)
        self.log_weights: Tensor | None = None

    def given(self, log_weights: Tensor) -> "FiniteOracle":
        """The same points with other weights for each sample of a batch, as a condition gives them.

        All methods then take x of B samples, and :meth:`sample` draws one for each.

        Args:
            log_weights: float64, shape (B, N); the weights of a sample add up to 1, and may be 0.

        Raises:
            ValueError: the shape is another, or the weights of a sample do not add up to 1.
        """
        if log_weights.ndim != 2 or log_weights.shape[1] != len(self.points):
            raise ValueError(f"log_weights must have shape (B, {len(self.points)}), not {tuple(log_weights.shape)}")
        if not (log_weights.logsumexp(1).abs() < 1e-6).all():
            raise ValueError("the weights of some samples do not add up to 1: no point may have their condition")
        weighted = copy(self)
        weighted.log_weights = log_weights
        return weighted

    def posterior_at(self, c: Coefficients, x: Tensor) -> Posterior:
        rows = [None] * len(x.split(ROWS)) if self.log_weights is None else self.log_weights.split(ROWS)
        pieces = [
            self._posterior(Coefficients(*columns), piece, weights)
            for piece, weights, *columns in zip(x.split(ROWS), rows, *(v.split(ROWS) for v in c), strict=True)
        ]
        return Posterior(*(torch.cat(values) for values in zip(*pieces, strict=True)))

    def _posterior(self, c: Coefficients, x: Tensor, log_weights: Tensor | None) -> Posterior:
        batch, dimensions = x.shape
        a, s = c.a, c.s
        variance = a**2 * self.bandwidth**2 + s**2
        centred = x - a * self.mean
        squares = (centred**2).sum(1, keepdim=True)
        # The smallest number, and not minus infinity: of pieces without any weight the difference of two would be no number.
        highest = torch.full((batch, 1), torch.finfo(torch.float64).min, dtype=torch.float64, device=x.device)
        total = torch.zeros_like(highest)
        first = torch.zeros_like(x)
        second = torch.zeros_like(highest)
        first_point = 0
        for piece in self.points.split(max(1, self.memory // (dimensions + 2 * batch))):
            mu = piece.double() - self.mean
            mu_squares = (mu**2).sum(1)
            distances = (squares - 2 * a * (centred @ mu.T) + a**2 * mu_squares).clamp(min=0)
            exponent = -distances / (2 * variance)
            if log_weights is not None:
                exponent = exponent + log_weights[:, first_point : first_point + len(piece)]
                first_point += len(piece)
            # The result does not depend on the peak, so neither does its derivative.
            peak = torch.maximum(highest, exponent.detach().max(1, keepdim=True).values)
            keep, weight = torch.exp(highest - peak), torch.exp(exponent - peak)
            total = total * keep + weight.sum(1, keepdim=True)
            first = first * keep + weight @ mu
            second = second * keep + (weight @ mu_squares)[:, None]
            highest = peak
        m = first / total  # the mean of mu under the softmax, relative to the overall mean
        spread = (second / total - (m**2).sum(1, keepdim=True)).clamp(min=0)
        score = -(centred - a * m) / variance
        # tr d score / dx = -D / v + a^2 / v^2 tr Cov(mu)
        trace = -dimensions / variance + a**2 / variance**2 * spread
        x1 = m + self.mean - a * self.bandwidth**2 * score
        trace_mu = a / variance * spread
        whole = len(self.points) if log_weights is None else 1  # by which the sum of the weights is too large
        log_density = highest + torch.log(total / whole) - dimensions / 2 * torch.log(2 * math.pi * variance)
        return Posterior(
            log_density[:, 0], score, x1, -s * score, (trace_mu - a * self.bandwidth**2 * trace)[:, 0], (-s * trace)[:, 0]
        )

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        if self.log_weights is None:
            chosen = torch.randint(len(self.points), (n,), generator=generator)
        else:
            chosen = torch.multinomial(self.log_weights.cpu().exp(), 1, generator=generator)[:, 0]
        noise = torch.randn(n, self.points.shape[1], generator=generator, dtype=torch.float64)
        points = self.points[chosen.to(self.points.device)].cpu().double()
        return (points + self.bandwidth * noise).reshape(n, *self.shape)


class MixtureOracle(Oracle):
    """A mixture of Gaussians with full covariances, for points (B, D). Every p_t of eq. 6 is then one too.

    Args:
        means: shape (K, D).
        covariances: shape (K, D, D), symmetric and positive semi-definite.
        weights: positive, shape (K,); they are normalised here. None for equal weights.

    Raises:
        ValueError: shapes do not fit together, a weight is not positive, or a matrix is not a covariance.
    """

    def __init__(self, means: Tensor, covariances: Tensor, weights: Tensor | None = None) -> None:
        if means.ndim != 2:
            raise ValueError(f"means must have shape (K, D), not {tuple(means.shape)}")
        k, d = means.shape
        if covariances.shape != (k, d, d):
            raise ValueError(f"covariances must have shape {(k, d, d)} to go with means {(k, d)}, not {tuple(covariances.shape)}")
        weights = torch.ones(k) if weights is None else weights
        if weights.shape != (k,) or not (weights > 0).all():
            raise ValueError(f"weights must be {k} positive numbers, not {weights}")
        self.shape = (d,)
        self.means, covariances = means.double(), covariances.double()
        if (covariances - covariances.mT).abs().max() > 1e-9 * covariances.abs().max().clamp(min=1):
            raise ValueError("covariances must be symmetric")
        eigenvalues, self.vectors = torch.linalg.eigh(covariances)
        if eigenvalues.min() < -1e-9:
            raise ValueError(f"covariances must be positive semi-definite; the smallest eigenvalue is {eigenvalues.min():g}")
        self.eigenvalues = eigenvalues.clamp(min=0)
        self.log_weights = weights.double().log() - weights.double().sum().log()

    def posterior_at(self, c: Coefficients, x: Tensor) -> Posterior:
        a, s = c.a, c.s
        means, vectors, eigenvalues = (v.to(x.device) for v in (self.means, self.vectors, self.eigenvalues))
        # In the axes of each component, shape (B, K, D).
        variance = a[..., None] ** 2 * eigenvalues + s[..., None] ** 2
        offset = torch.einsum("bkd,kde->bke", x[:, None] - a[..., None] * means, vectors)
        exponent = -(offset**2 / variance).sum(2) / 2 - torch.log(2 * math.pi * variance).sum(2) / 2
        joint = exponent + self.log_weights.to(x.device)
        log_density = torch.logsumexp(joint, 1)
        r = torch.exp(joint - log_density[:, None])
        scores = -torch.einsum("bke,kde->bkd", offset / variance, vectors)
        shift = torch.einsum("bke,kde->bkd", eigenvalues * offset / variance, vectors)  # -Sigma_i score_i
        x1 = means + a[..., None] * shift
        score = torch.einsum("bk,bkd->bd", r, scores)
        mean_x1 = torch.einsum("bk,bkd->bd", r, x1)

        def trace(own: Tensor, values: Tensor, mean: Tensor) -> Tensor:
            """Trace of d/dx sum r_i f_i: the mean of the components' traces plus the trace of Cov(f, score) under r."""
            return (r * (own + (values * scores).sum(2))).sum(1) - (mean * score).sum(1)

        trace_score = trace(-(1 / variance).sum(2), scores, score)
        trace_x1 = trace(a * (eigenvalues / variance).sum(2), x1, mean_x1)
        return Posterior(log_density, score, mean_x1, -s * score, trace_x1, -s[:, 0] * trace_score)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        chosen = torch.multinomial(self.log_weights.exp(), n, replacement=True, generator=generator)
        noise = torch.randn(n, *self.shape, generator=generator, dtype=torch.float64) * self.eigenvalues[chosen].sqrt()
        return self.means[chosen] + torch.einsum("ne,nde->nd", noise, self.vectors[chosen])
