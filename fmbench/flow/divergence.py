"""The divergence of a field, exact or by Hutchinson's estimator."""

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from fmbench.flow.fields import Field

VMAP_FROM, VMAP_UP_TO = 4, 1024
"""In mode ``auto``, :func:`exact_divergence` takes its products together from ``VMAP_FROM`` dimensions on, for batches of at most
``VMAP_UP_TO`` numbers. With fewer dimensions there is little to gain. With larger batches the time goes into arithmetic and not
into calls (``benchmarks/divergence.py``)."""


def exact_divergence(field: Field, t: Tensor, x: Tensor, mode: str = "auto", memory: int = 1 << 24) -> tuple[Tensor, Tensor]:
    """The field and its exact divergence (of eq. 31), by D vector-Jacobian products behind one forward pass.

    Args:
        mode: ``loop`` takes the products one by one. ``vmap`` takes them together, in pieces of at most ``memory`` numbers; the
            field's backward pass must allow vectorisation. ``auto`` takes the one that is faster on a CPU (:data:`VMAP_FROM`).

    Returns:
        v of shape (B, *) and div v of shape (B,).

    Raises:
        ValueError: another mode.
    """
    if mode not in ("auto", "loop", "vmap"):
        raise ValueError(f"mode must be auto, loop or vmap, not {mode!r}")
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        v = field(t, x)
        flat = v.flatten(1)
        batch, dimensions = flat.shape
        if not v.requires_grad:  # the field does not depend on x
            return v, torch.zeros(batch, dtype=x.dtype, device=x.device)
        if mode == "vmap" or (mode == "auto" and dimensions >= VMAP_FROM and flat.numel() <= VMAP_UP_TO):
            divergence = _products_together(flat, x, memory)
        else:
            divergence = _products_one_by_one(flat, x)
    return v.detach(), divergence.detach()


def _products_one_by_one(v: Tensor, x: Tensor) -> Tensor:
    """sum_i dv_i/dx_i of a field (B, D), one gradient for each dimension."""
    batch, dimensions = v.shape
    divergence = torch.zeros(batch, dtype=x.dtype, device=x.device)
    for i in range(dimensions):
        (row,) = torch.autograd.grad(v[:, i].sum(), x, retain_graph=i < dimensions - 1)
        divergence = divergence + row.flatten(1)[:, i]
    return divergence


def _products_together(v: Tensor, x: Tensor, memory: int) -> Tensor:
    """sum_i dv_i/dx_i of a field (B, D), by vectorised gradients in pieces of at most ``memory`` numbers."""
    batch, dimensions = v.shape
    divergence = torch.zeros(batch, dtype=x.dtype, device=x.device)
    at_once = max(1, memory // max(1, v.numel()))
    for first in range(0, dimensions, at_once):
        rows = torch.arange(first, min(first + at_once, dimensions), device=x.device)
        basis = torch.zeros(len(rows), batch, dimensions, dtype=x.dtype, device=x.device)
        basis[torch.arange(len(rows), device=x.device), :, rows] = 1
        last = first + at_once >= dimensions
        (jacobian,) = torch.autograd.grad(v, x, basis, retain_graph=not last, is_grads_batched=True)
        diagonal = jacobian.flatten(2)[torch.arange(len(rows), device=x.device), :, rows]
        divergence = divergence + diagonal.sum(0)
    return divergence


def hutchinson_divergence(field: Field, t: Tensor, x: Tensor, probes: Tensor, mode: str = "reverse") -> tuple[Tensor, Tensor]:
    """The field and Hutchinson's unbiased estimates z^T (Dv) z of its divergence, eq. 34-35, one for each probe.

    Args:
        probes: shape (K, B, *), with E[z z^T] = I.
        mode: ``reverse`` takes vector-Jacobian products behind one forward pass that all probes share. ``forward`` takes
            Jacobian-vector products, with one forward pass for each probe. It keeps nothing for a backward pass, so it needs less
            memory and more time (``benchmarks/divergence.py``); the field's operations must have forward-mode derivatives.

    Returns:
        v of shape (B, *) and the estimates of shape (K, B); their mean over K is the estimate to use.

    Raises:
        ValueError: another mode.
    """
    if mode == "forward":
        return _forward_mode(field, t, x, probes)
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


def _forward_mode(field: Field, t: Tensor, x: Tensor, probes: Tensor) -> tuple[Tensor, Tensor]:
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
