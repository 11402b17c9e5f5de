"""The weightings w(t) of a loss, by the names a config uses."""

from collections.abc import Callable

import torch
from torch import Tensor

from fmbench.flow.paths import AffinePath
from fmbench.flow.prediction import EPSILON, VELOCITY, Prediction, X, loss_weight

Weighting = Callable[[Tensor, AffinePath, Prediction], Tensor]
"""w(t) from times (B,), the path and the network's prediction; float64, shape (B,)."""

WEIGHTINGS: dict[str, Weighting] = {
    # The plain squared error of the network's prediction.
    "uniform": lambda t, path, network: torch.ones_like(t, dtype=torch.float64),
    # The squared error of the data, of the noise, or of the velocity, whatever the network predicts.
    "x": lambda t, path, network: loss_weight(t, path, X, network),
    "epsilon": lambda t, path, network: loss_weight(t, path, EPSILON, network),
    "velocity": lambda t, path, network: loss_weight(t, path, VELOCITY, network),
    # s(t)^2: score matching's weight (Song et al. 2020; eq. 43).
    "sigma_squared": lambda t, path, network: path.coefficients(t).s ** 2,
    # g(1 - t)^2: ScoreFlow's likelihood weight, beta(1 - t) on the VP path (Song et al. 2021).
    "likelihood": lambda t, path, network: path.diffusion_squared(t),
}
