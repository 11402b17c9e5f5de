"""Prepared data sets: one array file per split and a manifest, written once, read memory-mapped."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmbench.data.raw import RawData
from fmbench.errors import DataError
from fmbench.files import atomic, read_json, sha256, write_json


def write(raw: RawData, folder: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """Write a data set's arrays and its manifest, and return the manifest.

    Raises:
        DataError: the arrays are not what :class:`~fmbench.data.raw.RawData` promises.
    """
    _check(raw)
    splits = {"train": (raw.train, raw.train_labels), "test": (raw.test, raw.test_labels)}
    entries: dict[str, Any] = {}
    for split, (values, labels) in splits.items():
        entry: dict[str, Any] = {"n": len(values), "mean": float(values.mean()), "std": float(values.std())}
        for name, array in ((split, values), (f"{split}_labels", labels)):
            if array is None:
                continue
            path = folder / f"{name}.npy"
            with atomic(path) as temporary:
                np.save(temporary, np.ascontiguousarray(array), allow_pickle=False)
            entry["labels_sha256" if name.endswith("labels") else "sha256"] = sha256(path)
        entries[split] = entry
    manifest = {
        "dataset": spec["dataset"],
        "description": raw.description,
        "spec": spec,
        "shape": list(raw.train.shape[1:]),
        "levels": raw.levels,
        "scale": raw.scale,
        "support": raw.support,
        "entropy": raw.entropy,
        "classes": None if raw.train_labels is None else int(raw.train_labels.max()) + 1,
        "splits": entries,
    }
    write_json(folder / "manifest.json", manifest)
    return manifest


def _check(raw: RawData) -> None:
    if raw.levels is not None and not 2 <= raw.levels <= 256:
        raise DataError(f"levels must be between 2 and 256, not {raw.levels}")
    if not (raw.scale > 0 and np.isfinite(raw.scale)):
        raise DataError(f"scale must be positive, not {raw.scale}")
    if (raw.train_labels is None) != (raw.test_labels is None):
        raise DataError("labels must be given for both splits or for none")
    for split, labels, values in (("train", raw.train_labels, raw.train), ("test", raw.test_labels, raw.test)):
        if labels is None:
            continue
        if labels.shape != values.shape[:1] or labels.dtype.kind not in "iu" or labels.min() < 0:
            raise DataError(
                f"{split}_labels: expected {len(values)} integers from 0, found shape {labels.shape} of {labels.dtype}"
            )
    images = raw.levels is not None
    wanted = (4, np.dtype(np.uint8)) if images else (2, np.dtype(np.float32))
    for split, values in (("train", raw.train), ("test", raw.test)):
        if (values.ndim, values.dtype) != wanted:
            kind = "images (N, C, H, W) of uint8" if images else "points (N, D) of float32"
            raise DataError(f"{split}: expected {kind}, found shape {values.shape} of {values.dtype}")
        if len(values) < 2 or values.shape[1:] != raw.train.shape[1:]:
            raise DataError(f"{split}: shape {values.shape} does not go with train's {raw.train.shape}")
        if raw.levels is not None and values.max() >= raw.levels:
            raise DataError(f"{split}: a pixel has the value {values.max()}, but there are only {raw.levels} levels")
        if not images and not np.isfinite(values).all():
            raise DataError(f"{split}: some points are not finite")


@dataclass(frozen=True)
class DataSet:
    """A prepared data set. *Model space* is what networks see: [-1, 1] for images, scaled coordinates for points."""

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
            DataError: the data set has none.
        """
        if self.manifest["classes"] is None:
            raise DataError(f"{self.manifest['dataset']} has no labels, so no classifier can be trained on it")
        return self._array(f"{split}_labels")

    def _array(self, name: str) -> NDArray:
        path = self.folder / f"{name}.npy"
        split, _, labels = name.partition("_")
        try:
            array: NDArray = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path} cannot be read ({error}); delete {self.folder} and rerun to prepare it again") from None
        n = self.manifest["splits"][split]["n"]
        if array.shape != ((n,) if labels else (n, *self.shape)):
            raise DataError(f"{path} has shape {array.shape}, its manifest says {n} samples of {self.shape}; prepare it again")
        return array

    def to_model(self, values: Tensor, u: Tensor) -> Tensor:
        """Data to model space, float32: images are dequantised first, 2 (x + u) / levels - 1, points are scaled.

        Args:
            u: uniforms on [0, 1) of the shape of ``values``; not used for points.
        """
        if self.levels is None:
            return values.float() * self.manifest["scale"]
        return (values.float() + u) * (2 / self.levels) - 1

    def to_data(self, samples: NDArray) -> NDArray:
        """Model space back to data: images to the nearest of their levels, clamped; points unscaled.

        The inverse of dequantising: level k owns the interval [k, k + 1), whose middle is k + 1/2.
        """
        if self.levels is None:
            return samples / self.manifest["scale"]
        level = np.rint((samples + 1) * (self.levels / 2) - 0.5)
        return level.clip(0, self.levels - 1).astype(np.uint8)

    def log_density_change(self) -> float:
        """What to add to a log density in model space to get one in data space, in nats (points only)."""
        return float(self.dimensions * np.log(self.manifest["scale"]))


def read(folder: Path) -> DataSet:
    """Open a prepared data set.

    Raises:
        DataError: its manifest is missing or not readable.
    """
    return DataSet(folder, read_json(folder / "manifest.json"))


def resident(dataset: DataSet, device: torch.device) -> Tensor:
    """The training split on the device, in its own type."""
    return torch.from_numpy(np.array(dataset.train)).to(device)
