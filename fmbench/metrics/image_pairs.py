"""Images and their originals, as the metrics of super-resolution take them.

These metrics take batches (B, C, H, W), uint8 or floating point, and return one float64 value for each image, (B,). The caller
takes the mean over a test set. ``data_range`` is the distance from black to white: 255 for uint8. For floats it must be given,
because their type does not say whether they are in [0, 1] or [-1, 1].
"""

import math

import torch
from torch import Tensor


def image_pair(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Two batches of images that can be compared.

    Raises:
        ValueError: the shapes or types differ, or are not those of images.
    """
    if x.ndim != 4 or x.shape != y.shape or not x.numel():
        raise ValueError(f"images must be two batches of one shape (B, C, H, W), not {tuple(x.shape)} and {tuple(y.shape)}")
    if x.dtype != y.dtype or not (x.dtype == torch.uint8 or x.is_floating_point()):
        raise ValueError(f"images must both be uint8 or both of one floating type, not {x.dtype} and {y.dtype}")
    return x, y


def black_to_white(x: Tensor, data_range: float | None) -> float:
    """The distance from black to white.

    Raises:
        ValueError: it is not given for float images, or not positive and finite.
    """
    if data_range is None:
        if x.dtype != torch.uint8:
            raise ValueError("give the data_range of float images: 1.0 for [0, 1], 2.0 for [-1, 1]")
        return 255.0
    if not (math.isfinite(data_range) and data_range > 0):
        raise ValueError(f"data_range must be positive and finite, not {data_range}")
    return float(data_range)
