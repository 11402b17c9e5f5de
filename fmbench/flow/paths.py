"""Gaussian conditional probability paths, all affine.

Notation and direction of time, here and everywhere in fmbench: t = 0 is noise x0 ~ N(0, I), t = 1 is data x1, and

    x_t = a(t) x1 + s(t) x0.

Lipman et al. 2023 write mu_t(x1) = a(t) x1 and sigma_t = s(t) (eq. 10, 11). The time of the diffusion literature is r = 1 - t. A
path gives a, s and their derivatives together. They are computed in float64 whatever the type of t, since float32 does not
have the digits for a diffusion path near t = 1.

At the ends of the interval:

| path      | t_min                                   | t_max                                                      |
|-----------|-----------------------------------------|------------------------------------------------------------|
| OT        | a = 0, s = 1: noise alone               | a = 1, s = sigma_min; with sigma_min = 0, s = 0            |
| VP        | a = exp(-5.025), s = 0.99998: N(0, I) to that (eq. 18) | t = 1 - epsilon; at 1e-5, s = 1e-3. s' is infinite at 1 |
| VE        | a = 1, s = sigma_max: the data are there too, small against the noise | a = 1, s = sigma_min         |
| cosine VP | a = 0, s = 1: noise alone               | a = 1, s = 0                                               |

Where a = 0, noise prediction and score say nothing about the data. Where s = 0, data prediction says nothing about the noise and
the score is infinite. :func:`fmbench.flow.prediction.usable_interval` therefore narrows the interval at those ends.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fmbench.flow.broadcast import check_shape, expand_to


class Coefficients(NamedTuple):
    """a(t), s(t) and their time derivatives, each float64 of the shape of t."""

    a: Tensor
    s: Tensor
    da: Tensor
    ds: Tensor


class AffinePath(ABC):
    """A conditional path x_t = a(t) x1 + s(t) x0.

    Attributes:
        t_min, t_max: the closed interval on which a, s and both derivatives are finite. Training, sampling and likelihood stay
            inside it.
    """

    t_min: float = 0.0
    t_max: float = 1.0

    @property
    def base_std(self) -> float:
        """Standard deviation of the noise that sampling starts from."""
        return 1.0

    @abstractmethod
    def coefficients(self, t: Tensor) -> Coefficients:
        """The four coefficients of eq. 10-11 at times ``t`` of any shape, in float64."""

    def log_snr(self, t: Tensor) -> Tensor:
        """lambda(t) = log a(t)^2 / s(t)^2 (Kingma et al. 2021), float64; infinite where a or s is zero."""
        c = self.coefficients(t)
        return 2 * (c.a.log() - c.s.log())

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """The inverse of :meth:`log_snr`, float64: by bisection on the path's interval, or in closed form where it has one.

        Its derivative is that of the inverse, 1 / lambda'(t), and 0 for levels that the interval does not have.
        """
        t: Tensor = _Inverse.apply(log_snr, self)
        return t

    def log_snr_rate(self, t: Tensor) -> Tensor:
        """lambda'(t) = 2 (a'/a - s'/s), float64; infinite where a or s is zero."""
        c = self.coefficients(t)
        return 2 * (c.da / c.a - c.ds / c.s)

    def diffusion_squared(self, t: Tensor) -> Tensor:
        """g(1 - t)^2 of the SDE with the same marginals: 2 s^2 (a'/a - s'/s), float64.

        On the VP path this is beta(1 - t), the weight of ScoreFlow's loss (Song et al. 2021, eq. 7).
        """
        c = self.coefficients(t)
        return 2 * c.s * (c.s * c.da / c.a - c.ds)

    def interpolate(self, x0: Tensor, x1: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The point x_t on the path and its velocity, eq. 11 and 15 of Lipman et al. 2023.

        The velocity is computed as a' x1 + s' x0, which needs no division.

        Args:
            x0: noise, shape (B, *).
            x1: data, shape (B, *).
            t: times, shape (B,).

        Returns:
            x_t and u_t(x_t | x1), both of the shape and type of x1.

        Raises:
            ValueError: the shapes of x0, x1 and t do not go together.
        """
        check_shape("x0", x0, x1.shape)
        a, s, da, ds = (expand_to(v, x1).to(x1.dtype) for v in self.coefficients(t))
        return a * x1 + s * x0, da * x1 + ds * x0


class _Inverse(torch.autograd.Function):
    """The inverse of a path's log SNR. Bisection compares numbers, so automatic differentiation would give it no derivative."""

    @staticmethod
    def forward(ctx: Any, log_snr: Tensor, path: AffinePath) -> Tensor:
        low = torch.full_like(log_snr, path.t_min, dtype=torch.float64)
        high = torch.full_like(log_snr, path.t_max, dtype=torch.float64)
        for _ in range(60):
            middle = (low + high) / 2
            below = path.log_snr(middle) < log_snr
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        t = (low + high) / 2
        ctx.path = path
        ctx.save_for_backward(log_snr, t)
        return t

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        log_snr, t = ctx.saved_tensors
        ends = ctx.path.log_snr(t.new_tensor([ctx.path.t_min, ctx.path.t_max]))
        inside = (log_snr >= ends[0]) & (log_snr <= ends[1])
        # The rate at t, and not at a constant: this is differentiable again.
        rate = ctx.path.log_snr_rate(torch.where(inside, t, (ctx.path.t_min + ctx.path.t_max) / 2))
        return torch.where(inside, gradients[0] / rate, 0.0).to(log_snr.dtype), None


@dataclass(frozen=True)
class OptimalTransport(AffinePath):
    """The conditional optimal-transport path, eq. 20-23: a = t, s = 1 - (1 - sigma_min) t."""

    sigma_min: float = 1e-4

    def __post_init__(self) -> None:
        if not 0 <= self.sigma_min < 1:
            raise ValueError(f"sigma_min must be in [0, 1), not {self.sigma_min}")

    def coefficients(self, t: Tensor) -> Coefficients:
        t = t.double()
        slope = 1 - self.sigma_min
        one = torch.ones_like(t)
        return Coefficients(t, 1 - slope * t, one, -slope * one)


@dataclass(frozen=True)
class VariancePreserving(AffinePath):
    """The VP diffusion path with a linear beta, eq. 18-19.

    With r = 1 - t and T(r) = beta_min r + r^2 (beta_max - beta_min) / 2: a = exp(-T/2), s = sqrt(1 - exp(-T)).
    s' is infinite at t = 1, so the path ends at t = 1 - epsilon, as in the paper.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        if not 0 < self.beta_min <= self.beta_max:
            raise ValueError(f"need 0 < beta_min <= beta_max, not {self.beta_min} and {self.beta_max}")
        if not 0 < self.epsilon < 1:
            raise ValueError(f"epsilon must be in (0, 1), not {self.epsilon}")

    @property
    def t_max(self) -> float:  # type: ignore[override]
        return 1 - self.epsilon

    def integrated_beta(self, t: Tensor) -> Tensor:
        """T(1 - t), float64."""
        r = 1 - t.double()
        return self.beta_min * r + r**2 * (self.beta_max - self.beta_min) / 2

    def beta(self, t: Tensor) -> Tensor:
        """beta(1 - t) = T'(1 - t), float64."""
        return self.beta_min + (1 - t.double()) * (self.beta_max - self.beta_min)

    def coefficients(self, t: Tensor) -> Coefficients:
        big_t, beta = self.integrated_beta(t), self.beta(t)
        a = torch.exp(-big_t / 2)
        # 1 - exp(-T) by expm1: T is 1e-6 at the end of the path, where the plain form loses all digits.
        s = torch.sqrt(-torch.expm1(-big_t))
        return Coefficients(a, s, a * beta / 2, -beta * torch.exp(-big_t) / (2 * s))

    def log_snr(self, t: Tensor) -> Tensor:
        return -torch.log(torch.expm1(self.integrated_beta(t)))

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """In closed form: T = log(1 + exp(-lambda)), then the positive root of the quadratic T(r)."""
        big_t = torch.nn.functional.softplus(-log_snr.double())
        slope = self.beta_max - self.beta_min
        root = torch.sqrt(self.beta_min**2 + 2 * slope * big_t)
        return 1 - 2 * big_t / (self.beta_min + root)


@dataclass(frozen=True)
class VarianceExploding(AffinePath):
    """The VE diffusion path, eq. 16-17: a = 1, s = sigma(1 - t), geometric from sigma_min to sigma_max.

    The base is N(0, sigma_max^2 I), not N(0, I).
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"need 0 < sigma_min < sigma_max, not {self.sigma_min} and {self.sigma_max}")

    @property
    def base_std(self) -> float:
        return self.sigma_max

    def coefficients(self, t: Tensor) -> Coefficients:
        t = t.double()
        rate = math.log(self.sigma_max / self.sigma_min)
        s = self.sigma_min * torch.exp(rate * (1 - t))
        return Coefficients(torch.ones_like(t), s, torch.zeros_like(t), -rate * s)

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """In closed form: lambda = -2 log s is linear in t."""
        rate = math.log(self.sigma_max / self.sigma_min)
        return (1 + (log_snr.double() / 2 + math.log(self.sigma_min)) / rate).clamp(0, 1)


@dataclass(frozen=True)
class CosineVP(AffinePath):
    """The VP path with a cosine schedule (Nichol & Dhariwal 2021, without their offset): a = sin(pi t/2), s = cos(pi t/2)."""

    def coefficients(self, t: Tensor) -> Coefficients:
        angle = t.double() * (math.pi / 2)
        # cos(x) is computed as sin(pi/2 - x), so that s(1) is exactly 0.
        a, s = torch.sin(angle), torch.sin((1 - t.double()) * (math.pi / 2))
        return Coefficients(a, s, s * (math.pi / 2), -a * (math.pi / 2))


PATHS: dict[str, type[AffinePath]] = {
    "ot": OptimalTransport,
    "vp": VariancePreserving,
    "ve": VarianceExploding,
    "cosine_vp": CosineVP,
}
"""Paths by the names a config uses."""
