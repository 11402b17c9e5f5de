"""The optimal grid: exact against all grids by hand, better than others on an oracle, and its cost."""

import itertools
import math

import numpy as np
import pytest
import torch
from draws import draw

from fmbench.config.names import OPTIMAL_STEPS
from fmbench.flow.fields import CountingField
from fmbench.flow.oracle import FiniteOracle
from fmbench.flow.paths import CosineVP, OptimalTransport, VariancePreserving
from fmbench.flow.prediction import VELOCITY
from fmbench.flow.solvers.adaptive import dopri5
from fmbench.flow.solvers.ddim import ddim
from fmbench.flow.solvers.grids import uniform_grid
from fmbench.flow.solvers.optimal_grid import candidates, local_errors, optimal_grid

ORACLE = FiniteOracle(draw(0, 5, 2), 0.1)


@pytest.mark.parametrize("steps", [1, 2, 3, 6])
def test_it_is_the_best_of_all_grids(steps):
    times = torch.linspace(0, 1, 7, dtype=torch.float64)
    errors = draw(1, 7, 7).abs().numpy()
    best = min(
        ((0, *inner, 6) for inner in itertools.combinations(range(1, 6), steps - 1)),
        key=lambda way: sum(errors[i, j] for i, j in itertools.pairwise(way)),
    )
    assert torch.equal(optimal_grid(errors, times, steps), times[list(best)])


def test_a_step_that_breaks_is_not_taken():
    times, errors = torch.linspace(0, 1, 4, dtype=torch.float64), np.zeros((4, 4))
    errors[0, 1], errors[1, 3] = np.nan, np.inf
    assert torch.equal(optimal_grid(errors, times, 2), times[[0, 2, 3]])


@pytest.mark.parametrize("path", [OptimalTransport(0.0), VariancePreserving(), CosineVP()], ids=repr)
def test_local_errors_are_those_of_ddim_from_the_flow(path):
    def field(t, x):
        return ORACLE.velocity(path, t, x)

    times, x = candidates(path.t_min, 0.9), draw(2, 8, 2)
    errors = local_errors(field, x, times, path)
    assert errors.shape == (65, 65) and not np.tril(errors).any()
    for i, j in ((0, 20), (10, 11), (30, 64)):
        ends = [dopri5(field, x, path.t_min, float(t), rtol=1e-8, atol=1e-8).x if t > path.t_min else x for t in times[[i, j]]]
        jump = ddim(field, ends[0], times[[i, j]], path, VELOCITY)
        expected = float((jump - ends[1]).square().mean().sqrt())
        assert errors[i, j] == pytest.approx(expected, rel=0.02, abs=2e-4)


@pytest.mark.parametrize("path", [OptimalTransport(), VariancePreserving()], ids=repr)
def test_it_beats_the_uniform_grid_on_other_noise(path):
    """Fitted on 32 samples, measured on 64 others, at 8 evaluations."""

    def field(t, x):
        return ORACLE.velocity(path, t, x)

    counting, times = CountingField(field), candidates(path.t_min, path.t_max)
    grid = optimal_grid(local_errors(counting, draw(3, 32, 2), times, path), times, 8)
    assert counting.evaluations == 32 * 5 * OPTIMAL_STEPS
    x = draw(4, 64, 2)
    exact = dopri5(field, x, path.t_min, path.t_max, rtol=1e-7, atol=1e-7).x
    fitted, even = (
        float((ddim(field, x, g, path, VELOCITY) - exact).square().mean())
        for g in (grid, uniform_grid(path.t_min, path.t_max, 8))
    )
    assert math.isfinite(fitted) and fitted < 0.8 * even


@pytest.mark.parametrize("steps", [0, 7])
def test_impossible_numbers_of_steps_are_refused(steps):
    with pytest.raises(ValueError, match=f"an optimal grid has from 1 to 6 steps, not {steps}"):
        optimal_grid(np.zeros((7, 7)), torch.linspace(0, 1, 7), steps)
