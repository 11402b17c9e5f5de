"""Methods without a network: the closed-form field of the training set takes the place of a trained model.

In the DAG, an oracle is "trained" by this module's :func:`run`, so an edit of an oracle retrains no network.
"""

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fmbench.config.method_settings import method_from_values
from fmbench.data.prepared import DataSet, drawn, read
from fmbench.flow.objectives import Objective, build
from fmbench.flow.oracle import FiniteOracle, leave_one_out_bandwidth
from fmbench.stages.shared.job import Job, check_data
from fmbench.stages.shared.model_files import FinishedModel, write_model
from fmbench.system.rng import generator


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


def oracle_of(parameters: dict[str, Any], bandwidth: float, dataset: DataSet, device: torch.device) -> FiniteOracle:
    """The oracle of a data set's training split, in model space. Images are at the middle of their levels."""
    return FiniteOracle(_points(parameters, dataset, device), bandwidth)


def _points(parameters: dict[str, Any], dataset: DataSet, device: torch.device) -> torch.Tensor:
    values = torch.from_numpy(np.array(drawn(dataset.train, parameters["points"], 0, "oracle/points")))
    return dataset.to_model(values, torch.tensor(0.5)).to(device)


def least_loss(oracle: FiniteOracle, objective: Objective, seed: int, n: int = 1000) -> float:
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
    started = time.monotonic()
    bandwidth = bandwidth_of(settings, dataset)
    oracle = oracle_of(settings, bandwidth, dataset, job.device)
    loss = least_loss(oracle, objective, job.spec["seed"])
    job.add("final_loss", loss, "loss", step=0)
    job.add("iterations", 0, "iterations", step=0)
    job.add("parameters", 0, "parameters", step=0)
    job.add("images_seen", len(oracle.points), "samples", step=0)
    job.add("train_seconds", time.monotonic() - started, "s", step=0)
    job.add("bandwidth", bandwidth, "model units", step=0)
    write_model(job, dataset, out, FinishedModel(weights(bandwidth)))
    job.console.say(f"no training: {len(oracle.points)} points, bandwidth {bandwidth:.4g}, least loss {loss:.4g} -> {out}")
