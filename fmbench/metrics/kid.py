"""The kernel inception distance (Binkowski et al. 2018): MMD^2 of features with a polynomial kernel, unbiased at every n.

Like the name FID, the name KID is reserved for the features of InceptionV3. Published values are often in units of 1e-3.
"""

from typing import NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from fmbench.metrics.mmd import Kernel, as_points, unbiased_mmd


class KernelDistance(NamedTuple):
    """Mean and standard deviation (n - 1 in the denominator) over the subsets.

    The subsets share samples. So the deviation is that of one subset's estimate, not the standard error of the mean.
    """

    mean: float
    std: float
    subsets: int
    size: int


def polynomial_kernel(degree: int = 3, scale: float | None = None, offset: float = 1.0) -> Kernel:
    """k(x, y) = (scale x . y + offset)^degree, with scale 1 / D by default (Binkowski et al. 2018, sec. 4)."""

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T).mul_(1 / x.shape[1] if scale is None else scale).add_(offset).pow_(degree)

    return kernel


def kernel_distance(
    x: NDArray | Tensor,
    y: NDArray | Tensor,
    generator: torch.Generator,
    subsets: int = 100,
    size: int = 1000,
    kernel: Kernel | None = None,
) -> KernelDistance:
    """The distance over random subsets, as published: ``subsets`` times ``size`` of x (n, D) against ``size`` of y (m, D).

    Args:
        generator: draws the subsets (without replacement within one).
        kernel: by default, :func:`polynomial_kernel` of degree 3.

    Raises:
        ValueError: a subset is larger than a set, there are fewer than two subsets, or a feature is not finite.
    """
    x, y = as_points(x, 2), as_points(y, 2)
    if not 2 <= size <= min(len(x), len(y)):
        raise ValueError(f"subsets of {size} cannot be drawn from {len(x)} and {len(y)} features; lower their size")
    if subsets < 2:
        raise ValueError(f"{subsets} subsets have no spread; take at least 2")
    kernel = kernel or polynomial_kernel()
    found = torch.empty(subsets, dtype=torch.float64)
    for k in range(subsets):
        a, b = (z[torch.randperm(len(z), generator=generator)[:size].to(z.device)] for z in (x, y))
        found[k] = unbiased_mmd(a, b, kernel)
    return KernelDistance(float(found.mean()), float(found.std()), subsets, size)


def full_kernel_distance(x: NDArray | Tensor, y: NDArray | Tensor, kernel: Kernel | None = None, rows: int = 1024) -> float:
    """The distance from all pairs of x (n, D) and y (m, D): the unbiased estimate with the lowest variance.

    It takes n^2/2 + m^2/2 + n m products of features: seconds for 5,000 features of 2048 dimensions, minutes for 50,000.
    """
    return unbiased_mmd(x, y, kernel or polynomial_kernel(), rows)
