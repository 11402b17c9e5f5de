import itertools
import math

import numpy as np
import pytest
import torch
from draws import draw
from point_network import behind_inputs
from torch import Tensor

from fmbench.flow.fields import CountingField, velocity_field
from fmbench.flow.general_paths import GeneralAffine, Rescaled
from fmbench.flow.oracle import FiniteOracle
from fmbench.flow.paths import CosineVP, OptimalTransport, VarianceExploding, VariancePreserving
from fmbench.flow.prediction import EPSILON, PREDICTIONS, VELOCITY, X, convert
from fmbench.flow.solvers.adaptive import dopri5
from fmbench.flow.solvers.ddim import FORMS, ddim
from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.grids import uniform_grid
from fmbench.flow.solvers.tableaux import EULER

EVERY_PATH = [
    OptimalTransport(0.1),
    OptimalTransport(0.0),
    VariancePreserving(),
    VarianceExploding(0.2, 5.0),
    CosineVP(),
    Rescaled(VariancePreserving(), lambda t: 1 + t),
]
every_path = pytest.mark.parametrize("path", EVERY_PATH, ids=lambda p: f"{type(p).__name__}{EVERY_PATH.index(p)}")
every_prediction = pytest.mark.parametrize("prediction", PREDICTIONS.values(), ids=lambda p: p.name)
CLOCKED = ("x", "epsilon", "u")
GRID = torch.tensor([0.1, 0.15, 0.4, 0.5, 0.8, 0.9], dtype=torch.float64)


def network(t: Tensor, x: Tensor) -> Tensor:
    """A smooth function that is different in every place."""
    return torch.sin(2 * x) + (1 + t) * x.flip(-1) - t**2


def by_hand(path, prediction, x: Tensor, grid: Tensor) -> Tensor:
    """Song, Meng & Ermon's update, in numbers."""
    for t, following in itertools.pairwise(grid):
        p = network(t, x)
        c1, c0 = (float(v) for v in prediction.weights(path.coefficients(t), t))
        a, s, _, _ = (float(v) for v in path.coefficients(t))
        x1, x0 = (c0 * x - s * p) / (a * c0 - s * c1), (a * p - c1 * x) / (a * c0 - s * c1)
        a, s, _, _ = (float(v) for v in path.coefficients(following))
        x = a * x1 + s * x0
    return x


@every_path
@every_prediction
@pytest.mark.parametrize("backwards", [False, True])
def test_all_forms_are_one_update(path, prediction, backwards):
    x, grid = draw(0, 3, 1, 2, 3), GRID.flip(0) if backwards else GRID
    expected = by_hand(path, prediction, x, grid)
    for form in FORMS:
        end = ddim(network, x, grid, path, prediction, form)
        torch.testing.assert_close(end, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "path",
    [
        OptimalTransport(0.0),
        OptimalTransport(0.1),
        GeneralAffine(lambda t: 0.3 + 0.6 * t, lambda t: 2 - 1.5 * t, noise_std=2.0),
        GeneralAffine(lambda t: 1.5 * t, lambda t: 1 - 0.2 * t),
    ],
    ids=["ot", "wide_ot", "from_data_too", "noisy_end"],
)
@every_prediction
def test_it_is_euler_on_the_velocity_where_a_and_s_are_linear(path, prediction):
    x = draw(1, 3, 1, 2, 3)
    euler = integrate(
        velocity_field(behind_inputs(prediction, path, lambda t, x: network(t[0], x)), path, prediction), x, GRID, EULER
    )
    torch.testing.assert_close(ddim(network, x, GRID, path, prediction), euler, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("path", [VariancePreserving(), CosineVP(), VarianceExploding(0.2, 5.0)], ids=repr)
def test_it_is_not_where_they_are_curved(path):
    x = draw(1, 3, 2)
    euler = integrate(velocity_field(lambda t, x: network(t[0], x), path, EPSILON), x, GRID, EULER)
    assert (ddim(network, x, GRID, path, EPSILON) - euler).abs().max() > 0.05


def factor(t: Tensor) -> Tensor:
    return torch.exp(1.5 * t) + t**2


@pytest.mark.parametrize("prediction", [EPSILON, X], ids=lambda p: p.name)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("path", [VariancePreserving(), OptimalTransport(0.1)], ids=repr)
def test_it_does_not_see_a_rescaled_path_and_the_flow_does(path, form, prediction):
    """The network of the scaled path divides its input by c; noise and data stay what they are."""
    scaled, c = Rescaled(path, factor), factor(GRID)
    x = draw(2, 4, 1, 2, 3)

    def adapted(t, y):
        return network(t, y / factor(t))

    end = ddim(network, x, GRID, path, prediction, form)
    torch.testing.assert_close(ddim(adapted, c[0] * x, GRID, scaled, prediction, form) / c[-1], end, rtol=1e-10, atol=1e-10)
    plain, moved = (
        integrate(velocity_field(lambda t, y, n=n: n(t[0], y), p, prediction), start, GRID, EULER)
        for n, p, start in ((network, path, x), (adapted, scaled, c[0] * x))
    )
    assert (moved / c[-1] - plain).abs().max() > 0.05


ORACLE = FiniteOracle(draw(3, 4, 1, 2, 3), 0.5)


def perfect(path, prediction):
    """What the oracle's network puts out at (t, x)."""

    def output(t, x):
        return convert(ORACLE.velocity(path, t, x), x, t, path, VELOCITY, prediction)

    return output


def order_of(form: str, order: int, path) -> float:
    x = path.interpolate(draw(4, 5, 1, 2, 3), ORACLE.sample(5, torch.Generator().manual_seed(0)), GRID[0])[0]
    flow = dopri5(lambda t, x: ORACLE.velocity(path, t, x), x, 0.1, 0.9, rtol=1e-9, atol=1e-9, per_sample=False).x
    counts = [16, 32, 64]
    errors = [float((ddim(perfect(path, X), x, uniform_grid(0.1, 0.9, n), path, X, form, order) - flow).norm()) for n in counts]
    return -np.polyfit(np.log(counts), np.log(errors), 1)[0]


@pytest.mark.parametrize("path", [OptimalTransport(0.05), VariancePreserving(), VarianceExploding(0.2, 5.0)], ids=repr)
@pytest.mark.parametrize(("form", "order"), [("plain", 1), ("x", 2), ("epsilon", 2), ("u", 2)])
def test_order_of_convergence_to_the_flow(path, form, order):
    assert order_of(form, order, path) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("prediction", [EPSILON, VELOCITY, X], ids=lambda p: p.name)
def test_at_order_two_the_forms_differ(prediction):
    """At second order the forms differ for any network."""
    path, x = VariancePreserving(), draw(5, 3, 1, 2, 3)
    grid = uniform_grid(0.1, 0.9, 10)
    ends = {form: ddim(perfect(path, prediction), x, grid, path, prediction, form, 2) for form in CLOCKED}
    for one, other in itertools.combinations(CLOCKED, 2):
        assert (ends[one] - ends[other]).abs().max() > 1e-4
    for form in CLOCKED:
        same = ddim(perfect(path, VELOCITY), x, grid, path, VELOCITY, form, 2)
        torch.testing.assert_close(ends[form], same, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", CLOCKED)
def test_a_step_of_order_two_is_heuns_in_the_clock_of_the_form(form):
    path, x, grid = VariancePreserving(), draw(6, 3, 2), torch.tensor([0.3, 0.6], dtype=torch.float64)
    (a, s), (b, r) = ((float(c.a), float(c.s)) for c in map(path.coefficients, grid))
    state = {"x": lambda a, s: s, "epsilon": lambda a, s: a, "u": lambda a, s: a + s}[form]
    clock = {"x": lambda a, s: a / s, "epsilon": lambda a, s: s / a, "u": lambda a, s: s / (a + s)}[form]

    def slope(t, a, s, y):
        eps = network(t, y)
        return {"x": (y - s * eps) / a, "epsilon": eps, "u": eps - (y - s * eps) / a}[form]

    h = clock(b, r) - clock(a, s)
    first = slope(grid[0], a, s, x)
    second = slope(grid[1], b, r, state(b, r) * (x / state(a, s) + h * first))
    expected = state(b, r) * (x / state(a, s) + h * (first + second) / 2)
    torch.testing.assert_close(ddim(network, x, grid, path, EPSILON, form, 2), expected, rtol=1e-12, atol=1e-12)


@every_path
@every_prediction
@pytest.mark.parametrize("form", FORMS)
def test_for_a_single_data_point_any_step_is_exact(path, prediction, form):
    x0, x1 = draw(7, 2, 3, 1, 2, 3)
    oracle = FiniteOracle(x1[:1])
    x1 = x1[:1].expand_as(x0)
    start, _ = path.interpolate(x0, x1, GRID[0])

    def output(t, x):
        return convert(oracle.velocity(path, t, x), x, t, path, VELOCITY, prediction)

    end = ddim(output, start, GRID[[0, 3]], path, prediction, form)
    torch.testing.assert_close(end, path.interpolate(x0, x1, GRID[3])[0], rtol=1e-9, atol=1e-9)


def test_the_plain_form_goes_from_noise_alone_to_data_alone():
    """One step over the whole straight path lands on the data that the network saw in pure noise."""
    x = draw(8, 3, 2)
    torch.testing.assert_close(ddim(network, x, uniform_grid(0, 1, 1), OptimalTransport(0.0), X), network(torch.tensor(0.0), x))


@pytest.mark.parametrize(("form", "order"), [*itertools.product(FORMS, [1]), *itertools.product(CLOCKED, [2])])
def test_nfe(form, order):
    field, x = CountingField(network), draw(9, 4, 1, 2, 3)
    ddim(field, x, GRID, VariancePreserving(), EPSILON, form, order)
    assert (field.calls, field.evaluations) == (5 * order, 5 * order * 4)


@pytest.mark.parametrize("form", FORMS)
def test_float32_images_stay_float32(form):
    x = draw(10, 3, 1, 2, 3)
    path = VariancePreserving()
    end = ddim(network, x.float(), GRID, path, EPSILON, form)
    assert end.dtype == torch.float32
    torch.testing.assert_close(end.double(), ddim(network, x, GRID, path, EPSILON, form), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("form", ["velocity", "", "X"])
def test_unknown_forms_list_the_known_ones(form):
    with pytest.raises(ValueError, match=f"'{form}'; known: plain, x, epsilon, u"):
        ddim(network, draw(0, 1, 2), GRID, CosineVP(), X, form)


@pytest.mark.parametrize(("form", "order"), [("plain", 2), ("x", 0), ("x", 3), ("plain", 0)])
def test_orders_that_there_are_not(form, order):
    with pytest.raises(ValueError, match=f"not {order} for '{form}'"):
        ddim(network, draw(0, 1, 2), GRID, CosineVP(), X, form, order)


@pytest.mark.parametrize(("form", "at"), [("epsilon", 0), ("x", 1)])
@pytest.mark.parametrize("path", [OptimalTransport(0.0), CosineVP()], ids=repr)
def test_a_form_is_refused_where_it_divides_by_zero(form, at, path):
    with pytest.raises(ValueError, match=f"'{form}' divides by zero at t = {at}; leave that time out of the grid"):
        ddim(network, draw(0, 1, 2), uniform_grid(0, 1, 4), path, VELOCITY, form)
    inside = uniform_grid(0.25, 1, 3) if at == 0 else uniform_grid(0, 0.75, 3)
    assert math.isfinite(float(ddim(network, draw(0, 1, 2), inside, path, VELOCITY, form).sum()))
