"""How close upsampled images are to their originals: PSNR, SSIM and consistency, with all conventions in words.

Saharia et al. 2021 (SR3), Tables 1 and 2. All numbers are of images that are rounded to the levels of their data set.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmbench.config.super_resolution_settings import SuperResolutionSettings
from fmbench.data.conditions import LowResolution
from fmbench.data.prepared import DataSet
from fmbench.data.resizing import FILTERS, low_resolution
from fmbench.metrics.consistency import consistency
from fmbench.metrics.extractors import Images
from fmbench.metrics.luma import luma
from fmbench.metrics.psnr import psnr
from fmbench.metrics.ssim import SIGMA, ssim
from fmbench.stages.evaluators.base import Metric
from fmbench.stages.shared.job import Job


class Compared(NamedTuple):
    """A batch of upsampled images, with their originals and what they were made from; uint8."""

    upsampled: Tensor  # (B, C, H, W)
    original: Tensor  # (B, C, H, W)
    low: Tensor  # (B, C, h, w)


@dataclass(frozen=True)
class Measure:
    """A metric of single images: what a row says of it, and its function, from a batch to values (B,)."""

    unit: str
    conventions: str
    reference: str
    values: Callable[[Compared], Tensor]


class Fidelity:
    """PSNR, SSIM and consistency of the first n upsampled test images of a data set.

    Args:
        condition: the data set's.
        n: the number of images, at least 2.
        device: where the numbers are computed.
    """

    def __init__(
        self, dataset: DataSet, condition: LowResolution, n: int, settings: SuperResolutionSettings, device: torch.device
    ) -> None:
        self.dataset, self.n, self.batch, self.device = dataset, n, settings.batch, device
        self.measures = _measures(dataset, condition, n, settings.window)

    def metrics(self) -> list[Metric]:
        """All metrics, each followed by its standard error."""
        return [
            Metric(metric, measure.unit, measure.conventions, measure.reference)
            for name, measure in self.measures.items()
            for metric in (name, f"{name}_stderr")
        ]

    def values(self, images: Images) -> dict[str, NDArray[np.float64]]:
        """The value of each image (n,), by metric.

        Args:
            images: the upsampled test images in the order of the test split, uint8 (n, C, H, W) in the data set's levels.
        """
        found: dict[str, list[Tensor]] = {name: [] for name in self.measures}
        for compared in self._batches(images):
            for name, measure in self.measures.items():
                found[name].append(measure.values(compared).cpu())
        return {name: torch.cat(values).numpy() for name, values in found.items()}

    def _batches(self, images: Images) -> Iterator[Compared]:
        (low,) = self.dataset.stored_condition("test")
        for start in range(0, self.n, self.batch):
            rows = slice(start, min(start + self.batch, self.n))
            pieces = (torch.from_numpy(np.array(array[rows])).to(self.device) for array in (images, self.dataset.test, low))
            yield Compared(*pieces)


def _measures(dataset: DataSet, condition: LowResolution, n: int, window: int) -> Mapping[str, Measure]:
    levels, channels = condition.levels, dataset.shape[0]
    span = levels - 1
    colour = {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels")
    pixels = f"{colour}, rounded to {levels} levels, range {span}"
    shape = f"Gaussian window {window} x {window}, sigma {SIGMA:g}, inside the image"
    over_channels = ", mean over channels" if channels > 1 else ""
    reduced = f"{colour}, reduced by {condition.factor}, {FILTERS[condition.filter].words}, rounded, black 0 and white 1"
    reference = _reference(dataset, n)
    similarity = partial(ssim, size=window)

    def again_small(c: Compared) -> Tensor:
        return low_resolution(c.upsampled, condition.factor, condition.filter, levels)

    found = {
        "psnr": Measure("dB", pixels, reference, lambda c: psnr(c.upsampled, c.original, span)),
        "ssim": Measure(
            "similarity",
            f"{pixels}, {shape}{over_channels}",
            reference,
            lambda c: similarity(c.upsampled, c.original, span),
        ),
        "consistency": Measure(
            "squared range", reduced, f"low-resolution {reference}", lambda c: consistency(again_small(c), c.low, levels)
        ),
    }
    if channels == 3:
        y = f"Y of BT.601 (16 to 235) of RGB rounded to {levels} levels, range 255"

        def on_y(c: Compared) -> tuple[Tensor, Tensor]:
            upsampled, original = (luma(images.to(torch.float64) * (255 / span)) for images in (c.upsampled, c.original))
            return upsampled, original

        found["psnr_y"] = Measure("dB", y, reference, lambda c: psnr(*on_y(c), 255.0))
        found["ssim_y"] = Measure("similarity", f"{y}, {shape}", reference, lambda c: similarity(*on_y(c), 255.0))
    return found


def _reference(dataset: DataSet, n: int) -> str:
    """The originals in a row: the test images, or the first n of them."""
    entry = dataset.manifest["splits"]["test"]
    some = "" if n >= entry["n"] else f"the first {n} of "
    return f"test, {some}n = {entry['n']}, sha256 {entry['sha256'][:12]}"


def add_fidelity(job: Job, fidelity: Fidelity, images: Images, **columns: Any) -> None:
    """Add the rows of all metrics: the mean over images, and its standard error over images."""
    said = []
    for name, values in fidelity.values(images).items():
        measure, n = fidelity.measures[name], len(values)
        about = columns | {"n": n, "features": measure.conventions, "reference": measure.reference}
        if endless := int(np.isinf(values).sum()):
            reason = f"{endless} of {n} images equal their originals, so their {name} is infinite"
            for metric in (name, f"{name}_stderr"):
                job.skip(metric, measure.unit, reason, **about)
            continue
        job.add(name, float(values.mean()), measure.unit, **about)
        job.add(f"{name}_stderr", float(values.std(ddof=1) / math.sqrt(n)), measure.unit, **about)
        said.append(f"{name} {values.mean():.4g}")
    job.console.say(", ".join(said) + f" (n {fidelity.n})")
