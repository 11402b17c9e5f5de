"""Fields with known solutions, for tests of ODE solvers."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from fmbench.flow.solvers.tableaux import DOPRI5, FIXED

DOPRI5_EMBEDDED = dataclasses.replace(DOPRI5, name="dopri5 embedded", b=DOPRI5.b_low, order=4)


TABLEAUX = [*FIXED.values(), DOPRI5, DOPRI5_EMBEDDED]


every_tableau = pytest.mark.parametrize("tableau", TABLEAUX, ids=lambda t: t.name)


COUPLING = torch.tensor([[0.4, -0.9], [0.7, 0.3]], dtype=torch.float64)


class Recorder:
    """A field that remembers the times at which it was called."""

    def __init__(self, field) -> None:
        self.field, self.times = field, []

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        self.times.append(t.clone())
        return self.field(t, x)


def manufactured(t: Tensor) -> Tensor:
    """A curve and, in ``nonlinear``, a coupled, nonlinear, non-autonomous field with it as its solution."""
    return torch.stack([torch.exp(t), torch.sin(3 * t)], -1)


def nonlinear(t: Tensor, x: Tensor) -> Tensor:
    curve, slope = manufactured(t), torch.stack([torch.exp(t), 3 * torch.cos(3 * t)], -1)
    return slope + (x**2 - curve**2) @ COUPLING.T


def wavy(t: Tensor, x: Tensor) -> Tensor:
    """dx/dt = -2 x cos(6 t) elementwise, x(t) = x(0) exp(-sin(6 t) / 3)."""
    return -2 * x * torch.cos(6 * t).reshape(-1, *([1] * (x.ndim - 1))).to(x.dtype)


def uneven(t: Tensor, x: Tensor) -> Tensor:
    """Samples of different difficulty: dx/dt = -x^3 cos^2(4t), x(t) = x0 / sqrt(1 + x0^2 (t + sin(8t)/8))."""
    return -(x**3) * torch.cos(4 * t).reshape(-1, *([1] * (x.ndim - 1))).to(x.dtype) ** 2


def solution_of_uneven(t: float, x0: Tensor) -> Tensor:
    return x0 / torch.sqrt(1 + x0**2 * (t + math.sin(8 * t) / 8))


def spread(n: int, *shape: int, dtype=torch.float64) -> Tensor:
    """Initial states whose sizes, and so step sizes, range over two orders of magnitude."""
    g = torch.Generator().manual_seed(0)
    size = torch.logspace(-1, 1, n, dtype=torch.float64).reshape(-1, *([1] * len(shape)))
    return (size * (1 + torch.rand(n, *shape, generator=g, dtype=torch.float64))).to(dtype)


both_directions = pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0)], ids=["forward", "backward"])


def square(t: Tensor, x: Tensor) -> Tensor:
    """dx/dt = x^2: x(t) = 1 / (1/x0 - t), gone at t = 1/x0."""
    return x**2
