"""Stage ``quality``: how close the samples are to the data."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmbench.data.prepared import DataSet, read
from fmbench.errors import DataError
from fmbench.stages.common import Job, batches
from fmbench.stages.evaluator import Measurement, Metric, load_evaluator
from fmbench.store.records import write_rows


def run(job: Job, data: Path, samples_folder: Path, features_folder: Path, out: Path) -> None:
    """Write ``rows.parquet`` into ``out``: distances between the samples and the data, a row for each metric and extractor."""
    dataset = read(data)
    samples = load_samples(samples_folder, dataset)

    evaluator = load_evaluator(features_folder, dataset, job.device, job.console, job.group)
    n = len(samples)
    finite = sum(int(np.isfinite(samples[i.start : i.stop]).reshape(len(i), -1).all(1).sum()) for i in batches(n, 1024))
    if finite == n:
        found = evaluator.measure(samples)
        for metric, value, unit, of, features, reference in found:
            job.add(metric, value, unit, n=of, features=features, reference=reference)
        job.console.say(", ".join(f"{m.metric} {m.value:.4g} (n {m.n})" for m in found))
        skip_unmeasured(job, evaluator.metrics(), found, n)
    else:
        reason = f"{n - finite} of {n} samples are not finite"
        for metric, unit, features, reference in evaluator.metrics():
            job.skip(metric, unit, reason, n=n, features=features, reference=reference)
        job.console.say(f"skipped, {reason}")
    if job.group.main:
        write_rows(out / "rows.parquet", job.rows)


def skip_unmeasured(
    job: Job, wanted: Iterable[Metric], found: Iterable[Measurement], n: int, called: Callable[[str], str] = str
) -> None:
    """Rows for the metrics that ``n`` samples were too few for.

    None for ``frechet_at_floor_n``: to draw fewer samples than there are test images is a choice, and nothing went wrong.

    Args:
        called: from the name of a metric to that of its row.
    """
    measured = {m.metric for m in found}
    few = [m for m in wanted if m.metric not in measured]
    for metric, unit, features, reference in few:
        if not metric.startswith("frechet_at_floor_n"):
            reason = f"{n} samples, or those of the reference, are too few"
            job.skip(called(metric), unit, reason, n=n, features=features, reference=reference)
    if few:
        job.console.say(f"{n} samples are too few for {', '.join(called(m.metric) for m in few)}")


def load_samples(folder: Path, dataset: DataSet) -> NDArray:
    """The samples (n, *), in model space, that the stage ``sample`` wrote; NaN where its solve failed.

    Raises:
        DataError: the file is missing or truncated, or holds samples of another shape.
    """
    path = folder / "samples.npy"
    try:
        samples: NDArray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read ({error}); delete it and rerun the sampling") from None
    if samples.shape[1:] != dataset.shape:
        raise DataError(f"{path} holds samples of {samples.shape[1:]}, the data set has {dataset.shape}; rerun the sampling")
    return samples
