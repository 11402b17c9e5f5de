"""Stage ``features``: the extractors behind the distances, the reference's features, and the floors, which are of real data.

For images, the extractors that the config chooses, with what they make of the training images; a floor is what a metric gives
for the test split against train. With the in-DAG classifier, trained on the labels of the training set, that holds the
classifier's generalisation gap, too, so a model that repeats its training set can come below it. For points, distances between
train and test.
"""

import contextlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from fmbench.config.feature_settings import FeatureSettings
from fmbench.config.hashing import settings_hash
from fmbench.data.prepared import DataSet, drawn, read
from fmbench.errors import DataError
from fmbench.metrics.extractors import Extractor, extract_batches
from fmbench.metrics.mmd import median_distance
from fmbench.metrics.points import SUPPORTS
from fmbench.stages.classifier import FEATURES, Classifier, to_images, unlearnable
from fmbench.stages.common import Job
from fmbench.stages.evaluator import (
    UNITS,
    Evaluator,
    ImageEvaluator,
    Measurement,
    Metric,
    PointEvaluator,
    Reference,
    Side,
    load_evaluator,
    make_reference,
    open_extractor,
    read_reference,
    reference_file,
    reference_name,
    write_reference,
)
from fmbench.stages.sample_quality import skip_unmeasured
from fmbench.store.checkpoint import save_weights
from fmbench.store.files import sha256, write_json
from fmbench.store.records import write_rows
from fmbench.system.rng import generator
from fmbench.training.batches import BatchSampler

__all__ = ["UNITS", "Evaluator", "Measurement", "Metric", "load_evaluator", "run"]


def run(job: Job, data: Path, out: Path) -> None:
    """Write ``extractor.json`` and ``rows.parquet`` into ``out``; of images the references, too, and a classifier's weights.

    The processes of the job's group share the extraction of features. What else there is to do is the first's.
    """
    dataset = read(data)
    settings = FeatureSettings.model_validate(job.spec["settings"])
    if not job.group.main:
        if dataset.is_images:
            _images(job, dataset, settings, out)
        return
    job.add("data_std", _data_std(dataset), "model units", n=len(dataset.train))
    evaluator = _images(job, dataset, settings, out) if dataset.is_images else _points(job, dataset, settings, out)
    primary = next((r for r in job.rows if r.metric == f"{evaluator.primary}_floor"), None)
    if primary is not None and primary.value is not None:
        job.console.say(f"{primary.metric} {primary.value:.4g} (n {primary.n}, {evaluator.features}) -> {out}")
    write_rows(out / "rows.parquet", job.rows)


def _images(job: Job, dataset: DataSet, settings: FeatureSettings, out: Path) -> Evaluator:
    seed, n, group = job.spec["seed"], len(dataset.test), job.group
    parts: list[dict[str, Any]] = []
    sides: list[Side] = []
    for chosen in settings.extractors():
        suffix = f"/{chosen.extractor}" if sides else ""  # of all but the first
        part: dict[str, Any] = chosen.model_dump() | {"suffix": suffix, "batch": settings.batch}
        if chosen.extractor == "classifier":
            part |= _classifier(job, dataset, settings, out)
        extractor, batch = open_extractor(part, out, dataset, job.device)
        part["name"] = extractor.name
        part["reference"] = reference_file(extractor, chosen.model_dump(), dataset, settings, seed)
        part["reference_name"] = reference_name(dataset, settings.reference_n)
        sides.append(Side(extractor, _reference(job, part, extractor, dataset, settings, out, batch), suffix, batch))
        if chosen.extractor == "classifier":
            _accuracy(job, dataset, extractor, batch)
        parts.append(part)
    evaluator = ImageEvaluator(dataset, sides, settings, n, seed, job.device, job.console, group)
    without = ("frechet_at_floor_n", "frechet_infinity")
    names = [m.metric for m in evaluator.metrics() if not m.metric.startswith(without)]
    _floors(job, evaluator, dataset.test, names)
    if group.main:
        for file in out.glob("reference-*.safetensors"):
            if file.name not in [part["reference"] for part in parts]:
                file.unlink()  # of settings that are no more
        description = {
            "name": evaluator.features,
            "floor_n": n,
            "seed": seed,
            "settings": settings.model_dump(),
            "extractors": parts,
        }
        write_json(out / "extractor.json", description)
    return evaluator


def _reference(
    job: Job,
    part: dict[str, Any],
    extractor: Extractor,
    dataset: DataSet,
    settings: FeatureSettings,
    out: Path,
    batch: int,
) -> Reference:
    """What the extractor makes of the training images: from its file, or made, by all processes, and written by the first."""
    path, found = out / part["reference"], None
    if job.group.main:
        with contextlib.suppress(DataError):  # not there, or damaged: made again
            found = read_reference(path, part["reference_name"])
    if float(job.group.mean(torch.tensor([float(found is not None)], device=job.device))) > 0:
        return read_reference(path, part["reference_name"]) if found is None else found
    reference = make_reference(extractor, dataset, settings, job.spec["seed"], batch, job.console, job.group)
    if job.group.main:
        write_reference(path, reference)
    return reference


def _points(job: Job, dataset: DataSet, settings: FeatureSettings, out: Path) -> Evaluator:
    seed, n = job.spec["seed"], len(dataset.test)
    points, others = np.asarray(dataset.test, np.float64), np.asarray(drawn(dataset.train, n, seed, "floor"))
    try:
        # Of the data alone, so that every model is measured with the same kernels.
        median = median_distance(points, np.asarray(others, np.float64))
    except ValueError as error:
        median = None
        job.console.say(f"no MMD: {error}")
    evaluator = PointEvaluator(dataset, settings, median, seed)
    _floors(job, evaluator, others, [m.metric for m in evaluator.metrics() if m.metric != "off_support"])
    if dataset.manifest["entropy"] is not None:
        job.add("nll_floor", dataset.manifest["entropy"], "nats", features="entropy of the true density")
    if dataset.manifest["support"] is not None:
        off = 1 - float(SUPPORTS[dataset.manifest["support"]](points).mean())
        job.add("off_support_floor", off, "fraction", n=n)
    description = {
        "name": evaluator.features,
        "floor_n": n,
        "seed": seed,
        "settings": settings.model_dump(),
        "median_distance": median,
    }
    write_json(out / "extractor.json", description)
    return evaluator


def _floors(job: Job, evaluator: Evaluator, values: NDArray, names: list[str]) -> None:
    """Rows of what real data have, for reading the models' by: ``frechet_floor``, ``frechet_floor/efficientnet_lite0``."""

    def called(metric: str) -> str:
        name, slash, which = metric.partition("/")
        return f"{name}_floor{slash}{which}"

    found = evaluator.measure_data(values, names)
    for metric, value, unit, n, features, reference in found:
        job.add(called(metric), value, unit, n=n, features=features, reference=reference)
    skip_unmeasured(job, evaluator.metrics(names), found, len(values), called)


def _data_std(dataset: DataSet, rows: int = 4096) -> float:
    """Standard deviation of all numbers of the training split in model space, in one pass with few images in memory."""
    n, mean, scatter = 0, 0.0, 0.0
    for start in range(0, len(dataset.train), rows):
        x = to_images(dataset, dataset.train[start : start + rows]).double()
        m, own = x.numel(), float(x.mean())
        scatter += float((x - own).square().sum()) + (own - mean) ** 2 * n * m / (n + m)
        mean += (own - mean) * m / (n + m)
        n += m
    return math.sqrt(scatter / (n - 1))


def _classifier(job: Job, dataset: DataSet, settings: FeatureSettings, out: Path) -> dict[str, Any]:
    """The classifier's description; the first process trains it and writes its weights."""
    reason = unlearnable(dataset)
    if reason:
        raise DataError(f"{dataset.manifest['dataset']}: {reason}")
    weights = out / "classifier.safetensors"
    # Only what the training depends on, or the name's hash would change with the settings of a metric.
    trained = {name: getattr(settings, name) for name in ("epochs", "batch_size", "learning_rate", "width")}
    spec = {name: job.spec[name] for name in ("dataset", "data", "seed", "device")} | trained
    if job.group.main:
        save_weights(weights, _train_classifier(job, dataset, settings), {"spec": settings_hash(spec)})
    job.group.wait()
    name = f"classifier({job.spec['dataset']}, {FEATURES} features, {sha256(weights)[:8]})"
    return {"name": name, "width": settings.width, "classes": dataset.manifest["classes"]}


def _accuracy(job: Job, dataset: DataSet, extractor: Extractor, batch: int) -> None:
    assert extractor.logits is not None
    right, labels = 0, dataset.labels("test")
    for start, features in extract_batches(extractor, np.asarray(dataset.test), batch, group=job.group):
        guesses = extractor.logits(torch.from_numpy(features)).argmax(1).cpu().numpy()
        right += int((guesses == labels[start : start + len(features)]).sum())
    job.add("classifier_accuracy", right / len(labels), "fraction", n=len(labels), features=extractor.name)
    job.console.say(f"classifier accuracy {right / len(labels):.3f}")


def _train_classifier(job: Job, dataset: DataSet, settings: FeatureSettings) -> Classifier:
    seed = job.spec["seed"]
    labels = torch.from_numpy(np.array(dataset.labels("train"))).to(job.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, "classifier").initial_seed())
        classifier = Classifier(dataset.shape, dataset.manifest["classes"], settings.width)
    classifier.to(job.device).train()
    n = len(dataset.train)
    steps = max(1, settings.epochs * n // settings.batch_size)
    sampler = BatchSampler(n, settings.batch_size, seed)
    optimiser = torch.optim.Adam(classifier.parameters(), lr=settings.learning_rate, fused=True)
    progress = job.console.progress(steps, "steps")
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = settings.learning_rate * (1 - step / steps)
        indices = sampler.indices(step)
        images = to_images(dataset, dataset.train[indices.numpy()]).to(job.device)
        loss = F.cross_entropy(classifier(images), labels[indices.to(job.device)])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        progress.update(step + 1)
    progress.close()
    return classifier.eval()
