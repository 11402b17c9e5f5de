"""From the images of a data set to features: the extractor that a description names, and one pass over images."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fmbench.data.prepared import DataSet
from fmbench.errors import DataError
from fmbench.metrics.extractors import Extractor, View, extract, extract_batches, make_extractor
from fmbench.stages.shared import classifier
from fmbench.store.weights import load_weights
from fmbench.system.distributed import ALONE, Group
from fmbench.system.progress import Console


def open_extractor(part: dict[str, Any], folder: Path, dataset: DataSet, device: torch.device) -> tuple[Extractor, int]:
    """The extractor that an entry of ``extractor.json`` describes, and its batch size in images.

    Raises:
        DataError: the extractor is not the one whose reference is in ``folder``.
    """
    if part["extractor"] == "classifier":
        network = classifier.Classifier(dataset.shape, part["classes"], part["width"])
        load_weights(folder / "classifier.safetensors", network)
        return classifier.as_extractor(part["name"], network, dataset, device), classifier.BATCH
    extractor = make_extractor(part["extractor"], device, **part["options"])
    if "name" in part and extractor.name != part["name"]:
        raise DataError(
            f"the reference in {folder} was made with {part['name']}, but {part['extractor']} is now {extractor.name}; "
            f"delete {folder} and rerun the stage features"
        )
    return extractor, part["batch"]


@dataclass(frozen=True)
class Extraction:
    """How features are extracted."""

    device: torch.device
    console: Console | None = None  # where the progress is shown
    group: Group = ALONE  # the processes that share the work

    def batches(
        self, extractor: Extractor, dataset: DataSet, levels: View | NDArray[np.uint8], batch: int
    ) -> Iterator[tuple[int, NDArray[np.floating]]]:
        """Features (b, F) of one batch after another of images in the data set's levels, each with the index of its first image.

        Every process receives the features of all images.
        """
        return extract_batches(extractor, pixels(extractor, dataset, levels), batch, self._progress(), self.group)

    def features(
        self, extractor: Extractor, dataset: DataSet, levels: View | NDArray[np.uint8], batch: int
    ) -> NDArray[np.float32]:
        """Features (N, F) of images in the data set's levels."""
        return extract(extractor, pixels(extractor, dataset, levels), batch, self._progress(), self.group)

    def _progress(self) -> Callable[[int, int], None] | None:
        if self.console is None:
            return None
        console = self.console
        shown: list[Any] = []

        def update(done: int, total: int) -> None:
            if not shown:
                shown.append(console.progress(total, "images"))
            shown[0].update(done)
            if done == total:
                shown[0].close()

        return update


def pixels(extractor: Extractor, dataset: DataSet, levels: View | NDArray[np.uint8]) -> View:
    """Images as the extractor takes them: values from 0 to 255, or the data set's own levels if it is ``native``."""
    top = (dataset.levels or 256) - 1

    def read(rows: slice) -> NDArray[np.uint8]:
        piece = np.asarray(levels[rows])
        return piece if extractor.native or top == 255 else np.rint(piece * (255 / top)).astype(np.uint8)

    return View(len(levels), read)
