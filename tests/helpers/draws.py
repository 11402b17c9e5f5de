"""Normal numbers for tests of the mathematics."""

import torch
from torch import Tensor


def draw(seed: int, *shape: int) -> Tensor:
    """Standard normal numbers, float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
