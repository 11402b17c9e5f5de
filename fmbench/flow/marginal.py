"""The marginal target of a loss: the mean of the conditional one given x_t, in closed form (Theorem 2; eq. 8).

Both losses have the same expected gradient: given x_t, the conditional target differs from its mean by a residual of mean zero.
The residual adds a constant to the loss, the mean of its weighted square, and variance to the gradient of a batch.
"""

from typing import Protocol

import torch
from torch import Tensor

from fmbench.flow.paths import AffinePath
from fmbench.flow.prediction import Prediction


class Posterior(Protocol):
    """What is needed of :class:`fmbench.flow.oracle.Posterior`."""

    @property
    def x1(self) -> Tensor: ...

    @property
    def x0(self) -> Tensor: ...


class Known(Protocol):
    """Data whose conditional means are known, as an oracle's are (:class:`fmbench.flow.oracle.Oracle`).

    The loss names no oracle, so that an edit of the oracles retrains no network but those with a marginal target.
    """

    def posterior(self, path: AffinePath, t: Tensor, x: Tensor) -> Posterior: ...


def means(data: Known, path: AffinePath, t: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor]:
    """E[x0 | x_t] and E[x1 | x_t], of the shape and type of x_t, without gradient.

    Every prediction is linear in x0 and x1, so that of these means is the mean of its target.
    """
    with torch.no_grad():
        posterior = data.posterior(path, t, x_t)
    return posterior.x0.reshape(x_t.shape).to(x_t.dtype), posterior.x1.reshape(x_t.shape).to(x_t.dtype)


def squared_residual(data: Known, path: AffinePath, prediction: Prediction, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    """The mean square over dimensions of conditional minus marginal target of each pair, shape (B,), float64."""
    x0, x1 = x0.double(), x1.double()
    x_t, _ = path.interpolate(x0, x1, t)
    marginal = prediction.target(path, *means(data, path, t, x_t), t)
    return (prediction.target(path, x0, x1, t) - marginal).flatten(1).square().mean(1)
