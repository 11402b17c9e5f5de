"""Low-resolution images and their upsampling, bit for bit as Pillow does them on 8-bit images (Saharia et al. 2021, SR3).

A filter k of half-width r makes a line of n pixels q from m pixels p. With the step s = m / n and the width w = max(s, 1),

    q_i = sum_j W_ij p_j,   W_ij = k((j + 1/2 - (i + 1/2) s) / w) / (sum of row i)

over the pixels j whose centres lie within r w of (i + 1/2) s, up to half a pixel. So the kernel is as wide as the reduction: this
is what "antialiased" means. Rows come first, then columns, and the result of each is rounded. Pillow's weights are integers of 22
binary digits. Products and sums of these are exact in float64, so the result depends neither on the device nor on the batch.

Pillow 13 takes the columns of some images first, those that are much taller than wide. Older versions never do, nor does this.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmbench.config.condition_settings import unfit_factor

DIGITS = 22
"""Binary digits of a weight after the point."""


def box(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of the area under a new pixel: 1 from -1/2 (excluded) to 1/2 (included)."""
    return np.where((x > -0.5) & (x <= 0.5), 1.0, 0.0)


def triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear interpolation: 1 - |x|."""
    return np.maximum(1 - np.abs(x), 0.0)


def cubic(x: NDArray[np.float64], a: float = -0.5) -> NDArray[np.float64]:
    """Cubic convolution (Keys 1981, eq. 4) with the constant ``a``; Pillow's is -1/2, that of much other software -3/4."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


class Filter(NamedTuple):
    """A resampling filter: its kernel, the half-width of it in pixels, and a description for rows."""

    kernel: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    reach: float
    words: str


FILTERS = {
    "bicubic": Filter(cubic, 2.0, "antialiased bicubic (a = -1/2)"),
    "bilinear": Filter(triangle, 1.0, "antialiased bilinear"),
    "area": Filter(box, 0.5, "area (box)"),
}


@functools.cache
def weights(before: int, after: int, name: str) -> Tensor:
    """The weights W in units of 2^-22, whole numbers as float64 of shape (after, before).

    Raises:
        ValueError: the filter is unknown.
    """
    if name not in FILTERS:
        raise ValueError(f"unknown filter {name!r}; known: {', '.join(FILTERS)}")
    kernel, reach, _ = FILTERS[name]
    scale = before / after
    wide = max(scale, 1.0)
    centres = (np.arange(after) + 0.5) * scale
    first = np.maximum((centres - reach * wide + 0.5).astype(int), 0)
    end = np.minimum((centres + reach * wide + 0.5).astype(int), before)
    pixels = np.arange(before)
    inside = (pixels >= first[:, None]) & (pixels < end[:, None])
    # Pillow multiplies by the reciprocal of w; the quotient may differ in the last digit, and so at the edge of a box.
    values = np.where(inside, kernel((pixels - centres[:, None] + 0.5) * (1 / wide)), 0.0)
    values /= values.sum(1, keepdims=True)
    return torch.from_numpy(np.trunc(values * 2**DIGITS + np.copysign(0.5, values)))


def low_resolution(images: Tensor, factor: int, name: str = "bicubic", levels: int = 256) -> Tensor:
    """Images (N, C, H, W) of uint8, reduced to (N, C, H / factor, W / factor); rounded, and clipped to 0 ... levels - 1.

    Raises:
        ValueError: the images are not such, the filter is unknown, or the factor does not divide the size.
    """
    _check(images)
    height, width = images.shape[2:]
    if problem := unfit_factor(factor, height, width):
        raise ValueError(problem)
    return _resized(images, height // factor, width // factor, name, levels)


def upsampled(low: Tensor, factor: int, name: str = "bicubic", levels: int = 256) -> Tensor:
    """Low-resolution images (N, C, h, w) of uint8, interpolated to (N, C, h factor, w factor); rounded and clipped likewise.

    Raises:
        ValueError: the images are not such, the factor is below 1, or the filter is unknown.
    """
    _check(low)
    if factor < 1:
        raise ValueError(f"images cannot be interpolated by the factor {factor}; give 1 or more")
    return _resized(low, low.shape[2] * factor, low.shape[3] * factor, name, levels)


def _check(images: Tensor) -> None:
    if images.ndim != 4 or images.dtype != torch.uint8:
        raise ValueError(f"images must be uint8 of shape (N, C, H, W), not {images.dtype} of {tuple(images.shape)}")


def _resized(images: Tensor, height: int, width: int, name: str, levels: int) -> Tensor:
    across = weights(images.shape[3], width, name).to(images.device)
    down = weights(images.shape[2], height, name).to(images.device)
    rows = _rounded(images.to(torch.float64) @ across.T, levels)
    return _rounded(down @ rows, levels).to(torch.uint8)


def _rounded(sums: Tensor, levels: int) -> Tensor:
    return (sums / 2**DIGITS + 0.5).floor().clamp(0, levels - 1)
