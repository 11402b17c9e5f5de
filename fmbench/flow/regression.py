"""Regression of the sample from its condition: the baseline of super-resolution (Table 2; Saharia et al. 2021, section 4).

It has no path. The network of the other methods gets zeros in the place of x_t, at t = 0, and its one evaluation is the sample.
The squared error makes this the mean of all samples with this condition, which is blurred where they differ.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fmbench.config.methods import Method
from fmbench.flow.broadcast import check_shape
from fmbench.flow.couplings import INDEPENDENT, Coupling
from fmbench.flow.fields import Field
from fmbench.flow.objectives import Objective, build
from fmbench.flow.prediction import SIGMA_DATA
from fmbench.flow.solvers.solution import AdaptiveSolution
from fmbench.flow.starts import NOISE, Start

NO_FLOW = "regression predicts the sample by one evaluation and has no flow"
"""The reason given for what cannot be measured."""


@dataclass(frozen=True)
class Regression:
    """The squared error of the sample itself, as the loss of a network that sees nothing but the condition."""

    start: Start = NOISE
    coupling: Coupling = INDEPENDENT
    marginal = False
    t_min, t_max, noise_std = 0.0, 1.0, 1.0

    def loss(self, network: nn.Module | Callable[[Tensor, Tensor], Tensor], x0: Tensor, x1: Tensor, u: Tensor) -> Tensor:
        """The mean square over dimensions of each sample's error, shape (B,); noise x0 and uniforms u are not used.

        Raises:
            ValueError: the network's output does not have the shape of x1.
        """
        output = prediction(network)(torch.zeros_like(u), x1)
        check_shape("the network's output", output, x1.shape)
        return (output - x1).flatten(1).square().mean(1)


Loss = Objective | Regression
"""What a network is trained by."""


def build_loss(method: Method, data_std: float = SIGMA_DATA) -> Loss:
    """What a method trains a network by: that of its path, or the regression of a method without one.

    Args:
        data_std: as in :func:`fmbench.flow.objectives.build`.

    Raises:
        ValueError: as :func:`fmbench.flow.objectives.build`.
    """
    return Regression() if method.path is None else build(method, data_std)


def prediction(network: nn.Module | Callable[[Tensor, Tensor], Tensor]) -> Field:
    """The prediction (B, *) as a function (t, x), of which it takes no more than the shape of x."""

    def predict(t: Tensor, x: Tensor) -> Tensor:
        out: Tensor = network(torch.zeros(len(x), dtype=x.dtype, device=x.device), torch.zeros_like(x))
        return out

    return predict


def one_evaluation(field: Field, x: Tensor, t0: float, t1: float, **tolerance: Any) -> AdaptiveSolution:
    """The prediction in the form of an adaptive solve: one evaluation each, and failed where it is not finite."""
    out = field(torch.tensor(t0, dtype=torch.float64, device=x.device), x)
    failed = ~out.isfinite().flatten(1).all(1)
    return AdaptiveSolution(out, torch.ones(len(x), dtype=torch.int64, device=x.device), failed)
