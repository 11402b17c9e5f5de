"""The evaluator of points: distances in the plane to the test split, and the fraction off the support where it is known."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fmbench.config.feature_settings import FeatureSettings
from fmbench.data.prepared import DataSet, drawn
from fmbench.metrics.points import SUPPORTS, energy_distance, gaussian_mmd, sliced_wasserstein
from fmbench.metrics.sampling_error import LEAST_SAMPLES, energy_distance_stderr
from fmbench.stages.evaluators.base import UNITS, Evaluator, Measurement, Metric, check_finite, check_samples, choose
from fmbench.system.rng import generator

BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Bandwidths of the MMD, in units of the median distance between two points of the data."""

Found = tuple[float, int, str] | None
"""A value, the number of samples behind it, and what its row adds to the name of the reference; None for too few samples."""


class PointEvaluator(Evaluator):
    """Distances in the plane to the test split, and the fraction off the support where it is known.

    Args:
        median: the median distance between two points of the data; None if it is 0, and then there is no MMD.
    """

    def __init__(self, dataset: DataSet, settings: FeatureSettings, median: float | None, seed: int) -> None:
        self.dataset, self.settings, self.seed = dataset, settings, seed
        self.bandwidths = [] if median is None else [median * b for b in BANDWIDTHS]
        self.primary, self.features, self.reference = "energy_distance", "coordinates", f"test, n = {len(dataset.test)}"

    def metrics(self, only: Sequence[str] | None = None) -> list[Metric]:
        names = ["energy_distance", "energy_distance_stderr", "sliced_wasserstein", *(["mmd"] if self.bandwidths else [])]
        if self.dataset.manifest["support"] is not None:
            names += ["off_support", "off_support_stderr"]
        return choose([Metric(n, UNITS[n], self.features, self.reference) for n in names], only)

    def measure(self, samples: NDArray, only: Sequence[str] | None = None) -> list[Measurement]:
        check_finite(samples)
        return self.measure_data(self.dataset.to_data(np.asarray(samples)), only)

    def measure_data(self, values: NDArray, only: Sequence[str] | None = None) -> list[Measurement]:
        check_samples(len(values), values.shape[1:], self.dataset.shape)
        measurements = []
        for metric, unit, features, reference in self.metrics(only):
            found = METRICS[metric](self, values)
            if found is not None:
                value, n, against = found
                measurements.append(Measurement(metric, value, unit, n, features, reference + against))
        return measurements

    def test(self) -> NDArray[np.float64]:
        """The test split, (n, D)."""
        return np.asarray(self.dataset.test, np.float64)


def _energy_distance(evaluator: PointEvaluator, values: NDArray) -> Found:
    return energy_distance(values.astype(np.float64), evaluator.test()), len(values), ""


def _energy_distance_stderr(evaluator: PointEvaluator, values: NDArray) -> Found:
    if len(values) < LEAST_SAMPLES:
        return None
    return energy_distance_stderr(values.astype(np.float64), evaluator.test()), len(values), ""


def _sliced_wasserstein(evaluator: PointEvaluator, values: NDArray) -> Found:
    shape = (evaluator.settings.projections, evaluator.dataset.dimensions)
    directions = torch.randn(shape, generator=generator(evaluator.seed, "projections"), dtype=torch.float64).numpy()
    value = sliced_wasserstein(values.astype(np.float64), evaluator.test(), directions)
    return value, len(values), f"; {len(directions)} directions"


def _mmd(evaluator: PointEvaluator, values: NDArray) -> Found:
    most, seed, bandwidths = evaluator.settings.max_samples, evaluator.seed, evaluator.bandwidths
    some = drawn(values.astype(np.float64), most, seed, "mmd/samples")
    value = gaussian_mmd(some, drawn(evaluator.test(), most, seed, "mmd/test"), bandwidths)
    return value, min(len(values), most), f"; Gaussian kernels of {', '.join(f'{b:.3g}' for b in bandwidths)}"


def _off_support(evaluator: PointEvaluator, values: NDArray) -> Found:
    return off_support_fraction(evaluator.dataset, values), len(values), ""


def _off_support_stderr(evaluator: PointEvaluator, values: NDArray) -> Found:
    p, n = off_support_fraction(evaluator.dataset, values), len(values)
    return math.sqrt(p * (1 - p) / (n - 1)), n, ""


METRICS: dict[str, Callable[[PointEvaluator, NDArray], Found]] = {
    "energy_distance": _energy_distance,
    "energy_distance_stderr": _energy_distance_stderr,
    "sliced_wasserstein": _sliced_wasserstein,
    "mmd": _mmd,
    "off_support": _off_support,
    "off_support_stderr": _off_support_stderr,
}
"""The function of each metric, from points in data space."""


def off_support_fraction(dataset: DataSet, values: NDArray) -> float:
    """The fraction of points (n, D) in data space that lie off the data set's support, which must be known."""
    return 1 - float(SUPPORTS[dataset.manifest["support"]](values).mean())
