"""The metrics of images, one function each, from the features of samples and of the reference."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fmbench.config.feature_settings import FeatureSettings
from fmbench.metrics.cmmd import cmmd
from fmbench.metrics.density_coverage import density_coverage
from fmbench.metrics.extractors import Extractor
from fmbench.metrics.fid_infinity import frechet_infinity
from fmbench.metrics.frechet import FeatureStatistics, feature_statistics, frechet_distance
from fmbench.metrics.inception_score import inception_score
from fmbench.metrics.kid import kernel_distance
from fmbench.metrics.memorisation import LEAST_SAMPLES as LEAST_OF_C_T
from fmbench.metrics.memorisation import memorisation
from fmbench.metrics.precision_recall import precision_recall
from fmbench.metrics.sampling_error import LEAST_SAMPLES, frechet_stderr
from fmbench.stages.evaluators.base import MEMORISATION
from fmbench.stages.evaluators.references import Reference
from fmbench.system.rng import generator


class Found(NamedTuple):
    """One value, the number of samples behind it, and what it was compared with."""

    metric: str
    value: float
    n: int
    reference: str


@dataclass(frozen=True)
class Comparison:
    """An extractor, its batch size in images, and its reference.

    ``suffix`` is appended to the names of the metrics: empty for the first extractor, ``/NAME`` for the others.
    """

    extractor: Extractor
    batch: int
    reference: Reference
    suffix: str = ""


@dataclass(frozen=True)
class Case:
    """The features of samples, with all that a metric needs beside them."""

    features: NDArray[np.float32]  # of the samples, (n, F)
    order: NDArray[np.int64]  # of the samples, (n,). A metric of some samples takes the first of this order
    comparison: Comparison
    settings: FeatureSettings
    floor_n: int  # the number of test images, which the floors are measured on
    seed: int
    device: torch.device  # where products of many features are computed

    @property
    def reference(self) -> Reference:
        return self.comparison.reference

    def some(self, k: int) -> NDArray[np.float32]:
        """The features (k, F) of k samples."""
        return self.features if k == len(self.features) else self.features[self.order[:k]]

    def on_device(self, features: NDArray[np.float32]) -> torch.Tensor:
        return torch.from_numpy(features).to(self.device)

    @cached_property
    def statistics(self) -> FeatureStatistics:
        """Mean and covariance of all features of samples."""
        return feature_statistics(self.features)

    @cached_property
    def pair(self) -> tuple[torch.Tensor, torch.Tensor]:
        """At most ``max_samples`` features of samples and of the reference, on the device."""
        most = self.settings.max_samples
        return self.on_device(self.some(min(most, len(self.features)))), self.on_device(self.reference.features[:most])


def frechet(case: Case) -> list[Found]:
    """The Frechet distance of all samples."""
    value = frechet_distance(case.statistics, case.reference.statistics)
    return [Found("frechet", value, len(case.features), case.reference.name)]


def frechet_error(case: Case) -> list[Found]:
    """The standard error of the Frechet distance of all samples."""
    if len(case.features) < LEAST_SAMPLES:
        return []
    value = frechet_stderr(case.features, case.statistics, case.reference.statistics, case.order)
    return [Found("frechet_stderr", value, len(case.features), case.reference.name)]


def frechet_at_floor_n(case: Case) -> list[Found]:
    """The Frechet distance of as many samples as there are test images, for comparison with the floor."""
    if not len(case.features) >= case.floor_n >= 2:
        return []
    value = frechet_distance(feature_statistics(case.some(case.floor_n)), case.reference.statistics)
    return [Found("frechet_at_floor_n", value, case.floor_n, case.reference.name)]


def kid(case: Case) -> list[Found]:
    """The kernel distance: mean and standard deviation over random subsets."""
    samples, real = case.pair
    # At most half of the features, or the subsets would hardly differ from each other.
    size = min(case.settings.kid.size, min(len(samples), len(real)) // 2)
    if size < 2:
        return []
    found = kernel_distance(samples, real, generator(case.seed, "kid"), case.settings.kid.subsets, size)
    reference = f"{case.reference.name}; {found.subsets} subsets of {found.size} out of {len(real)}"
    return [Found("kid", found.mean, len(samples), reference), Found("kid_std", found.std, len(samples), reference)]


def clip_distance(case: Case) -> list[Found]:
    """The CMMD, on the features of CLIP only."""
    samples, real = case.pair
    if min(len(samples), len(real)) < 2:
        return []
    return [Found("cmmd", cmmd(samples, real), len(samples), f"{case.reference.name}; {len(real)} of them")]


def precision_and_recall(case: Case) -> list[Found]:
    """Precision and recall, on equally many features of both sides."""
    samples, real = case.pair
    n, k = min(len(samples), len(real)), case.settings.neighbours
    if n <= k:
        return []
    found = precision_recall(real[:n], case.on_device(case.some(n)), k)
    reference = f"{case.reference.name}; {n} of them, k = {k}"
    return [Found("precision", found.precision, n, reference), Found("recall", found.recall, n, reference)]


def classifier_score(case: Case) -> list[Found]:
    """The Inception Score of the extractor's own classes: mean and standard deviation over the splits."""
    extractor = case.comparison.extractor
    n, splits, logits = len(case.features), case.settings.splits, extractor.logits
    if logits is None or n < splits:
        return []
    pieces = (case.features[case.order[start : start + 1000]] for start in range(0, n, 1000))
    found = inception_score(np.concatenate([logits(torch.from_numpy(piece)).cpu().numpy() for piece in pieces]), splits)
    name, reference = score_name(extractor), f"none; {splits} splits"
    return [Found(name, found.mean, n, reference), Found(f"{name}_std", found.std, n, reference)]


def score_name(extractor: Extractor) -> str:
    """The name of :func:`classifier_score`'s metric: it is the Inception Score only on Inception's classes."""
    return "inception_score" if extractor.is_inception else "classifier_score"


def frechet_at_infinity(case: Case) -> list[Found]:
    """The Frechet distance extrapolated to infinitely many samples, with the slope and the error of the fit."""
    n, points = len(case.features), case.settings.infinity_sizes
    smallest = max(2, n // 10)
    if points is None or n - smallest < points - 1:
        return []
    fit = frechet_infinity(case.features, case.reference.statistics, generator(case.seed, "frechet_infinity"), points, smallest)
    reference = f"{case.reference.name}; a line in 1 / n through {len(fit.sizes)} sizes from {smallest}"
    values = {"": fit.intercept, "_slope": fit.slope, "_error": fit.error}
    return [Found(f"frechet_infinity{end}", value, n, reference) for end, value in values.items()]


def density_and_coverage(case: Case) -> list[Found]:
    """Density and coverage, on equally many features of both sides."""
    samples, real = case.pair
    n, k = min(len(samples), len(real)), case.settings.neighbours
    if n <= k:
        return []
    found = density_coverage(real[:n], case.on_device(case.some(n)), k)
    reference = f"{case.reference.name}; {n} of them, k = {k}"
    return [Found("density", found.density, n, reference), Found("coverage", found.coverage, n, reference)]


def copying(case: Case) -> list[Found]:
    """How near the samples are to the training images, against test images."""
    if case.reference.test is None:
        return []
    samples, _ = case.pair
    real = case.on_device(case.reference.features)
    test = case.on_device(case.reference.test)
    if min(len(samples), len(test)) < LEAST_OF_C_T:
        return []
    found = memorisation(real, test, samples)
    reference = f"{case.reference.name}; {len(real)} of them, {len(test)} test images"
    return [Found(name, value, len(samples), reference) for name, value in found._asdict().items()]


METRICS: dict[tuple[str, ...], Callable[[Case], list[Found]]] = {
    ("frechet",): frechet,
    ("frechet_stderr",): frechet_error,
    ("frechet_at_floor_n",): frechet_at_floor_n,
    ("kid", "kid_std"): kid,
    ("precision", "recall"): precision_and_recall,
    ("inception_score", "inception_score_std", "classifier_score", "classifier_score_std"): classifier_score,
    ("frechet_infinity", "frechet_infinity_slope", "frechet_infinity_error"): frechet_at_infinity,
    ("cmmd",): clip_distance,
    ("density", "coverage"): density_and_coverage,
    MEMORISATION: copying,
}
"""The functions, each with the metrics that it finds. A function finds none if the samples are too few for it."""
