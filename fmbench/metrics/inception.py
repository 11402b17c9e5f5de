"""InceptionV3 as the FID is defined by: pytorch-fid's network with its official weights, evaluated faster.

The network is pytorch-fid's (average pools without the padding, a maximum pool in the last block), never torchvision's own, and
the weights are the file below, checked by its hash: other weights give other distances that nobody's can be compared with.
Nothing is ever downloaded here. Same features as pytorch-fid's to rounding, at about twice its rate on a CPU:

* convolutions and batch norms, both linear in evaluation, are one convolution (folded in float64);
* images and weights lie in memory with the channels last.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pytorch_fid.inception import FIDInceptionA, FIDInceptionC, FIDInceptionE_1, FIDInceptionE_2
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.inception import BasicConv2d, Inception3, InceptionAux, InceptionB, InceptionD

from fmbench.errors import CheckpointError
from fmbench.metrics.weights import REMEDY, WEIGHTS_SHA256, default_weights, inception_problem

FEATURES, CLASSES, SIZE = 2048, 1008, 299


def build() -> nn.Module:
    """pytorch-fid's network, the weights random: its own function for this would download them."""

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
    """The features of a network of :func:`build`, which is taken apart: do not use it afterwards.

    Same type as the network's (float32, or float64 to compare), on its device.
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
        """uint8 images (B, 3, H, W) of any size to pool3 features (B, 2048).

        Resized to 299 x 299 by pytorch-fid's bilinear rule (no smoothing, corners not aligned), which is part of the FID.

        Raises:
            ValueError: another type or shape.
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
        """Features (B, 2048) to logits (B, 1008). The Inception Score's authors leave out the bias, so that is the default."""
        return F.linear(features.to(self.classes.weight), self.classes.weight, self.classes.bias if bias else None)


def load_inception(
    weights: Path | None = None, device: str | torch.device = "cpu", prefix: str = WEIGHTS_SHA256
) -> FastInception:
    """InceptionV3 with the weights of a file, by default where pytorch-fid would keep it.

    Args:
        weights: path of the file.
        device: where to evaluate.
        prefix: what its sha256 must start with.

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
    except Exception as error:  # torch raises many types for a file that is none; all mean the same here
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"the Inception weights {path} cannot be used ({reason}); {REMEDY}") from error
    return FastInception(network).to(device)
