"""Fixed-step solvers and uniform grids."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ode_fields import (
    Recorder,
    every_tableau,
    manufactured,
    nonlinear,
    solution_of_uneven,
    spread,
    uneven,
    wavy,
)
from torch import Tensor

from fmbench.flow.fields import CountingField, velocity_field
from fmbench.flow.paths import OptimalTransport
from fmbench.flow.prediction import EPSILON, X, convert
from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.grids import uniform_grid
from fmbench.flow.solvers.tableaux import EULER, FIXED, Tableau

TRAP = (61, 109, 115, 121, 122, 123)


def sweep(field, x: Tensor, tableau: Tableau, counts: list[int], t0: float, t1: float) -> list[Tensor]:
    return [integrate(field, x, uniform_grid(t0, t1, n), tableau) for n in counts]


@every_tableau
@pytest.mark.parametrize("backward", [False, True])
def test_order_of_convergence(tableau, backward):
    t0, t1 = (0.9, 0.1) if backward else (0.1, 0.9)
    start, end = (manufactured(torch.tensor([t], dtype=torch.float64)) for t in (t0, t1))
    counts = [32, 64, 128]
    errors = [float((x - end).norm()) for x in sweep(nonlinear, start, tableau, counts, t0, t1)]
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(tableau.order, abs=0.25)


@pytest.mark.parametrize("tableau", FIXED.values(), ids=lambda t: t.name)
@given(z=st.floats(-1, 1))
@settings(max_examples=20, deadline=None)
def test_one_step_on_a_linear_field_is_the_taylor_polynomial(tableau, z):
    """With as many stages as its order, a Runge-Kutta step on x' = z x is exp's Taylor polynomial of that degree."""
    x = integrate(lambda t, x: z * x, torch.ones(1, 1, dtype=torch.float64), uniform_grid(0, 1, 1), tableau)
    assert float(x) == pytest.approx(sum(z**k / math.factorial(k) for k in range(tableau.order + 1)), rel=1e-13)


@every_tableau
def test_a_polynomial_in_time_is_integrated_exactly_up_to_the_order(tableau):
    for degree in range(tableau.order):
        x = integrate(
            lambda t, x, k=degree: (k + 1) * t**k * torch.ones_like(x),
            torch.zeros(2, 3, dtype=torch.float64),
            uniform_grid(0.5, 2.0, 3),
            tableau,
        )
        torch.testing.assert_close(x, torch.full_like(x, 2.0 ** (degree + 1) - 0.5 ** (degree + 1)))


@every_tableau
@pytest.mark.parametrize("steps", [1, 7, 50, *TRAP])
def test_nfe_is_steps_times_stages(tableau, steps):
    field = CountingField(wavy)
    integrate(field, torch.ones(3, 2), uniform_grid(0, 1, steps), tableau)
    assert field.calls == steps * tableau.stages
    assert field.evaluations == 3 * field.calls


@pytest.mark.parametrize("steps", [*TRAP, 1, 2, 3, 100, 1000])
@pytest.mark.parametrize("ends", [(0.0, 1.0), (0.0, 1 - 1e-5), (1.0, 0.0), (1e-3, 1 - 1e-3)])
def test_grids_hit_both_ends_with_the_steps_asked_for(steps, ends):
    """A step size of 1/N makes N + 1 steps for the first six of these."""
    grid = uniform_grid(*ends, steps)
    assert grid.dtype == torch.float64
    assert len(grid) == steps + 1
    assert (grid[0].item(), grid[-1].item()) == ends
    exact = torch.tensor(np.linspace(*ends, steps + 1))
    torch.testing.assert_close(grid, exact, rtol=0, atol=1e-15)


@given(st.floats(-10, 10), st.floats(0.01, 10), st.integers(1, 3000))
@settings(max_examples=100, deadline=None)
def test_grid_ends_are_exact_for_any_interval(t0, length, steps):
    grid = uniform_grid(t0, t0 + length, steps)
    assert (grid[0].item(), grid[-1].item()) == (t0, t0 + length)
    assert (grid.diff() > 0).all()


@pytest.mark.parametrize("steps", [0, -1])
def test_a_grid_of_no_steps_is_refused(steps):
    with pytest.raises(ValueError, match=str(steps)):
        uniform_grid(0, 1, steps)


@every_tableau
@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0), (0.0, 1 - 1e-5)])
def test_stages_are_evaluated_at_the_nodes_of_the_tableau(tableau, ends):
    field = Recorder(wavy)
    grid = uniform_grid(*ends, 7)
    integrate(field, torch.ones(1, 2), grid, tableau)
    expected = grid[:-1, None] + grid.diff()[:, None] * torch.tensor(tableau.c, dtype=torch.float64)
    torch.testing.assert_close(torch.stack(field.times).reshape(7, -1), expected, rtol=0, atol=1e-15)


@every_tableau
def test_keep_returns_every_state_and_the_same_end(tableau):
    grid = torch.tensor([0.1, 0.15, 0.4, 0.7], dtype=torch.float64)
    start = manufactured(grid[:1])
    states = integrate(nonlinear, start, grid, tableau, keep=True)
    assert states.shape == (4, 1, 2)
    for n in range(1, 4):
        assert torch.equal(states[n], integrate(nonlinear, start, grid[: n + 1], tableau))
    assert torch.equal(states[0], start)


def test_an_uneven_grid_is_followed():
    grid = torch.tensor([0.0, 0.1, 0.7, 1.0], dtype=torch.float64)
    x = integrate(lambda t, x: x, torch.ones(1, 1, dtype=torch.float64), grid, EULER)
    assert float(x) == pytest.approx(1.1 * 1.6 * 1.3, rel=1e-14)


@pytest.mark.parametrize("tableau", FIXED.values(), ids=lambda t: t.name)
def test_images_keep_shape_and_type(tableau):
    x = spread(3, 1, 2, 5, dtype=torch.float32) / 10
    end = integrate(uneven, x, uniform_grid(0, 1, 400), tableau)
    assert end.dtype == torch.float32
    torch.testing.assert_close(end, solution_of_uneven(1.0, x), rtol=3e-3, atol=0)


@pytest.mark.parametrize("sigma_min", [0.0, 0.1])
@pytest.mark.parametrize("prediction", [EPSILON, X], ids=lambda p: p.name)
def test_ddim_is_euler_on_a_straight_path(sigma_min, prediction):
    """For any output of the network: DDIM goes to a(t') x1 + s(t') x0 with x1 and x0 as predicted at t."""
    path = OptimalTransport(sigma_min)
    grid = uniform_grid(0.05, 0.95, 9)

    def network(t: Tensor, x: Tensor) -> Tensor:
        return torch.sin(2 * x) + t[:, None] * x.flip(1)

    x = start = spread(4, 3) / 5
    for t, t_next in itertools.pairwise(grid):
        p = network(t.expand(4), x)
        x1, x0 = (convert(p, x, t, path, prediction, wanted) for wanted in (X, EPSILON))
        c = path.coefficients(t_next)
        x = c.a * x1 + c.s * x0
    euler = integrate(velocity_field(network, path, prediction), start, grid, EULER)
    torch.testing.assert_close(euler, x, rtol=1e-10, atol=1e-10)
