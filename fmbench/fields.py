"""Velocity fields: from a network to u_t(x), counting evaluations, and divergence.

A field is a function (t, x) -> velocity with x of shape (B, *) and t of shape () or (B,), float64.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fmbench.paths import AffinePath
from fmbench.prediction import VELOCITY, Prediction, convert

Field = Callable[[Tensor, Tensor], Tensor]


def velocity_field(network: nn.Module | Field, path: AffinePath, prediction: Prediction) -> Field:
    """The sampling field of a network trained to predict ``prediction`` on ``path``.

    For the VP path and the score this is the probability-flow ODE, eq. 46 of Lipman et al. 2023. The network is
    called as ``network(t, x)`` with t of shape (B,) in the type of x; the conversion runs on float64 times.
    """

    def field(t: Tensor, x: Tensor) -> Tensor:
        output = network(t.to(x.dtype).expand(x.shape[0]), x)
        return convert(output, x, t, path, prediction, VELOCITY)

    return field


class CountingField:
    """Wraps a field: keeps t inside the interval on which it is defined, and counts what is evaluated.

    Adaptive solvers step past the end, and their first-step probe can land far outside; the field there is
    undefined, so t is clamped here, in one place.

    Attributes:
        calls: how often the field was called (the NFE of a batch that shares its step size).
        evaluations: how many samples were evaluated in all (over the batch size: the mean NFE per sample).
    """

    def __init__(self, field: Field, t_min: float = 0.0, t_max: float = 1.0) -> None:
        self.field, self.t_min, self.t_max = field, t_min, t_max
        self.calls = 0
        self.evaluations = 0

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        self.calls += 1
        self.evaluations += x.shape[0]
        return self.field(t.clamp(self.t_min, self.t_max), x)


def exact_divergence(field: Field, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The field and its exact divergence by D vector-Jacobian products.

    Returns:
        v of shape (B, *) and div v of shape (B,).
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        v = field(t, x)
        flat = v.flatten(1)
        dimensions = flat.shape[1]
        divergence = torch.zeros(x.shape[0], dtype=x.dtype, device=x.device)
        for i in range(dimensions):
            (row,) = torch.autograd.grad(flat[:, i].sum(), x, retain_graph=i < dimensions - 1)
            divergence = divergence + row.flatten(1)[:, i]
    return v.detach(), divergence.detach()


def hutchinson_divergence(field: Field, t: Tensor, x: Tensor, probes: Tensor) -> tuple[Tensor, Tensor]:
    """The field and Hutchinson's unbiased estimate z^T (Dv) z of its divergence, eq. 34-35, averaged over probes.

    Args:
        probes: shape (K, B, *), with E[z z^T] = I. All K share one forward pass.

    Returns:
        v of shape (B, *) and the estimate of shape (B,).
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        v = field(t, x)
        estimate = torch.zeros(x.shape[0], dtype=x.dtype, device=x.device)
        for k, z in enumerate(probes):
            (vjp,) = torch.autograd.grad(v, x, z, retain_graph=k < len(probes) - 1)
            estimate = estimate + (vjp * z).flatten(1).sum(1)
    return v.detach(), estimate.detach() / len(probes)
