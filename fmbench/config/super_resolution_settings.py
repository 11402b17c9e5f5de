"""How upsampled images are compared with their originals (Table 2), and why they cannot be."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from fmbench.config.base import Settings
from fmbench.config.datasets import DECODED
from fmbench.config.numbers import Count, Several

LEAST = 3
"""The least number of images with a standard error of the Frechet distance."""


class SuperResolutionSettings(Settings):
    """Upsampled test images against their originals, for data sets whose condition is the low-resolution image."""

    window: Several = Field(11, description="width of SSIM's Gaussian window in pixels; images must be at least as large")
    batch: Count = Field(64, description="images compared at a time, which limits the memory")


def super_resolution_problem(
    settings: SuperResolutionSettings, n: int, splits: int, shape: tuple[int, ...] | None, test: int | None
) -> str:
    """Why upsampled images cannot be compared with their originals, with the remedy; empty if they can.

    Args:
        n: the number of samples of each model.
        splits: of the Inception Score.
        shape, test: of an image, and the number of test images; None where they are not known yet.
    """
    if shape is not None and settings.window > min(shape[1:]):
        fits = min(shape[1:]) - (min(shape[1:]) + 1) % 2
        return (
            f"super_resolution.window: SSIM's window of {settings.window} pixels does not fit into images of {shape[1]} x "
            f"{shape[2]}; give a smaller one, such as {fits}. Rows name it, since SSIM depends on it"
        )
    if test is not None and n > test:
        return (
            f"sample.n: sample i is made from test image i, and there are {test} test images, not {n}; give {test}, or fewer for "
            "the first ones"
        )
    if n < max(LEAST, splits):
        return (
            f"sample.n: {n} samples are too few for the score of {splits} splits and for standard errors; give "
            f"{max(LEAST, splits)} or more, or fewer features.splits"
        )
    return ""


def unsaid_size_filter(source: str, parameters: Mapping[str, Any]) -> str:
    """What a config must say of images that are smaller than their data set's size; empty if it does, or if there are none."""
    resized = source == "imagenet" or parameters.get("size") is not None
    if source not in DECODED or not resized or parameters.get("smaller") is not None:
        return ""
    return (
        "data.parameters.smaller is missing: smaller images would be enlarged, and their details would count as those of an "
        "original; give smaller: drop to leave them out, as SR3 does, or smaller: enlarge"
    )
