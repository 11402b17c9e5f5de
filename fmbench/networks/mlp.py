"""The network for points: the paper's 2-D experiments use an MLP of 5 layers of 512 (appendix E.2)."""

import torch
from torch import Tensor, nn

from fmbench.networks.embedding import SinusoidalEmbedding


class MLP(nn.Module):
    """``depth`` SiLU layers of ``width`` and a linear output, on the concatenation of x and t.

    Args:
        shape: (D,).
        time_embedding: ``raw`` takes t itself as one input, ``sinusoidal`` its embedding.
        time_dimension, max_frequency: of the sinusoidal embedding.

    Raises:
        ValueError: the shape is not (D,), width or depth is below 1, or the time embedding is unknown.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int = 512,
        depth: int = 5,
        time_embedding: str = "raw",
        time_dimension: int = 32,
        max_frequency: float = 60.0,
    ) -> None:
        super().__init__()
        if len(shape) != 1:
            raise ValueError(f"an MLP works on points of shape (D,), not on {shape}; take network kind 'unet' for images")
        if width < 1 or depth < 1:
            raise ValueError(f"width and depth must be at least 1, not {width} and {depth}")
        if time_embedding not in ("raw", "sinusoidal"):
            raise ValueError(f"time_embedding must be 'raw' or 'sinusoidal', not {time_embedding!r}")
        raw = time_embedding == "raw"
        self.embedding = None if raw else SinusoidalEmbedding(time_dimension, max_frequency)
        layers: list[nn.Module] = []
        inputs = shape[0] + (1 if raw else time_dimension)
        for _ in range(depth):
            layers += [nn.Linear(inputs, width), nn.SiLU()]
            inputs = width
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, shape[0]))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """Times (B,) and points (B, D) to a prediction (B, D)."""
        time = t[:, None] if self.embedding is None else self.embedding(t)
        out: Tensor = self.layers(torch.cat([x, time], 1))
        return out
