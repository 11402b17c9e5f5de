"""Consistency: whether an upsampled image, reduced again, is the image that it was made from (Saharia et al. 2021, Table 1)."""

from torch import Tensor

from fmbench.metrics.psnr import mse


def consistency(reduced: Tensor, low: Tensor, levels: int = 256) -> Tensor:
    """MSE between the reduced output and the low-resolution input of each image, float64 (B,); black is 0 and white is 1.

    Args:
        reduced: the output, reduced by the filter that made the input; uint8 (B, C, h, w).
        low: the input, uint8 (B, C, h, w).
        levels: the number of levels of both.

    Raises:
        ValueError: as :func:`fmbench.metrics.psnr.mse`.
    """
    return mse(reduced, low) / (levels - 1) ** 2
