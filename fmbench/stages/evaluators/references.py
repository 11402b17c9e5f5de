"""References of distances between images: what an extractor makes of the images of a split, computed once and kept in a file.

The file's name is a hash of everything the reference depends on: the data, the extractor, the settings and the code.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from fmbench.config.feature_settings import FeatureSettings
from fmbench.config.hashing import settings_hash
from fmbench.config.plugins import is_dotted
from fmbench.data.prepared import DataSet
from fmbench.errors import DataError
from fmbench.metrics.extractors import Extractor, View
from fmbench.metrics.frechet import FeatureAccumulator, FeatureStatistics
from fmbench.stages.evaluators.extraction import Extraction
from fmbench.store.codehash import module_hash
from fmbench.store.files import atomic
from fmbench.store.seal import UNSEALED, check_seal, seal
from fmbench.system.rng import generator

KEPT = 50_000
"""The least number of images whose features are kept, if there are so many. A copy of another image is not noticed."""


@dataclass(frozen=True)
class Reference:
    """What real images are in the features of an extractor."""

    name: str
    statistics: FeatureStatistics  # of all images
    features: NDArray[np.float32]  # of some of these images, in random order, (m, F)
    test: NDArray[np.float32] | None = None  # of some test images, in random order, (l, F); for metrics of memorisation


def reference_name(dataset: DataSet, n: int | None = None, split: str = "train") -> str:
    """The name of the reference set in rows: all images of a split or ``n`` of them, not augmented, with the split's hash."""
    entry = dataset.manifest["splits"][split]
    some = "" if n is None or n >= entry["n"] else f"{n} random of "
    return f"{split}, {some}n = {entry['n']}, sha256 {entry['sha256'][:12]}"


# Many parameters: a reference depends on each.
def make_reference(
    extractor: Extractor,
    dataset: DataSet,
    settings: FeatureSettings,
    seed: int,
    batch: int,
    extraction: Extraction,
    split: str = "train",
) -> Reference:
    """The reference, by one pass of the extractor over the images of a split. Every process receives all of it.

    If the reference is of some images only, they are drawn at random; so are the images whose features are kept. The first images
    of a folder would be of few classes.
    """
    images = dataset.test if split == "test" else dataset.train
    total = len(images)
    n = min(total, settings.reference_n or total)
    order = torch.randperm(total, generator=generator(seed, "reference")).numpy()[:n]
    used = np.sort(order)
    kept = order[: max(settings.max_samples, KEPT)]
    place = np.full(total, -1, np.int64)
    place[kept] = np.arange(len(kept))

    def read(rows: slice) -> NDArray[np.uint8]:
        return np.asarray(images[rows] if n == total else images[used[rows]])

    accumulator = FeatureAccumulator(extractor.dimensions)
    features = np.empty((len(kept), extractor.dimensions), np.float32)
    for start, found in extraction.batches(extractor, dataset, View(n, read), batch):
        accumulator.update(found)
        where = place[used[start : start + len(found)]]
        features[where[where >= 0]] = found[where >= 0]
    return Reference(reference_name(dataset, n, split), accumulator.statistics(), features)


def with_test(reference: Reference, features: NDArray[np.float32], settings: FeatureSettings, seed: int) -> Reference:
    """The reference with some of the features (n, F) of the test images, drawn at random."""
    order = torch.randperm(len(features), generator=generator(seed, "reference/test")).numpy()
    return replace(reference, test=features[order[: settings.max_samples]])


def reference_file(extractor: Extractor, part: dict[str, Any], dataset: DataSet, settings: FeatureSettings, seed: int) -> str:
    """The name of the file of the training images' reference, a hash of all that the reference depends on."""
    dotted = part["extractor"]
    key = {
        "data": [dataset.manifest["splits"][split]["sha256"] for split in ("train", "test")],
        "levels": dataset.levels,
        "extractor": extractor.name,
        "part": part,
        # This module: what it imports includes the extractors, the in-DAG classifier's among them.
        "code": module_hash("fmbench.stages.evaluators.references", (dotted,) if is_dotted(dotted) else ()),
        "n": settings.reference_n,
        "kept": [settings.max_samples, KEPT],
        "seed": seed,
        "batch": settings.batch,
        "torch": torch.__version__,
    }
    return f"reference-{settings_hash(key)}.safetensors"


def write_reference(path: Path, reference: Reference) -> None:
    """Write a reference with a seal, atomically."""
    statistics = reference.statistics
    arrays = {"mean": statistics.mean, "covariance": statistics.covariance, "features": reference.features}
    if statistics.factor is not None:
        arrays["factor"] = statistics.factor
    if reference.test is not None:
        arrays["test"] = reference.test
    arrays["n"] = np.array([statistics.n], np.int64)
    with atomic(path) as temporary:
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, temporary, metadata={"seal": UNSEALED})
        seal(temporary)


def read_reference(path: Path, name: str) -> Reference:
    """The reference that :func:`write_reference` wrote.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        check_seal(path)
        arrays = load_file(path)
        statistics = FeatureStatistics(arrays["mean"], arrays["covariance"], int(arrays["n"][0]), arrays.get("factor"))
        return Reference(name, statistics, arrays["features"], arrays.get("test"))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DataError(
            f"the features of the reference, {path}, cannot be used: {error}; delete {path.parent} and run snakemake again, "
            "which makes it again"
        ) from None
