"""Self-attention over the pixels of an image."""

import torch.nn.functional as F
from torch import Tensor, nn

from fmbench.networks.layers import fuses, zeroed
from fmbench.networks.norms import group_norm


class AttentionBlock(nn.Module):
    """Multi-head self-attention over pixels with a residual connection.

    Raises:
        ValueError: the channels do not divide into heads of ``head_channels``. A block with fewer channels has one head.
    """

    def __init__(self, channels: int, head_channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // head_channels)
        if channels > head_channels and channels % head_channels:
            raise ValueError(
                f"{channels} channels do not divide into heads of {head_channels}; take head_channels that divides the channels "
                "of every level with attention, and of the middle"
            )
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) plus their attention, of the same shape."""
        return self.of_tokens(x) if fuses(x) else self.of_images(x)

    def of_images(self, x: Tensor) -> Tensor:
        """The block by 1x1 convolutions on images (B, C, H, W)."""
        b, c, height, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, height * width)
        q, k, v = qkv.transpose(-1, -2).unbind(1)
        h = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape(b, c, height, width)
        out: Tensor = x + self.out(h)
        return out

    def of_tokens(self, x: Tensor) -> Tensor:
        """:meth:`of_images` by products with pixels as rows (B, H W, C), the order in memory if channels lie last."""
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        qkv = F.linear(tokens, self.qkv.weight.flatten(1), self.qkv.bias)
        q, k, v = qkv.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        out = F.linear(h, self.out.weight.flatten(1), self.out.bias)
        return x + out.transpose(1, 2).unflatten(2, x.shape[2:])
