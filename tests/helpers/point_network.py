"""A network on points for tests of losses."""

import torch
from torch import Tensor


def network(t: Tensor, x: Tensor) -> Tensor:
    """A smooth function that is different in every argument and place."""
    t = t.reshape(-1, *([1] * (x.ndim - 1)))
    return torch.sin(2 * x) + (1 + t) * x.flip(-1) - t**2
