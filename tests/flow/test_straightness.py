"""The straightness of trajectories against closed forms, with every kind of fixed-step solver."""

import itertools
import math

import pytest
import torch

from fmbench.flow.fields import CountingField
from fmbench.flow.paths import OptimalTransport
from fmbench.flow.solvers.grids import uniform_grid
from fmbench.flow.solvers.registry import find_solver
from fmbench.flow.straightness import MeasuredField


def solved(velocity, x0, steps, solver="midpoint", t0=0.0, t1=1.0):
    field = CountingField(velocity, t0, t1)
    measured = MeasuredField(field)
    path = OptimalTransport(0.0)
    nfe = steps * {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4, "ab2": 1}[solver]
    x1 = find_solver(solver).spend(nfe, measured, x0, lambda n: uniform_grid(t0, t1, n), path)
    assert field.calls == nfe
    return measured.straightness(x0, x1, t0, t1)


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun", "rk4", "ab2"])
def test_a_straight_path_of_constant_speed_has_no_deviation(solver):
    v = torch.tensor([[3.0, 4.0], [0.0, -2.0]], dtype=torch.float64)
    found = solved(lambda t, x: v, torch.randn(2, 2, dtype=torch.float64), 7, solver, 0.1, 0.9)
    assert found.deviation.abs().max() < 1e-12
    torch.testing.assert_close(found.ratio, torch.ones(2, dtype=torch.float64))


def test_a_half_circle():
    """Speed pi r for a unit of time: S = (pi^2 - 4) r^2 over two coordinates, length over displacement pi / 2."""
    x0 = torch.tensor([[1.0, 0.0], [0.0, 3.0]], dtype=torch.float64)

    def turn(t, x):
        return math.pi * torch.stack([-x[:, 1], x[:, 0]], 1)

    found = solved(turn, x0, 1000)
    expected = (math.pi**2 - 4) * torch.tensor([1.0, 9.0], dtype=torch.float64) / 2
    torch.testing.assert_close(found.deviation, expected, rtol=2e-5, atol=0)
    torch.testing.assert_close(found.ratio, torch.full((2,), math.pi / 2, dtype=torch.float64), rtol=2e-5, atol=0)


@pytest.mark.parametrize("solver", ["midpoint", "heun", "rk4"])
def test_the_error_falls_with_the_square_of_the_step(solver):
    """dx/dt = x on a line from 1 to e: S = (e^2 - 1) / 2 - (e - 1)^2, though the path is straight. Its ratio is 1."""
    exact = (math.e**2 - 1) / 2 - (math.e - 1) ** 2
    x0 = torch.ones(1, 1, dtype=torch.float64)
    errors = [abs(float(solved(lambda t, x: x, x0, n, solver).deviation) - exact) for n in (20, 40, 80)]
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(order > 1.9 for order in orders), errors
    assert float(solved(lambda t, x: x, x0, 400, solver).ratio) == pytest.approx(1, abs=3e-3)


def test_there_must_be_a_trajectory():
    x = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="no evaluation of the field"):
        MeasuredField(lambda t, x: x).straightness(x, x, 0.0, 1.0)
