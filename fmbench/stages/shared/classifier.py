"""The in-DAG extractor: a small classifier trained on the labels of a data set's training split."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fmbench.data.prepared import DataSet
from fmbench.metrics.extractors import Extractor

FEATURES = 64
BATCH = 512
"""The classifier's batch size in images."""


class Classifier(nn.Module):
    """Two convolutions, average pooling to at most 4 x 4, and a hidden layer, whose 64 outputs are the features."""

    def __init__(self, shape: tuple[int, ...], classes: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(shape[0], width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d((min(4, shape[1]), min(4, shape[2])))
        flat = 2 * width * min(4, shape[1]) * min(4, shape[2])
        self.hidden, self.out = nn.Linear(flat, FEATURES), nn.Linear(FEATURES, classes)

    def features(self, x: Tensor) -> Tensor:
        """Features (B, 64) of images (B, C, H, W) in [-1, 1]."""
        h = F.silu(self.conv2(F.silu(self.conv1(x))))
        return F.silu(self.hidden(self.pool(h).flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, C, H, W) in [-1, 1]."""
        logits: Tensor = self.out(self.features(x))
        return logits


def unlearnable(dataset: DataSet) -> str:
    """Why a data set's labels cannot train a classifier, with the remedy; empty if they can.

    Raises:
        DataError: the labels cannot be read.
    """
    remedy = "so the extractor classifier cannot be trained; choose another extractor under evaluation.features"
    if dataset.manifest["classes"] is None:
        return f"the images have no labels, {remedy}"
    if len(np.unique(dataset.labels("train"))) < 2:  # with one output the loss is always 0, and no feature is learnt
        return f"the training images are of one class only, {remedy}"
    return ""


def to_images(dataset: DataSet, values: NDArray) -> Tensor:
    """uint8 images as values in [-1, 1], each at the middle of its level's interval."""
    return dataset.to_model(torch.from_numpy(np.array(values)), torch.tensor(0.5))


def as_extractor(name: str, classifier: Classifier, dataset: DataSet, device: torch.device) -> Extractor:
    """A trained classifier as an extractor, which takes images with the data set's own channels and levels."""
    classifier.to(device).eval()

    def evaluated(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        with torch.no_grad():
            return function(x.to(device))

    return Extractor(
        name,
        FEATURES,
        lambda images: evaluated(classifier.features, dataset.to_model(images, torch.tensor(0.5))),
        lambda features: evaluated(classifier.out, features),
        native=True,
    )
