"""Group normalisation, with one form to be compiled for a GPU and one for sampling on a CPU."""

import torch
from torch import Tensor, nn

from fmbench.networks.layers import fuses


class GroupNorm(nn.GroupNorm):
    """torch's GroupNorm (Wu & He 2018) with two further forms of the same function.

    * ``by_channel`` is what a GPU compiles. It takes the moments of each channel over its pixels first, so that neighbouring
      threads read neighbouring numbers, and then combines them to the moments of a group. What is left is a scale and a shift of
      each channel, which fuse with the operations around them.
    * ``by_sums`` is faster on a CPU where channels lie last and no gradient is wanted.

    With channels last, torch's own form takes the variance as a difference of moments. In training it therefore loses digits
    where a mean is a hundred times its spread or more. ``by_sums`` subtracts the mean first.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W), normalised over each group of channels."""
        if fuses(x):
            return self.by_channel(x)
        return self.by_sums(x) if self._sums_are_faster(x) else super().forward(x)

    def _sums_are_faster(self, x: Tensor) -> bool:
        """Whether torch would gather a group's few channels pixel by pixel (channels last, CPU), and no gradient is wanted."""
        if x.ndim != 4 or x.device.type != "cpu" or x.dtype.itemsize < 4:
            return False
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return False
        # torch goes through 1024 pixels or more in order.
        few = x.shape[1] < 8 * self.num_groups and x.shape[2] * x.shape[3] < 1024
        try:
            return few and x.is_contiguous(memory_format=torch.channels_last)
        except RuntimeError:  # under torch.func.vmap torch cannot tell
            return False

    def by_sums(self, x: Tensor) -> Tensor:
        """The norm by sums over pixels: on a CPU two to four times as fast as torch's, but slower if a gradient is taken."""
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
        """The norm in elementary operations; 16-bit numbers are normalised in float32."""
        x = x.float() if x.dtype.itemsize < 4 else x
        variances, means = torch.var_mean(x, (2, 3), correction=0)
        variance, mean = (moment.unflatten(1, (self.num_groups, -1)) for moment in (variances, means))
        # The variance of a group is the mean variance of its channels plus the variance of their means.
        spread, centre = torch.var_mean(mean, 2, correction=0, keepdim=True)
        inverse = (variance.mean(2, keepdim=True) + spread + self.eps).rsqrt()
        scale = inverse.expand_as(mean).flatten(1) * self.weight
        shift = self.bias - centre.expand_as(mean).flatten(1) * scale
        return x * scale[:, :, None, None] + shift[:, :, None, None]


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with the most groups, up to 32, that divide the channels and leave at least 4 in each."""
    groups = max(g for g in range(1, 33) if channels % g == 0 and (g == 1 or channels // g >= 4))
    return GroupNorm(groups, channels)
