"""MSE and PSNR, the distances of an image from its original by its pixels alone.

The mean of PSNRs over images is not the PSNR of the mean MSE. Papers report the former.
"""

import torch
from torch import Tensor

from fmbench.metrics.image_pairs import black_to_white, image_pair


def mse(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error of each image, float64 (B,), in squared units of the pixels, from two batches (B, C, H, W).

    Raises:
        ValueError: the shapes or types differ, or are not those of images.
    """
    x, y = image_pair(x, y)
    return (x.to(torch.float64) - y.to(torch.float64)).square().flatten(1).mean(1)


def psnr(x: Tensor, y: Tensor, data_range: float | None = None) -> Tensor:
    """Peak signal-to-noise ratio of each image (B,), 10 log10(data_range^2 / MSE), in decibels; infinite for equal images.

    Raises:
        ValueError: as :func:`mse`; float images without a range, or a range that is not positive.
    """
    return 10 * torch.log10(black_to_white(x, data_range) ** 2 / mse(x, y))
