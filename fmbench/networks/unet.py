"""The ADM U-Net (Dhariwal & Nichol 2021, *Diffusion models beat GANs on image synthesis*, section 3), for images.

Residual blocks of GroupNorm, SiLU and 3x3 convolution with the time embedding entering as scale and shift of the
second norm; self-attention at named resolutions; zero-initialised last layers of every residual branch, so the network
starts as the identity's skip and puts out 0.

Choices the flow-matching paper leaves open (it says "minimal changes" and Table 3):

* Table 3 has 4 heads and heads of 64 channels, which are the same at 256 channels only; here 64 channels a head decide, as they
  do in ADM's own settings when both are given, so the number of heads grows with the channels.
* Attention follows the residual blocks, down and up, at the heights named, and the middle has it always, between its two blocks.
* Up- and down-sampling is by residual blocks, as in ADM's large models (its ``resblock_updown``), or by plain convolutions.
  Table 3's settings make 153.09 M (CIFAR-10), 209.98 M (ImageNet-32), 276.42 M (ImageNet-64) and 507.32 M parameters
  (ImageNet-128) with plain convolutions, which is what the presets of the paper's settings take, and 171.27 M, 228.15 M,
  295.13 M and 542.80 M with residual blocks. The paper does not say which.
* The time embedding is scale and shift of the second norm (ADM's ``use_scale_shift_norm``), from an MLP of four times the base
  channels. t enters by :class:`~fmbench.networks.embedding.SinusoidalEmbedding`; its top frequency is a setting.
* GroupNorm has 32 groups, or fewer where channels are few (at least 4 channels a group, so from 128 channels on it is ADM's).
* Layers start as torch makes them, but the last one of every residual branch, of every attention and of the network starts at 0.
* Unconditional, as all of the paper's networks but that for super-resolution. A condition enters by channel concatenation: the
  low-resolution image, upsampled to the image's size, or a class as :func:`label_planes`. The pipeline's trainings have none:
  a condition is for one who calls the network.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmbench.networks.embedding import SinusoidalEmbedding


def fuses(x: Tensor) -> bool:
    """Whether this is being compiled for a GPU, where elementary operations fuse and what fuses costs least.

    Each form below that asks is the same function as the one beside it, which is the faster where every operation is on its own.
    All keep channels last, forwards and backwards, as convolutions want them; none adds up by atomics, whose order varies.
    """
    return torch.compiler.is_compiling() and x.is_cuda


class GroupNorm(nn.GroupNorm):
    """torch's, and a form to be compiled, and one to sample by on a CPU.

    What is compiled takes moments of each channel over pixels first, so that neighbouring threads read neighbouring numbers, and
    puts them together to those of a group after; what is left is a scale and a shift of each channel, which fuse with what stands
    around.

    torch's own on channels that lie last takes the variance as a difference of moments, so in training it loses digits where a
    mean is a hundred times its spread or more; ``by_sums`` takes the mean off first.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W), normalised over each group of channels."""
        if fuses(x):
            return self.by_channel(x)
        return self.by_sums(x) if self._strided(x) else super().forward(x)

    def _strided(self, x: Tensor) -> bool:
        """Whether torch would gather a group's few channels pixel by pixel (channels last, CPU), and no gradient is wanted."""
        if x.ndim != 4 or x.device.type != "cpu" or x.dtype.itemsize < 4:
            return False
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return False
        # From 1024 pixels on torch goes through them in order.
        few = x.shape[1] < 8 * self.num_groups and x.shape[2] * x.shape[3] < 1024
        try:
            return few and x.is_contiguous(memory_format=torch.channels_last)
        except RuntimeError:  # torch.func.vmap does not tell
            return False

    def by_sums(self, x: Tensor) -> Tensor:
        """The same by sums over pixels, two to four times as fast there; with its gradient it would take longer than torch's."""
        b, c, height, width = x.shape
        pixels, size = x.permute(0, 2, 3, 1).reshape(b, height * width, c), height * width * c // self.num_groups

        def of_groups(sums: Tensor) -> Tensor:
            return sums.unflatten(1, (self.num_groups, -1)).sum(2, keepdim=True) / size

        def of_channels(groups: Tensor) -> Tensor:
            return groups.expand(-1, -1, c // self.num_groups).reshape(b, 1, c)

        centred = pixels - of_channels(of_groups(pixels.sum(1)))
        inverse = of_channels((of_groups(centred.square().sum(1)) + self.eps).rsqrt())
        return torch.addcmul(self.bias, centred, inverse * self.weight).unflatten(1, (height, width)).permute(0, 3, 1, 2)

    def by_channel(self, x: Tensor) -> Tensor:
        """The same in elementary operations; of 16-bit numbers in float32."""
        x = x.float() if x.dtype.itemsize < 4 else x
        variances, means = torch.var_mean(x, (2, 3), correction=0)
        variance, mean = (moment.unflatten(1, (self.num_groups, -1)) for moment in (variances, means))
        # The variance of a group: what its channels have on average, and that of their means.
        spread, centre = torch.var_mean(mean, 2, correction=0, keepdim=True)
        inverse = (variance.mean(2, keepdim=True) + spread + self.eps).rsqrt()
        scale = inverse.expand_as(mean).flatten(1) * self.weight
        shift = self.bias - centre.expand_as(mean).flatten(1) * scale
        return x * scale[:, :, None, None] + shift[:, :, None, None]


def upsampled(x: Tensor) -> Tensor:
    """Images (B, C, H, W) at twice the size, each pixel four times."""
    return repeated(x) if fuses(x) else F.interpolate(x, scale_factor=2.0)


def repeated(x: Tensor) -> Tensor:
    """:func:`upsampled` by expansion, so that its gradient is a sum."""
    b, c, height, width = x.shape
    pixels = x.permute(0, 2, 3, 1)[:, :, None, :, None].expand(b, height, 2, width, 2, c)
    return pixels.reshape(b, 2 * height, 2 * width, c).permute(0, 3, 1, 2)


def joined(x: Tensor, skip: Tensor) -> Tensor:
    """Both (B, *, H, W) one after the other."""
    if fuses(x):
        out: Tensor = Joined.apply(x, skip)
        return out
    return torch.cat([x, skip], 1)


class Joined(torch.autograd.Function):
    """:func:`joined` with gradients that are whole tensors, not slices of one that a convolution would copy for itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, skip: Tensor) -> Tensor:
        ctx.channels = x.shape[1]
        return torch.cat([x, skip], 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        parts = gradient[:, : ctx.channels], gradient[:, ctx.channels :]
        return parts[0].contiguous(memory_format=torch.channels_last), parts[1].contiguous(memory_format=torch.channels_last)


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with the most groups, up to 32, that divide the channels and leave at least 4 in each."""
    groups = max(g for g in range(1, 33) if channels % g == 0 and (g == 1 or channels // g >= 4))
    return GroupNorm(groups, channels)


def zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with weights and bias set to 0."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def label_planes(labels: Tensor, classes: int, height: int, width: int) -> Tensor:
    """Classes (B,) as a condition (B, classes, height, width): ones on the plane of the class, zeros on the others."""
    planes = F.one_hot(labels, classes).to(torch.get_default_dtype())
    return planes[:, :, None, None].expand(-1, -1, height, width)


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


class AttentionBlock(nn.Module):
    """Multi-head self-attention over pixels with a residual connection."""

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
        return self.of_tokens(x) if fuses(x) else self.of_images(x)

    def of_images(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W)."""
        b, c, height, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, height * width)
        q, k, v = qkv.transpose(-1, -2).unbind(1)
        h = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape(b, c, height, width)
        out: Tensor = x + self.out(h)
        return out

    def of_tokens(self, x: Tensor) -> Tensor:
        """:meth:`of_images` on pixels as rows (B, H W, C), where channels that lie last are."""
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        qkv = F.linear(tokens, self.qkv.weight.flatten(1), self.qkv.bias)
        q, k, v = qkv.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        out = F.linear(h, self.out.weight.flatten(1), self.out.bias)
        return x + out.transpose(1, 2).unflatten(2, x.shape[2:])


class Resample(nn.Module):
    """Resampling by a plain convolution: stride 2 down, nearest then 3x3 up."""

    def __init__(self, channels: int, direction: str) -> None:
        super().__init__()
        self.direction = direction
        self.conv = nn.Conv2d(channels, channels, 3, stride=2 if direction == "down" else 1, padding=1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        out: Tensor = self.conv(upsampled(x) if self.direction == "up" else x)
        return out


class Level(nn.Module):
    """One residual block and, at the resolutions that have it, attention."""

    def __init__(self, block: nn.Module, attention: nn.Module | None) -> None:
        super().__init__()
        self.block, self.attention = block, attention

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        out: Tensor = self.block(x, embedding)
        return out if self.attention is None else self.attention(out)


class UNet(nn.Module):
    """The ADM U-Net.

    Args:
        shape: (C, H, W); H and W must be divisible by 2^(levels - 1).
        channels: base channels.
        channels_multiple: channels of each level over the base; one level a halving of the resolution.
        depth: residual blocks a level (down; one more on the way up).
        attention_resolutions: heights at which attention follows each residual block; the middle always has it.
        head_channels: channels of an attention head; fewer channels than that are one head.
        dropout: inside residual blocks.
        resample_blocks: resample by residual blocks (ADM) rather than by plain convolutions.
        max_frequency: top frequency of the time embedding, radians per unit of t (ADM's own: 1000).
        condition_channels: channels of the condition, behind those of the image; 0 for none.
    """

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
    ) -> None:
        super().__init__()
        if condition_channels < 0:
            raise ValueError(f"condition_channels must be at least 0, not {condition_channels}")
        if len(shape) != 3:
            raise ValueError(f"a U-Net works on images of shape (C, H, W), not on {shape}; take network kind 'mlp' for points")
        colours, height, width = shape
        factor = 2 ** (len(channels_multiple) - 1)
        if height % factor or width % factor:
            raise ValueError(
                f"{len(channels_multiple)} levels halve the image {len(channels_multiple) - 1} times, "
                f"so height and width must be divisible by {factor}, not {height} x {width}"
            )
        embedding = 4 * channels
        self.time = nn.Sequential(
            SinusoidalEmbedding(channels, max_frequency),
            nn.Linear(channels, embedding),
            nn.SiLU(),
            nn.Linear(embedding, embedding),
            nn.SiLU(),
        )

        def residual(inputs: int, outputs: int, resample: str | None = None) -> ResidualBlock:
            return ResidualBlock(inputs, outputs, embedding, dropout, resample)

        def attention(c: int, resolution: int) -> AttentionBlock | None:
            return AttentionBlock(c, head_channels) if resolution in attention_resolutions else None

        def resampled(c: int, direction: str) -> nn.Module:
            return residual(c, c, direction) if resample_blocks else Resample(c, direction)

        self.condition_channels = condition_channels
        self.head = nn.Conv2d(colours + condition_channels, channels, 3, padding=1)
        self.down = nn.ModuleList()
        skips, c, resolution = [channels], channels, height
        for index, multiple in enumerate(channels_multiple):
            for _ in range(depth):
                self.down.append(Level(residual(c, channels * multiple), attention(channels * multiple, resolution)))
                c = channels * multiple
                skips.append(c)
            if index < len(channels_multiple) - 1:
                self.down.append(Level(resampled(c, "down"), None))
                skips.append(c)
                resolution //= 2

        self.middle = nn.ModuleList([Level(residual(c, c), AttentionBlock(c, head_channels)), Level(residual(c, c), None)])

        self.up = nn.ModuleList()
        for index, multiple in reversed(list(enumerate(channels_multiple))):
            for block in range(depth + 1):
                outputs = channels * multiple
                self.up.append(Level(residual(c + skips.pop(), outputs), attention(outputs, resolution)))
                c = outputs
                if index and block == depth:
                    self.up.append(Level(resampled(c, "up"), None))
                    resolution *= 2
        self.tail = nn.Sequential(group_norm(c), nn.SiLU(), zeroed(nn.Conv2d(c, colours, 3, padding=1)))

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Times (B,), images (B, C, H, W) and a condition (B, condition_channels, H, W) to a prediction (B, C, H, W).

        Raises:
            ValueError: the condition is missing, of another shape, or not one that the network was built for.
        """
        if self.condition_channels or condition is not None:
            wanted = (x.shape[0], self.condition_channels, *x.shape[2:])
            if condition is None or tuple(condition.shape) != wanted:
                found = "none" if condition is None else f"one of {tuple(condition.shape)}"
                raise ValueError(f"this network takes a condition of {wanted}, not {found} (upsample it to the image's size)")
            x = torch.cat([x, condition.to(x.dtype)], 1)
        embedding = self.time(t)
        h = self.head(x)
        skips = [h]
        for level in self.down:
            h = level(h, embedding)
            skips.append(h)
        for level in self.middle:
            h = level(h, embedding)
        for level in self.up:
            resamples = isinstance(level.block, Resample) or getattr(level.block, "resample", None) is not None
            h = level(h if resamples else joined(h, skips.pop()), embedding)
        out: Tensor = self.tail(h)
        return out
