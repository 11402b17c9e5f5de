"""Velocity fields: from a network to u_t(x), counting evaluations, and divergence.

A field is a function (t, x) -> velocity with x of shape (B, *) and t of shape () or (B,), float64.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from fmbench.flow.paths import AffinePath
from fmbench.flow.prediction import VELOCITY, Prediction, convert

Field = Callable[[Tensor, Tensor], Tensor]

VMAP_FROM, VMAP_UP_TO = 4, 1024
""":func:`exact_divergence` takes its vector-Jacobian products together from so many dimensions on, for batches of up to so many
numbers: below, there is little to gain; above, arithmetic counts and not the number of calls (``benchmarks/divergence.py``)."""


def velocity_field(network: nn.Module | Field, path: AffinePath, prediction: Prediction) -> Field:
    """The sampling field of a network trained to predict ``prediction`` on ``path``.

    For the VP path and the score this is the probability-flow ODE, eq. 46 of Lipman et al. 2023. The network is
    called as ``network(t, x)`` with t of shape (B,) in the type of x; the conversion runs on float64 times.
    """

    def field(t: Tensor, x: Tensor) -> Tensor:
        output = network(t.to(x.dtype).expand(x.shape[0]), x)
        return convert(output, x, t, path, prediction, VELOCITY)

    return field


Value = TypeVar("Value")


class CountingField(Generic[Value]):
    """Wraps a field, keeps t inside the interval on which it is defined, and counts what is evaluated.

    What it wraps may also give more than the velocity, such as its divergence.

    Adaptive solvers step past the end, and their first-step probe can land far outside; the field there is
    undefined, so t is clamped here, in one place.

    Attributes:
        calls: how often the field was called (the NFE of a batch that shares its step size).
        evaluations: how many samples were evaluated in all (over the batch size: the mean NFE per sample).
    """

    def __init__(self, field: Callable[[Tensor, Tensor], Value], t_min: float = 0.0, t_max: float = 1.0) -> None:
        self.field, self.t_min, self.t_max = field, t_min, t_max
        self.calls = 0
        self.evaluations = 0

    def __call__(self, t: Tensor, x: Tensor) -> Value:
        self.calls += 1
        self.evaluations += x.shape[0]
        return self.field(t.clamp(self.t_min, self.t_max), x)


def exact_divergence(field: Field, t: Tensor, x: Tensor, mode: str = "auto", memory: int = 1 << 24) -> tuple[Tensor, Tensor]:
    """The field and its exact divergence (of eq. 31), by D vector-Jacobian products behind one forward pass.

    Args:
        mode: ``loop`` takes the products one by one; ``vmap`` all together (the field's backward pass must allow
            vectorisation), in pieces of at most ``memory`` numbers; ``auto`` what was the faster on a CPU (:data:`VMAP_FROM`).

    Returns:
        v of shape (B, *) and div v of shape (B,).
    """
    if mode not in ("auto", "loop", "vmap"):
        raise ValueError(f"mode must be auto, loop or vmap, not {mode!r}")
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        v = field(t, x)
        flat = v.flatten(1)
        batch, dimensions = flat.shape
        divergence = torch.zeros(batch, dtype=x.dtype, device=x.device)
        if not v.requires_grad:  # the field does not depend on x
            return v, divergence
        together = mode == "vmap" or (mode == "auto" and dimensions >= VMAP_FROM and flat.numel() <= VMAP_UP_TO)
        if not together:
            for i in range(dimensions):
                (row,) = torch.autograd.grad(flat[:, i].sum(), x, retain_graph=i < dimensions - 1)
                divergence = divergence + row.flatten(1)[:, i]
        else:
            at_once = max(1, memory // max(1, flat.numel()))
            for first in range(0, dimensions, at_once):
                rows = torch.arange(first, min(first + at_once, dimensions), device=x.device)
                basis = torch.zeros(len(rows), batch, dimensions, dtype=x.dtype, device=x.device)
                basis[torch.arange(len(rows), device=x.device), :, rows] = 1
                last = first + at_once >= dimensions
                (jacobian,) = torch.autograd.grad(flat, x, basis, retain_graph=not last, is_grads_batched=True)
                diagonal = jacobian.flatten(2)[torch.arange(len(rows), device=x.device), :, rows]
                divergence = divergence + diagonal.sum(0)
    return v.detach(), divergence.detach()


def hutchinson_divergence(field: Field, t: Tensor, x: Tensor, probes: Tensor, mode: str = "reverse") -> tuple[Tensor, Tensor]:
    """The field and Hutchinson's unbiased estimates z^T (Dv) z of its divergence, eq. 34-35, one for each probe.

    Args:
        probes: shape (K, B, *), with E[z z^T] = I.
        mode: ``reverse`` takes vector-Jacobian products behind one forward pass that all probes share. ``forward`` takes
            Jacobian-vector products, a pass for each probe: nothing is kept for a backward pass, so it needs less memory and more
            time (``benchmarks/divergence.py``); the field's operations must have forward-mode derivatives.

    Returns:
        v of shape (B, *) and the estimates of shape (K, B); their mean over K is the estimate to use.
    """
    if mode == "forward":
        return _by_forward_mode(field, t, x, probes)
    if mode != "reverse":
        raise ValueError(f"mode must be reverse or forward, not {mode!r}")
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        v = field(t, x)
        if not v.requires_grad:  # the field does not depend on x
            return v, torch.zeros(len(probes), x.shape[0], dtype=x.dtype, device=x.device)
        estimates = []
        for k, z in enumerate(probes):
            (vjp,) = torch.autograd.grad(v, x, z, retain_graph=k < len(probes) - 1)
            estimates.append((vjp * z).flatten(1).sum(1))
    return v.detach(), torch.stack(estimates).detach()


def _by_forward_mode(field: Field, t: Tensor, x: Tensor, probes: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach()
    estimates, v = [], x
    # The fused attention kernels have no forward-mode derivative.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        for z in probes:
            with forward_ad.dual_level():
                v, tangent = forward_ad.unpack_dual(field(t, forward_ad.make_dual(x, z.to(x))))
                if tangent is None:  # the field does not depend on x
                    tangent = torch.zeros_like(v)
            estimates.append((tangent * z).flatten(1).sum(1))
    return v, torch.stack(estimates)
