"""Solves of many samples with a given number of evaluations, each from its own noise: the samples and their cost."""

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmbench.config.cells import Cell
from fmbench.config.names import JUMPS, OPTIMAL_GRID
from fmbench.flow.mean_velocity import jump
from fmbench.flow.solvers.grids import GRIDS
from fmbench.flow.solvers.optimal_grid import candidates, optimal_grid
from fmbench.flow.solvers.registry import Solver, StepSolver, find_solver
from fmbench.flow.solvers.stochastic import Noise
from fmbench.flow.solvers.stochastic_registry import STOCHASTIC, stochastic_solver
from fmbench.flow.straightness import MeasuredField
from fmbench.stages.shared.batching import batches
from fmbench.stages.shared.job import Job
from fmbench.stages.shared.models import Model
from fmbench.stages.shared.timing import Stopwatch
from fmbench.system.rng import indexed_normal


class Solved(NamedTuple):
    """Samples (n, *) in model space, the mean NFE that the counting field saw, and wall seconds per sample."""

    samples: NDArray
    nfe: float
    seconds: float
    straightness: NDArray | None = None  # float64 (n, 2): of each sample the deviation and the ratio of its path


# Many parameters: what a solve depends on.
def fixed(
    model: Model, job: Job, n: int, batch: int, cell: Cell, errors: NDArray | None = None, straight: bool = False
) -> Solved:
    """The first n samples by a solver, a stochastic sampler or jumps on its grid. The time covers the drawing of noise.

    Args:
        errors: the local errors that an optimal grid is chosen by; needed for such a grid only.
        straight: measure how straight the trajectories are, too. The time then covers it.
    """
    objective = model.flow()
    path = objective.path

    @cache
    def grid(steps: int) -> Tensor:
        if cell.grid == OPTIMAL_GRID:
            assert errors is not None
            return optimal_grid(errors, candidates(objective.t_min, objective.t_max), steps)
        return GRIDS[cell.grid](path, objective.t_min, objective.t_max, steps)

    field, watch = model.jumping_field() if cell.solver == JUMPS else model.field(), Stopwatch(job.device)
    pieces, paths = [], []
    with torch.no_grad():
        for indices in batches(n, batch):
            x0, here = model.start(job.spec["seed"], indices), field.rows(indices)
            solver = _solver(cell, fresh_noise(job.spec["seed"], cell, indices, x0))
            if indices.start == 0:  # the first call of a size sets things up, which must not count as a solve's time
                here.field(torch.tensor(objective.t_min, dtype=torch.float64, device=job.device), x0)
            measured = MeasuredField(here)
            with watch:
                # Whatever the network predicts, the field is a velocity. Solvers work out data and noise from it.
                x = solver.spend(cell.nfe, measured if straight else here, x0, grid, path)
            pieces.append(x.cpu().numpy())
            if straight:
                paths.append(torch.stack(measured.straightness(x0, x, objective.t_min, objective.t_max), 1).cpu().numpy())
    found = np.concatenate(paths) if straight else None
    return Solved(np.concatenate(pieces), field.evaluations / n, watch.seconds / n, found)


def fresh_noise(seed: int, cell: Cell, indices: range, x0: Tensor) -> Noise:
    """The noise that a stochastic sampler adds to these samples in each step, like ``x0``: the same for every batch size.

    A cell has a stream of its own. It does not depend on the method.
    """

    def noise(step: int) -> Tensor:
        name = f"few_step/{cell.label}/{cell.nfe}/{step}"
        return torch.empty_like(x0).copy_(indexed_normal(seed, name, indices, x0.shape[1:]))

    return noise


def _solver(cell: Cell, noise: Noise) -> Solver:
    """The solver of a cell. A stochastic sampler adds ``noise``."""
    if cell.solver in STOCHASTIC:
        return stochastic_solver(cell.solver, dict(cell.options), noise)
    if cell.solver == JUMPS:
        return StepSolver(jump)
    return find_solver(cell.solver, cell.use, cell.lower_order_final)
