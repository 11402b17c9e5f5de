"""The InceptionV3 that defines the FID: pytorch-fid's network with its official weights, evaluated faster.

The network is pytorch-fid's (average pools that ignore the padding, a maximum pool in the last block), not torchvision's. The
weights are the official file, checked by its hash: distances with other weights cannot be compared with published ones. This
module downloads nothing. The features equal pytorch-fid's up to rounding, at about twice its speed on a CPU:

* a convolution and its batch norm, both linear in evaluation, become one convolution (folded in float64);
* images and weights are in memory with the channels last.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pytorch_fid.inception import FIDInceptionA, FIDInceptionC, FIDInceptionE_1, FIDInceptionE_2
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.inception import BasicConv2d, Inception3, InceptionAux, InceptionB, InceptionD

from fmbench.errors import CheckpointError, first_line
from fmbench.metrics.extractor_weights import REMEDY, WEIGHTS_SHA256, default_weights, inception_problem

FEATURES, CLASSES, SIZE = 2048, 1008, 299


def build() -> nn.Module:
    """pytorch-fid's network with random weights; pytorch-fid's own function would download the official ones."""

    def last_blocks(channels: int) -> nn.Module:
        block: nn.Module = FIDInceptionE_1(channels) if channels == 1280 else FIDInceptionE_2(channels)
        return block

    blocks = [BasicConv2d, FIDInceptionA, InceptionB, FIDInceptionC, InceptionD, last_blocks, InceptionAux]
    network: nn.Module = Inception3(num_classes=CLASSES, aux_logits=False, inception_blocks=blocks, init_weights=False)
    return network.eval()


_ORDER = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2"),
    *("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    *("Mixed_7a", "Mixed_7b", "Mixed_7c"),
)


class FastInception(nn.Module):
    """The features of a network of :func:`build`. The network is taken apart and must not be used afterwards.

    Type (float32, or float64 for comparisons) and device are those of the network.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        kind = network.fc.weight.dtype
        network = network.eval().to(torch.float64)
        for module in network.modules():
            if isinstance(module, BasicConv2d):
                module.conv, module.bn = fuse_conv_bn_eval(module.conv, module.bn), nn.Identity()
        self.trunk = nn.Sequential(*(getattr(network, name) for name in _ORDER))
        self.classes = network.fc
        self.to(kind).to(memory_format=torch.channels_last).eval().requires_grad_(False)

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Features (B, 2048) of the layer pool3, of uint8 images (B, 3, H, W) of any size.

        Images are resized to 299 x 299 by pytorch-fid's bilinear rule (no smoothing, corners not aligned), a part of the FID.

        Raises:
            ValueError: the images have another type or shape.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be uint8 of shape (B, 3, H, W), not {images.dtype} of {tuple(images.shape)}")
        weight = self.classes.weight
        x = images.to(weight.device).to(weight.dtype, memory_format=torch.channels_last).div_(255)
        x = F.interpolate(x, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
        x = self.trunk(x.mul_(2).sub_(1))
        return x.mean((2, 3)).contiguous()

    @torch.inference_mode()
    def logits(self, features: Tensor, bias: bool = False) -> Tensor:
        """Logits (B, 1008) of features (B, 2048); without the bias by default, as the authors of the Inception Score do."""
        return F.linear(features.to(self.classes.weight), self.classes.weight, self.classes.bias if bias else None)


def load_inception(
    weights: Path | None = None, device: str | torch.device = "cpu", prefix: str = WEIGHTS_SHA256
) -> FastInception:
    """InceptionV3 with the weights of a file.

    Args:
        weights: path of the file; by default, where pytorch-fid keeps it.
        device: where the network is evaluated.
        prefix: the first digits of the file's sha256.

    Raises:
        CheckpointError: the file is missing, is another file, or holds other tensors. The message says where to get it.
    """
    path = default_weights() if weights is None else weights
    problem = inception_problem(path, prefix)
    if problem:
        raise CheckpointError(problem)
    network = build()
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises many types for a damaged file; all mean the same here
        raise CheckpointError(f"the Inception weights {path} cannot be used ({first_line(error)}); {REMEDY}") from error
    return FastInception(network).to(device)
