"""torchcfm's U-Net with the sizes and the weights of ours, so that both do the same work; and random data for both."""

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torchcfm.models.unet import unet as torchcfm_unet

from fmbench.data.prepared import DataSet, read
from fmbench.data.raw import RawData
from fmbench.data.writer import write
from fmbench.networks.norms import group_norm
from fmbench.networks.unet import UNet
from fmbench.system.devices import rounding

SMALL: dict[str, Any] = {
    "channels": 16,
    "channels_multiple": (1, 2),
    "depth": 1,
    "attention_resolutions": (),
    "head_channels": 32,
    "resample_blocks": False,
}
"""The digits' network of the default benchmark."""
MIDDLE: dict[str, Any] = {"channels": 32, "head_channels": 64, "resample_blocks": False}
"""32 channels, the rest as ADM's at 32 x 32: multiples 1, 2, 2, 2, depth 2, attention at 16."""
CIFAR10: dict[str, Any] = MIDDLE | {"channels": 256}
"""Table 3's CIFAR-10 network."""
FREQUENCY = 1.0
"""Both feed t as it is."""


def pair(shape: tuple[int, ...], settings: dict[str, Any], seed: int = 0) -> tuple[UNet, nn.Module]:
    """Our network, channels last, and torchcfm's, both with the same random weights; no output layer is 0."""
    torch.manual_seed(seed)
    ours = UNet(shape, **settings, max_frequency=FREQUENCY)
    values = {"channels_multiple": (1, 2, 2, 2), "depth": 2, "attention_resolutions": (16,)} | settings
    with mock.patch.object(torchcfm_unet, "normalization", norm):  # its 32 groups need 32 channels
        theirs = torchcfm_unet.UNetModel(
            image_size=shape[1],
            in_channels=shape[0],
            model_channels=values["channels"],
            out_channels=shape[0],
            num_res_blocks=values["depth"],
            attention_resolutions=tuple(shape[1] // r for r in values["attention_resolutions"]),
            channel_mult=values["channels_multiple"],
            num_head_channels=values["head_channels"],
            use_scale_shift_norm=True,
            resblock_updown=values["resample_blocks"],
        )
    with torch.no_grad():
        for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            mine.add_(0.02 * torch.randn(mine.shape))
            copied = mine
            if "qkv" in name:  # heads of (q, k, v) there, q, k, v of heads here
                head = min(values["head_channels"], len(mine) // 3)
                copied = mine.unflatten(0, (3, -1, head)).transpose(0, 1).flatten(0, 2)
            other.copy_(copied.reshape(other.shape))
    return ours.to(memory_format=torch.channels_last), theirs


def norm(channels: int) -> nn.GroupNorm:
    """torch's, with as many groups as ours."""
    return nn.GroupNorm(group_norm(channels).num_groups, channels)


@torch.no_grad()
def difference(ours: nn.Module, theirs: nn.Module, x: Tensor) -> float:
    """Largest difference of the outputs, relative to the largest output.

    Raises:
        RuntimeError: it is more than rounding, so the times would not compare.
    """
    t = torch.linspace(0.1, 0.9, len(x), device=x.device)
    with rounding("ieee"):
        mine, other = ours(t, x), theirs(t, x)
    found = float((mine - other).abs().max() / other.abs().max())
    if found > 1e-3:
        raise RuntimeError(f"the networks differ by {found:.2g}")
    return found


def random_data(shape: tuple[int, ...], folder: Path, n: int = 2000) -> DataSet:
    """Random samples as a prepared data set."""
    g = np.random.default_rng(0)
    images = len(shape) == 3
    values = g.integers(0, 256, (n, *shape), np.uint8) if images else g.standard_normal((n, *shape)).astype(np.float32)
    write(RawData(values, values[:10], "random", levels=256 if images else None), folder, {"dataset": "random"})
    return read(folder)
