"""The divergence of a field, exact or by Hutchinson's estimator.

Both return the field too. Where gradients are enabled, field and divergence have derivatives by x and by the parameters of the
field, if these require a gradient. That keeps the graph of the products, so wrap a mere evaluation in ``torch.no_grad()``.
"""

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from fmbench.flow.broadcast import check_alike, check_shape
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
        ValueError: another mode, or a field of another shape, type or device than x.
    """
    if mode not in ("auto", "loop", "vmap"):
        raise ValueError(f"mode must be auto, loop or vmap, not {mode!r}")
    wanted = torch.is_grad_enabled()
    with torch.enable_grad():
        x = _with_gradient(x, wanted)
        v = field(t, x)
        check_alike("the velocity", v, x)
        flat = v.flatten(1)
        batch, dimensions = flat.shape
        if not v.requires_grad:  # the field does not depend on x
            return v, torch.zeros(batch, dtype=x.dtype, device=x.device)
        again = wanted and _depends_on_others(v, x)
        if mode == "vmap" or (mode == "auto" and dimensions >= VMAP_FROM and flat.numel() <= VMAP_UP_TO):
            divergence = _products_together(flat, x, memory, again)
        else:
            divergence = _products_one_by_one(flat, x, again)
    return (v, divergence) if again else (v.detach(), divergence.detach())


def _with_gradient(x: Tensor, wanted: bool) -> Tensor:
    """``x`` itself if derivatives of the result by it are wanted, else a leaf of its own."""
    return x if wanted and x.requires_grad else x.detach().requires_grad_()


def _depends_on_others(v: Tensor, x: Tensor) -> bool:
    """Whether v depends on tensors with a gradient besides the leaf x, such as parameters of a network, or x is no such leaf."""
    if not x.is_leaf or v.is_leaf:
        return v is not x
    seen, ahead = set(), [v.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if getattr(node, "variable", x) is not x:
            return True
        ahead += [following for following, _ in node.next_functions]
    return False


def _gradient(v: Tensor, x: Tensor, cotangents: Tensor | None, keep: bool, again: bool, together: bool = False) -> Tensor:
    """The vector-Jacobian product of v by x; zeros where v does not depend on x. ``again``: it can be differentiated."""
    (product,) = torch.autograd.grad(
        v, x, cotangents, retain_graph=keep or again, create_graph=again, allow_unused=True, is_grads_batched=together
    )
    if product is None:
        return x.new_zeros(*(cotangents.shape[:1] if together and cotangents is not None else ()), *x.shape)
    return product


def _products_one_by_one(v: Tensor, x: Tensor, again: bool) -> Tensor:
    """sum_i dv_i/dx_i of a field (B, D), one gradient for each dimension."""
    batch, dimensions = v.shape
    divergence = torch.zeros(batch, dtype=x.dtype, device=x.device)
    for i in range(dimensions):
        row = _gradient(v[:, i].sum(), x, None, i < dimensions - 1, again)
        divergence = divergence + row.flatten(1)[:, i]
    return divergence


def _products_together(v: Tensor, x: Tensor, memory: int, again: bool) -> Tensor:
    """sum_i dv_i/dx_i of a field (B, D), by vectorised gradients in pieces of at most ``memory`` numbers."""
    batch, dimensions = v.shape
    divergence = torch.zeros(batch, dtype=x.dtype, device=x.device)
    at_once = max(1, memory // max(1, v.numel()))
    for first in range(0, dimensions, at_once):
        rows = torch.arange(first, min(first + at_once, dimensions), device=x.device)
        basis = torch.zeros(len(rows), batch, dimensions, dtype=x.dtype, device=x.device)
        basis[torch.arange(len(rows), device=x.device), :, rows] = 1
        last = first + at_once >= dimensions
        jacobian = _gradient(v, x, basis, not last, again, together=True)
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
        ValueError: another mode, probes of another shape, or a field of another shape, type or device than x.
    """
    check_shape("probes", probes, (len(probes), *x.shape))
    if mode == "forward":
        return _forward_mode(field, t, x, probes)
    if mode != "reverse":
        raise ValueError(f"mode must be reverse or forward, not {mode!r}")
    wanted = torch.is_grad_enabled()
    with torch.enable_grad():
        x = _with_gradient(x, wanted)
        v = field(t, x)
        check_alike("the velocity", v, x)
        if not v.requires_grad:  # the field does not depend on x
            return v, torch.zeros(len(probes), x.shape[0], dtype=x.dtype, device=x.device)
        again = wanted and _depends_on_others(v, x)
        estimates = []
        for k, z in enumerate(probes):
            vjp = _gradient(v, x, z, k < len(probes) - 1, again)
            estimates.append((vjp * z).flatten(1).sum(1))
    divergences = torch.stack(estimates)
    return (v, divergences) if again else (v.detach(), divergences.detach())


def _forward_mode(field: Field, t: Tensor, x: Tensor, probes: Tensor) -> tuple[Tensor, Tensor]:
    estimates, v = [], x
    # The fused attention kernels have no forward-mode derivative.
    with sdpa_kernel(SDPBackend.MATH):
        for z in probes:
            with forward_ad.dual_level():
                v, tangent = forward_ad.unpack_dual(field(t, forward_ad.make_dual(x, z.to(x))))
                check_alike("the velocity", v, x)
                if tangent is None:  # the field does not depend on x
                    tangent = torch.zeros_like(v)
            estimates.append((tangent * z).flatten(1).sum(1))
    return v, torch.stack(estimates)
