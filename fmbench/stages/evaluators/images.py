"""The evaluator of images: distances between features of samples and of training images, for each extractor."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from fmbench.config.feature_settings import FeatureSettings
from fmbench.data.prepared import DataSet
from fmbench.metrics.extractors import View
from fmbench.stages.evaluators.base import (
    MEMORISATION,
    UNITS,
    Evaluator,
    Measurement,
    Metric,
    check_finite,
    check_samples,
    choose,
)
from fmbench.stages.evaluators.extraction import Extraction
from fmbench.stages.evaluators.image_metrics import METRICS, Case, Comparison, score_name
from fmbench.system.rng import generator


class ImageEvaluator(Evaluator):
    """Distances between features of samples and of the training images, for each extractor.

    Args:
        floor_n: the number of test images, which the floors are measured on.
    """

    def __init__(
        self,
        dataset: DataSet,
        comparisons: Sequence[Comparison],
        settings: FeatureSettings,
        floor_n: int,
        seed: int,
        extraction: Extraction,
    ) -> None:
        self.dataset, self.comparisons, self.settings = dataset, comparisons, settings
        self.floor_n, self.seed, self.extraction = floor_n, seed, extraction
        first = comparisons[0]
        self.primary, self.features, self.reference = "frechet", first.extractor.name, first.reference.name

    def with_comparisons(self, comparisons: Sequence[Comparison]) -> "ImageEvaluator":
        """The same evaluator with other references."""
        return ImageEvaluator(self.dataset, comparisons, self.settings, self.floor_n, self.seed, self.extraction)

    def metrics(self, only: Sequence[str] | None = None) -> list[Metric]:
        return choose([metric for comparison in self.comparisons for metric in self._metrics_of(comparison)], only)

    def measure(self, samples: NDArray, only: Sequence[str] | None = None) -> list[Measurement]:
        def read(rows: slice) -> NDArray[np.uint8]:
            piece = np.asarray(samples[rows])
            check_finite(piece)
            values: NDArray[np.uint8] = self.dataset.to_data(piece)
            return values

        check_samples(len(samples), samples.shape[1:], self.dataset.shape)
        # Samples are in random order already, unless they follow the test split.
        order = self._random_order(len(samples)) if self.dataset.condition.arrays else np.arange(len(samples))
        return self._measure(View(len(samples), read), order, only)

    def measure_data(self, values: NDArray, only: Sequence[str] | None = None) -> list[Measurement]:
        check_samples(len(values), values.shape[1:], self.dataset.shape)
        return self.measure_levels(View(len(values), lambda rows: np.asarray(values[rows])), only)

    def measure_levels(self, images: View, only: Sequence[str] | None = None) -> list[Measurement]:
        """:meth:`measure` of images in the data set's levels, which are computed when they are read, in any order."""
        # A split of the data may be sorted by class.
        return self._measure(images, self._random_order(len(images)), only)

    def measure_features(self, features: Sequence[NDArray[np.float32]], only: Sequence[str] | None = None) -> list[Measurement]:
        """:meth:`measure_data` of images whose features (n, F) for each extractor are known."""
        of = dict(zip((c.suffix for c in self.comparisons), features, strict=True))
        return self._measure_features(lambda c: of[c.suffix], self._random_order(len(features[0])), only)

    def halves(self) -> list[Measurement]:
        mine, others, features = [], [], []
        for comparison in self.comparisons:
            test = comparison.reference.test
            if test is not None:  # in random order
                features.append(test[: len(test) // 2])
                others.append(replace(comparison, reference=replace(comparison.reference, test=test[len(test) // 2 :])))
                mine += [name + comparison.suffix for name in MEMORISATION]
        return self.with_comparisons(others).measure_features(features, mine) if others else []

    def _random_order(self, n: int) -> NDArray[np.int64]:
        return torch.randperm(n, generator=generator(self.seed, "places")).numpy()

    def _metrics_of(self, comparison: Comparison) -> list[Metric]:
        names = ["frechet", "frechet_stderr", "frechet_at_floor_n", "kid", "kid_std", "precision", "recall"]
        if comparison.extractor.logits is not None:
            score = score_name(comparison.extractor)
            names += [score, f"{score}_std"]
        if self.settings.infinity_sizes is not None:
            names += ["frechet_infinity", "frechet_infinity_slope", "frechet_infinity_error"]
        names += ["cmmd"] if comparison.extractor.is_clip else []
        names += ["density", "coverage", *(MEMORISATION if comparison.reference.test is not None else ())]
        return [Metric(n + comparison.suffix, UNITS[n], comparison.extractor.name, comparison.reference.name) for n in names]

    def _measure(self, levels: View, order: NDArray[np.int64], only: Sequence[str] | None) -> list[Measurement]:
        def features(comparison: Comparison) -> NDArray[np.float32]:
            return self.extraction.features(comparison.extractor, self.dataset, levels, comparison.batch)

        return self._measure_features(features, order, only)

    def _measure_features(
        self, features_of: Callable[[Comparison], NDArray[np.float32]], order: NDArray[np.int64], only: Sequence[str] | None
    ) -> list[Measurement]:
        wanted = {m.metric for m in self.metrics(only)}
        measurements: list[Measurement] = []
        for comparison in self.comparisons:
            extractor, suffix = comparison.extractor, comparison.suffix
            chosen = wanted & {m.metric for m in self._metrics_of(comparison)}
            if not chosen:
                continue
            features, device = features_of(comparison), self.extraction.device
            case = Case(features, order, comparison, self.settings, self.floor_n, self.seed, device)
            for names, function in METRICS.items():
                if any(name + suffix in chosen for name in names):
                    measurements += [
                        Measurement(metric + suffix, value, UNITS[metric], n, extractor.name, reference)
                        for metric, value, n, reference in function(case)
                        if metric + suffix in chosen
                    ]
        return measurements
