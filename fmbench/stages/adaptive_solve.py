"""Adaptive solves of many samples from their own noise, with stops on the way."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmbench.data.prepared import DataSet
from fmbench.flow.broadcast import expand_to
from fmbench.flow.solvers.adaptive import dopri5
from fmbench.stages.common import Job, base_noise, batches
from fmbench.stages.models import Model


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
