"""The embedded pairs of the adaptive solvers: order conditions, tolerance, NFE, and parity with torchdiffeq."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from ode_fields import solution_of_uneven, spread, uneven, wavy

from fmbench.config import names
from fmbench.flow.fields import CountingField
from fmbench.flow.solvers.adaptive import dopri5
from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.grids import uniform_grid
from fmbench.flow.solvers.tableaux import ADAPTIVE, ADAPTIVE_HEUN, EULER, HEUN, RK4, Tableau
from fmbench.flow.solvers.torchdiffeq import torchdiffeq_adaptive

every_pair = pytest.mark.parametrize("pair", ADAPTIVE.values(), ids=lambda p: p.name)
LOWER = {"dopri5": 4, "bosh3": 2, "tsit5": 4, "dopri8": 7, "adaptive_heun": 1}
"""The order of the embedded step."""


def test_the_names_are_those_of_the_config():
    assert tuple(ADAPTIVE) == names.ADAPTIVE_SOLVERS


def defects(tableau: Tableau, b: tuple[float, ...], order: int) -> list[float]:
    """Of the order conditions of bushy and of tall trees up to an order, and of all trees up to order 4."""
    n = len(b)
    a = np.array([[*row, *[0.0] * (n - len(row))] for row in tableau.a])
    c, b_ = np.array(tableau.c), np.array(b)
    found = [b_ @ c**k - 1 / (k + 1) for k in range(order)]
    tall = np.ones(n)
    for k in range(order):
        found.append(b_ @ tall - 1 / math.factorial(k + 1))
        tall = a @ tall
    if order >= 4:
        found += [b_ @ (c * (a @ c)) - 1 / 8, b_ @ a @ c**2 - 1 / 12]
    return found


@every_pair
def test_order_conditions(pair):
    """Both steps have their order, and the embedded one has no higher one, so that the error estimate is not zero."""
    assert np.abs(defects(pair, pair.b, pair.order)).max() < 1e-14
    assert np.abs(defects(pair, pair.b_low, LOWER[pair.name])).max() < 1e-14
    assert np.abs(defects(pair, pair.b_low, LOWER[pair.name] + 1)).max() > 1e-5
    assert pair.order == LOWER[pair.name] + 1


@every_pair
def test_convergence_with_fixed_steps(pair):
    x = spread(3, 2) / 4
    steps = [6, 12, 24] if pair.order > 5 else [40, 80, 160]
    exact = x * math.exp(-math.sin(6) / 3)
    errors = [float((integrate(wavy, x, uniform_grid(0, 1, n), pair) - exact).norm()) for n in steps]
    assert -np.polyfit(np.log(steps), np.log(errors), 1)[0] > pair.order - 0.5


@every_pair
@pytest.mark.parametrize("per_sample", [True, False])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-6])
def test_tolerance_and_nfe(pair, per_sample, tolerance):
    x = spread(5, 2)
    field = CountingField(uneven)
    solution = dopri5(field, x, 0.0, 1.0, pair=pair, rtol=tolerance, atol=tolerance, per_sample=per_sample)
    torch.testing.assert_close(solution.x, solution_of_uneven(1.0, x), rtol=100 * tolerance, atol=100 * tolerance)
    assert not solution.failed.any()
    assert int(solution.nfe.sum()) == field.evaluations
    assert ((solution.nfe - 2) % (pair.stages - 1) == 0).all()


@pytest.mark.parametrize("name", ["bosh3", "dopri8"])
@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0)], ids=["forwards", "backwards"])
@pytest.mark.parametrize("tolerance", [1e-4, 1e-7])
def test_torchdiffeqs_pairs_have_our_nfe_and_result(name, ends, tolerance):
    """One step size for the batch. Intended difference: their stages at a step's end are one representable number before it."""
    x = spread(4, 2) / 3
    ours, theirs = CountingField(wavy), CountingField(wavy)
    solution = dopri5(ours, x, *ends, pair=ADAPTIVE[name], rtol=tolerance, atol=tolerance, per_sample=False)
    reference = torchdiffeq_adaptive(theirs, x, *ends, method=name, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(solution.x, reference, rtol=1e-8, atol=1e-8)
    assert ours.calls == theirs.calls == int(solution.nfe[0])


def test_torchdiffeqs_adaptive_heun_is_another_method():
    """Intended difference: they take the slope at Euler's proposal as the first of the next step, so that a step costs one
    evaluation and is no step of Heun's method. Ours costs two. Both keep the tolerance."""
    x = spread(3, 2) / 4
    ours, theirs = CountingField(wavy), CountingField(wavy)
    solution = dopri5(ours, x, 0.0, 1.0, pair=ADAPTIVE_HEUN, rtol=1e-6, atol=1e-6, per_sample=False)
    reference = torchdiffeq_adaptive(theirs, x, 0.0, 1.0, method="adaptive_heun", rtol=1e-6, atol=1e-6)
    exact = x * math.exp(-math.sin(6) / 3)
    for end in (solution.x, reference):
        torch.testing.assert_close(end, exact, rtol=5e-4, atol=5e-4)
    assert ours.calls > theirs.calls
    once = integrate(wavy, x, uniform_grid(0, 1, 7), ADAPTIVE_HEUN)
    torch.testing.assert_close(once, integrate(wavy, x, uniform_grid(0, 1, 7), HEUN), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("tableau", [EULER, RK4, dataclasses.replace(HEUN, b_low=(1.0, 0.0))], ids=lambda t: t.name)
def test_what_is_no_pair_is_refused(tableau):
    with pytest.raises(ValueError, match=f"{tableau.name} has no embedded step, or its last stage is not at the end"):
        dopri5(wavy, torch.ones(1, 2), 0.0, 1.0, pair=tableau)
