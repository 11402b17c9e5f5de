"""Rows of what an evaluator measured, and of what it could not."""

from collections.abc import Callable, Iterable, Sequence

from fmbench.stages.evaluators.base import Measurement, Metric
from fmbench.stages.shared.job import Job


def add_measurements(
    job: Job, measurements: Sequence[Measurement], wanted: Iterable[Metric], n: int, called: Callable[[str], str] = str
) -> None:
    """Add a row for each measurement, and a skipped row for each wanted metric that ``n`` samples were too few for.

    A missing ``frechet_at_floor_n`` has no row: it is a choice to draw fewer samples than there are test images, not a failure.

    Args:
        called: from the name of a metric to the name in its row.
    """
    for metric, value, unit, of, features, reference in measurements:
        job.add(called(metric), value, unit, n=of, features=features, reference=reference)
    measured = {m.metric for m in measurements}
    missing = [m for m in wanted if m.metric not in measured]
    for metric, unit, features, reference in missing:
        if not metric.startswith("frechet_at_floor_n"):
            reason = f"{n} samples, or the samples of the reference, are too few"
            job.skip(called(metric), unit, reason, n=n, features=features, reference=reference)
    if missing:
        job.console.say(f"{n} samples are too few for {', '.join(called(m.metric) for m in missing)}")
