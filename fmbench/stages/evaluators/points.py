"""The evaluator of points: distances in the plane to the test split, and the fraction off the support where it is known."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fmbench.config.feature_settings import FeatureSettings
from fmbench.data.prepared import DataSet, drawn
from fmbench.metrics.density_coverage import density_coverage
from fmbench.metrics.memorisation import LEAST_SAMPLES as LEAST_OF_C_T
from fmbench.metrics.memorisation import memorisation
from fmbench.metrics.mmd import gaussian_kernel, unbiased_mmd
from fmbench.metrics.neighbours import TREE_DIMENSIONS
from fmbench.metrics.points import SUPPORTS, energy_distance, sliced_wasserstein
from fmbench.metrics.sampling_error import LEAST_SAMPLES, energy_distance_stderr
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
from fmbench.system.rng import generator

BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Bandwidths of the MMD, in units of the median distance between two points of the data."""


class Found(NamedTuple):
    """Values, the number of samples behind them, and what their rows add to the name of the reference."""

    values: tuple[float, ...]
    n: int
    against: str


class PointEvaluator(Evaluator):
    """Distances in the plane to the test split, and the fraction off the support where it is known.

    Args:
        median: the median distance between two points of the data; None if it is 0, and then there is no MMD.
    """

    def __init__(self, dataset: DataSet, settings: FeatureSettings, median: float | None, seed: int) -> None:
        self.dataset, self.settings, self.seed = dataset, settings, seed
        self.bandwidths = [] if median is None else [median * b for b in BANDWIDTHS]
        order = torch.randperm(len(dataset.test), generator=generator(seed, "reference/test")).numpy()
        self.fresh = self.test()[order[: settings.max_samples]]
        self.primary, self.features, self.reference = "energy_distance", "coordinates", f"test, n = {len(dataset.test)}"

    def metrics(self, only: Sequence[str] | None = None) -> list[Metric]:
        names = ["energy_distance", "energy_distance_stderr", "sliced_wasserstein", *(["mmd"] if self.bandwidths else [])]
        if self.dataset.manifest["support"] is not None:
            names += ["off_support", "off_support_stderr"]
        names += ["density", "coverage"]
        found = [Metric(n, UNITS[n], self.features, self.reference) for n in names]
        train = f"train, n = {len(self.dataset.train)}"
        return choose([*found, *(Metric(n, UNITS[n], self.features, train) for n in MEMORISATION)], only)

    def measure(self, samples: NDArray, only: Sequence[str] | None = None) -> list[Measurement]:
        check_finite(samples)
        return self.measure_data(self.dataset.to_data(np.asarray(samples)), only)

    def measure_data(self, values: NDArray, only: Sequence[str] | None = None) -> list[Measurement]:
        check_samples(len(values), values.shape[1:], self.dataset.shape)
        wanted = {m.metric: m for m in self.metrics(only)}
        measurements = []
        for names, function in METRICS.items():
            if not any(name in wanted for name in names):
                continue
            found = function(self, values)
            if found is None:
                continue
            for name, value in zip(names, found.values, strict=True):
                if name in wanted:
                    metric, unit, features, reference = wanted[name]
                    measurements.append(Measurement(metric, value, unit, found.n, features, reference + found.against))
        return measurements

    def halves(self) -> list[Measurement]:
        half, other = len(self.fresh) // 2, copy.copy(self)
        other.fresh = self.fresh[half:]
        return other.measure_data(self.fresh[:half], MEMORISATION)

    def test(self) -> NDArray[np.float64]:
        """The test split, (n, D)."""
        return np.asarray(self.dataset.test, np.float64)


def _energy_distance(evaluator: PointEvaluator, values: NDArray) -> Found:
    return Found((energy_distance(values.astype(np.float64), evaluator.test()),), len(values), "")


def _energy_distance_stderr(evaluator: PointEvaluator, values: NDArray) -> Found | None:
    if len(values) < LEAST_SAMPLES:
        return None
    return Found((energy_distance_stderr(values.astype(np.float64), evaluator.test()),), len(values), "")


def _sliced_wasserstein(evaluator: PointEvaluator, values: NDArray) -> Found:
    shape = (evaluator.settings.projections, evaluator.dataset.dimensions)
    directions = torch.randn(shape, generator=generator(evaluator.seed, "projections"), dtype=torch.float64).numpy()
    value = sliced_wasserstein(values.astype(np.float64), evaluator.test(), directions)
    return Found((value,), len(values), f"; {len(directions)} directions")


def _mmd(evaluator: PointEvaluator, values: NDArray) -> Found:
    most, seed, bandwidths = evaluator.settings.max_samples, evaluator.seed, evaluator.bandwidths
    some = drawn(values.astype(np.float64), most, seed, "mmd/samples")
    value = unbiased_mmd(some, drawn(evaluator.test(), most, seed, "mmd/test"), gaussian_kernel(bandwidths))
    return Found((value,), min(len(values), most), f"; Gaussian kernels of {', '.join(f'{b:.3g}' for b in bandwidths)}")


def _off_support(evaluator: PointEvaluator, values: NDArray) -> Found:
    p, n = off_support_fraction(evaluator.dataset, values), len(values)
    return Found((p, math.sqrt(p * (1 - p) / (n - 1))), n, "")


def _density_and_coverage(evaluator: PointEvaluator, values: NDArray) -> Found | None:
    """Density and coverage, on equally many points of both sides."""
    test, k = evaluator.fresh, evaluator.settings.neighbours
    n = min(len(values), len(test))
    if n <= k:
        return None
    some = drawn(values.astype(np.float64), n, evaluator.seed, "density/samples")
    return Found(density_coverage(test[:n], some, k), n, f"; {n} of them, k = {k}")


def _copying(evaluator: PointEvaluator, values: NDArray) -> Found | None:
    """How near the samples are to the training points, against test points. Only a tree finds neighbours among all points."""
    dataset, most, seed = evaluator.dataset, evaluator.settings.max_samples, evaluator.seed
    some, train = drawn(values.astype(np.float64), most, seed, "memorisation/samples"), dataset.train
    if min(len(some), len(evaluator.fresh)) < LEAST_OF_C_T:
        return None
    if dataset.dimensions > TREE_DIMENSIONS:
        train = drawn(train, most, seed, "memorisation/train")
    found = memorisation(np.asarray(train, np.float64), evaluator.fresh, some)
    return Found(found, len(some), f"; {len(train)} of them, {len(evaluator.fresh)} test points")


METRICS: dict[tuple[str, ...], Callable[[PointEvaluator, NDArray], Found | None]] = {
    ("energy_distance",): _energy_distance,
    ("energy_distance_stderr",): _energy_distance_stderr,
    ("sliced_wasserstein",): _sliced_wasserstein,
    ("mmd",): _mmd,
    ("off_support", "off_support_stderr"): _off_support,
    ("density", "coverage"): _density_and_coverage,
    MEMORISATION: _copying,
}
"""The functions, each with the metrics that it finds from points in data space. A function finds none if there are too few."""


def off_support_fraction(dataset: DataSet, values: NDArray) -> float:
    """The fraction of points (n, D) in data space that lie off the data set's support, which must be known."""
    return 1 - float(SUPPORTS[dataset.manifest["support"]](values).mean())
