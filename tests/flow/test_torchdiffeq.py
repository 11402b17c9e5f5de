"""torchdiffeq's adaptive solvers beside ours."""

import math

import pytest
import torch
from ode_fields import Recorder, both_directions, manufactured, nonlinear, solution_of_uneven, spread, square, uneven, wavy

from fmbench.errors import DivergedError
from fmbench.flow.fields import CountingField
from fmbench.flow.solvers.adaptive import dopri5
from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.grids import uniform_grid
from fmbench.flow.solvers.tableaux import DOPRI5, FIXED, RK4
from fmbench.flow.solvers.torchdiffeq import ADAPTIVE_METHODS, torchdiffeq_adaptive


def test_the_three_eighths_rule_is_what_torchdiffeq_calls_rk4():
    from torchdiffeq import odeint

    grid = uniform_grid(0.1, 0.9, 5)
    start = manufactured(grid[:1])
    theirs = odeint(nonlinear, start, grid, method="rk4")[-1]
    torch.testing.assert_close(integrate(nonlinear, start, grid, FIXED["rk4_38"]), theirs, rtol=1e-13, atol=0)
    assert (integrate(nonlinear, start, grid, RK4) - theirs).abs().max() > 1e-6


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


def test_the_adaptive_methods_of_torchdiffeq_differ():
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
