"""SSIM, the structural similarity of an image and its original (Wang et al. 2004)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fmbench.metrics.image_pairs import black_to_white, image_pair

WINDOW, SIGMA = 11, 1.5
"""The paper's window: its width in pixels, and the standard deviation of the Gaussian."""


# Many parameters: published values of SSIM differ in each of these options.
def ssim(
    x: Tensor,
    y: Tensor,
    data_range: float | None = None,
    *,
    black: float = 0.0,
    window: Literal["gaussian", "uniform"] = "gaussian",
    size: int = WINDOW,
    sigma: float = SIGMA,
    k1: float = 0.01,
    k2: float = 0.03,
    sample_covariance: bool = False,
    border: Literal["inside", "reflect"] = "inside",
    batch: int = 64,
) -> Tensor:
    """Structural similarity of each image (B,), the mean over channels and positions (Wang et al. 2004, eq. 13).

    The defaults are the paper's: a Gaussian window of 11 x 11 pixels with standard deviation 1.5, at every position where all of
    it lies inside the image. Colour images are compared channel by channel, without conversion to luminance.

    Args:
        data_range: distance from black to white; 255 for uint8, required for floats.
        black: the value of black, -1 for images in [-1, 1]. SSIM compares quotients of means, so the position of 0 matters.
        window: ``gaussian``, or ``uniform`` as in much software (then usually with size 7 and ``sample_covariance``).
        size: width of the window in pixels.
        sigma: standard deviation of the Gaussian window in pixels.
        k1, k2: factors in the constants (k data_range)^2, which keep the quotient finite.
        sample_covariance: variances with n - 1 instead of n in the denominator; for a uniform window only.
        border: ``inside`` takes the positions where the window lies inside the image, as the paper and scikit-image do.
            ``reflect`` takes every pixel, with the image mirrored at its border, as torchmetrics does. The results differ in the
            second digit.
        batch: images at a time, which limits the memory.

    Raises:
        ValueError: as :func:`psnr`; or the window is larger than the image, or the options contradict each other.
    """
    x, y = image_pair(x, y)
    span = black_to_white(x, data_range)
    margin = _margin(border, size, x.shape[2:])
    weights = _window(window, size, sigma, sample_covariance).to(x.device)
    correction = size**2 / (size**2 - 1) if sample_covariance else 1.0
    c1, c2 = (k1 * span) ** 2, (k2 * span) ** 2
    rows, columns = (_band(weights, length + 2 * margin) for length in x.shape[2:])

    def mean(z: Tensor) -> Tensor:
        return rows @ z @ columns.T

    def similarity(a: Tensor, b: Tensor) -> Tensor:
        ma, mb = mean(a), mean(b)
        va = correction * (mean(a * a) - ma * ma)
        vb = correction * (mean(b * b) - mb * mb)
        covariance = correction * (mean(a * b) - ma * mb)
        quotient = (2 * ma * mb + c1) * (2 * covariance + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2))
        return quotient.flatten(1).mean(1)

    def prepared(z: Tensor) -> Tensor:
        z = z.to(torch.float64) - black
        return F.pad(z, 4 * (margin,), mode="reflect") if margin else z

    return torch.cat([similarity(prepared(a), prepared(b)) for a, b in zip(x.split(batch), y.split(batch), strict=True)])


def _window(kind: str, size: int, sigma: float, sample_covariance: bool) -> Tensor:
    """The weights (size,) of one axis of the window, float64; their sum is 1."""
    if kind == "gaussian":
        if sigma <= 0:
            raise ValueError(f"sigma must be positive, not {sigma}")
        if sample_covariance:
            raise ValueError("a sample covariance is defined for the uniform window; give window='uniform'")
        weights = torch.exp(-0.5 * ((torch.arange(size, dtype=torch.float64) - (size - 1) / 2) / sigma).square())
    elif kind == "uniform":
        weights = torch.ones(size, dtype=torch.float64)
    else:
        raise ValueError(f"unknown window {kind!r}; known: gaussian, uniform")
    return weights / weights.sum()


def _margin(border: str, size: int, shape: torch.Size) -> int:
    """The pixels by which images of this height and width are extended on each side."""
    height, width = shape
    if not 2 <= size <= min(height, width):
        raise ValueError(f"a window of {size} does not fit into images of {height} x {width}; give a smaller size, of 2 or more")
    if border not in ("inside", "reflect"):
        raise ValueError(f"unknown border {border!r}; known: inside, reflect")
    if border == "inside":
        return 0
    if size % 2 == 0:
        raise ValueError(f"border='reflect' needs a window with a middle, so an odd size, not {size}")
    return size // 2


def _band(weights: Tensor, length: int) -> Tensor:
    """The matrix (length - size + 1, length) of the weighted mean at every position where the window fits."""
    band = weights.new_zeros(length - len(weights) + 1, length)
    for offset, weight in enumerate(weights):
        band.diagonal(offset).fill_(weight)
    return band
