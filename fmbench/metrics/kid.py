"""The kernel inception distance (Binkowski et al. 2018): MMD^2 of features with a polynomial kernel, unbiased at every n.

Like the name FID, the name KID is reserved for the features of InceptionV3. Published values are often in units of 1e-3.
"""

from typing import NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from fmbench.metrics.mmd import as_points, unbiased_mmd


class KernelDistance(NamedTuple):
    """Mean and standard deviation (n - 1 in the denominator) over the subsets.

    The subsets share samples. So the deviation is that of one subset's estimate, not the standard error of the mean.
    """

    mean: float
    std: float
    subsets: int
    size: int


def cubic_kernel(x: Tensor, y: Tensor) -> Tensor:
    """k(x, y) = (x . y / D + 1)^3 (Binkowski et al. 2018, sec. 4)."""
    return (x @ y.T).mul_(1 / x.shape[1]).add_(1).pow_(3)


def kernel_distance(
    x: NDArray | Tensor,
    y: NDArray | Tensor,
    generator: torch.Generator,
    subsets: int = 100,
    size: int = 1000,
) -> KernelDistance:
    """The distance over random subsets, as published: ``subsets`` times ``size`` of x (n, D) against ``size`` of y (m, D).

    Args:
        generator: draws the subsets (without replacement within one).

    Raises:
        ValueError: a subset is larger than a set, there are fewer than two subsets, or a feature is not finite.
    """
    x, y = as_points(x, 2), as_points(y, 2)
    if not 2 <= size <= min(len(x), len(y)):
        raise ValueError(f"subsets of {size} cannot be drawn from {len(x)} and {len(y)} features; lower their size")
    if subsets < 2:
        raise ValueError(f"{subsets} subsets have no spread; take at least 2")
    found = torch.empty(subsets, dtype=torch.float64)
    for k in range(subsets):
        a, b = (z[torch.randperm(len(z), generator=generator)[:size].to(z.device)] for z in (x, y))
        found[k] = unbiased_mmd(a, b, cubic_kernel)
    return KernelDistance(float(found.mean()), float(found.std()), subsets, size)
