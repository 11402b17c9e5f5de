"""Density and coverage (Naeem et al. 2020): precision and recall that one outlier cannot spoil.

A ball around each real feature reaches to its k-th nearest other real feature. Density is the mean number of balls that hold a
generated feature, over k: about 1 for real data, and more than 1 where samples crowd in dense regions. Coverage is the fraction
of balls that hold a generated feature. Both depend on n and k, so compare only values at equal n and k.
"""

from typing import NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from fmbench.metrics.neighbours import as_pair, blocks, rounding, squared_radii, squares


class DensityCoverage(NamedTuple):
    """Density is at least 0; coverage is in [0, 1]."""

    density: float
    coverage: float


def density_coverage(real: NDArray | Tensor, generated: NDArray | Tensor, k: int = 5) -> DensityCoverage:
    """Density and coverage of generated features (m, D) against real features (n, D), n > k, m >= 1, in float64.

    Borders of balls count as inside, as in :func:`~fmbench.metrics.precision_recall.precision_recall`.

    Raises:
        ValueError: k < 1, there are k or fewer real features or no generated ones, the dimensions differ, or a feature is not
            finite.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    x, y = as_pair(real, generated)
    if len(x) <= k:
        raise ValueError(f"{len(x)} real features have no {k}-th nearest other one; give more features or a smaller k")
    radii = squared_radii(x, k) + rounding(x, y)
    held, closest = 0, torch.full_like(radii, torch.inf)
    for _, rows in blocks(y, len(x)):
        found = squares(rows, x)
        held += int((found <= radii).sum())
        closest = torch.minimum(closest, found.amin(0))
    return DensityCoverage(held / (k * len(y)), float((closest <= radii).double().mean()))
