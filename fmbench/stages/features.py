"""Stage ``features``: the extractor behind the Frechet distance, and the floor: the distance between real test and train.

For images, a small classifier trained on the labels of the training set; its accuracy is a row, and so is the distance between
test and train, both real. That distance holds the classifier's generalisation gap, too, so a model that repeats its training
set can come below it. For points, the energy distance between train and test.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fmbench.checkpoint import load_weights, save_weights
from fmbench.config import FeatureSettings
from fmbench.data.prepared import DataSet, read
from fmbench.files import read_json, sha256, write_json
from fmbench.metrics.frechet import feature_statistics, frechet_distance
from fmbench.metrics.points import SUPPORTS, energy_distance
from fmbench.records import write_rows
from fmbench.rng import generator
from fmbench.stages.common import Job
from fmbench.training.loop import BatchSampler

FEATURES = 64


class Classifier(nn.Module):
    """Two convolutions, 2x2 pooling to at most 4 x 4, and a hidden layer of 64 whose outputs are the features."""

    def __init__(self, shape: tuple[int, ...], classes: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(shape[0], width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d((min(4, shape[1]), min(4, shape[2])))
        flat = 2 * width * min(4, shape[1]) * min(4, shape[2])
        self.hidden, self.out = nn.Linear(flat, FEATURES), nn.Linear(FEATURES, classes)

    def features(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] to features (B, 64)."""
        h = F.silu(self.conv2(F.silu(self.conv1(x))))
        return F.silu(self.hidden(self.pool(h).flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.features(x))
        return out


def run(job: Job, data: Path, out: Path) -> None:
    """Write ``extractor.json``, for images ``classifier.safetensors``, and ``rows.parquet`` into ``out``."""
    dataset = read(data)
    settings = FeatureSettings.model_validate(job.spec["settings"])
    n = len(dataset.test)
    x = dataset.to_model(torch.from_numpy(np.array(dataset.train)), torch.tensor(0.5))
    job.add("data_std", float(x.double().std()), "model units", n=len(x))
    if dataset.is_images:
        classifier = _train_classifier(job, dataset, settings)
        weights = out / "classifier.safetensors"
        save_weights(weights, classifier, {"spec": job.config_hash})
        name = f"classifier({job.spec['dataset']}, {FEATURES} features, {sha256(weights)[:8]})"
        extractor: dict[str, Any] = {
            "name": name,
            "width": settings.width,
            "classes": dataset.manifest["classes"],
            "floor_n": n,
        }
        logits = _in_batches(classifier, to_images(dataset, dataset.test), job.device)
        accuracy = float((logits.argmax(1) == dataset.labels("test")).mean())
        job.add("classifier_accuracy", accuracy, "fraction", n=n, features=name)
        train = feature_statistics(_features(classifier, dataset, dataset.train, job.device))
        test = feature_statistics(_features(classifier, dataset, dataset.test, job.device))
        floor = frechet_distance(test, train)
        job.add("frechet_floor", floor, "squared features", n=n, features=name, reference=reference_name(dataset))
        job.console.say(f"classifier accuracy {accuracy:.3f}, Frechet distance of test to train {floor:.3f} -> {out}")
    else:
        extractor = {"name": "coordinates", "floor_n": n}
        points, others = np.asarray(dataset.test, np.float64), np.asarray(dataset.train[:n], np.float64)
        floor = energy_distance(others, points)
        columns = {"n": n, "features": "coordinates", "reference": f"test, n = {n}"}
        job.add("energy_distance_floor", floor, "data units", **columns)
        if dataset.manifest["entropy"] is not None:
            job.add("nll_floor", dataset.manifest["entropy"], "nats", features="entropy of the true density")
        if dataset.manifest["support"] is not None:
            off = 1 - float(SUPPORTS[dataset.manifest["support"]](points).mean())
            job.add("off_support_floor", off, "fraction", n=n)
        job.console.say(f"energy distance of {n} train points to test {floor:.5f} -> {out}")
    write_json(out / "extractor.json", extractor)
    write_rows(out / "rows.parquet", job.rows)


def reference_name(dataset: DataSet) -> str:
    """The reference set of a Frechet distance: every training image, not augmented, with its hash."""
    entry = dataset.manifest["splits"]["train"]
    return f"train, n = {entry['n']}, sha256 {entry['sha256'][:12]}"


def to_images(dataset: DataSet, values: NDArray) -> Tensor:
    """uint8 images to [-1, 1], at the middle of their level's interval."""
    return dataset.to_model(torch.from_numpy(np.array(values)), torch.tensor(0.5))


def load_extractor(folder: Path, dataset: DataSet, device: torch.device) -> tuple[dict[str, Any], Classifier | None]:
    """The extractor that :func:`run` wrote: its description, and for images the classifier."""
    extractor = read_json(folder / "extractor.json")
    if not dataset.is_images:
        return extractor, None
    classifier = Classifier(dataset.shape, extractor["classes"], extractor["width"])
    load_weights(folder / "classifier.safetensors", classifier)
    return extractor, classifier.to(device).eval()


def _features(classifier: Classifier, dataset: DataSet, values: NDArray, device: torch.device) -> NDArray:
    return _in_batches(classifier.features, to_images(dataset, values), device)


def _in_batches(function: Any, images: Tensor, device: torch.device, size: int = 512) -> NDArray:
    with torch.no_grad():
        return np.concatenate([function(piece.to(device)).cpu().numpy() for piece in images.split(size)])


def _train_classifier(job: Job, dataset: DataSet, settings: FeatureSettings) -> Classifier:
    seed = job.spec["seed"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, "classifier").initial_seed())
        classifier = Classifier(dataset.shape, dataset.manifest["classes"], settings.width)
    classifier.to(job.device).train()
    images = to_images(dataset, dataset.train).to(job.device)
    labels = torch.from_numpy(np.array(dataset.labels("train"))).to(job.device)
    steps = max(1, settings.epochs * len(images) // settings.batch_size)
    sampler = BatchSampler(len(images), settings.batch_size, seed)
    optimiser = torch.optim.Adam(classifier.parameters(), lr=settings.learning_rate, fused=True)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = settings.learning_rate * (1 - step / steps)
        indices = sampler.indices(step).to(job.device)
        loss = F.cross_entropy(classifier(images[indices]), labels[indices])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    return classifier.eval()


def distances(
    extractor: dict[str, Any], classifier: Classifier | None, dataset: DataSet, samples: NDArray, device: torch.device
) -> dict[str, tuple[float, int]]:
    """Quality of samples (model space, finite): metric to (value, n).

    Images: the Frechet distance to the training set at all n, and at the floor's n (never compare across n).
    Points: the energy distance to the test set, and the fraction off the support where it is known.
    """
    floor_n = extractor["floor_n"]
    values = dataset.to_data(samples)
    if classifier is None:
        test = np.asarray(dataset.test, np.float64)
        result = {"energy_distance": (energy_distance(values.astype(np.float64), test), len(values))}
        support = dataset.manifest["support"]
        if support is not None:
            result["off_support"] = (1 - float(SUPPORTS[support](values).mean()), len(values))
        return result
    reference = feature_statistics(_features(classifier, dataset, dataset.train, device))
    features = _features(classifier, dataset, values, device)
    result = {"frechet": (frechet_distance(feature_statistics(features), reference), len(values))}
    if len(values) >= floor_n:
        distance = frechet_distance(feature_statistics(features[:floor_n]), reference)
        result["frechet_at_floor_n"] = (distance, floor_n)
    return result


class Measurement(NamedTuple):
    """One number about samples."""

    metric: str
    value: float
    unit: str
    n: int
    features: str
    reference: str


class Metric(NamedTuple):
    """What a judge measures, for a row where it could not be."""

    metric: str
    unit: str
    features: str
    reference: str


class Judge:
    """What :func:`run` wrote, at work on samples of one data set."""

    def __init__(self, folder: Path, dataset: DataSet, device: torch.device) -> None:
        self.extractor, self.classifier = load_extractor(folder, dataset, device)
        self.dataset, self.device = dataset, device
        self.primary = "frechet" if dataset.is_images else "energy_distance"
        self.features = self.extractor["name"]
        self.reference = reference_name(dataset) if dataset.is_images else f"test, n = {len(dataset.test)}"
        self.statistics: Any = None

    def metrics(self, only: Sequence[str] | None = None) -> list[Metric]:
        """What :meth:`measure` gives."""
        unit = "squared features" if self.dataset.is_images else "data units"
        return [Metric(self.primary, unit, self.features, self.reference)]

    def measure(self, samples: NDArray, only: Sequence[str] | None = None) -> list[Measurement]:
        """Measurements of finite samples (N, *) in model space."""
        (main,) = self.metrics(only)
        values = self.dataset.to_data(samples)
        if self.classifier is None:
            test = np.asarray(self.dataset.test, np.float64)
            value = energy_distance(values.astype(np.float64), test)
        else:
            if self.statistics is None:
                self.statistics = feature_statistics(_features(self.classifier, self.dataset, self.dataset.train, self.device))
            found = feature_statistics(_features(self.classifier, self.dataset, values, self.device))
            value = frechet_distance(found, self.statistics)
        return [Measurement(main.metric, value, main.unit, len(values), main.features, main.reference)]


def load_judge(folder: Path, dataset: DataSet, device: torch.device) -> Judge:
    """The judge that :func:`run` wrote."""
    return Judge(folder, dataset, device)
