"""Stage ``features``: the feature extractors, the features of the reference, and the floors, which are distances of real data.

Images: the extractors that the config chooses, each with what it makes of the training images. A floor is the metric of the test
split against the training split. The in-DAG classifier is trained on the labels of the training split, so a floor on its features
includes its generalisation gap, and a model that repeats its training set can be below the floor.

Points: distances between the training split and the test split.
"""

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fmbench.config.feature_settings import ExtractorSettings, FeatureSettings
from fmbench.data.prepared import DataSet, drawn, read
from fmbench.errors import DataError
from fmbench.metrics.extractors import View
from fmbench.metrics.mmd import median_distance
from fmbench.stages.evaluators.base import MEMORISATION, Evaluator, Measurement, add_measurements
from fmbench.stages.evaluators.extraction import Extraction, open_extractor
from fmbench.stages.evaluators.image_metrics import Comparison
from fmbench.stages.evaluators.images import ImageEvaluator
from fmbench.stages.evaluators.points import PointEvaluator, off_support_fraction
from fmbench.stages.evaluators.references import (
    Reference,
    make_reference,
    read_reference,
    reference_file,
    reference_name,
    with_test,
    write_reference,
)
from fmbench.stages.shared.classifier import to_images
from fmbench.stages.shared.classifier_training import add_accuracy, write_classifier
from fmbench.stages.shared.job import Job
from fmbench.store.documents import write_document
from fmbench.store.records import write_rows

STD_VALUES = 2**25
"""The most values in a piece for the standard deviation: 256 MB in float64, of which there are three copies."""


def run(job: Job, data: Path, out: Path) -> None:
    """Write ``extractor.json`` and ``rows.parquet`` into ``out``; for images the references, too, and the classifier's weights.

    The processes of the job's group share the extraction of features. The first process alone does the rest.
    """
    dataset = read(data)
    settings = FeatureSettings.model_validate(job.spec["settings"])
    if not job.group.main:
        if dataset.is_images:
            _images(job, dataset, settings, out)
        return
    job.add("data_std", data_std(dataset), "model units", n=len(dataset.train))
    evaluator = _images(job, dataset, settings, out) if dataset.is_images else _points(job, dataset, settings, out)
    primary = next((r for r in job.rows if r.metric == f"{evaluator.primary}_floor"), None)
    if primary is not None and primary.value is not None:
        job.console.say(f"{primary.metric} {primary.value:.4g} (n {primary.n}, {evaluator.features}) -> {out}")
    write_rows(out / "rows.parquet", job.rows)


def _images(job: Job, dataset: DataSet, settings: FeatureSettings, out: Path) -> Evaluator:
    """The evaluator of images, with its files in ``out`` and the floors in the job's rows."""
    n = len(dataset.test)
    extraction = Extraction(job.device, job.console, job.group)
    parts: list[dict[str, Any]] = []
    comparisons: list[Comparison] = []
    features: list[NDArray[np.float32]] = []  # of the test images
    for chosen in settings.extractors():
        suffix = f"/{chosen.extractor}" if comparisons else ""
        part, comparison, found = _comparison(job, chosen, suffix, dataset, settings, out, extraction)
        parts.append(part)
        comparisons.append(comparison)
        features.append(found)
    evaluator = ImageEvaluator(dataset, comparisons, settings, n, job.spec["seed"], extraction)
    without = ("frechet_at_floor_n", "frechet_infinity")
    names = [m.metric for m in evaluator.metrics() if not m.metric.startswith((*without, *MEMORISATION))]
    _add_floors(job, evaluator, evaluator.measure_features(features, names), names, n)
    _add_halves(job, evaluator, n)
    if job.group.main:
        for file in out.glob("reference-*.safetensors"):
            if file.name not in [part["reference"] for part in parts]:
                file.unlink()  # of earlier settings
        write_document(out / "extractor.json", _description(job, evaluator, settings, n) | {"extractors": parts})
    return evaluator


def _comparison(
    job: Job,
    chosen: ExtractorSettings,
    suffix: str,
    dataset: DataSet,
    settings: FeatureSettings,
    out: Path,
    extraction: Extraction,
) -> tuple[dict[str, Any], Comparison, NDArray[np.float32]]:
    """One extractor: its entry in ``extractor.json``, its reference, and the features (n, F) of all test images."""
    seed = job.spec["seed"]
    part: dict[str, Any] = chosen.model_dump() | {"suffix": suffix, "batch": settings.batch}
    if chosen.extractor == "classifier":
        part |= write_classifier(job, dataset, settings, out)
    extractor, batch = open_extractor(part, out, dataset, job.device)
    part["name"] = extractor.name
    part["reference"] = reference_file(extractor, chosen.model_dump(), dataset, settings, seed)
    part["reference_name"] = reference_name(dataset, settings.reference_n)
    path = out / part["reference"]
    reference = _existing_reference(job, path, part["reference_name"])
    test = View(len(dataset.test), lambda rows: np.asarray(dataset.test[rows]))
    features = extraction.features(extractor, dataset, test, batch)
    if reference is None:
        reference = make_reference(extractor, dataset, settings, seed, batch, extraction)
        reference = with_test(reference, features, settings, seed)
        if job.group.main:
            write_reference(path, reference)
    if chosen.extractor == "classifier":
        add_accuracy(job, dataset, extractor, batch)
    return part, Comparison(extractor, batch, reference, suffix), features


def _existing_reference(job: Job, path: Path, name: str) -> Reference | None:
    """The reference in the file, or None. The first process decides for all whether the file is usable."""
    found = None
    if job.group.main:
        with contextlib.suppress(DataError):  # missing or damaged: to be made again
            found = read_reference(path, name)
    usable = float(job.group.mean(torch.tensor([float(found is not None)], device=job.device))) > 0
    return read_reference(path, name) if usable and found is None else found


def _points(job: Job, dataset: DataSet, settings: FeatureSettings, out: Path) -> Evaluator:
    """The evaluator of points, with its file in ``out`` and the floors in the job's rows."""
    seed, n = job.spec["seed"], len(dataset.test)
    points, others = np.asarray(dataset.test, np.float64), np.asarray(drawn(dataset.train, n, seed, "floor"))
    try:
        # Computed from the data alone, so that every model is measured with the same kernels.
        median = median_distance(points, np.asarray(others, np.float64))
    except ValueError as error:
        median = None
        job.console.say(f"no MMD: {error}")
    evaluator = PointEvaluator(dataset, settings, median, seed)
    names = [m.metric for m in evaluator.metrics() if not m.metric.startswith(("off_support", *MEMORISATION))]
    _add_floors(job, evaluator, evaluator.measure_data(others, names), names, len(others))
    _add_halves(job, evaluator, n)
    if dataset.manifest["entropy"] is not None:
        job.add("nll_floor", dataset.manifest["entropy"], "nats", features="entropy of the true density")
    if dataset.manifest["support"] is not None:
        job.add("off_support_floor", off_support_fraction(dataset, points), "fraction", n=n)
    write_document(out / "extractor.json", _description(job, evaluator, settings, n) | {"median_distance": median})
    return evaluator


def _description(job: Job, evaluator: Evaluator, settings: FeatureSettings, floor_n: int) -> dict[str, Any]:
    """The entries of ``extractor.json`` that points and images share."""
    return {"name": evaluator.features, "floor_n": floor_n, "seed": job.spec["seed"], "settings": settings.model_dump()}


def _add_floors(job: Job, evaluator: Evaluator, found: Sequence[Measurement], names: list[str], n: int) -> None:
    """Add rows with the metrics of n real samples: ``frechet_floor``, ``frechet_floor/efficientnet_lite0``."""

    def called(metric: str) -> str:
        name, slash, extractor = metric.partition("/")
        return f"{name}_floor{slash}{extractor}"

    add_measurements(job, found, evaluator.metrics(names), n, called)


def _add_halves(job: Job, evaluator: Evaluator, n: int) -> None:
    """Add the floors of memorisation: one half of the n test samples, which copies nothing, compared with the other half."""
    names = [m.metric for m in evaluator.metrics() if m.metric.startswith(MEMORISATION)]
    _add_floors(job, evaluator, evaluator.halves(), names, n // 2)


def data_std(dataset: DataSet) -> float:
    """The standard deviation of all values of the training split in model space, in one pass over pieces."""
    n, mean, scatter = 0, 0.0, 0.0
    rows = std_rows(dataset.shape)
    for start in range(0, len(dataset.train), rows):
        x = to_images(dataset, dataset.train[start : start + rows]).double()
        m, own = x.numel(), float(x.mean())
        scatter += float((x - own).square().sum()) + (own - mean) ** 2 * n * m / (n + m)
        mean += (own - mean) * m / (n + m)
        n += m
    return math.sqrt(scatter / (n - 1))


def std_rows(shape: tuple[int, ...]) -> int:
    """The samples in a piece: 4096, or fewer of large images, so that memory stays constant."""
    return max(1, min(4096, STD_VALUES // math.prod(shape)))
