"""Multistep methods: their formulas by hand, their orders, their ends, and the evaluations that they cost."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from draws import draw
from torch import Tensor

from fmbench.flow.fields import CountingField
from fmbench.flow.general_paths import Rescaled
from fmbench.flow.oracle import MixtureOracle
from fmbench.flow.paths import AffinePath, CosineVP, OptimalTransport, VarianceExploding, VariancePreserving
from fmbench.flow.prediction import EPSILON, PREDICTIONS, VELOCITY, Prediction, X, convert
from fmbench.flow.solvers.adams_bashforth import EQUAL_STEPS
from fmbench.flow.solvers.adaptive import dopri5
from fmbench.flow.solvers.ddim import ddim
from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.grids import uniform_grid
from fmbench.flow.solvers.multistep import Level, Multistep, matching
from fmbench.flow.solvers.registry import MULTISTEP
from fmbench.flow.solvers.tableaux import EULER

every_method = pytest.mark.parametrize("name", MULTISTEP)
every_prediction = pytest.mark.parametrize("prediction", PREDICTIONS.values(), ids=lambda p: p.name)
PATHS = [OptimalTransport(0.05), VariancePreserving(), VarianceExploding(0.2, 5.0), CosineVP()]
every_path = pytest.mark.parametrize("path", PATHS, ids=lambda p: type(p).__name__)
WITH_ENDS = [OptimalTransport(0.0), CosineVP(), VariancePreserving(), VarianceExploding(0.2, 5.0)]
GRID = torch.tensor([0.1, 0.15, 0.4, 0.5, 0.8, 0.9], dtype=torch.float64)
GAUSSIAN = MixtureOracle(torch.tensor([[0.5, -1.0]]), torch.tensor([[[0.6, 0.2], [0.2, 0.3]]]))
FULL = {name: replace(method, lower_order_final=False) for name, method in MULTISTEP.items()}


def network(t: Tensor, x: Tensor) -> Tensor:
    """A smooth function that is different in every place."""
    return torch.sin(2 * x) + (1 + t) * x.flip(-1) - t**2


def gaussian(path: AffinePath, prediction: Prediction = VELOCITY):
    """The exact prediction for Gaussian data."""
    return lambda t, x: convert(GAUSSIAN.velocity(path, t, x), x, t, path, VELOCITY, prediction)


def on_trajectory(path: AffinePath, grid: Tensor, t0: float) -> tuple[list[Tensor], list[Tensor]]:
    """States of one exact trajectory of the Gaussian flow at the times of a grid, and the velocities there."""
    field, x = gaussian(path), path.base_std * draw(3, 4, 2)
    states = [dopri5(field, x, t0, float(t), rtol=1e-12, atol=1e-12, per_sample=False).x if t > t0 else x for t in grid]
    return states, [field(t, state) for t, state in zip(grid, states, strict=True)]


# Order 1


@pytest.mark.parametrize("path", WITH_ENDS, ids=lambda p: type(p).__name__)
@every_method
@every_prediction
def test_order_1_is_ddim_or_euler(name, path, prediction):
    """The families of data and noise prediction are DDIM at order 1, also at both ends; Adams-Bashforth is Euler's method."""
    method = replace(MULTISTEP[name], predictors=MULTISTEP[name].predictors[:1], correctors=())
    grid = GRID if prediction in (EPSILON, X, PREDICTIONS["score"]) else uniform_grid(path.t_min, path.t_max, 5)
    x = draw(0, 3, 1, 2, 3)
    ours = method.solve(network, x, grid, path, prediction)
    if method.prediction is VELOCITY:
        field = lambda t, y: convert(network(t, y), y, t, path, prediction, VELOCITY)  # noqa: E731
        torch.testing.assert_close(ours, integrate(field, x, grid, EULER), rtol=1e-11, atol=1e-11)
    else:
        torch.testing.assert_close(ours, ddim(network, x, grid, path, prediction), rtol=1e-10, atol=1e-10)


# The formulas by hand


def test_a_step_of_ab2_by_hand():
    x, path = draw(1, 3, 2), OptimalTransport(0.1)
    t = GRID[:3]
    u0 = network(t[0], x)
    x1 = x + (t[1] - t[0]) * u0
    u1 = network(t[1], x1)
    h, before = t[2] - t[1], t[1] - t[0]
    by_hand = x1 + h * (u1 + h / (2 * before) * (u1 - u0))
    torch.testing.assert_close(MULTISTEP["ab2"].solve(network, x, t, path), by_hand, rtol=1e-12, atol=1e-12)


@every_path
def test_a_step_of_dpmpp_2m_by_hand(path):
    x, t = draw(1, 3, 2), GRID[:3]
    a, s = (v.tolist() for v in path.coefficients(t)[:2])
    lam = [math.log(a[i] / s[i]) for i in range(3)]
    m0 = network(t[0], x)
    x1 = s[1] / s[0] * x - a[1] * (math.exp(lam[0] - lam[1]) - 1) * m0
    m1 = network(t[1], x1)
    h, r = lam[2] - lam[1], (lam[1] - lam[0]) / (lam[2] - lam[1])
    by_hand = s[2] / s[1] * x1 - a[2] * (math.exp(-h) - 1) * ((1 + 1 / (2 * r)) * m1 - 1 / (2 * r) * m0)
    torch.testing.assert_close(FULL["dpmpp_2m"].solve(network, x, t, path, X), by_hand, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_adams_bashforth_on_equal_steps_has_the_textbook_weights(order):
    x, *m = np.eye(order + 1)
    levels = [Level(-float(i), 1, 1, 0, 0) for i in range(order)]
    found = MULTISTEP["ab4"].predictors[order - 1](x, m, levels, Level(1.0, 1, 1, 0, 0))
    np.testing.assert_allclose(np.ravel(found), [1, *EQUAL_STEPS[order - 1]], rtol=1e-12)


@pytest.mark.parametrize("name", ["ab2", "ab3", "ab4", "deis2", "deis3"])
def test_adams_bashforth_is_exact_for_polynomials(name):
    """A velocity that is a polynomial in t, or a noise that is one in rho, of a degree below the order, given exact starts."""
    method, path = MULTISTEP[name], VariancePreserving()
    order = len(method.predictors)
    t = torch.tensor([0.2, 0.3, 0.55, 0.6, 0.9], dtype=torch.float64)[-order - 1 :]
    c, lam = path.coefficients(t), path.log_snr(t) / 2
    levels = [Level(*(float(v[i]) for v in (t, c.a, c.s, lam, c.s / c.a))) for i in range(order + 1)]
    clock = [getattr(level, method.clock) for level in levels]
    scale = (lambda level: 1.0) if method.clock == "t" else (lambda level: level.a)
    for degree in range(order):
        m = [v**degree for v in clock[-2::-1]]
        integral = (clock[-1] ** (degree + 1) - clock[-2] ** (degree + 1)) / (degree + 1)
        found = method.predictors[-1](0.7, m, levels[-2::-1], levels[-1])
        expected = scale(levels[-1]) * (0.7 / scale(levels[-2]) + integral)
        np.testing.assert_allclose(np.ravel(found), expected, rtol=1e-11)


def test_unipc_without_its_corrector_is_dpmpp_2m():
    unip, x, path = replace(MULTISTEP["unipc2"], correctors=()), draw(2, 3, 2), VariancePreserving()
    ours = unip.solve(network, x, GRID, path)
    torch.testing.assert_close(ours, MULTISTEP["dpmpp_2m"].solve(network, x, GRID, path), rtol=1e-11, atol=1e-11)


def test_a_correction_by_hand():
    """UniPC's first correction, in numbers: half of the old and half of the new prediction."""
    x, t, path = draw(4, 3, 2), GRID[:3], OptimalTransport(0.1)
    a, s = (v.tolist() for v in path.coefficients(t)[:2])
    method = Multistep(X, "lam", MULTISTEP["unipc2"].predictors[:1], MULTISTEP["unipc2"].correctors[:1])
    m0 = network(t[0], x)
    weight = a[1] - a[0] * s[1] / s[0]
    m1 = network(t[1], s[1] / s[0] * x + weight * m0)
    corrected = s[1] / s[0] * x + weight * (m0 + m1) / 2
    by_hand = s[2] / s[1] * corrected + (a[2] - a[1] * s[2] / s[1]) * m1
    torch.testing.assert_close(method.solve(network, x, t, path, X), by_hand, rtol=1e-11, atol=1e-11)


def test_matching_weights_have_the_moments():
    nodes, moments = [np.array([[0.0], [0.5]]), np.array([[1.0], [2.0]]), 3.0], [1.0, np.array([[2.0], [-1.0]]), 0.3]
    b = matching(nodes, moments)
    for k in range(3):
        total = sum(b_i * np.asarray(node) ** k for b_i, node in zip(b, nodes, strict=True))
        np.testing.assert_allclose(total, np.broadcast_to(moments[k], (2, 1)), rtol=1e-12)
    assert matching([], []) == []


# Order


ORDER = {"ab2": 2, "ab3": 3, "ab4": 4, "deis2": 2, "deis3": 3, "dpmpp_2m": 2, "dpmpp_3m": 2, "unipc2": 2, "unipc3": 3}
"""Of the predictor. The published `dpmpp_3m` has half of the second difference, so that its order is 2."""


def slope(sizes: list[float], errors: list[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])


@every_path
@pytest.mark.parametrize(("name", "corrects"), [*((name, False) for name in ORDER), ("unipc2", True), ("unipc3", True)])
def test_local_error_on_the_gaussian_oracle(name, corrects, path):
    """One step from exact states has an error of the order of the predictor, plus one; the corrector's order is higher by 1."""
    method, errors = MULTISTEP[name], []
    order = len(method.predictors)
    formula = method.correctors[-1] if corrects else method.predictors[-1]
    sizes = [0.03, 0.015, 0.0075]
    for h in sizes:
        places = torch.tensor([0, 0.7, 1.7, 2.5, 3.3], dtype=torch.float64)[: order + 1]
        grid = 0.5 + h * (places - places[-1])
        states, velocities = on_trajectory(path, grid, 0.2)
        m = [convert(u, x, t, path, VELOCITY, method.prediction) for t, x, u in zip(grid, states, velocities, strict=True)]
        c, lam = path.coefficients(grid), path.log_snr(grid) / 2
        levels = [Level(*(float(v[i]) for v in (grid, c.a, c.s, lam, c.s / c.a))) for i in range(order + 1)]
        known = [v.numpy() for v in m[::-1]][not corrects :]
        found = formula(states[-2].numpy(), known, levels[-2::-1], levels[-1])
        errors.append(float(np.linalg.norm(found - states[-1].numpy())))
    assert slope(sizes, errors) == pytest.approx(ORDER[name] + corrects + 1, abs=0.5)


def global_errors(method: Multistep, path: AffinePath, counts: list[int]) -> list[float]:
    x = path.base_std * draw(5, 4, 2)
    exact = dopri5(gaussian(path), x, 0.2, 0.8, rtol=1e-12, atol=1e-12, per_sample=False).x
    return [float((method.solve(gaussian(path), x, uniform_grid(0.2, 0.8, n), path) - exact).norm()) for n in counts]


@pytest.mark.parametrize("path", PATHS[:2], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("name", ["ab2", "deis2", "dpmpp_2m", "unipc2"])
def test_convergence_on_the_gaussian_oracle(name, path):
    """Two methods of order 2 and, by its corrector, one of order 3."""
    counts = [40, 80, 160]
    expected = 3 if name == "unipc2" else 2
    assert -slope(counts, global_errors(FULL[name], path, counts)) == pytest.approx(expected, abs=0.25)


@pytest.mark.parametrize("name", ["unipc2", "unipc3"])
def test_the_free_corrector_lowers_the_error(name):
    with_it, without = FULL[name], replace(FULL[name], correctors=())
    corrected, plain = (global_errors(m, OptimalTransport(0.05), [40])[0] for m in (with_it, without))
    assert corrected < plain / 2


# Cost


@every_method
@pytest.mark.parametrize("steps", [1, 2, 5, 12])
@pytest.mark.parametrize("path", [*WITH_ENDS, OptimalTransport()], ids=repr)
def test_every_step_costs_one_evaluation(name, steps, path):
    field = CountingField(gaussian(path), path.t_min, path.t_max)
    end = MULTISTEP[name].solve(field, path.base_std * draw(6, 4, 2), uniform_grid(path.t_min, path.t_max, steps), path)
    assert (field.calls, field.evaluations) == (steps, 4 * steps)
    assert torch.isfinite(end).all()


# The ends


@every_method
def test_a_path_from_noise_alone_to_data_alone(name):
    """On a(0) = 0 and s(1) = 0 the first step is DDIM's; so is the last in the clock lam, which lands on the predicted data."""
    path, x = OptimalTransport(0.0), draw(7, 4, 2)
    method, grid = FULL[name], uniform_grid(0, 1, 6)
    plan = method.plan(grid, path)
    orders = [max(order, 1) for order in plan.orders]
    top = len(method.predictors)
    expected = {"t": [min(k + 1, top) for k in range(6)], "rho": [1, *(min(k, top) for k in range(1, 6))]}
    expected["lam"] = [1, *(min(k, top) for k in range(1, 5)), 1]
    assert orders == expected[method.clock]
    field = CountingField(gaussian(path))
    first = method.solve(gaussian(path), x, grid[:2], path)
    torch.testing.assert_close(first, ddim(gaussian(path), x, grid[:2], path, VELOCITY), rtol=1e-12, atol=1e-12)
    end = method.solve(field, x, grid, path)
    exact = dopri5(gaussian(path), x, 0, 1, rtol=1e-9, atol=1e-9).x
    assert (end - exact).abs().max() < 0.2


def test_the_last_step_lands_on_the_predicted_data():
    seen = []

    def recorder(t, x):
        seen.append((t, x))
        return network(t, x)

    grid, path = uniform_grid(0, 1, 4), CosineVP()
    end = FULL["dpmpp_3m"].solve(recorder, draw(8, 4, 2), grid, path, X)
    torch.testing.assert_close(end, network(*seen[-1]), rtol=1e-13, atol=1e-13)


@every_method
def test_lowering_the_order(name):
    method, path = replace(MULTISTEP[name], lower_order_final=True), VariancePreserving()
    top = len(method.predictors)
    orders = list(method.plan(GRID, path).orders)
    assert orders == [min(k + 1, 5 - k, top) for k in range(5)]
    full = replace(method, lower_order_final=False)
    assert list(full.plan(GRID, path).orders) == [min(k + 1, top) for k in range(5)]


# What must not matter


@every_method
@every_path
@every_prediction
def test_the_result_does_not_depend_on_what_the_network_predicts(name, path, prediction):
    x = path.base_std * draw(9, 4, 2)
    expected = MULTISTEP[name].solve(gaussian(path), x, GRID, path)
    found = MULTISTEP[name].solve(gaussian(path, prediction), x, GRID, path, prediction)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [name for name, method in MULTISTEP.items() if method.prediction is not VELOCITY])
def test_a_rescaled_path_does_not_matter_to_the_families_of_data_and_noise(name):
    path, x = VariancePreserving(), draw(10, 4, 2)
    scaled = Rescaled(path, lambda t: torch.exp(1.5 * t) + t**2)
    c = scaled.factor(GRID)
    end = MULTISTEP[name].solve(network, x, GRID, path, EPSILON)
    moved = MULTISTEP[name].solve(lambda t, y: network(t, y / scaled.factor(t)), c[0] * x, GRID, scaled, EPSILON)
    torch.testing.assert_close(moved / c[-1], end, rtol=1e-9, atol=1e-9)


@every_method
def test_the_direction_of_time_does_not_matter(name):
    """There and back again, on a fine grid."""
    path, x = OptimalTransport(0.05), draw(11, 4, 2)
    grid = uniform_grid(0.2, 0.9, 300)
    there = FULL[name].solve(gaussian(path), x, grid, path)
    torch.testing.assert_close(FULL[name].solve(gaussian(path), there, grid.flip(0), path), x, rtol=2e-3, atol=2e-3)


@every_method
def test_float32_images_stay_float32_and_the_start_is_not_changed(name):
    path, x = VariancePreserving(), draw(12, 3, 1, 2, 3)
    start = x.float()
    end = MULTISTEP[name].solve(network, start, GRID, path, EPSILON)
    assert end.dtype == torch.float32 and torch.equal(start, x.float())
    torch.testing.assert_close(end.double(), MULTISTEP[name].solve(network, x, GRID, path, EPSILON), rtol=1e-3, atol=1e-3)


@every_method
def test_derivatives_are_those_of_the_steps_taken(name):
    weight = torch.tensor([0.3, -0.4], dtype=torch.float64, requires_grad=True)
    x = draw(13, 3, 2).requires_grad_()
    path = OptimalTransport(0.1)

    def end(x: Tensor, weight: Tensor) -> Tensor:
        return MULTISTEP[name].solve(lambda t, y: torch.tanh(y * weight + t), x, GRID, path)

    assert torch.autograd.gradcheck(end, (x, weight))


# Errors


def test_impossible_methods_and_grids_are_refused():
    with pytest.raises(ValueError, match="the clock must be t, lam or rho, not 'time'"):
        replace(MULTISTEP["ab2"], clock="time")
    with pytest.raises(ValueError, match="a formula of order 1, and a corrector for every order or for none"):
        replace(MULTISTEP["ab2"], correctors=MULTISTEP["unipc2"].correctors[:1])
    with pytest.raises(ValueError, match="the grid requires a gradient"):
        MULTISTEP["ab2"].solve(network, draw(0, 1, 2), GRID.clone().requires_grad_(), VariancePreserving())
    with pytest.raises(ValueError, match="the velocity must have the shape"):
        MULTISTEP["ab2"].solve(lambda t, x: x[:, :1], draw(0, 1, 2), GRID, VariancePreserving())
