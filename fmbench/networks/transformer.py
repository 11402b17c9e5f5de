"""A plain transformer on the patches of images (Peebles & Xie 2023, *Scalable Diffusion Models with Transformers*, DiT).

Patches are the tokens, with fixed sine positions. Each block is attention and an MLP, and both are scaled, shifted and gated by
the time and the class (adaLN-zero): scales, shifts and gates are linear in an embedding and start at 0. So at first every block
is the identity and the network outputs 0. There is no convolution and no resampling.

Where this differs from DiT:

* **Time.** t enters by :class:`~fmbench.networks.embedding.SinusoidalEmbedding` with ``width`` features; DiT has 256.
* **Variances.** The output has the channels of the image; DiT also predicts variances.
* **Pixels.** It works on pixels and not on a latent space, as JiT does (Li & He 2025, *Back to Basics: Let Denoising Generative
  Models Denoise*).
* **Conditions.** A class is added to the time, as in DiT. An image is concatenated to the channels, as in the U-Net.
* **Initial weights** are Xavier's in the MLP of the time, too.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmbench.networks.conditions import told
from fmbench.networks.embedding import SinusoidalEmbedding, split_spans

MLP_RATIO = 4
"""The hidden width of an MLP over that of the tokens."""
EPSILON = 1e-6
"""Of the layer norms, as in DiT."""


class Block(nn.Module):
    """Attention and an MLP on tokens, each with a norm, scale, shift and gate that depend on an embedding.

    Args:
        width: of the tokens and of the embedding.
        heads: of the attention.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = nn.Linear(width, 6 * width)
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, MLP_RATIO * width), nn.GELU("tanh"), nn.Linear(MLP_RATIO * width, width))

    def forward(self, tokens: Tensor, embedding: Tensor) -> Tensor:
        """Tokens (B, N, width) and embeddings (B, width) to tokens (B, N, width)."""
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.modulation(embedding)[:, None].chunk(6, 2)
        tokens = tokens + gate * self.attention(modulated(tokens, shift, scale))
        out: Tensor = tokens + gate_mlp * self.mlp(modulated(tokens, shift_mlp, scale_mlp))
        return out

    def attention(self, tokens: Tensor) -> Tensor:
        """Multi-head self-attention over tokens (B, N, width)."""
        q, k, v = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        out: Tensor = self.projection(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return out


class Transformer(nn.Module):
    """The transformer.

    Args:
        shape: (C, H, W).
        patch: side of a square patch in pixels; it must divide H and W. Half the patch makes four times the tokens.
        width: of the tokens; divisible by 4 and by the heads.
        depth: number of blocks.
        heads: of the attention.
        max_frequency: top frequency of the time embedding, radians per unit of t.
        condition_channels: channels of an image as the condition, behind those of the image; 0 for none.
        condition_classes: classes of a label as the condition; the number after the last says that it is not told. 0 for none.
        spans: whether times may be (B, 2), with the span to a later time (:mod:`fmbench.flow.mean_velocity`). It is embedded as
            the time is.

    Raises:
        ValueError: the shape is not (C, H, W) or does not divide into patches, the width does not divide, or there are two
            conditions.
    """

    positions: Tensor

    # Many parameters: a config's ``network`` section is passed on by name.
    def __init__(
        self,
        shape: tuple[int, ...],
        patch: int = 2,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        max_frequency: float = 1000.0,
        condition_channels: int = 0,
        condition_classes: int = 0,
        spans: bool = False,
    ) -> None:
        super().__init__()
        _check(shape, patch, width, heads)
        if condition_channels and condition_classes:
            raise ValueError("a transformer takes an image or a class as its condition, not both")
        colours, height, width_in_pixels = shape
        self.patch, self.condition_channels = patch, condition_channels
        self.shape = shape
        self.head = nn.Linear((colours + condition_channels) * patch**2, width)
        self.register_buffer("positions", sine_positions(height // patch, width_in_pixels // patch, width), persistent=False)
        self.time = _embedding(width, max_frequency)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(depth)])
        self.modulation = nn.Linear(width, 2 * width)
        self.tail = nn.Linear(width, colours * patch**2)
        self._initialise()
        # Last, so that the initial weights of the rest are those without a condition, and without a span.
        self.label = nn.Embedding(condition_classes + 1, width) if condition_classes else None
        if self.label is not None:
            nn.init.normal_(self.label.weight, std=0.02)
        self.span = _embedding(width, max_frequency) if spans else None

    def _initialise(self) -> None:
        """Set the initial weights: Xavier's uniform ones, and 0 for biases, modulations and the last layer."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for layer in (self.tail, self.modulation, *(m for name, m in self.blocks.named_modules() if name.endswith("modulation"))):
            assert isinstance(layer, nn.Linear)
            nn.init.zeros_(layer.weight)

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Times (B,) or with their spans (B, 2), images (B, C, H, W) and a condition to a prediction (B, C, H, W).

        Args:
            condition: an image (B, condition_channels, H, W), or class numbers, int64 (B,); as the network was built for.

        Raises:
            ValueError: the images have another shape than the network's, or the condition is missing, of another shape, or not
                one that the network was built for.
        """
        if tuple(x.shape[1:]) != tuple(self.shape):
            raise ValueError(f"this network takes images of shape {tuple(self.shape)}, not {tuple(x.shape[1:])}")
        t, span = split_spans(t, self.span is not None)
        x, more = told(x, condition, self.condition_channels, self.label)
        more += [] if self.span is None else [self.span(span)]
        embedding = F.silu(sum(more, self.time(t)))
        tokens = self.head(patches(x, self.patch)) + self.positions
        for block in self.blocks:
            tokens = block(tokens, embedding)
        shift, scale = self.modulation(embedding)[:, None].chunk(2, 2)
        return images(self.tail(modulated(tokens, shift, scale)), self.patch, self.shape)


def _embedding(width: int, max_frequency: float) -> nn.Sequential:
    """The embedding of times (B,) to (B, width)."""
    return nn.Sequential(SinusoidalEmbedding(width, max_frequency), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))


def patches(x: Tensor, patch: int) -> Tensor:
    """The patches of images (B, C, H, W), row by row: (B, H W / patch^2, C patch^2)."""
    b, c, height, width = x.shape
    split = x.reshape(b, c, height // patch, patch, width // patch, patch)
    return split.permute(0, 2, 4, 1, 3, 5).reshape(b, -1, c * patch**2)


def images(tokens: Tensor, patch: int, shape: tuple[int, ...]) -> Tensor:
    """The images (B, C, H, W) of their patches: the inverse of :func:`patches`."""
    c, height, width = shape
    split = tokens.unflatten(2, (c, patch, patch)).unflatten(1, (height // patch, width // patch))
    return split.permute(0, 3, 1, 4, 2, 5).reshape(-1, c, height, width)


def modulated(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """The layer norm of tokens (B, N, width), without weights of its own, times 1 + ``scale`` plus ``shift``, (B, 1, width)."""
    return torch.addcmul(shift, F.layer_norm(tokens, tokens.shape[-1:], eps=EPSILON), 1 + scale)


def sine_positions(rows: int, columns: int, width: int) -> Tensor:
    """Positions (rows * columns, width), row by row: half the features for the row and half for the column, sines and cosines.

    The i-th of h frequencies is 1 / 10000^(i/h) radians per patch (Vaswani et al. 2017).
    """
    frequencies = torch.exp(-math.log(10_000) * torch.arange(width // 4, dtype=torch.float64) / (width // 4))

    def along(n: int) -> Tensor:
        angles = torch.arange(n, dtype=torch.float64)[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], 1)

    of_row, of_column = along(rows)[:, None].expand(-1, columns, -1), along(columns)[None].expand(rows, -1, -1)
    return torch.cat([of_row, of_column], 2).flatten(0, 1).float()


def _check(shape: tuple[int, ...], patch: int, width: int, heads: int) -> None:
    if len(shape) != 3:
        raise ValueError(f"a transformer works on images of shape (C, H, W), not on {shape}; take network kind 'mlp' for points")
    if patch < 1 or shape[1] % patch or shape[2] % patch:
        fit = [str(p) for p in range(1, min(shape[1:]) + 1) if shape[1] % p == shape[2] % p == 0]
        raise ValueError(f"{shape[1]} x {shape[2]} pixels do not divide into patches of {patch}; take patch {' or '.join(fit)}")
    if width < 4 or width % 4 or heads < 1 or width % heads:
        raise ValueError(f"the width of a transformer must be divisible by 4 and by its heads, which {width} and {heads} are not")
