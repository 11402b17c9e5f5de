"""The local errors by which an optimal grid is chosen, measured once for a model, on noise that no cell is measured on."""

from typing import NamedTuple

import torch
from numpy.typing import NDArray

from fmbench.data.prepared import DataSet
from fmbench.flow.solvers.optimal_grid import candidates, local_errors
from fmbench.stages.shared.batching import base_noise
from fmbench.stages.shared.job import Job
from fmbench.stages.shared.models import Model

SAMPLES = 64
"""Trajectories that an optimal grid is fitted on."""


class Fit(NamedTuple):
    """The evaluations of each sample that it took, and the local errors."""

    nfe: float
    errors: NDArray


def fit(model: Model, dataset: DataSet, job: Job, first: int) -> Fit:
    """Local errors on the samples after the ``first`` ones, which are those that a stage measures."""
    objective, field = model.objective, model.field()
    indices = range(first, first + SAMPLES)
    x0 = base_noise(job.spec["seed"], indices, dataset.shape, objective.path.base_std, job.device)
    with torch.no_grad():
        errors = local_errors(field, x0, candidates(objective.t_min, objective.t_max), objective.path)
    return Fit(field.evaluations / SAMPLES, errors)
