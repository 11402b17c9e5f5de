"""Which noise levels a loss cares about: every objective as a weighted epsilon loss over log SNR.

With x_t fixed, all predictions are linear in each other, so every squared error is a weighted squared error of the noise
(:mod:`fmbench.flow.prediction`). Over lambda = log a^2 / s^2 an objective is

    integral of  w(lambda) p(lambda) |eps error|^2  d lambda,

w from its weighting and its prediction, p the density of its training times as a density of lambda.
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
        weight: w(lambda), of the squared error of the noise; holds the correction for the density, where there is one.
        density: p(lambda).
        emphasis: w p, scaled to one at log SNR 0, where data and noise are equal (or at the level nearest to it). On the
            straight path it is exp(-lambda / 2) for the velocity: not integrable, so there is no scaling to one in all.
    """

    t: Tensor
    log_snr: Tensor
    weight: Tensor
    density: Tensor
    emphasis: Tensor


def noise_levels(objective: Objective, n: int = 1000) -> NoiseLevels:
    """The objective at the n mid-quantiles of its training times, ends left out where log SNR is infinite.

    As weighted losses over log SNR are written by Kingma & Gao 2023, *Understanding diffusion objectives as the ELBO*.
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
    c = path.coefficients(t)
    rate = 2 * (c.da / c.a - c.ds / c.s)  # d lambda / dt
    density = relative / (objective.t_max - objective.t_min) / rate
    log_snr = path.log_snr(t)
    values = torch.stack([log_snr, weight * factor, density])
    kept = torch.isfinite(values).all(0)
    log_snr, weight, density = values[:, kept]
    product = weight * density
    at_zero = np.interp(0.0, log_snr.numpy(), product.numpy())
    return NoiseLevels(t[kept], log_snr, weight, density, product / float(at_zero))
