"""Adaptive solves of many samples, each from its own noise."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fmbench.config.evaluation_settings import LearningCurveSettings, TrajectorySettings
from fmbench.stages.shared.batching import batches
from fmbench.stages.shared.job import Job
from fmbench.stages.shared.models import Model


class States(NamedTuple):
    """States (times, n, *) in model space, NaN from where a solve failed; NFE of each sample and whether it failed, both (n,)."""

    states: NDArray
    nfe: NDArray
    failed: NDArray


def states_at(times: list[float], model: Model, job: Job, n: int, settings: LearningCurveSettings | TrajectorySettings) -> States:
    """The states of the first n samples at increasing ``times``. dopri5 solves from one time to the next, with a step per sample.

    Of a model without a flow there is only the state at the last time.

    A time outside of the path's interval means the nearer end of the interval. The state at the last time equals that of a solve
    without stops up to the tolerance. With a single time at the end it equals it to the bit.
    """
    objective, field = model.objective, model.field()
    rtol, atol, max_nfe = settings.rtol, settings.atol, settings.max_nfe // model.cost
    states = np.empty((len(times), n, *model.dataset.shape), dtype=np.float32)
    nfe, failed = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=bool)
    with torch.no_grad():
        for indices in batches(n, settings.batch):
            here = slice(indices.start, indices.stop)
            x, of_batch = model.start(job.spec["seed"], indices), field.rows(indices)
            now = objective.t_min
            for i, time in enumerate(times):
                stop = min(max(time, objective.t_min), objective.t_max)
                if stop > now:
                    solution = model.sampler.solve(of_batch, x, now, stop, rtol=rtol, atol=atol, max_nfe=max_nfe)
                    x = solution.samples
                    nfe[here] += model.cost * solution.nfe.cpu().numpy()
                    failed[here] |= solution.failed.cpu().numpy()
                    now = stop
                states[i, here] = x.cpu().numpy()
    # The counting field is right by definition, and the solver's count must agree with it.
    if int(nfe.sum()) != field.evaluations:
        raise AssertionError(f"the solver reports {int(nfe.sum())} evaluations, the field saw {field.evaluations}")
    return States(states, nfe, failed)
