"""How much an objective weights each noise level: every objective as a weighted epsilon loss over log SNR.

With x_t fixed, all predictions are linear in each other, so every squared error is a weighted squared error of the noise
(:mod:`fmbench.flow.prediction`). Over lambda = log a^2 / s^2 an objective is

    integral of  w(lambda) p(lambda) |eps error|^2  d lambda,

where w follows from its weighting and prediction, and p is the density of its training times, taken over lambda.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fmbench.flow.objectives import Objective
from fmbench.flow.prediction import EPSILON, loss_weight


class NoiseLevels(NamedTuple):
    """An objective over noise levels, float64 of shape (n,), in the order of t.

    Attributes:
        t: times; log_snr: lambda(t).
        weight: w(lambda) of the squared error of the noise, divided by the density if the objective corrects for it.
        density: p(lambda).
        emphasis: w p, scaled to 1 at log SNR 0, where data and noise are equal, or at the nearest level. It is not scaled to
            integrate to 1, since it may not be integrable: for the velocity on the straight path it is exp(-lambda / 2).
    """

    t: Tensor
    log_snr: Tensor
    weight: Tensor
    density: Tensor
    emphasis: Tensor


def noise_levels(objective: Objective, n: int = 1000) -> NoiseLevels:
    """The objective at the n mid-quantiles of its training times; levels with infinite log SNR are left out.

    The form is that of Kingma & Gao 2023, *Understanding diffusion objectives as the ELBO*.
    """
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    path = objective.path
    t, relative = objective.times.draw(u, path, objective.t_min, objective.t_max)
    t, order = t.sort()
    relative = relative[order]
    weight = objective.weighting(t, path, objective.prediction).double()
    if objective.times.corrected:
        weight = weight / relative
    # An error e of the noise is an error e d_p / d_eps of the prediction.
    factor = loss_weight(t, path, objective.prediction, EPSILON)
    density = relative / (objective.t_max - objective.t_min) / path.log_snr_rate(t)
    log_snr = path.log_snr(t)
    values = torch.stack([log_snr, weight * factor, density])
    kept = torch.isfinite(values).all(0)
    log_snr, weight, density = values[:, kept]
    product = weight * density
    at_zero = np.interp(0.0, log_snr.numpy(), product.numpy())
    return NoiseLevels(t[kept], log_snr, weight, density, product / float(at_zero))
