"""What every evaluator of samples can do, what it returns, and how that becomes rows."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fmbench.metrics.sampling_error import LEAST_SAMPLES
from fmbench.stages.shared.job import Job

UNITS = {
    "frechet": "squared features",
    "frechet_stderr": "squared features",
    "frechet_at_floor_n": "squared features",
    "frechet_infinity": "squared features",
    "frechet_infinity_slope": "squared features",
    "frechet_infinity_error": "squared features",
    "kid": "squared MMD",
    "kid_std": "squared MMD",
    "precision": "fraction",
    "recall": "fraction",
    "inception_score": "score",
    "inception_score_std": "score",
    "classifier_score": "score",
    "classifier_score_std": "score",
    "energy_distance": "data units",
    "energy_distance_stderr": "data units",
    "sliced_wasserstein": "data units",
    "mmd": "squared MMD",
    "off_support": "fraction",
    "off_support_stderr": "fraction",
    "cmmd": "1000 squared MMD",
    "density": "balls over k",
    "coverage": "fraction",
    "c_t": "standard deviations",
    "train_distance_ratio": "ratio",
    "authenticity": "fraction",
}
"""Every metric of an evaluator and its unit."""
MEMORISATION = ("c_t", "train_distance_ratio", "authenticity")
"""The metrics that show whether a model copies its training set. Their floor is one half of the test split against the other."""


class Metric(NamedTuple):
    """A metric of an evaluator, as a row names it: its unit, the features it is computed on, and the reference."""

    metric: str
    unit: str
    features: str
    reference: str


class Measurement(NamedTuple):
    """One number about samples.

    ``n`` is the number of samples behind it. ``features`` and ``reference`` are as in :class:`~fmbench.store.records.Row`.
    """

    metric: str
    value: float
    unit: str
    n: int
    features: str
    reference: str


class Evaluator(ABC):
    """Measures how close samples are to the data.

    Attributes:
        primary: the metric that tables and figures show. Its standard error is the metric ``<primary>_stderr``.
        features, reference: the features and the reference of the primary metric.
    """

    primary: str
    features: str
    reference: str

    @abstractmethod
    def metrics(self, only: Sequence[str] | None = None) -> list[Metric]:
        """All metrics that :meth:`measure` returns if there are enough samples.

        Raises:
            ValueError: ``only`` names a metric that this evaluator does not measure.
        """

    @abstractmethod
    def measure(self, samples: NDArray, only: Sequence[str] | None = None) -> list[Measurement]:
        """The quality of samples of shape (N, *) in model space, all finite.

        Args:
            only: measure only these metrics; the others are not computed.

        Raises:
            ValueError: the samples have another shape, are not finite, or are fewer than two; or this evaluator does not measure
                a metric of ``only``.
        """

    @abstractmethod
    def measure_data(self, values: NDArray, only: Sequence[str] | None = None) -> list[Measurement]:
        """:meth:`measure` of values in data space, such as a split of the data set, in any order."""

    @abstractmethod
    def halves(self) -> list[Measurement]:
        """The metrics :data:`MEMORISATION` of one random half of the test split, compared with the other half."""

    def primary_metric(self) -> Metric:
        """The primary metric, as :meth:`metrics` describes it."""
        (metric,) = self.metrics(only=(self.primary,))
        return metric

    def measure_primary(self, samples: NDArray) -> tuple[Measurement, float | None]:
        """The primary metric of samples (N, *) in model space, and its standard error; raises as :meth:`measure`.

        The error is None if there are too few samples for one.
        """
        measurement, *error = self.measure(samples, only=(self.primary, f"{self.primary}_stderr"))
        return measurement, error[0].value if error else None


def add_primary(job: Job, metric: Metric, value: float | None, stderr: float | None, reason: str = "", **columns: Any) -> None:
    """Add the rows of the primary metric and of its standard error.

    Without a value, both rows have the status ``diverged``. Without an error, its row has the status ``skipped``.
    """
    columns |= {"features": metric.features, "reference": metric.reference}
    job.add(metric.metric, value, metric.unit, reason=reason, **columns)
    if value is not None and stderr is None:
        job.skip(f"{metric.metric}_stderr", metric.unit, f"a standard error needs {LEAST_SAMPLES} samples", **columns)
    else:
        job.add(f"{metric.metric}_stderr", stderr, metric.unit, reason=reason, **columns)


def skip_primary(job: Job, metric: Metric, reason: str, **columns: Any) -> None:
    """Add skipped rows for the primary metric and its standard error."""
    skip_metrics(job, (metric, metric._replace(metric=f"{metric.metric}_stderr")), reason, **columns)


def skip_metrics(job: Job, metrics: Iterable[Metric], reason: str, **columns: Any) -> None:
    """Add a skipped row for every metric."""
    for metric, unit, features, reference in metrics:
        job.skip(metric, unit, reason, features=features, reference=reference, **columns)


def choose(available: Iterable[Metric], only: Sequence[str] | None) -> list[Metric]:
    """The metrics that ``only`` names, or all of them.

    Raises:
        ValueError: ``only`` names a metric that is not available.
    """
    available = list(available)
    names = [m.metric for m in available]
    unknown = sorted(set(only or ()) - set(names))
    if unknown:
        raise ValueError(f"unknown metric {', '.join(unknown)}; this evaluator measures {', '.join(names)}")
    return [m for m in available if only is None or m.metric in only]


def check_finite(samples: NDArray) -> None:
    """Check that samples are finite numbers.

    Raises:
        ValueError: they are not.
    """
    if not np.isfinite(samples).all():
        raise ValueError("samples are not all finite; the solve or the training behind them has diverged")


def check_samples(n: int, shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Check that there are at least two samples, and that they have the shape of the data set's.

    Raises:
        ValueError: they are fewer, or have another shape.
    """
    if shape != wanted or n < 2:
        raise ValueError(f"need two or more samples of {wanted}, not {n} of {shape}")


def add_measurements(
    job: Job,
    measurements: Sequence[Measurement],
    wanted: Iterable[Metric],
    n: int,
    called: Callable[[str], str] = str,
    **columns: Any,
) -> None:
    """Add a row for each measurement, and a skipped row for each wanted metric that ``n`` samples were too few for.

    A missing ``frechet_at_floor_n`` has no row: it is a choice to draw fewer samples than there are test images, not a failure.

    Args:
        called: from the name of a metric to the name in its row.
        columns: of all rows.
    """
    for metric, value, unit, of, features, reference in measurements:
        job.add(called(metric), value, unit, n=of, features=features, reference=reference, **columns)
    measured = {m.metric for m in measurements}
    missing = [m for m in wanted if m.metric not in measured]
    failed = [m._replace(metric=called(m.metric)) for m in missing if not m.metric.startswith("frechet_at_floor_n")]
    skip_metrics(job, failed, f"{n} samples, or the samples of the reference, are too few", n=n, **columns)
    if missing:
        job.console.say(f"{n} samples are too few for {', '.join(called(m.metric) for m in missing)}")
