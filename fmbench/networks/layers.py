"""The elementary operations of the U-Net on images, some with a second form to be compiled for a GPU."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def fuses(x: Tensor) -> bool:
    """Whether the network is being compiled for a GPU, where elementary operations fuse.

    Where this is true the U-Net takes the form that fuses best; elsewhere it takes the form that is fastest when every operation
    runs on its own. Both forms are the same function. All forms keep channels last, forwards and backwards, as convolutions want
    them. None of them adds up by atomics, whose order varies.
    """
    return torch.compiler.is_compiling() and x.is_cuda


def upsampled(x: Tensor) -> Tensor:
    """Images (B, C, H, W) at twice the size, each pixel four times."""
    return repeated(x) if fuses(x) else F.interpolate(x, scale_factor=2.0)


def repeated(x: Tensor) -> Tensor:
    """:func:`upsampled` by expansion, so that its gradient is a sum."""
    b, c, height, width = x.shape
    pixels = x.permute(0, 2, 3, 1)[:, :, None, :, None].expand(b, height, 2, width, 2, c)
    return pixels.reshape(b, 2 * height, 2 * width, c).permute(0, 3, 1, 2)


def concatenated(x: Tensor, skip: Tensor) -> Tensor:
    """The channels of ``x`` followed by those of ``skip``, both of shape (B, *, H, W)."""
    if fuses(x):
        out: Tensor = Concatenation.apply(x, skip)
        return out
    return torch.cat([x, skip], 1)


class Concatenation(torch.autograd.Function):
    """:func:`concatenated` with gradients that are whole tensors. Slices of one tensor would be copied by each convolution."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, skip: Tensor) -> Tensor:
        ctx.channels = x.shape[1]
        return torch.cat([x, skip], 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        parts = gradient[:, : ctx.channels], gradient[:, ctx.channels :]
        return parts[0].contiguous(memory_format=torch.channels_last), parts[1].contiguous(memory_format=torch.channels_last)


def zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with weights and bias set to 0."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
