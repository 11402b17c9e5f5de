"""What networks are told of each sample: nothing, its label, or its low-resolution image (Table 2).

A condition is a tuple of tensors: the empty one without a condition, else one tensor with a row for each sample. A network is
therefore always called as ``network(t, x, *condition)``, and nobody who passes a condition on needs to know its kind.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from fmbench.config.condition_settings import LABEL, unfit_factor
from fmbench.data.npy import ArrayFile, read_rows
from fmbench.data.resizing import low_resolution, upsampled
from fmbench.errors import DataError
from fmbench.store.files import sha256

Shape = tuple[int, ...]
NO_EXCHANGE = (
    "a coupling exchanges noise between samples with the same condition, and every low-resolution image is another; leave out "
    "the coupling"
)
"""Why a coupling and low-resolution images do not go together: given its image, the noise would no longer be N(0, I)."""
NO_TARGET = "target: marginal is for data sets without a condition; leave out the target"
"""Why a data set with a condition has no marginal target."""


class Condition(ABC):
    """A kind of condition.

    Attributes:
        arrays: what is stored of it for each split, ``<split>_<name>.npy``: a tuple of one name, or empty.
        given: the condition in words, as in "its label"; empty without a condition.
    """

    arrays: tuple[str, ...] = ()
    given: str = ""

    def problem(self, values: NDArray, labels: NDArray | None) -> str:
        """Why samples (n, *) cannot have this condition, with the remedy; empty if they can."""
        return ""

    def store(self, folder: Path, split: str) -> dict[str, str]:
        """Write what is stored of a split whose samples are in ``folder``, and return its entries for the manifest."""
        return {}

    def stored_shape(self, shape: Shape) -> Shape:
        """The shape of what is stored of a sample of ``shape``."""
        return ()

    def stored_bytes(self, shape: Shape) -> int:
        """The bytes that are stored of a sample of ``shape`` beside the sample itself."""
        return 0

    @abstractmethod
    def arguments(self, shape: Shape) -> dict[str, int]:
        """What the constructor of a network is told, beside the shape of a sample."""

    def log_weights(self, wanted: Tensor, points: Tensor, bandwidth: float) -> Tensor:
        """How much each of N points counts for each of B samples: the log of weights that add up to 1, float64 (B, N).

        Args:
            wanted, points: what is stored of the samples' and of the points' conditions.
            bandwidth: of a kernel on the condition, in model units. Labels have none.
        """
        raise NotImplementedError("without a condition all points count the same")

    @abstractmethod
    def tensors(self, *stored: Tensor) -> tuple[Tensor, ...]:
        """The condition as networks take it, from what is stored of these samples."""

    def groups(self, *condition: Tensor) -> Tensor | None:
        """A number of each sample (B,), the same for samples with the same condition; None if all have the same.

        Raises:
            ValueError: no two samples have the same condition.
        """
        return None

    def dropped(self, where: Tensor, *condition: Tensor) -> tuple[Tensor, ...]:
        """The condition of a batch, not told ``where`` (B,) is true. Only labels can be left out; other conditions stay."""
        return condition

    @abstractmethod
    def example(self, n: int, shape: Shape, device: torch.device | str) -> tuple[Tensor, ...]:
        """A condition of n samples of ``shape``, to try a network with."""


class Unconditional(Condition):
    """No condition."""

    def arguments(self, shape: Shape) -> dict[str, int]:
        return {}

    def tensors(self, *stored: Tensor) -> tuple[Tensor, ...]:
        return ()

    def example(self, n: int, shape: Shape, device: torch.device | str) -> tuple[Tensor, ...]:
        return ()


UNCONDITIONAL = Unconditional()


@dataclass(frozen=True)
class Labels(Condition):
    """The class number of the sample, int64 (B,). The number ``classes`` itself says that the label is not told."""

    classes: int
    arrays = ("labels",)
    given = "its label"

    def problem(self, values: NDArray, labels: NDArray | None) -> str:
        return "the condition is the label, but there are no labels; name them, or remove the condition" if labels is None else ""

    def stored_bytes(self, shape: Shape) -> int:
        return 8  # int64

    def arguments(self, shape: Shape) -> dict[str, int]:
        return {"condition_classes": self.classes}

    def log_weights(self, wanted: Tensor, points: Tensor, bandwidth: float) -> Tensor:
        same = wanted[:, None] == points
        return torch.where(same, 0.0, -math.inf).double() - same.sum(1, keepdim=True).double().log()

    def tensors(self, *stored: Tensor) -> tuple[Tensor, ...]:
        (labels,) = stored
        return (labels.long(),)

    def example(self, n: int, shape: Shape, device: torch.device | str) -> tuple[Tensor, ...]:
        return (torch.zeros(n, dtype=torch.int64, device=device),)

    def groups(self, *condition: Tensor) -> Tensor | None:
        (labels,) = condition
        return labels

    def dropped(self, where: Tensor, *condition: Tensor) -> tuple[Tensor, ...]:
        (labels,) = condition
        return (labels.masked_fill(where, self.classes),)


@dataclass(frozen=True)
class LowResolution(Condition):
    """The low-resolution image, upsampled to the size of the sample, in model space: float32 (B, C, H, W).

    Both are made by :mod:`fmbench.data.resizing` and rounded to the levels of the image. So the condition has the same bits on
    every device and in every batch. A level goes to the middle of its interval, 2 (x + 1/2) / levels - 1: nothing is dequantised.

    Attributes:
        factor: height and width of the sample divided by those of the low-resolution image.
        filter: a name of :data:`fmbench.data.resizing.FILTERS`, of both resizings.
        levels: of the images.
    """

    factor: int
    filter: str
    levels: int
    arrays = ("low_resolution",)
    given = "its low-resolution image"

    def problem(self, values: NDArray, labels: NDArray | None) -> str:
        return unfit_factor(self.factor, *values.shape[2:]) if values.ndim == 4 else ""

    def store(self, folder: Path, split: str) -> dict[str, str]:
        (name,) = self.arrays
        written = ArrayFile(folder / f"{split}_{name}.npy")
        with open(folder / f"{split}.npy", "rb") as stream:
            for piece in read_rows(stream):
                written.append(low_resolution(torch.tensor(piece), self.factor, self.filter, self.levels).numpy())
        written.close()
        return {f"{name}_sha256": sha256(written.path)}

    def stored_shape(self, shape: Shape) -> Shape:
        channels, height, width = shape
        return channels, height // self.factor, width // self.factor

    def stored_bytes(self, shape: Shape) -> int:
        return math.prod(self.stored_shape(shape))  # uint8

    def arguments(self, shape: Shape) -> dict[str, int]:
        return {"condition_channels": shape[0]}

    def log_weights(self, wanted: Tensor, points: Tensor, bandwidth: float) -> Tensor:
        here, there = (low.double().flatten(1) * (2 / self.levels) for low in (wanted, points))
        squares = torch.cdist(here, there, compute_mode="donot_use_mm_for_euclid_dist") ** 2
        return torch.log_softmax(-squares / (2 * bandwidth**2), 1)

    def tensors(self, *stored: Tensor) -> tuple[Tensor, ...]:
        (low,) = stored
        return ((upsampled(low, self.factor, self.filter, self.levels).float() + 0.5) * (2 / self.levels) - 1,)

    def groups(self, *condition: Tensor) -> Tensor | None:
        raise ValueError(NO_EXCHANGE)

    def example(self, n: int, shape: Shape, device: torch.device | str) -> tuple[Tensor, ...]:
        return (torch.zeros(n, *shape, device=device),)


def make_condition(settings: Any, levels: int | None, classes: int | None) -> Condition:
    """The condition of a data set.

    Args:
        settings: the entry ``condition`` of the spec that prepares it; None without a condition.
        levels: of images; None for points.
        classes: their number; None if it is not known yet.

    Raises:
        DataError: points have no low-resolution images.
    """
    if settings is None:
        return UNCONDITIONAL
    if settings == LABEL:
        return Labels(classes or 1)
    if levels is None:
        raise DataError("the condition low_resolution is for images, and these are points; remove it")
    return LowResolution(**settings["low_resolution"], levels=levels)
