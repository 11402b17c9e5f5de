"""Prepared data sets, read memory-mapped: one array file per split, and a manifest with their hashes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmbench.data.conditions import Condition, make_condition
from fmbench.errors import DataError
from fmbench.store.documents import read_document
from fmbench.store.files import sha256
from fmbench.store.shapes import Manifest
from fmbench.system.rng import generator


@dataclass(frozen=True)
class DataSet:
    """A prepared data set. *Model space* is what networks see: [-1, 1] for images, scaled coordinates for points.

    *Data space* of points is that of the arrays: the source's coordinates less the manifest's ``shift``. A shift changes neither
    densities nor distances.
    """

    folder: Path
    manifest: dict[str, Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.manifest["shape"])

    @property
    def levels(self) -> int | None:
        return self.manifest["levels"]

    @property
    def is_images(self) -> bool:
        return self.levels is not None

    @property
    def dimensions(self) -> int:
        return int(np.prod(self.shape))

    @cached_property
    def train(self) -> NDArray:
        return self._array("train")

    @cached_property
    def test(self) -> NDArray:
        return self._array("test")

    def labels(self, split: str) -> NDArray:
        """Labels of a split.

        Raises:
            DataError: the data set has no labels.
        """
        if self.manifest["classes"] is None:
            raise DataError(f"{self.manifest['dataset']} has no labels, so no classifier can be trained on it")
        return self._beside(split, "labels")

    @cached_property
    def condition(self) -> Condition:
        """What networks are told of each sample."""
        return make_condition(self.manifest["spec"].get("condition"), self.levels, self.manifest["classes"])

    def stored_condition(self, split: str) -> tuple[NDArray, ...]:
        """What the condition of each sample of a split is made from: nothing, the labels, or the low-resolution images."""
        return tuple(self._beside(split, name) for name in self.condition.arrays)

    def conditions(self, indices: Sequence[int], device: torch.device) -> tuple[Tensor, ...]:
        """The condition of generated samples: sample i has that of test sample i, and of the first ones again after the last."""
        return self.condition.tensors(*(stored.to(device) for stored in self.stored_conditions(indices)))

    def stored_conditions(self, indices: Sequence[int]) -> tuple[Tensor, ...]:
        """What the condition of these generated samples is made from, on the CPU."""
        places = np.asarray(indices) % self.manifest["splits"]["test"]["n"]
        return tuple(torch.from_numpy(np.array(array[places])) for array in self.stored_condition("test"))

    def _beside(self, split: str, name: str) -> NDArray:
        """What is stored of each sample of a split beside it, read once."""
        key = f"{split}_{name}"
        if key not in self._read:
            self._read[key] = self._array(key)
        return self._read[key]

    @cached_property
    def _read(self) -> dict[str, NDArray]:
        """What was read so far, beside the samples."""
        return {}

    def _array(self, name: str) -> NDArray:
        """A file's array, memory-mapped, after a check of the whole file against the manifest."""
        path = self.folder / f"{name}.npy"
        split, _, beside = name.partition("_")
        entry = self.manifest["splits"][split]
        again = _again(self.folder)
        try:
            if sha256(path) != entry.get(f"{beside}_sha256" if beside else "sha256"):
                raise DataError(f"{path} is damaged or was changed: it is not the file that its manifest describes; {again}")
            array: NDArray = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path} cannot be read ({error}); {again}") from None
        n, of_one = entry["n"], self.shape
        if beside:
            of_one = self.condition.stored_shape(self.shape) if beside in self.condition.arrays else ()
        if array.shape != (n, *of_one):
            raise DataError(f"{path} has shape {array.shape}, its manifest says {n} samples of {of_one}; {again}")
        return array

    def to_model(self, values: Tensor, u: Tensor) -> Tensor:
        """Data to model space, float32: images are dequantised first, 2 (x + u) / levels - 1, points are scaled.

        Args:
            u: uniforms on [0, 1) of the shape of ``values``; not used for points.
        """
        if self.levels is None:
            scale = self.manifest["scale"]
            return values.float() * (torch.tensor(scale, device=values.device) if isinstance(scale, list) else scale)
        return (values.float() + u) * (2 / self.levels) - 1

    def to_data(self, samples: NDArray) -> NDArray:
        """Model space back to data: images to the nearest of their levels, clamped; points unscaled.

        The inverse of dequantising: level k owns the interval [k, k + 1), whose middle is k + 1/2.
        """
        if self.levels is None:
            scale = self.manifest["scale"]
            return samples / (np.asarray(scale, samples.dtype) if isinstance(scale, list) else scale)
        level = np.rint((samples + 1) * (self.levels / 2) - 0.5)
        return level.clip(0, self.levels - 1).astype(np.uint8)

    @property
    def model_std(self) -> float:
        """Standard deviation of the training samples in model space, those of images dequantised; of points over all columns."""
        entry = self.manifest["splits"]["train"]
        if self.levels is None:
            columns = np.asarray(entry["column_std"]) * np.asarray(self.manifest["scale"])
            return float(np.sqrt(np.square(columns).mean()))
        return float(2 / self.levels * np.hypot(entry["std"], 12**-0.5))

    def log_density_change(self) -> float:
        """The term that turns a log density in model space into one in data space, in nats (points only)."""
        scale = self.manifest["scale"]
        return float(np.log(scale).sum() if isinstance(scale, list) else self.dimensions * np.log(scale))


def read(folder: Path) -> DataSet:
    """Open a prepared data set.

    Raises:
        DataError: its manifest is missing or not readable.
    """
    return DataSet(folder, read_document(folder / "manifest.json", Manifest, _again(folder)))


def _again(folder: Path) -> str:
    return f"delete {folder} and run snakemake again, which prepares it again"


def drawn(values: NDArray, n: int, seed: int, name: str) -> NDArray:
    """``n`` of ``values``, drawn at random with a named seed and kept in their order; all of them if there are no more than n.

    The first n would not do: a split may be sorted by class.
    """
    if n >= len(values):
        return values
    return values[torch.randperm(len(values), generator=generator(seed, name))[:n].sort().values.numpy()]


def resident(array: NDArray, device: torch.device) -> Tensor:
    """An array of a split on the device, in its own type."""
    return torch.from_numpy(np.array(array)).to(device)
