"""Methods without a network: the closed-form field of the training set takes the place of a trained model.

In the DAG, an oracle is "trained" by this module's :func:`run`, so an edit of an oracle retrains no network.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fmbench.config.method_settings import method_from_values
from fmbench.data.conditions import LowResolution
from fmbench.data.prepared import DataSet, drawn, read
from fmbench.errors import DataError
from fmbench.flow.bandwidth import leave_one_out_bandwidth
from fmbench.flow.objectives import Objective, build
from fmbench.flow.oracle import ROWS, FiniteOracle
from fmbench.flow.paths import AffinePath
from fmbench.stages.shared.batching import batches
from fmbench.stages.shared.job import Job, check_data
from fmbench.stages.shared.model_files import FinishedModel, add_times, write_model
from fmbench.system.rng import generator

LOSSES = 1000
"""Draws that the least loss is a mean of."""


def bandwidth_of(parameters: dict[str, Any], dataset: DataSet) -> float:
    """The bandwidth of an oracle: the given one, or one that follows from the data (:data:`fmbench.config.methods.ORACLE`)."""
    if parameters["bandwidth"] is not None:
        return float(parameters["bandwidth"])
    if dataset.levels is not None:
        return 2 / dataset.levels / math.sqrt(12)
    return leave_one_out_bandwidth(_points(parameters, dataset, torch.device("cpu")))


def weights(bandwidth: float) -> nn.Module:
    """The weights of an oracle: its bandwidth alone, float64."""
    module = nn.Module()
    module.register_buffer("bandwidth", torch.tensor(bandwidth, dtype=torch.float64))
    return module


@dataclass(frozen=True)
class OracleOfSamples:
    """The oracle of each generated sample: of all points, or of points that are weighted by the condition of the sample.

    Attributes:
        points: the oracle of all points, with equal weights.
        log_weights: from the indices of samples to the weights of the points (b, N): a tuple of one tensor, empty without a
            condition.
    """

    points: FiniteOracle
    log_weights: Callable[[Sequence[int]], tuple[Tensor, ...]]

    def bound(self, *log_weights: Tensor) -> FiniteOracle:
        """The oracle of samples with these weights."""
        return self.points.given(*log_weights) if log_weights else self.points

    def of(self, indices: Sequence[int]) -> FiniteOracle:
        """The oracle of the samples with these indices."""
        return self.bound(*self.log_weights(indices))

    def draw(self, path: AffinePath, t: float, n: int, g: torch.Generator) -> Tensor:
        """Draws from p_t of eq. 6, one for each of the first n samples, float64 (n, *). A few weights are in memory at a time."""
        rows = ROWS if self.log_weights(range(1)) else n
        return torch.cat([self.of(i).marginal_sample(path, t, len(i), g) for i in batches(n, rows)])


def oracle_of(parameters: dict[str, Any], bandwidth: float, dataset: DataSet, device: torch.device) -> OracleOfSamples:
    """The oracle of a data set's training split, in model space. Images are at the middle of their levels."""
    points = FiniteOracle(_points(parameters, dataset, device), bandwidth)
    return OracleOfSamples(points, lambda indices: _weights(parameters, dataset, dataset.stored_conditions(indices), device))


def condition_bandwidth(parameters: dict[str, Any], dataset: DataSet) -> float:
    """The bandwidth of the kernel on low-resolution images: the given one, or that of a uniform variable within one level."""
    given = parameters.get("condition_bandwidth")
    return float(given) if given is not None else 2 / (dataset.levels or 2) / math.sqrt(12)


def _weights(
    parameters: dict[str, Any], dataset: DataSet, wanted: tuple[Tensor, ...], device: torch.device
) -> tuple[Tensor, ...]:
    """The weights of the oracle's points for samples whose stored conditions are ``wanted``.

    Raises:
        DataError: no point has the label of a sample.
    """
    points = [torch.from_numpy(np.array(_drawn(parameters, array))) for array in dataset.stored_condition("train")]
    found = []
    for here, there in zip(wanted, points, strict=True):
        weights = dataset.condition.log_weights(here, there, condition_bandwidth(parameters, dataset))
        if weights.isnan().any():
            lost = ", ".join(map(str, sorted(set(here.tolist()) - set(there.tolist()))))
            raise DataError(
                f"none of the oracle's {len(there)} training points has the label of class {lost}, which test samples have; "
                "raise oracle.points, or leave that class out of the test split"
            )
        found.append(weights.to(device))
    return tuple(found)


def _points(parameters: dict[str, Any], dataset: DataSet, device: torch.device) -> Tensor:
    values = torch.from_numpy(np.array(_drawn(parameters, dataset.train)))
    return dataset.to_model(values, torch.tensor(0.5)).to(device)


def _drawn(parameters: dict[str, Any], array: NDArray) -> NDArray:
    """The rows of an array of the training split that belong to the oracle's points."""
    return drawn(array, parameters["points"], 0, "oracle/points")


def _of_training(parameters: dict[str, Any], oracle: OracleOfSamples, dataset: DataSet, seed: int, n: int) -> FiniteOracle:
    """The oracle of n samples whose conditions are those of random training points."""
    device, g = oracle.points.points.device, generator(seed, "oracle/conditions")
    chosen = torch.randint(len(oracle.points.points), (n,), generator=g).numpy()
    wanted = tuple(torch.from_numpy(np.array(_drawn(parameters, a)[chosen])) for a in dataset.stored_condition("train"))
    return oracle.bound(*_weights(parameters, dataset, wanted, device))


def least_loss(oracle: FiniteOracle, objective: Objective, seed: int, n: int = LOSSES) -> float:
    """The objective's loss of the oracle itself, which no network can undercut (Theorem 2's constant).

    It is a mean over n draws from the oracle's data.
    """
    g = generator(seed, "oracle/loss")
    x1 = oracle.sample(n, g).to(oracle.points.device)
    x0 = torch.randn(x1.shape, generator=g, dtype=torch.float64).to(x1)
    u = torch.rand(n, generator=g, dtype=torch.float64).to(x1)

    def field(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return oracle.velocity(objective.path, t, x)

    return objective.loss(field, x0, x1, u).mean().item()


def run(job: Job, data: Path, out: Path) -> None:
    """Write an oracle in the form of a trained model: the weights are its bandwidth, the loss is the least possible."""
    dataset = read(data)
    check_data(job.spec, dataset)
    objective = build(method_from_values(job.spec["method"]))
    settings = job.spec["method"]["oracle"]
    began, started = time.time(), time.monotonic()
    bandwidth = bandwidth_of(settings, dataset)
    samples = oracle_of(settings, bandwidth, dataset, job.device)
    for indices in batches(len(dataset.test), ROWS):
        samples.log_weights(indices)  # raises if a test sample has no point
    oracle = _of_training(settings, samples, dataset, job.spec["seed"], LOSSES)
    loss = least_loss(oracle, objective, job.spec["seed"])
    job.add("final_loss", loss, "loss", step=0)
    job.add("iterations", 0, "iterations", step=0)
    job.add("parameters", 0, "parameters", step=0)
    job.add("images_seen", len(oracle.points), "samples", step=0)
    job.add("train_seconds", time.monotonic() - started, "s", step=0)
    job.add("bandwidth", bandwidth, "model units", step=0)
    if isinstance(dataset.condition, LowResolution):
        job.add("condition_bandwidth", condition_bandwidth(settings, dataset), "model units", step=0)
    add_times(job, began, time.time(), 0)
    write_model(job, dataset, out, FinishedModel(weights(bandwidth)))
    job.console.say(f"no training: {len(oracle.points)} points, bandwidth {bandwidth:.4g}, least loss {loss:.4g} -> {out}")
