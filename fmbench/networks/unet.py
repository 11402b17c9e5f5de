"""The ADM U-Net (Dhariwal & Nichol 2021, *Diffusion models beat GANs on image synthesis*, section 3), for images.

Residual blocks of GroupNorm, SiLU and 3x3 convolution, with the time embedding as scale and shift of the second norm;
self-attention at chosen resolutions. The last layer of every residual branch starts at zero, so at first every block is its skip
and the network outputs 0.

The flow-matching paper says "minimal changes" and gives Table 3. It leaves these choices open:

* **Heads.** Table 3 has 4 heads and heads of 64 channels, which agree at 256 channels only. Here the 64 channels of a head
  decide, as in ADM's own settings when both are given, so the number of heads grows with the channels.
* **Attention** follows each residual block, down and up, at the chosen heights. The middle always has it, between its blocks.
* **Resampling** is by residual blocks, as in ADM's large models (its ``resblock_updown``), or by plain convolutions. The paper
  does not say which. With plain convolutions, which the presets of the paper's settings take, Table 3 gives 153.09 M (CIFAR-10),
  209.98 M (ImageNet-32), 276.42 M (ImageNet-64) and 507.32 M parameters (ImageNet-128); with residual blocks 171.27 M, 228.15 M,
  295.13 M and 542.80 M.
* **Time embedding.** Scale and shift of the second norm (ADM's ``use_scale_shift_norm``) come from an MLP of four times the base
  channels. t enters by :class:`~fmbench.networks.embedding.SinusoidalEmbedding`; its top frequency is a setting.
* **GroupNorm** has 32 groups, or fewer where channels are few: at least 4 channels a group, so from 128 channels on it is ADM's.
* **Initial weights** are torch's, but the last layer of every residual branch, of every attention and of the network starts at 0.
* **Conditions.** All networks of the paper but the one for super-resolution are unconditional. An image, upsampled to the size of
  the sample, is concatenated to its channels; a class has an embedding, which is added to that of the time as in ADM.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from fmbench.networks.attention import AttentionBlock
from fmbench.networks.blocks import BlockWithAttention, Resample, ResidualBlock
from fmbench.networks.conditions import told
from fmbench.networks.embedding import SinusoidalEmbedding, split_spans
from fmbench.networks.layers import concatenated, zeroed
from fmbench.networks.norms import group_norm


@dataclass(frozen=True)
class BlockFactory:
    """Builds the blocks of one U-Net from its settings; ``embedding`` is the width of the time embedding."""

    embedding: int
    dropout: float
    head_channels: int
    attention_resolutions: Sequence[int]
    resample_blocks: bool

    def residual(self, inputs: int, outputs: int, resolution: int) -> BlockWithAttention:
        """A residual block, with attention if ``resolution`` is one that has it."""
        block = ResidualBlock(inputs, outputs, self.embedding, self.dropout)
        return BlockWithAttention(block, self.attention(outputs) if resolution in self.attention_resolutions else None)

    def resampling(self, channels: int, direction: str) -> BlockWithAttention:
        """Down- or upsampling by 2."""
        if self.resample_blocks:
            return BlockWithAttention(ResidualBlock(channels, channels, self.embedding, self.dropout, direction), None)
        return BlockWithAttention(Resample(channels, direction), None)

    def middle(self, channels: int) -> nn.ModuleList:
        """The blocks at the lowest resolution: residual, attention, residual."""
        first = BlockWithAttention(ResidualBlock(channels, channels, self.embedding, self.dropout), self.attention(channels))
        return nn.ModuleList([first, BlockWithAttention(ResidualBlock(channels, channels, self.embedding, self.dropout), None)])

    def attention(self, channels: int) -> AttentionBlock:
        """Self-attention over ``channels`` channels."""
        return AttentionBlock(channels, self.head_channels)


class UNet(nn.Module):
    """The ADM U-Net.

    Args:
        shape: (C, H, W); H and W must be divisible by 2^(levels - 1).
        channels: base channels.
        channels_multiple: channels of each level as a multiple of the base; each further level halves the resolution.
        depth: residual blocks of a level on the way down; there is one more on the way up.
        attention_resolutions: heights at which attention follows each residual block; the middle always has it.
        head_channels: channels of an attention head; fewer channels than that are one head.
        dropout: inside residual blocks.
        resample_blocks: resample by residual blocks (ADM) rather than by plain convolutions.
        max_frequency: top frequency of the time embedding, radians per unit of t (ADM's own: 1000).
        condition_channels: channels of an image as the condition, behind those of the image; 0 for none.
        condition_classes: classes of a label as the condition; the number after the last says that it is not told. 0 for none.
        spans: whether times may be (B, 2), with the span to a later time (:mod:`fmbench.flow.mean_velocity`). It is embedded as
            the time is.

    Raises:
        ValueError: the shape is not (C, H, W) or cannot be halved often enough, ``condition_channels`` is negative, there are two
            conditions, or the channels do not divide into heads.
    """

    # Many parameters: a config's ``network`` section is passed on by name.
    def __init__(
        self,
        shape: tuple[int, ...],
        channels: int = 128,
        channels_multiple: Sequence[int] = (1, 2, 2, 2),
        depth: int = 2,
        attention_resolutions: Sequence[int] = (16,),
        head_channels: int = 64,
        dropout: float = 0.0,
        resample_blocks: bool = True,
        max_frequency: float = 1000.0,
        condition_channels: int = 0,
        condition_classes: int = 0,
        spans: bool = False,
    ) -> None:
        super().__init__()
        if condition_channels < 0:
            raise ValueError(f"condition_channels must be at least 0, not {condition_channels}")
        if condition_channels and condition_classes:
            raise ValueError("a U-Net takes an image or a class as its condition, not both")
        _check_shape(shape, levels=len(channels_multiple))
        embedding = 4 * channels
        self.time = _embedding(channels, embedding, max_frequency)
        colours, height, _ = shape
        self.condition_channels = condition_channels
        self.head = nn.Conv2d(colours + condition_channels, channels, 3, padding=1)
        blocks = BlockFactory(embedding, dropout, head_channels, attention_resolutions, resample_blocks)
        widths = [channels * multiple for multiple in channels_multiple]
        self.down, skips = _down(blocks, channels, widths, depth, height)
        self.middle = blocks.middle(skips[-1])
        self.up = _up(blocks, skips, widths, depth, height)
        self.tail = nn.Sequential(group_norm(widths[0]), nn.SiLU(), zeroed(nn.Conv2d(widths[0], colours, 3, padding=1)))
        # Last, so that the initial weights of the rest are those without a condition, and without a span.
        self.label = nn.Embedding(condition_classes + 1, embedding) if condition_classes else None
        self.span = _embedding(channels, embedding, max_frequency)[:-1] if spans else None

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Times (B,) or with their spans (B, 2), images (B, C, H, W) and a condition to a prediction (B, C, H, W).

        Args:
            condition: an image (B, condition_channels, H, W), or class numbers, int64 (B,); as the network was built for.

        Raises:
            ValueError: the condition is missing, of another shape, or not one that the network was built for.
        """
        t, span = split_spans(t, self.span is not None)
        x, more = told(x, condition, self.condition_channels, self.label)
        more += [] if self.span is None else [self.span(span)]
        embedding = F.silu(sum(more, self.time[:-1](t))) if more else self.time(t)
        h = self.head(x)
        skips = [h]
        for block in self.down:
            h = block(h, embedding)
            skips.append(h)
        for block in self.middle:
            h = block(h, embedding)
        for block in self.up:
            h = block(h if block.resamples else concatenated(h, skips.pop()), embedding)
        out: Tensor = self.tail(h)
        return out


def _embedding(channels: int, width: int, max_frequency: float) -> nn.Sequential:
    """The embedding of times (B,) to (B, width), with a nonlinearity at its end."""
    return nn.Sequential(
        SinusoidalEmbedding(channels, max_frequency),
        nn.Linear(channels, width),
        nn.SiLU(),
        nn.Linear(width, width),
        nn.SiLU(),
    )


def _check_shape(shape: tuple[int, ...], levels: int) -> None:
    if len(shape) != 3:
        raise ValueError(f"a U-Net works on images of shape (C, H, W), not on {shape}; take network kind 'mlp' for points")
    _, height, width = shape
    factor = 2 ** (levels - 1)
    if height % factor or width % factor:
        raise ValueError(
            f"{levels} levels halve the image {levels - 1} times, "
            f"so height and width must be divisible by {factor}, not {height} x {width}"
        )


def _down(blocks: BlockFactory, channels: int, widths: list[int], depth: int, resolution: int) -> tuple[nn.ModuleList, list[int]]:
    """The way down from ``channels``, and the channels of every skip: one of the head and one of each block."""
    down, skips = nn.ModuleList(), [channels]
    for level, width in enumerate(widths):
        for _ in range(depth):
            down.append(blocks.residual(skips[-1], width, resolution))
            skips.append(width)
        if level < len(widths) - 1:
            down.append(blocks.resampling(skips[-1], "down"))
            skips.append(skips[-1])
            resolution //= 2
    return down, skips


def _up(blocks: BlockFactory, skips: list[int], widths: list[int], depth: int, height: int) -> nn.ModuleList:
    """The way up from the last level; every residual block takes the last skip that is left."""
    up, left, channels = nn.ModuleList(), list(skips), skips[-1]
    for level, width in reversed(list(enumerate(widths))):
        for _ in range(depth + 1):
            up.append(blocks.residual(channels + left.pop(), width, height // 2**level))
            channels = width
        if level:
            up.append(blocks.resampling(width, "up"))
    return up
