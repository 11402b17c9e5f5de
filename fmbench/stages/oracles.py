"""Methods without a network: the closed-form field of the training set in the place of a trained model."""

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from fmbench.data.prepared import DataSet
from fmbench.objectives import Objective
from fmbench.oracle import FiniteOracle, leave_one_out_bandwidth
from fmbench.rng import generator


def bandwidth_of(parameters: dict[str, Any], dataset: DataSet) -> float:
    """The bandwidth of an oracle on a data set: as given, or the data's own (:data:`fmbench.methods.ORACLE`)."""
    if parameters["bandwidth"] is not None:
        return float(parameters["bandwidth"])
    if dataset.levels is not None:
        return 2 / dataset.levels / math.sqrt(12)
    return leave_one_out_bandwidth(_points(parameters, dataset, torch.device("cpu")))


def weights(bandwidth: float) -> nn.Module:
    """All that an oracle has for weights: its bandwidth, float64."""
    module = nn.Module()
    module.register_buffer("bandwidth", torch.tensor(bandwidth, dtype=torch.float64))
    return module


def oracle_of(parameters: dict[str, Any], bandwidth: float, dataset: DataSet, device: torch.device) -> FiniteOracle:
    """The oracle of a data set's training split, in model space; images at the middle of their levels."""
    return FiniteOracle(_points(parameters, dataset, device), bandwidth)


def _points(parameters: dict[str, Any], dataset: DataSet, device: torch.device) -> torch.Tensor:
    values = torch.from_numpy(np.array(dataset.train[: parameters["points"]]))
    return dataset.to_model(values, torch.tensor(0.5)).to(device)


def least_loss(oracle: FiniteOracle, objective: Objective, seed: int, n: int = 1000) -> float:
    """The objective's loss of the oracle itself: what is left when nothing is left to learn (Theorem 2's constant).

    A mean over n draws from the oracle's own data.
    """
    g = generator(seed, "oracle/loss")
    x1 = oracle.sample(n, g).to(oracle.points.device)
    x0 = torch.randn(x1.shape, generator=g, dtype=torch.float64).to(x1)
    u = torch.rand(n, generator=g, dtype=torch.float64).to(x1)

    def field(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return oracle.velocity(objective.path, t, x)

    return objective.loss(field, x0, x1, u).mean().item()
