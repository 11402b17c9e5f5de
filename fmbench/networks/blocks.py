"""The blocks of the U-Net: a residual block, resampling by a convolution, and a block followed by attention."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmbench.networks.layers import upsampled, zeroed
from fmbench.networks.norms import group_norm


class ResidualBlock(nn.Module):
    """norm, SiLU, (resample,) conv, norm scaled and shifted by the time embedding, SiLU, conv, plus the skip.

    Args:
        resample: ``None``, ``"down"`` (2x2 average) or ``"up"`` (nearest), on both branches.
    """

    def __init__(
        self, channels: int, out_channels: int, embedding: int, dropout: float = 0.0, resample: str | None = None
    ) -> None:
        super().__init__()
        self.resample = resample
        self.norm_in = group_norm(channels)
        self.conv_in = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * out_channels)
        self.norm_out = group_norm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Images (B, channels, H, W) and embeddings (B, E) to images (B, out_channels, H', W')."""
        h = F.silu(self.norm_in(x))
        if self.resample == "down":
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        elif self.resample == "up":
            h, x = upsampled(h), upsampled(x)
        h = self.conv_in(h)
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, 1)
        h = F.silu(torch.addcmul(shift, self.norm_out(h), 1 + scale))
        out: Tensor = self.skip(x) + self.conv_out(self.dropout(h))
        return out


class Resample(nn.Module):
    """Resampling by a plain convolution: stride 2 down, nearest then 3x3 up. The embedding is not used."""

    def __init__(self, channels: int, direction: str) -> None:
        super().__init__()
        self.direction = direction
        self.conv = nn.Conv2d(channels, channels, 3, stride=2 if direction == "down" else 1, padding=1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        out: Tensor = self.conv(upsampled(x) if self.direction == "up" else x)
        return out


class BlockWithAttention(nn.Module):
    """A residual block or a resampling and, at the resolutions that have it, attention."""

    def __init__(self, block: ResidualBlock | Resample, attention: nn.Module | None) -> None:
        super().__init__()
        self.block, self.attention = block, attention
        self.resamples = isinstance(block, Resample) or block.resample is not None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        out: Tensor = self.block(x, embedding)
        return out if self.attention is None else self.attention(out)
