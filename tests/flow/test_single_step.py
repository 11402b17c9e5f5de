"""Exponential integrators without a history: single-step DPM-Solver, EDM's Heun, and DDIM of second order."""

import itertools
import math

import pytest
import torch
from draws import draw
from test_multistep import GRID, PATHS, WITH_ENDS, gaussian, network, slope

from fmbench.flow.fields import CountingField
from fmbench.flow.general_paths import Rescaled
from fmbench.flow.paths import CosineVP, OptimalTransport, VariancePreserving
from fmbench.flow.prediction import EPSILON, PREDICTIONS, VELOCITY, X, convert
from fmbench.flow.solvers.adaptive import dopri5
from fmbench.flow.solvers.ddim import ddim
from fmbench.flow.solvers.dpm_solver import DPM_2S, DPM_3S
from fmbench.flow.solvers.edm_heun import edm_heun
from fmbench.flow.solvers.grids import uniform_grid
from fmbench.flow.solvers.registry import SOLVERS
from fmbench.flow.solvers.stochastic import heun_churn

every_path = pytest.mark.parametrize("path", PATHS, ids=lambda p: type(p).__name__)
SECOND = ("ddim2", "edm_heun", "dpm_2s", "dpm_3s")


@every_path
@pytest.mark.parametrize("solver", [DPM_2S, DPM_3S], ids=["dpm_2s", "dpm_3s"])
def test_order_1_is_ddim(solver, path):
    x = draw(0, 3, 1, 2, 3)
    ours = solver.solve(network, x, GRID, path, [1] * 5, EPSILON)
    torch.testing.assert_close(ours, ddim(network, x, GRID, path, EPSILON), rtol=1e-10, atol=1e-10)


@every_path
def test_a_step_of_dpm_2s_by_hand(path):
    """Algorithm 1 of the paper, in numbers."""
    x, (lam, end) = draw(1, 3, 2), (path.log_snr(GRID[1:3]) / 2).tolist()
    h = end - lam
    times = [GRID[1], path.time_of_log_snr(torch.tensor(lam + end, dtype=torch.float64)), GRID[2]]
    (a, _), (am, sm), (b, r) = ((float(c.a), float(c.s)) for c in map(path.coefficients, times))
    u = am / a * x - sm * (math.exp(h / 2) - 1) * network(times[0], x)
    by_hand = b / a * x - r * (math.exp(h) - 1) * network(times[1], u)
    ours = DPM_2S.solve(network, x, GRID[1:3], path, [2], EPSILON)
    torch.testing.assert_close(ours, by_hand, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("path", PATHS[:2], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize(("name", "order"), [("ddim2", 2), ("edm_heun", 2), ("dpm_2s", 2), ("dpm_3s", 3)])
def test_order_on_the_gaussian_oracle(name, order, path):
    x = draw(2, 4, 2)
    exact = dopri5(gaussian(path), x, 0.2, 0.8, rtol=1e-12, atol=1e-12, per_sample=False).x
    steps, errors = [20, 40, 80], []
    for n in steps:
        if name.startswith("dpm"):
            end = {"dpm_2s": DPM_2S, "dpm_3s": DPM_3S}[name].solve(
                gaussian(path), x, uniform_grid(0.2, 0.8, n), path, [order] * n
            )
        else:
            end = SOLVERS[name].spend(2 * n, gaussian(path), x, lambda n: uniform_grid(0.2, 0.8, n), path)
        errors.append(float((end - exact).norm()))
    assert -slope(steps, errors) == pytest.approx(order, abs=0.3)


@pytest.mark.parametrize("solver", [DPM_2S, DPM_3S], ids=["2", "3"])
@pytest.mark.parametrize(("starts", "ends"), itertools.product([False, True], repeat=2))
@pytest.mark.parametrize("nfe", range(1, 14))
def test_the_orders_spend_the_evaluations_exactly(solver, starts, ends, nfe):
    orders = solver.orders(nfe, starts, ends)
    assert sum(orders) == nfe and max(orders) <= solver.order and min(orders) > 0
    assert not starts or orders[0] == 1
    assert not ends or orders[-1] == 1


def test_the_orders_of_dpm_solver_fast():
    assert [DPM_3S.orders(n) for n in (3, 8, 9, 10)] == [[2, 1], [3, 3, 2], [3, 3, 2, 1], [3, 3, 3, 1]]
    assert [DPM_2S.orders(n) for n in (2, 7)] == [[2], [2, 2, 2, 1]]
    with pytest.raises(ValueError, match="must be positive, not 0"):
        DPM_2S.orders(0)


@pytest.mark.parametrize("path", [*WITH_ENDS, OptimalTransport()], ids=repr)
@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("name", SECOND)
def test_the_evaluations_are_those_stated(name, steps, path):
    """Also from noise alone and to data alone: there a step of EDM's Heun costs one evaluation."""
    field = CountingField(gaussian(path), path.t_min, path.t_max)
    nfe = SOLVERS[name].cost * steps
    x = path.base_std * draw(3, 4, 2)
    end = SOLVERS[name].spend(nfe, field, x, lambda n: uniform_grid(path.t_min, path.t_max, n), path)
    infinite = [float(v) == 0 for v in path.coefficients(torch.tensor([path.t_min, path.t_max], dtype=torch.float64)).a[:1]]
    infinite.append(float(path.coefficients(torch.tensor(path.t_max, dtype=torch.float64)).s) == 0)
    less = min(sum(infinite), steps) if name == "edm_heun" else 0
    assert field.calls == nfe - less
    assert torch.isfinite(end).all()


@pytest.mark.parametrize("path", [OptimalTransport(0.0), CosineVP()], ids=repr)
@pytest.mark.parametrize("name", SECOND)
def test_from_noise_alone_to_data_alone(name, path):
    """More evaluations bring the result nearer to the exact flow."""
    x = draw(4, 6, 2)
    exact = dopri5(gaussian(path), x, 0, 1, rtol=1e-9, atol=1e-9).x
    spend = SOLVERS[name].spend
    few, many = (float((spend(n, gaussian(path), x, lambda k: uniform_grid(0, 1, k), path) - exact).norm()) for n in (12, 96))
    assert many < few / 4


def test_edm_heun_is_the_published_algorithm():
    """Heun in sigma by hand, to sigma = 0; it is also the sampler with churn, without its churn, and ddim in the form epsilon."""
    path, x = OptimalTransport(0.0), draw(5, 4, 2)
    grid = torch.tensor([0.1, 0.4, 0.8, 1.0], dtype=torch.float64)
    c = path.coefficients(grid)
    sigma, a = (c.s / c.a).tolist(), c.a.tolist()

    def d(k, z):
        x_t = a[k] * z
        return (z - convert(gaussian(path)(grid[k], x_t), x_t, grid[k], path, VELOCITY, X)) / sigma[k]

    z = x / a[0]
    for k in range(3):
        slope_here = d(k, z)
        after = z + (sigma[k + 1] - sigma[k]) * slope_here
        z = after if sigma[k + 1] == 0 else z + (sigma[k + 1] - sigma[k]) * (slope_here + d(k + 1, after)) / 2
    ours = edm_heun(gaussian(path), x, grid, path)
    torch.testing.assert_close(ours, z, rtol=1e-11, atol=1e-11)
    churned = heun_churn(gaussian(path), x, grid, path, noise=lambda k: torch.zeros(0))
    torch.testing.assert_close(ours, churned, rtol=1e-11, atol=1e-11)


@every_path
@pytest.mark.parametrize("prediction", PREDICTIONS.values(), ids=lambda p: p.name)
def test_what_the_network_predicts_does_not_matter(path, prediction):
    x = path.base_std * draw(6, 4, 2)
    expected = DPM_3S.solve(gaussian(path), x, GRID, path, [3, 2, 1, 3, 2])
    found = DPM_3S.solve(gaussian(path, prediction), x, GRID, path, [3, 2, 1, 3, 2], prediction)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_a_rescaled_path_does_not_matter():
    path, x = VariancePreserving(), draw(7, 4, 2)
    scaled = Rescaled(path, lambda t: torch.exp(1.5 * t) + t**2)
    c = scaled.factor(GRID)
    end = DPM_3S.solve(network, x, GRID, path, [3] * 5, EPSILON)
    moved = DPM_3S.solve(lambda t, y: network(t, y / scaled.factor(t)), c[0] * x, GRID, scaled, [3] * 5, EPSILON)
    torch.testing.assert_close(moved / c[-1], end, rtol=1e-8, atol=1e-8)


def test_it_is_exact_where_the_noise_is_constant():
    """For a single data point the predicted noise does not change along a trajectory."""
    x, path = draw(8, 4, 2), CosineVP()
    constant = draw(9, 4, 2)
    ends = [DPM_3S.solve(lambda t, y: constant, x, GRID, path, [order] * 5, EPSILON) for order in (1, 2, 3)]
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=1e-11, atol=1e-11)


def test_impossible_solves_are_refused():
    x = draw(10, 2, 2)
    with pytest.raises(ValueError, match="5 steps need as many orders, not 2"):
        DPM_2S.solve(network, x, GRID, CosineVP(), [2, 2])
    with pytest.raises(ValueError, match=r"infinite at one end of step 0, which must then have order 1, not 2"):
        DPM_2S.solve(network, x, uniform_grid(0, 1, 2), CosineVP(), [2, 1])
    with pytest.raises(ValueError, match="the grid requires a gradient"):
        DPM_2S.solve(network, x, GRID.clone().requires_grad_(), CosineVP(), [2] * 5)
