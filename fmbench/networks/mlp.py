"""The network for points: the paper's 2-D experiments use an MLP of 5 layers of 512 (appendix E.2)."""

import torch
from torch import Tensor, nn

from fmbench.networks.conditions import told
from fmbench.networks.embedding import SinusoidalEmbedding, split_spans


class MLP(nn.Module):
    """``depth`` SiLU layers of ``width`` and a linear output, on the concatenation of x and t.

    Args:
        shape: (D,).
        time_embedding: ``raw`` takes t itself as one input, ``sinusoidal`` its embedding.
        time_dimension, max_frequency: of the sinusoidal embedding.
        condition_classes: classes of a label as the condition; the number after the last says that it is not told. 0 for none.
            The embedding of a class is added to the first layer, as if the class were further inputs.
        spans: whether times may be (B, 2), with the span to a later time (:mod:`fmbench.flow.mean_velocity`) as a further input.

    Raises:
        ValueError: the shape is not (D,), width or depth is below 1, or the time embedding is unknown.
    """

    # Many parameters: a config's ``network`` section is passed on by name.
    def __init__(
        self,
        shape: tuple[int, ...],
        width: int = 512,
        depth: int = 5,
        time_embedding: str = "raw",
        time_dimension: int = 32,
        max_frequency: float = 60.0,
        condition_classes: int = 0,
        spans: bool = False,
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
        # Last, so that the initial weights of the rest are those without a condition, and without a span.
        self.label = nn.Embedding(condition_classes + 1, width) if condition_classes else None
        self.span = nn.Linear(1 if raw else time_dimension, width, bias=False) if spans else None

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Times (B,) or with spans (B, 2), points (B, D) and, if it was built for it, class numbers (B,) to a prediction (B, D).

        Raises:
            ValueError: the class numbers are missing, of another shape, or not what the network was built for.
        """
        t, span = split_spans(t, self.span is not None)
        x, more = told(x, condition, 0, self.label)
        inputs = torch.cat([x, self._embedded(t)], 1)
        more += [] if self.span is None else [self.span(self._embedded(span))]
        out: Tensor = self.layers[1:](sum(more, self.layers[0](inputs))) if more else self.layers(inputs)
        return out

    def _embedded(self, t: Tensor) -> Tensor:
        return t[:, None] if self.embedding is None else self.embedding(t)
