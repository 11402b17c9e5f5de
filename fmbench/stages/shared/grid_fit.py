"""The local errors by which an optimal grid is chosen, measured once for a model, on noise that no cell is measured on."""

from typing import NamedTuple

import torch
from numpy.typing import NDArray

from fmbench.flow.solvers.optimal_grid import candidates, local_errors
from fmbench.stages.shared.job import Job
from fmbench.stages.shared.models import Model

SAMPLES = 64
"""Trajectories that an optimal grid is fitted on."""


class Fit(NamedTuple):
    """The evaluations of each sample that it took, and the local errors."""

    nfe: float
    errors: NDArray


def fit(model: Model, job: Job, first: int) -> Fit:
    """Local errors on the samples after the ``first`` ones, which are those that a stage measures."""
    objective, field = model.flow(), model.field()
    indices = range(first, first + SAMPLES)
    x0 = model.start(job.spec["seed"], indices)
    with torch.no_grad():
        errors = local_errors(field.rows(indices), x0, candidates(objective.t_min, objective.t_max), objective.path)
    return Fit(field.evaluations / SAMPLES, errors)
