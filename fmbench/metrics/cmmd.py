"""CMMD (Jayasumana et al. 2024, *Rethinking FID*): 1000 times the MMD^2 of CLIP's features, by a Gaussian kernel."""

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fmbench.metrics.mmd import as_points, unbiased_mmd

BANDWIDTH, SCALE = 10.0, 1000.0


def cmmd(x: NDArray | Tensor, y: NDArray | Tensor) -> float:
    """1000 MMD^2 of features x (n, D) and y (m, D), n, m >= 2, with k(x, y) = exp(-|x - y|^2 / (2 10^2)); unbiased.

    The authors' code also counts the pairs of a feature with itself. Their value is larger, by at most 20 (1 / n + 1 / m).

    Raises:
        ValueError: there are fewer than two points in a set, the dimensions differ, or a value is not finite.
    """
    # Of length 1: |x - y|^2 = 2 - 2 x y without a loss of digits.
    return SCALE * unbiased_mmd(F.normalize(as_points(x, 2), dim=1), F.normalize(as_points(y, 2), dim=1), _kernel)


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return torch.exp_((x @ y.T).sub_(1).div_(BANDWIDTH**2))
