"""Parity with torchdiffeq: fixed and adaptive steps."""

import math

import pytest
import torch
from parity import both_directions, draw, every_dtype, same
from torch import Tensor
from torchdiffeq import odeint
from torchdiffeq._impl.odeint import SOLVERS

from fmbench.flow.fields import CountingField
from fmbench.flow.solvers.adaptive import dopri5
from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.grids import uniform_grid
from fmbench.flow.solvers.tableaux import EULER, FIXED, HEUN, HEUN3, MIDPOINT, RK4, RK4_38
from fmbench.flow.solvers.torchdiffeq import ADAPTIVE_METHODS, torchdiffeq_adaptive

FIXED_METHODS = {"euler": EULER, "midpoint": MIDPOINT, "heun2": HEUN, "heun3": HEUN3, "rk4": RK4_38}


WITHOUT_COUNTERPART = {
    "explicit_adams": "multistep: keeps slopes of past steps",
    "implicit_adams": "multistep and implicit",
    "fixed_adams": "another name of implicit_adams",
    "scipy_solver": "solvers of SciPy; tests/flow/test_adaptive.py compares with its RK45",
}


def test_every_method_of_torchdiffeq_is_compared_or_named():
    assert set(SOLVERS) == {*FIXED_METHODS, *ADAPTIVE_METHODS, *WITHOUT_COUNTERPART}
    # Ours that torchdiffeq does not have.
    assert set(FIXED) - {t.name for t in FIXED_METHODS.values()} == {"ralston", "rk4"}


def pendulums(t: Tensor, x: Tensor) -> Tensor:
    """Coupled, nonlinear and driven, for states (B, 2) and (B, 2, *)."""
    return torch.stack([x[:, 1] + t.to(x.dtype), -torch.sin(x[:, 0]) - 0.3 * x[:, 1] * torch.cos(3 * t).to(x.dtype)], 1)


@every_dtype
@both_directions
@pytest.mark.parametrize("shape", [(2,), (2, 3, 2)], ids=["points", "images"])
@pytest.mark.parametrize("method", FIXED_METHODS)
def test_torchdiffeq_fixed_steps(method, shape, ends, dtype):
    """Every state on an uneven grid, and the evaluations. Their times have the state's type when they reach the field; in
    float32 that is the only difference there is, hence a tolerance of a few roundings."""
    grid = ends[0] + (ends[1] - ends[0]) * torch.tensor([0.0, 0.02, 0.1, 0.3, 0.35, 0.6, 0.9, 1.0], dtype=torch.float64)
    x = draw(5, *shape, dtype=dtype)
    ours, theirs = CountingField(pendulums), CountingField(pendulums)
    states = integrate(ours, x, grid, FIXED_METHODS[method], keep=True)
    reference = odeint(theirs, x, grid, method=method)
    same(states, reference, scale=1 if dtype == torch.float64 else 2)
    assert ours.calls == theirs.calls == 7 * FIXED_METHODS[method].stages


def test_torchdiffeq_rk4_is_not_the_classical_one():
    grid, x = uniform_grid(0, 1, 5), draw(5, 2)
    theirs = odeint(pendulums, x, grid, method="rk4")[-1]
    same(integrate(pendulums, x, grid, RK4_38), theirs)
    classical = integrate(pendulums, x, grid, RK4)
    assert 1e-8 < float((classical - theirs).abs().max()) < 1e-3


@both_directions
@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-8])
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_torchdiffeq_dopri5_has_our_nfe_and_result(batch, tolerance, ends):
    """One step size for the batch. Intended difference: their stages at a step's end are one representable number before it."""
    x = draw(batch, 2) * torch.logspace(-1, 0.5, batch, dtype=torch.float64)[:, None]
    ours, theirs = CountingField(pendulums), CountingField(pendulums)
    solution = dopri5(ours, x, *ends, rtol=tolerance, atol=tolerance, per_sample=False)
    reference = torchdiffeq_adaptive(theirs, x, *ends, rtol=tolerance, atol=tolerance)
    same(solution.x, reference)
    assert ours.calls == theirs.calls == int(solution.nfe[0])


@both_directions
def test_torchdiffeq_one_sample_at_a_time_is_our_step_per_sample(ends):
    """In float64. Intended difference in float32: they take the error norm in float32, ours in float64, so a step whose error is
    at the tolerance to within rounding may be accepted by one and not by the other."""
    x = draw(12, 2) * torch.logspace(-1, 1, 12, dtype=torch.float64)[:, None]

    def each(t: Tensor, x: Tensor) -> Tensor:
        t = t.reshape(-1)
        return torch.stack([x[:, 1] + t, -torch.sin(x[:, 0]) - 0.3 * x[:, 1] * torch.cos(3 * t)], 1)

    solution = dopri5(each, x, *ends, rtol=1e-8, atol=1e-8, per_sample=True)
    counts, results = [], []
    for one in x.split(1):
        field = CountingField(each)
        results.append(torchdiffeq_adaptive(field, one, *ends, rtol=1e-8, atol=1e-8))
        counts.append(field.calls)
    same(solution.x, torch.cat(results))
    assert solution.nfe.tolist() == counts
    assert len(set(counts)) > 3


def solution_of_turning(x0: Tensor, t0: float, t1: float) -> Tensor:
    """Of dx/dt = cos(4t) x + (x turned by a quarter) in the plane: turned by t and grown by exp(sin(4t) / 4)."""
    angle, size = t1 - t0, math.exp((math.sin(4 * t1) - math.sin(4 * t0)) / 4)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    return size * x0 @ turn.T


class Turning:
    """The field, with a record of its times; undefined outside the interval."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        self.times.append(float(t))
        if not 0 <= t <= 1:
            raise AssertionError(f"the field was called at t = {float(t)}")
        return torch.cos(4 * t) * x + torch.stack([-x[:, 1], x[:, 0]], 1)


@both_directions
@pytest.mark.parametrize("method", ADAPTIVE_METHODS)
def test_torchdiffeq_adaptive_methods_reach_a_closed_form(method, ends):
    """To the tolerance, never looking outside of the interval once counted, in steps of each method's own evaluations."""
    stages = {"dopri5": 6, "dopri8": 13, "bosh3": 3, "fehlberg2": 2, "adaptive_heun": 1}[method]
    x = draw(8, 2)
    errors = []
    for tolerance in (1e-4, 1e-6):
        field = Turning()
        counting = CountingField(field, 0.0, 1.0)
        end = torchdiffeq_adaptive(counting, x, *ends, method=method, rtol=tolerance, atol=tolerance)
        errors.append(float((end - solution_of_turning(x, *ends)).abs().max()))
        assert errors[-1] < 300 * tolerance
        assert (counting.calls - 2) % stages == 0
        # The last step ends at the end of the interval, and looks there (one number before it).
        assert max(abs(t - ends[0]) for t in field.times) == pytest.approx(1, abs=1e-15)
    assert errors[1] < errors[0] / 5


@both_directions
def test_torchdiffeq_steps_past_the_end_unless_it_is_a_step_point(ends):
    """This is why :func:`torchdiffeq_adaptive` makes the end a step point. Intended difference: ours ends there anyway."""
    seen: list[float] = []

    def field(t: Tensor, x: Tensor) -> Tensor:
        seen.append(float(t))
        return torch.cos(4 * t) * x

    def beyond() -> float:
        return max(max(seen) - 1, -min(seen), 0.0)

    x, span = draw(4, 2), torch.tensor(ends, dtype=torch.float64)
    odeint(field, x, span, rtol=1e-5, atol=1e-5, method="dopri5")
    assert beyond() > 1e-3
    seen.clear()
    torchdiffeq_adaptive(field, x, *ends)
    assert beyond() == 0
    seen.clear()
    dopri5(field, x, *ends, per_sample=False)
    assert beyond() == 0
