"""Y, the luma of colour images, on which some papers measure PSNR and SSIM."""

import torch
from torch import Tensor

BLACK, WHITE = 16.0, 235.0
"""The values of Y of black and of white."""


def luma(images: Tensor) -> Tensor:
    """Y of RGB images (B, 3, H, W) with values from 0 to 255, float64 (B, 1, H, W) from 16 to 235, not rounded.

    Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255 (ITU-R BT.601). MATLAB's ``rgb2ycbcr`` is the same, with the result rounded,
    and papers on super-resolution use it with a data range of 255.

    Raises:
        ValueError: the images do not have three channels.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"Y is that of RGB images (B, 3, H, W), not of {tuple(images.shape)}")
    red, green, blue = images.to(torch.float64).split(1, dim=1)
    return BLACK + (65.481 * red + 128.553 * green + 24.966 * blue) / 255
