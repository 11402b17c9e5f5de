"""Stage ``quality``: how close the samples are to the data."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmbench.data.prepared import DataSet, read
from fmbench.errors import DataError
from fmbench.records import write_rows
from fmbench.stages.common import Job
from fmbench.stages.features import distances, load_extractor, reference_name

UNITS = {
    "frechet": "squared features",
    "frechet_at_floor_n": "squared features",
    "energy_distance": "data units",
    "off_support": "fraction",
}


def run(job: Job, data: Path, samples_folder: Path, features_folder: Path, out: Path) -> None:
    """Write ``rows.parquet`` into ``out``: distances between the samples and the data."""
    dataset = read(data)
    extractor, classifier = load_extractor(features_folder, dataset, job.device)
    samples = load_samples(samples_folder, dataset)

    reference = reference_name(dataset) if dataset.is_images else f"test, n = {len(dataset.test)}"
    columns = {"features": extractor["name"], "reference": reference}
    finite = np.isfinite(samples).reshape(len(samples), -1).all(1)
    if finite.all():
        found = distances(extractor, classifier, dataset, samples, job.device)
        for metric, (value, n) in found.items():
            job.add(metric, value, UNITS[metric], n=n, **columns)
        job.console.say(", ".join(f"{metric} {value:.4g} (n {n})" for metric, (value, n) in found.items()))
    else:
        reason = f"{len(samples) - int(finite.sum())} of {len(samples)} samples are not finite"
        metrics = ("frechet", "frechet_at_floor_n") if dataset.is_images else ("energy_distance", "off_support")
        for metric in metrics:
            job.skip(metric, UNITS[metric], reason, n=len(samples), **columns)
        job.console.say(f"skipped, {reason}")
    write_rows(out / "rows.parquet", job.rows)


def load_samples(folder: Path, dataset: DataSet) -> NDArray:
    """The samples (n, *), in model space, that the stage ``sample`` wrote; NaN where its solve failed.

    Raises:
        DataError: the file is missing or truncated, or holds samples of another shape.
    """
    path = folder / "samples.npy"
    try:
        samples: NDArray = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read ({error}); delete it and rerun the sampling") from None
    if samples.shape[1:] != dataset.shape:
        raise DataError(f"{path} holds samples of {samples.shape[1:]}, the data set has {dataset.shape}; rerun the sampling")
    return samples
