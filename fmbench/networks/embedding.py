"""The embedding of times t in [0, 1] for networks."""

import math

import torch
from torch import Tensor, nn


class SinusoidalEmbedding(nn.Module):
    """cos and sin of t times geometric frequencies, from ``max_frequency`` down towards ``max_frequency / 10000``.

    The i-th of h frequencies is max_frequency / 10000^(i/h), as in ADM, so the last one is 10000^(1/h) times the limit.

    Args:
        dimension: number of features, even.
        max_frequency: in radians per unit of t. ADM's embedding of 1000 t has the value 1000. On small networks such a high
            frequency makes the field rough in t, which costs several times the NFE at the same likelihood.

    Raises:
        ValueError: an odd or too small dimension, or a frequency that is not positive.
    """

    frequencies: Tensor

    def __init__(self, dimension: int, max_frequency: float) -> None:
        super().__init__()
        if dimension < 2 or dimension % 2:
            raise ValueError(f"an embedding needs an even dimension of at least 2, not {dimension}")
        if max_frequency <= 0:
            raise ValueError(f"max_frequency must be positive, not {max_frequency}")
        half = dimension // 2
        exponents = torch.arange(half, dtype=torch.float64) / half
        frequencies = max_frequency * torch.exp(-math.log(10_000) * exponents)
        self.register_buffer("frequencies", frequencies.float(), persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        """Times (B,) to features (B, dimension)."""
        angles = t[:, None] * self.frequencies
        return torch.cat([angles.cos(), angles.sin()], 1)


def split_spans(t: Tensor, spans: bool) -> tuple[Tensor, Tensor]:
    """Times and spans, each (B,), of what a network is given as its time: (B,), where spans are 0, or (B, 2).

    Raises:
        ValueError: there are spans, and the network was built without them.
    """
    if t.ndim == 1:
        return t, torch.zeros_like(t) if spans else t  # a network without spans has no use for zeros
    if not spans:
        raise ValueError(f"this network takes times of shape (B,), not {tuple(t.shape)}; build it with spans=True")
    return t[:, 0], t[:, 1]
