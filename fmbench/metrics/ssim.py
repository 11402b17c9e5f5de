"""SSIM, the structural similarity of an image and its original (Wang et al. 2004)."""

import torch
from torch import Tensor

from fmbench.metrics.image_pairs import black_to_white, image_pair

WINDOW, SIGMA = 11, 1.5
"""The paper's window: its width in pixels, and the standard deviation of the Gaussian."""
K1, K2 = 0.01, 0.03
"""The paper's factors in the constants (K data_range)^2, which keep the quotient finite."""


def ssim(x: Tensor, y: Tensor, data_range: float | None = None, size: int = WINDOW, batch: int = 64) -> Tensor:
    """Structural similarity of each image (B,), the mean over channels and positions (Wang et al. 2004, eq. 13).

    The window is Gaussian, at every position where all of it lies inside the image. Colour images are compared channel by
    channel, without conversion to luminance.

    Args:
        data_range: distance from black, which is 0, to white; 255 for uint8, required for floats. SSIM compares quotients of
            means, so the position of 0 matters.
        size: width of the window in pixels.
        batch: images at a time, which limits the memory.

    Raises:
        ValueError: as :func:`psnr`; or the window is larger than the image.
    """
    x, y = image_pair(x, y)
    span = black_to_white(x, data_range)
    height, width = x.shape[2:]
    if not 2 <= size <= min(height, width):
        raise ValueError(f"a window of {size} does not fit into images of {height} x {width}; give a smaller size, of 2 or more")
    weights = gaussian_window(size).to(x.device)
    c1, c2 = (K1 * span) ** 2, (K2 * span) ** 2
    rows, columns = _band(weights, height), _band(weights, width)

    def mean(z: Tensor) -> Tensor:
        return rows @ z @ columns.T

    def similarity(a: Tensor, b: Tensor) -> Tensor:
        ma, mb = mean(a), mean(b)
        va, vb = mean(a * a) - ma * ma, mean(b * b) - mb * mb
        covariance = mean(a * b) - ma * mb
        quotient = (2 * ma * mb + c1) * (2 * covariance + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2))
        return quotient.flatten(1).mean(1)

    pieces = zip(x.split(batch), y.split(batch), strict=True)
    return torch.cat([similarity(a.to(torch.float64), b.to(torch.float64)) for a, b in pieces])


def gaussian_window(size: int) -> Tensor:
    """The weights (size,) of one axis of the window, float64; their sum is 1."""
    weights = torch.exp(-0.5 * ((torch.arange(size, dtype=torch.float64) - (size - 1) / 2) / SIGMA).square())
    return weights / weights.sum()


def _band(weights: Tensor, length: int) -> Tensor:
    """The matrix (length - size + 1, length) of the weighted mean at every position where the window fits."""
    band = weights.new_zeros(length - len(weights) + 1, length)
    for offset, weight in enumerate(weights):
        band.diagonal(offset).fill_(weight)
    return band
