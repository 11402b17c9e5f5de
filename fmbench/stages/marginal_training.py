"""Trainings with the marginal target: the closed-form field of the whole training split, and rows that compare both targets.

In the DAG, such a method is "trained" by this module's :func:`run`, so an edit of the oracles retrains no other network.

The marginal target is the mean of the conditional one given x_t (Theorem 2; Bertrand et al. 2025, arXiv:2506.03719). Both losses
have the same expected gradient, and so the same optimum. The gradient of a batch has less variance, and the smallest loss is 0
instead of the spread of the conditional target.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fmbench.config.training_settings import TrainingSettings
from fmbench.data.conditions import NO_TARGET
from fmbench.data.prepared import DataSet
from fmbench.errors import ConfigError
from fmbench.flow.gradient_variance import gradient_variance
from fmbench.flow.marginal import squared_residual
from fmbench.flow.objectives import Objective
from fmbench.flow.oracle import FiniteOracle
from fmbench.flow.regression import Loss
from fmbench.stages import train
from fmbench.stages.shared.job import Job
from fmbench.store.records import DIVERGED
from fmbench.store.tracker import Tracker
from fmbench.training.batches import Batches
from fmbench.training.run import Outcome

MOST_POINTS = 100_000
"""The most training samples of a data set for a marginal target: each step evaluates all of them for each sample of its batch."""
BATCHES = 64
"""The number of batches that each of these rows is estimated from."""
METRICS = {"gradient_variance": "(loss/weight)^2", "gradient_variance_conditional": "(loss/weight)^2", "loss_floor": "loss"}
"""The rows, with their units: the variance of a batch's gradient with the marginal and with the conditional target, the floor."""


def run(job: Job, data: Path, out: Path, checkpoints: Path, tracker: Tracker) -> None:
    """Train as :func:`fmbench.stages.train.run` does, on the marginal target."""
    train.run(job, data, out, checkpoints, tracker, variant=train.Variant(with_data, add_variances))


def with_data(objective: Loss, dataset: DataSet, settings: TrainingSettings, device: torch.device) -> Loss:
    """The objective with the data of its marginal target; itself if its target is the conditional one.

    The points are all training samples, with their mirrored copies if the training flips images. Images are dequantised by
    uniform noise in training; here a Gaussian of the same standard deviation is around the middle of each level.

    Raises:
        ConfigError: the data set has too many training samples, or a condition.
    """
    if not isinstance(objective, Objective) or not objective.marginal:
        return objective
    name, n = dataset.manifest["dataset"], len(dataset.train)
    if dataset.condition.given:
        raise ConfigError(NO_TARGET)
    if n > MOST_POINTS:
        raise ConfigError(
            f"target: marginal evaluates every training sample at each step, and {name} has {n:,}, more than {MOST_POINTS:,}; "
            "leave out the target, or give the data set fewer samples"
        )
    points = dataset.to_model(torch.from_numpy(np.array(dataset.train)), torch.tensor(0.5))
    if settings.flips:
        points = torch.cat([points, points.flip(-1)])
    bandwidth = 0.0 if dataset.levels is None else 2 / dataset.levels / math.sqrt(12)
    return replace(objective, data=FiniteOracle(points.to(device), bandwidth))


def add_variances(
    job: Job, objective: Loss, network: nn.Module, dataset: DataSet, settings: TrainingSettings, outcome: Outcome
) -> None:
    """Add rows of the gradient variance and the mean loss of both targets, at the averaged weights and on the same batches.

    Only trainings with the marginal target have them. ``loss_floor`` is the smallest loss that the conditional target allows:
    the mean squared distance between both targets, with the loss's weight (Theorem 2's constant).
    """
    if not isinstance(objective, Objective) or objective.data is None:
        return
    columns: dict[str, Any] = {"step": outcome.step, "n": BATCHES}
    if outcome.reason:
        for metric, unit in METRICS.items():
            job.add(metric, None, unit, **columns, status=DIVERGED, reason=outcome.reason)
        return
    settings = settings.model_copy(update={"iterations": BATCHES})
    parameters = list(network.parameters())
    found = [
        gradient_variance(partial(of.loss, network), parameters, _batches(job, dataset, settings))
        for of in (objective, replace(objective, data=None))
    ]
    floors = [_floor(objective, *batch) for batch in _batches(job, dataset, settings)]
    found.append(float(torch.stack(floors).mean()))
    for (metric, unit), value in zip(METRICS.items(), found, strict=True):
        job.add(metric, value, unit, **columns)


def _batches(job: Job, dataset: DataSet, settings: TrainingSettings) -> Iterator[tuple[Tensor, ...]]:
    """Batches that no training of this seed has seen, the same for both targets."""
    made = Batches(dataset, settings, job.spec["seed"] + 2**31, job.device)
    try:
        yield from (made(number) for number in range(BATCHES))
    finally:
        made.close()


def _floor(objective: Objective, x0: Tensor, x1: Tensor, u: Tensor) -> Tensor:
    """The mean conditional loss of the marginal target itself, over one batch."""
    assert objective.data is not None
    t, weight = objective.times_and_weights(u)
    return (weight * squared_residual(objective.data, objective.path, objective.prediction, x0, x1, t)).mean()
