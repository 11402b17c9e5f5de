"""Solves of many samples from their own noise, as several stages need them: what they end with and what they cost."""

import time
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmbench.broadcast import expand_to
from fmbench.config import Cell
from fmbench.data.prepared import DataSet
from fmbench.names import STEP_COSTS
from fmbench.prediction import VELOCITY
from fmbench.solvers.adaptive import dopri5
from fmbench.solvers.ddim import ddim
from fmbench.solvers.fixed import integrate
from fmbench.solvers.grids import GRIDS
from fmbench.solvers.tableaux import FIXED
from fmbench.stages.common import Job, base_noise, batches
from fmbench.stages.models import Model


class Stopwatch:
    """Wall seconds spent inside of its ``with`` blocks, with all that a GPU still had to do at their end."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds = device, 0.0

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.monotonic()

    def __enter__(self) -> Self:
        self.began = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += self._now() - self.began


class Solved(NamedTuple):
    """Samples (n, *) in model space, the mean NFE that the counting field saw, and wall seconds a sample."""

    samples: NDArray
    nfe: float
    seconds: float


def fixed(model: Model, dataset: DataSet, job: Job, n: int, batch: int, cell: Cell) -> Solved:
    """The first n samples by a fixed-step solver on its grid."""
    objective = model.objective
    path = objective.path
    grid = GRIDS[cell.grid](path, objective.t_min, objective.t_max, cell.nfe // STEP_COSTS[cell.solver])
    field, watch = model.field(), Stopwatch(job.device)
    pieces = []
    with torch.no_grad():
        for indices in batches(n, batch):
            x0 = base_noise(job.spec["seed"], indices, dataset.shape, path.base_std, job.device)
            if indices.start == 0:  # what the first call of a size sets up is no part of a solve's time
                model.velocity(grid[0].to(job.device), x0)
            with watch:
                # The velocity holds what the network predicts, whatever that is: DDIM takes data and noise from it.
                is_ddim = cell.solver == "ddim"
                x = ddim(field, x0, grid, path, VELOCITY) if is_ddim else integrate(field, x0, grid, FIXED[cell.solver])
            pieces.append(x.cpu().numpy())
    return Solved(np.concatenate(pieces), field.evaluations / n, watch.seconds / n)


class Adaptive(NamedTuple):
    """Samples (n, *) in model space, NaN where the solve failed; NFE and failure of each, shape (n,)."""

    samples: NDArray
    nfe: NDArray
    failed: NDArray


def adaptive(model: Model, dataset: DataSet, job: Job, n: int, batch: int, *, rtol: float, atol: float, max_nfe: int) -> Adaptive:
    """The first n samples by dopri5 with a step size per sample."""
    (samples,), nfe, failed = stops(model, dataset, job, n, batch, [1.0], rtol=rtol, atol=atol, max_nfe=max_nfe)
    return Adaptive(samples, nfe, failed)


def stops(
    model: Model, dataset: DataSet, job: Job, n: int, batch: int, times: list[float], *, rtol: float, atol: float, max_nfe: int
) -> tuple[NDArray, NDArray, NDArray]:
    """The states of the first n samples at increasing ``times``, by dopri5 with a step size per sample from one to the next.

    Times outside of the path's interval are taken at its end. At the last time, the state is that of a solve without stops to
    the tolerance, and with one stop at the end it is that to the bit.

    Returns:
        States (times, n, *) in model space, NaN from where a solve failed; NFE of each sample, and whether it failed, (n,).
    """
    objective, field = model.objective, model.field()
    states = np.empty((len(times), n, *dataset.shape), dtype=np.float32)
    nfe, failed = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=bool)
    with torch.no_grad():
        for indices in batches(n, batch):
            here = slice(indices.start, indices.stop)
            x: Tensor = base_noise(job.spec["seed"], indices, dataset.shape, objective.path.base_std, job.device)
            now = objective.t_min
            for i, time_of_stop in enumerate(times):
                stop = min(max(time_of_stop, objective.t_min), objective.t_max)
                if stop > now:
                    solution = dopri5(field, x, now, stop, rtol=rtol, atol=atol, max_nfe=max_nfe)
                    x = solution.x.masked_fill(expand_to(solution.failed, solution.x), torch.nan)
                    nfe[here] += solution.nfe.cpu().numpy()
                    failed[here] |= solution.failed.cpu().numpy()
                    now = stop
                states[i, here] = x.cpu().numpy()
    # The counting field is the judge; the solver's own bookkeeping must agree with it.
    if int(nfe.sum()) != field.evaluations:
        raise AssertionError(f"the solver reports {int(nfe.sum())} evaluations, the field saw {field.evaluations}")
    return states, nfe, failed
