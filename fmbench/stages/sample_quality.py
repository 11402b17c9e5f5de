"""Stage ``sample_quality``: how close the samples are to the data."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmbench.data.prepared import read
from fmbench.stages.evaluators.base import add_measurements, skip_metrics
from fmbench.stages.evaluators.loading import load_evaluator
from fmbench.stages.shared.batching import batches
from fmbench.stages.shared.job import Job
from fmbench.stages.shared.sample_files import load_samples
from fmbench.store.records import write_rows


def run(job: Job, data: Path, samples_folder: Path, features_folder: Path, out: Path) -> None:
    """Write ``rows.parquet`` into ``out``: distances between the samples and the data, a row for each metric and extractor."""
    dataset = read(data)
    samples = load_samples(samples_folder, dataset)
    evaluator = load_evaluator(features_folder, dataset, job.device, job.console, job.group)
    n = len(samples)
    bad = n - count_finite(samples)
    if bad:
        reason = f"{bad} of {n} samples are not finite"
        skip_metrics(job, evaluator.metrics(), reason, n=n)
        job.console.say(f"skipped, {reason}")
    else:
        found = evaluator.measure(samples)
        job.console.say(", ".join(f"{m.metric} {m.value:.4g} (n {m.n})" for m in found))
        add_measurements(job, found, evaluator.metrics(), n)
    if job.group.main:
        write_rows(out / "rows.parquet", job.rows)


def count_finite(samples: NDArray) -> int:
    """The number of samples (n, *) that are finite; a few samples are in memory at a time."""
    blocks = (samples[i.start : i.stop].reshape(len(i), -1) for i in batches(len(samples), 1024))
    return sum(int(np.isfinite(block).all(1).sum()) for block in blocks)
