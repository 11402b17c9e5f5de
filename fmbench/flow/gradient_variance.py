"""The variance of a minibatch gradient, for comparing losses that have the same expected gradient (Theorem 2)."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor


def gradient_variance(loss: Callable[..., Tensor], parameters: Sequence[Tensor], batches: Iterable[Sequence[Tensor]]) -> float:
    """E |g - E g|^2 of the gradient g of a batch's mean loss: the trace of its covariance, summed over all parameters.

    This is the unbiased estimate from the gradients of M batches, sum |g_m - mean|^2 / (M - 1), in float64.

    Args:
        loss: from the tensors of a batch to the losses of its samples (B,).
        parameters: with ``requires_grad``; their ``grad`` is not touched.
        batches: two or more, drawn independently.

    Raises:
        ValueError: there are fewer than two batches.
    """
    mean, squares, count = [torch.zeros_like(p, dtype=torch.float64) for p in parameters], 0.0, 0
    for batch in batches:
        count += 1
        gradients = torch.autograd.grad(loss(*batch).mean(), list(parameters), allow_unused=True)
        for m, gradient in zip(mean, gradients, strict=True):
            if gradient is None:  # of a parameter that the loss does not depend on
                continue
            off = gradient.double() - m  # Welford's update
            m += off / count
            squares += float((off * (gradient.double() - m)).sum())
    if count < 2:
        raise ValueError(f"a variance needs at least two batches, not {count}")
    return squares / (count - 1)
