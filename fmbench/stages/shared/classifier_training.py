"""The training of the in-DAG classifier, whose features measure images by default, and its accuracy."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from fmbench.config.feature_settings import FeatureSettings
from fmbench.config.hashing import settings_hash
from fmbench.data.prepared import DataSet
from fmbench.errors import DataError
from fmbench.metrics.extractors import Extractor, extract_batches
from fmbench.stages.shared.classifier import FEATURES, Classifier, to_images, unlearnable
from fmbench.stages.shared.job import Job
from fmbench.store.seal import check_seal
from fmbench.store.weights import save_weights
from fmbench.system.rng import generator
from fmbench.training.batches import BatchSampler


def write_classifier(job: Job, dataset: DataSet, settings: FeatureSettings, out: Path) -> dict[str, Any]:
    """The classifier's entries in ``extractor.json``. The first process trains it and writes its weights into ``out``.

    Raises:
        DataError: the labels cannot train a classifier.
    """
    reason = unlearnable(dataset)
    if reason:
        raise DataError(f"{dataset.manifest['dataset']}: {reason}")
    weights = out / "classifier.safetensors"
    # Only what the training depends on: the classifier's name must not change with the settings of a metric.
    trained = {name: getattr(settings, name) for name in ("epochs", "batch_size", "learning_rate", "width")}
    spec = {name: job.spec[name] for name in ("dataset", "data", "seed", "device")} | trained
    if job.group.main:
        save_weights(weights, train_classifier(job, dataset, settings), {"spec": settings_hash(spec)})
    job.group.wait()
    name = f"classifier({job.spec['dataset']}, {FEATURES} features, {check_seal(weights)[:8]})"
    return {"name": name, "width": settings.width, "classes": dataset.manifest["classes"]}


def train_classifier(job: Job, dataset: DataSet, settings: FeatureSettings) -> Classifier:
    """The classifier, trained by Adam on the labels of the training split; the learning rate falls to 0 linearly."""
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


def add_accuracy(job: Job, dataset: DataSet, extractor: Extractor, batch: int) -> None:
    """Add a row with the classifier's accuracy on the test split."""
    assert extractor.logits is not None
    right, labels = 0, dataset.labels("test")
    for start, features in extract_batches(extractor, np.asarray(dataset.test), batch, group=job.group):
        guesses = extractor.logits(torch.from_numpy(features)).argmax(1).cpu().numpy()
        right += int((guesses == labels[start : start + len(features)]).sum())
    job.add("classifier_accuracy", right / len(labels), "fraction", n=len(labels), features=extractor.name)
    job.console.say(f"classifier accuracy {right / len(labels):.3f}")
