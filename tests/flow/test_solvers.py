import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fmbench.errors import DivergedError
from fmbench.flow.fields import CountingField, velocity_field
from fmbench.flow.paths import OptimalTransport
from fmbench.flow.prediction import EPSILON, X, convert
from fmbench.flow.solvers.adaptive import dopri5
from fmbench.flow.solvers.fixed import integrate, steps_for
from fmbench.flow.solvers.grids import uniform_grid
from fmbench.flow.solvers.tableaux import DOPRI5, EULER, FIXED, HEUN, MIDPOINT, RK4, Tableau
from fmbench.flow.solvers.torchdiffeq import ADAPTIVE_METHODS, torchdiffeq_adaptive

DOPRI5_EMBEDDED = dataclasses.replace(DOPRI5, name="dopri5 embedded", b=DOPRI5.b_low, order=4)
TABLEAUX = [*FIXED.values(), DOPRI5, DOPRI5_EMBEDDED]
every_tableau = pytest.mark.parametrize("tableau", TABLEAUX, ids=lambda t: t.name)
TRAP = (61, 109, 115, 121, 122, 123)
COUPLING = torch.tensor([[0.4, -0.9], [0.7, 0.3]], dtype=torch.float64)
STAGE_TIMES = torch.tensor(DOPRI5.c, dtype=torch.float64)


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
    """Initial states whose size, and so their step sizes, range over two orders of magnitude."""
    g = torch.Generator().manual_seed(0)
    size = torch.logspace(-1, 1, n, dtype=torch.float64).reshape(-1, *([1] * len(shape)))
    return (size * (1 + torch.rand(n, *shape, generator=g, dtype=torch.float64))).to(dtype)


def sweep(field, x: Tensor, tableau: Tableau, counts: list[int], t0: float, t1: float) -> list[Tensor]:
    return [integrate(field, x, uniform_grid(t0, t1, n), tableau) for n in counts]


# Fixed steps.


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


def test_stages_as_the_design_states_them():
    stages = {"euler": 1, "midpoint": 2, "heun": 2, "ralston": 2, "heun3": 3, "rk4": 4, "rk4_38": 4}
    assert {name: t.stages for name, t in FIXED.items()} == stages
    assert {name: t.order for name, t in FIXED.items()} == stages  # below five stages, an order a stage


@every_tableau
def test_order_conditions(tableau):
    """One for each rooted tree up to the order, to 4 (Hairer, Norsett & Wanner, II.2): they hold up to it and not beyond."""
    a = np.array([list(row) + [0.0] * (tableau.stages - len(row)) for row in tableau.a])
    b, c = np.array(tableau.b), np.array(tableau.c)
    conditions = {
        1: [b.sum() - 1],
        2: [b @ c - 1 / 2],
        3: [b @ c**2 - 1 / 3, b @ a @ c - 1 / 6],
        4: [b @ c**3 - 1 / 4, (b * c) @ a @ c - 1 / 8, b @ a @ c**2 - 1 / 12, b @ a @ a @ c - 1 / 24],
        5: [b @ c**4 - 1 / 5, b @ a @ a @ a @ c - 1 / 120],
    }
    for order, defects in conditions.items():
        if order <= tableau.order:
            assert np.abs(defects).max() < 1e-14
    if tableau.order < 5:
        assert np.abs(conditions[tableau.order + 1]).max() > 1e-4


def test_ralston_has_the_smallest_bound_on_its_error_among_two_stages():
    """Node c leaves |1/6 - c/4| and 1/6 in the third-order terms; only the first depends on c, and it vanishes at 2/3."""
    defects = {name: FIXED[name].b[1] * FIXED[name].c[1] ** 2 - 1 / 3 for name in ("midpoint", "heun", "ralston")}
    assert defects["ralston"] == pytest.approx(0, abs=1e-15)
    assert min(abs(defects["midpoint"]), abs(defects["heun"])) > 0.05


def test_the_three_eighths_rule_is_what_torchdiffeq_calls_rk4():
    from torchdiffeq import odeint

    grid = uniform_grid(0.1, 0.9, 5)
    start = manufactured(grid[:1])
    theirs = odeint(nonlinear, start, grid, method="rk4")[-1]
    torch.testing.assert_close(integrate(nonlinear, start, grid, FIXED["rk4_38"]), theirs, rtol=1e-13, atol=0)
    assert (integrate(nonlinear, start, grid, RK4) - theirs).abs().max() > 1e-6


@pytest.mark.parametrize("tableau", FIXED.values(), ids=lambda t: t.name)
@pytest.mark.parametrize("steps", [1, 3, 10, 61])
def test_steps_for_spends_exactly_the_budget(tableau, steps):
    field = CountingField(wavy)
    nfe = steps * tableau.stages
    integrate(field, torch.ones(1, 2), uniform_grid(0, 1, steps_for(nfe, tableau)), tableau)
    assert field.calls == nfe


@pytest.mark.parametrize(("tableau", "nfe"), [(EULER, 0), (MIDPOINT, 1), (HEUN, 7), (RK4, 2), (RK4, 10), (RK4, -4)])
def test_a_budget_that_cannot_be_spent_exactly_is_refused(tableau, nfe):
    with pytest.raises(ValueError, match=f"exactly {nfe}"):
        steps_for(nfe, tableau)


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


def test_an_uneven_grid_is_walked_as_given():
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": (0.5, 0.4)}, "sum to"),
        ({"b_low": (0.5, 0.4)}, "sum to"),
        ({"a": ((), (0.6,))}, "node"),
        ({"a": ((), (0.3, 0.2))}, "entries"),
        ({"c": (0.0,)}, "rows"),
    ],
)
def test_tableaux_check_themselves(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(MIDPOINT, **change)


# Adaptive steps.

both_modes = pytest.mark.parametrize("per_sample", [True, False], ids=["per_sample", "shared"])
both_directions = pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0)], ids=["forward", "backward"])


@both_modes
@both_directions
@pytest.mark.parametrize("tolerance", [1e-4, 1e-6, 1e-8])
def test_the_error_is_of_the_size_of_the_tolerance(per_sample, ends, tolerance):
    x0 = spread(6, 2, 3) / 4
    exact = {0.0: x0, 1.0: x0 * math.exp(-math.sin(6) / 3)}
    solution = dopri5(wavy, exact[ends[0]], *ends, rtol=tolerance, atol=tolerance, per_sample=per_sample)
    assert not solution.failed.any()
    torch.testing.assert_close(solution.x, exact[ends[1]], rtol=5 * tolerance, atol=5 * tolerance)


def test_a_tighter_tolerance_is_a_smaller_error_for_more_evaluations():
    x = spread(5, 2)
    solutions = [dopri5(uneven, x, 0, 1, rtol=tol, atol=tol) for tol in (1e-3, 1e-5, 1e-7, 1e-9)]
    errors = [(s.x - solution_of_uneven(1.0, x)).abs().amax(1) for s in solutions]
    for (e1, e2), (s1, s2) in zip(itertools.pairwise(errors), itertools.pairwise(solutions), strict=True):
        assert (e2 < e1 / 3).all()
        # The local error of a step falls as h^5: a hundredth of the tolerance is 2.5 times the steps at most.
        assert (s2.nfe > s1.nfe).all()
        assert (s2.nfe < 100**0.2 * s1.nfe + 12).all()


@both_directions
def test_nfe_is_what_the_field_saw_and_two_plus_six_per_step(ends):
    x = spread(9, 2)
    shared, single = CountingField(uneven), CountingField(uneven)
    together = dopri5(shared, x, *ends, per_sample=False)
    apart = dopri5(single, x, *ends, per_sample=True)
    assert together.nfe.tolist() == [shared.calls] * 9
    assert shared.evaluations == 9 * shared.calls
    assert int(apart.nfe.sum()) == single.evaluations
    assert single.calls == int(apart.nfe.max())
    assert len(apart.nfe.unique()) > 2
    for nfe in (together.nfe, apart.nfe):
        assert nfe.dtype == torch.int64
        assert ((nfe - 2) % 6 == 0).all()


def test_nfe_counts_accepted_and_rejected_steps():
    """The steps are read back from the times of their six stages: c_i h after the time of the step."""

    def kicked(t: Tensor, x: Tensor) -> Tensor:
        return -x + 40 * torch.exp(-(((t - 0.55) / 0.06) ** 2))

    field = Recorder(kicked)
    solution = dopri5(field, torch.ones(1, 1, dtype=torch.float64), 0.0, 1.0, per_sample=False)
    times = torch.stack(field.times)
    assert times[0] == 0
    stages = times[2:].reshape(-1, 6)
    h = (stages[:, -1] - stages[:, 0]) / (1 - 1 / 5)
    begin, end = stages[:, 0] - h / 5, stages[:, -1]
    torch.testing.assert_close(stages, begin[:, None] + h[:, None] * STAGE_TIMES[1:], rtol=0, atol=1e-14)
    accepted = torch.cat([(begin[1:] - end[:-1]).abs() < 1e-13, torch.tensor([True])])
    rejected = torch.cat([(begin[1:] - begin[:-1]).abs() < 1e-13, torch.tensor([False])])
    assert (accepted ^ rejected).all()
    assert rejected.sum() >= 2
    assert float(h[accepted].sum()) == pytest.approx(1, abs=1e-13)
    assert int(solution.nfe) == 2 + 6 * int(accepted.sum() + rejected.sum())
    # Hairer, Norsett & Wanner's bounds on the change of the step size; the last step is cut to the end.
    ratio = h[1:-1] / h[:-2]
    assert ratio.max() <= 10 + 1e-9
    assert ratio.min() >= 0.2 - 1e-9
    assert (ratio[accepted[:-2]] >= 1 - 1e-9).all()
    assert (ratio[rejected[:-2]] < 1).all()


def test_a_straight_constant_field_costs_three_steps():
    """First step h = (0.01 / |v/scale|)^(1/5) = 0.0435, then tenfold, then the rest: 2 + 6 * 3."""
    x, v = torch.ones(2, 3, dtype=torch.float64), torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    solution = dopri5(lambda t, x: v.expand_as(x), x, 0, 1)
    assert solution.nfe.tolist() == [20, 20]
    torch.testing.assert_close(solution.x, x + v, rtol=1e-14, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@both_directions
def test_a_sample_does_not_know_its_batch(dtype, ends):
    x = solution_of_uneven(ends[0], spread(12, 1, 2, 3)).to(dtype)
    batch = dopri5(uneven, x, *ends)
    for i in range(12):
        alone = dopri5(uneven, x[i : i + 1], *ends)
        assert alone.nfe[0] == batch.nfe[i]
        torch.testing.assert_close(alone.x[0], batch.x[i])
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    shuffled = dopri5(uneven, x[order], *ends)
    assert torch.equal(shuffled.nfe, batch.nfe[order])
    torch.testing.assert_close(shuffled.x, batch.x[order])


def test_with_a_shared_step_size_a_sample_does_know_its_batch():
    """The reason for measuring NFE per sample."""
    x = spread(12, 2)
    together = dopri5(uneven, x, 0, 1, per_sample=False).nfe
    alone = [int(dopri5(uneven, x[i : i + 1], 0, 1, per_sample=False).nfe) for i in range(12)]
    assert alone == dopri5(uneven, x, 0, 1).nfe.tolist()
    assert min(alone) < int(together[0])


@both_modes
@both_directions
def test_it_never_looks_outside_the_interval(per_sample, ends):
    """The first-step probe of the plain recipe went to t = 30.9 on a VP path; so it does here, with |x| >> |v|."""

    def slow(t: Tensor, x: Tensor) -> Tensor:
        return 1e-6 * torch.ones_like(x)

    low, high = min(ends), max(ends)
    for inner, x in ((uneven, spread(8, 2)), (wavy, spread(8, 2)), (slow, spread(8, 2))):
        field = Recorder(inner)
        dopri5(field, x, *ends, per_sample=per_sample)
        times = torch.cat([t.reshape(-1) for t in field.times])
        assert times.min() >= low - 1e-15
        assert times.max() <= high + 1e-15
        assert times[0] == ends[0]


@both_modes
def test_the_end_is_hit_and_not_interpolated(per_sample):
    field = Recorder(uneven)
    dopri5(field, spread(1, 2), 0.0, 1 - 1e-5, per_sample=per_sample)
    assert field.times[-1].reshape(-1)[0].item() == pytest.approx(1 - 1e-5, abs=1e-15)


@both_modes
def test_there_and_back(per_sample):
    x = spread(5, 2, 3) / 5
    there = dopri5(uneven, x, 0.0, 1.0, rtol=1e-10, atol=1e-10, per_sample=per_sample)
    back = dopri5(uneven, there.x, 1.0, 0.0, rtol=1e-10, atol=1e-10, per_sample=per_sample)
    torch.testing.assert_close(back.x, x, rtol=1e-7, atol=0)


def square(t: Tensor, x: Tensor) -> Tensor:
    """dx/dt = x^2: x(t) = 1 / (1/x0 - t), gone at t = 1/x0."""
    return x**2


def test_a_blow_up_is_flagged_and_leaves_the_others_alone():
    x = torch.tensor([[0.5], [2.0], [-3.0], [1.25], [0.1]], dtype=torch.float64)
    solution = dopri5(square, x, 0, 1)
    assert solution.failed.tolist() == [False, True, False, True, False]
    good = ~solution.failed
    torch.testing.assert_close(solution.x[good], 1 / (1 / x[good] - 1), rtol=1e-4, atol=0)
    # The last good state of a lost sample lies on its way up.
    assert (solution.x[~good] > 1e3).all()
    assert solution.x.isfinite().all()
    alone = dopri5(square, x[good], 0, 1)
    assert torch.equal(alone.nfe, solution.nfe[good])
    torch.testing.assert_close(alone.x, solution.x[good])


def test_a_blow_up_fails_the_whole_batch_that_shares_its_step():
    x = torch.tensor([[0.5], [2.0]], dtype=torch.float64)
    assert dopri5(square, x, 0, 1, per_sample=False).failed.tolist() == [True, True]
    assert dopri5(square, x[:1], 0, 1, per_sample=False).failed.tolist() == [False]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_field_that_is_not_finite_for_one_sample(bad):
    def field(t: Tensor, x: Tensor) -> Tensor:
        return torch.where((x[:, :1] > 100) | ((x[:, :1] > 10) & (t[:, None] > 0.5)), bad, -x)

    x = torch.tensor([[1.0, 2.0], [1000.0, 1.0], [60.0, 1.0], [3.0, 3.0]], dtype=torch.float64)
    solution = dopri5(field, x, 0, 1)
    assert solution.failed.tolist() == [False, True, True, False]
    torch.testing.assert_close(solution.x[[0, 3]], x[[0, 3]] * math.exp(-1), rtol=1e-4, atol=0)
    assert torch.equal(solution.x[1], x[1])  # it never made a step
    torch.testing.assert_close(solution.x[2], x[2] * math.exp(-0.5), rtol=1e-4, atol=0)  # it got to t = 0.5


@both_modes
@pytest.mark.parametrize("end", [5, 1000], ids=["in the last step", "on the way"])
def test_an_overflow_is_flagged_and_leaves_the_last_good_state(per_sample, end):
    """dx/dt = 1e38: past float32's 3.4e38 after t = 3.4, where no error is left to refuse the step."""
    x = torch.tensor([[1e-3], [2e-3]])
    solution = dopri5(lambda t, x: torch.full_like(x, 1e38), x, 0, end, per_sample=per_sample)
    assert solution.failed.tolist() == [True, True]
    assert solution.x.isfinite().all() and (solution.x >= x).all()
    assert solution.nfe.max() < 500


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_start_that_is_not_finite(bad):
    x = torch.tensor([[1.0, 2.0], [bad, 1.0]])
    solution = dopri5(wavy, x, 0, 1)
    assert solution.failed.tolist() == [False, True]
    torch.testing.assert_close(solution.x[0], x[0] * math.exp(-math.sin(6) / 3), rtol=1e-4, atol=0)


@both_modes
@pytest.mark.parametrize("budget", [8, 20, 37, 100])
def test_the_budget_is_kept_and_said(per_sample, budget):
    x = spread(6, 2)
    free = dopri5(uneven, x, 0, 1, per_sample=per_sample)
    field = CountingField(uneven)
    solution = dopri5(field, x, 0, 1, per_sample=per_sample, max_nfe=budget)
    assert torch.equal(solution.failed, free.nfe > budget)
    assert solution.nfe.max() <= budget
    assert field.evaluations == int(solution.nfe.sum())
    done = ~solution.failed
    torch.testing.assert_close(solution.x[done], free.x[done])


@both_modes
def test_an_empty_interval_is_refused(per_sample):
    with pytest.raises(ValueError, match="empty"):
        dopri5(wavy, torch.ones(1, 2), 0.5, 0.5, per_sample=per_sample)


@both_modes
def test_the_input_is_not_written_to(per_sample):
    x = spread(4, 2)
    before = x.clone()
    dopri5(uneven, x, 0, 1, per_sample=per_sample)
    assert torch.equal(x, before)


@pytest.mark.parametrize("x0", [0.4, 1.3, 4.0])
@both_directions
def test_steps_agree_with_scipy_one_by_one(x0, ends):
    """SciPy's RK45 is the same pair with Dormand and Prince's own error weights, 3/2 of ours (Shampine's), and the same
    controller while steps are accepted and grow, as on this decay: at 3/2 of the tolerance it takes our steps."""
    from scipy.integrate import RK45

    def decay(t, x):
        return -6 * (ends[1] - ends[0]) * x / (1 + abs(t - ends[0]))

    start = torch.tensor([[x0, 0.5 * x0]], dtype=torch.float64)
    field = Recorder(decay)
    solution = dopri5(field, start, *ends, rtol=1e-6, atol=1e-6)
    times = torch.cat(field.times)
    first = 5 * abs(times[2].item() - ends[0])  # the automatic first step sees the tolerance, not the error weights
    reference = RK45(decay, ends[0], start[0].numpy(), ends[1], rtol=1.5e-6, atol=1.5e-6, first_step=first)
    steps = []
    while reference.status == "running":
        reference.step()
        steps.append(reference.t)
    assert 2 + 6 * len(steps) == int(solution.nfe)  # nothing was rejected
    assert len(steps) > 5
    torch.testing.assert_close(times[7::6], torch.tensor(steps), rtol=0, atol=1e-9)
    torch.testing.assert_close(solution.x[0], torch.from_numpy(reference.y), rtol=1e-9, atol=0)


@both_directions
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_agree_with_torchdiffeq(ends, dtype):
    x = (spread(6, 1, 2, 3) / 4).to(dtype)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-10
    theirs = torchdiffeq_adaptive(wavy, x, *ends, rtol=tolerance, atol=tolerance)
    for per_sample in (True, False):
        ours = dopri5(wavy, x, *ends, rtol=tolerance, atol=tolerance, per_sample=per_sample)
        torch.testing.assert_close(ours.x, theirs, rtol=10 * tolerance, atol=10 * tolerance)


@both_directions
def test_steps_agree_with_torchdiffeq_one_by_one(ends):
    """torchdiffeq's error estimate is Shampine's, a multiple of Dormand and Prince's (2/3): at a tolerance that much
    smaller and from the same first step, both take the same steps."""
    from torchdiffeq import odeint
    from torchdiffeq._impl.dopri5 import _DORMAND_PRINCE_SHAMPINE_TABLEAU as THEIRS

    our_error = torch.tensor(DOPRI5.b, dtype=torch.float64) - torch.tensor(DOPRI5.b_low, dtype=torch.float64)
    scale = float(THEIRS.c_error[0] / our_error[0])
    torch.testing.assert_close(THEIRS.c_error, scale * our_error)

    x = solution_of_uneven(ends[0], spread(6, 2) / 3)
    ours, theirs = Recorder(uneven), Recorder(uneven)
    mine = dopri5(ours, x, *ends, rtol=1e-5, atol=1e-5, per_sample=False)
    first_step = 5 * abs(float(ours.times[2]) - ends[0])
    times = torch.tensor(ends, dtype=torch.float64)
    options = {"step_t": times[1:], "first_step": first_step}
    reference = odeint(theirs, x, times, rtol=scale * 1e-5, atol=scale * 1e-5, method="dopri5", options=options)[-1]
    assert len(ours.times) > 30
    # A given first step spares the probe.
    without_probe = torch.stack([ours.times[0], *ours.times[2:]])
    torch.testing.assert_close(without_probe, torch.stack(theirs.times), rtol=0, atol=1e-9)
    torch.testing.assert_close(mine.x, reference, rtol=1e-9, atol=1e-9)


@both_directions
def test_torchdiffeq_is_counted_and_kept_inside_by_the_counting_field(ends):
    """Its NFE has the same form 2 + 6 steps. It is lower than ours by up to (3/2)^(1/5), see the test above."""
    x = spread(6, 2) / 3
    inner = Recorder(wavy)
    field = CountingField(inner, 0.0, 1.0)
    torchdiffeq_adaptive(field, x, *ends, rtol=1e-8, atol=1e-8)
    ours = int(dopri5(wavy, x, *ends, rtol=1e-8, atol=1e-8, per_sample=False).nfe[0])
    assert (field.calls - 2) % 6 == 0
    assert ours / 1.15 <= field.calls <= ours
    times = torch.stack(inner.times)
    assert times.min() >= 0
    assert times.max() <= 1


@pytest.mark.parametrize("method", ADAPTIVE_METHODS)
@both_directions
def test_every_adaptive_method_of_torchdiffeq_keeps_its_tolerance(method, ends):
    x0 = spread(3, 2) / 4
    exact = {0.0: x0, 1.0: x0 * math.exp(-math.sin(6) / 3)}
    field = CountingField(wavy)
    end = torchdiffeq_adaptive(field, exact[ends[0]], *ends, method=method, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(end, exact[ends[1]], rtol=5e-4, atol=5e-4)
    assert field.calls > 10


def test_the_adaptive_methods_of_torchdiffeq_are_told_apart():
    x, calls = spread(3, 2) / 4, {}
    for method in ADAPTIVE_METHODS:
        field = CountingField(wavy)
        torchdiffeq_adaptive(field, x, 0.0, 1.0, method=method)
        calls[method] = field.calls
    assert len(set(calls.values())) == len(calls)


def test_an_unknown_method_of_torchdiffeq_lists_the_known_ones():
    with pytest.raises(ValueError, match="'rk45'.*" + ", ".join(ADAPTIVE_METHODS)):
        torchdiffeq_adaptive(wavy, torch.ones(1, 2), 0.0, 1.0, method="rk45")


def test_torchdiffeq_giving_up_is_a_divergence():
    with pytest.raises(DivergedError, match=r"gave up.*underflow"):
        torchdiffeq_adaptive(square, torch.tensor([[2.0]], dtype=torch.float64), 0.0, 1.0)
