"""Stage ``super_resolution``: the upsampled test images of a model beside their originals (Table 2).

Sample i is made from the low-resolution image of test image i. Distances to the training images and the scores of classifiers are
those of the stage ``sample_quality``, and the number of evaluations is that of ``sample``.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmbench.config.super_resolution_settings import SuperResolutionSettings
from fmbench.data.conditions import LowResolution
from fmbench.data.prepared import DataSet, read
from fmbench.errors import DataError
from fmbench.metrics.extractors import View
from fmbench.stages.evaluators.against_test import against_test, called, distances, of_images, read_test_references
from fmbench.stages.evaluators.base import add_measurements, skip_metrics
from fmbench.stages.evaluators.fidelity import Fidelity, add_fidelity
from fmbench.stages.evaluators.loading import load_evaluator
from fmbench.stages.sample_quality import count_finite
from fmbench.stages.shared.job import Job
from fmbench.stages.shared.sample_files import load_samples, solve_of
from fmbench.store.records import write_rows

SOLVE = ("solver", "nfe", "rtol", "atol")
"""The columns that say how samples were made."""


def run(job: Job, data: Path, samples_folder: Path, features_folder: Path, baselines_folder: Path, out: Path) -> None:
    """Write ``rows.parquet`` into ``out``: PSNR, SSIM and consistency, and the distance to the test images.

    Raises:
        DataError: the data set has no low-resolution images, or a file is missing or damaged.
    """
    dataset = read(data)
    condition = low_resolution_of(dataset)
    samples = load_samples(samples_folder, dataset)
    samples = samples[: len(dataset.test)]
    settings = SuperResolutionSettings.model_validate(job.spec["settings"])
    fidelity = Fidelity(dataset, condition, len(samples), settings, job.device)
    evaluator = of_images(load_evaluator(features_folder, dataset, job.device, job.console))
    tested = against_test(evaluator, read_test_references(evaluator, baselines_folder))
    wanted = tested.metrics(distances(tested))
    solve = {name: value for name, value in solve_of(samples_folder).items() if name in SOLVE}
    bad = len(samples) - count_finite(samples)
    if bad:
        reason = f"{bad} of {len(samples)} samples are not finite"
        metrics = fidelity.metrics() + [m._replace(metric=called(m.metric)) for m in wanted]
        skip_metrics(job, metrics, reason, n=len(samples), **solve)
        job.console.say(f"skipped, {reason}")
    else:
        add_fidelity(job, fidelity, in_levels(dataset, samples), **solve)
        add_measurements(job, tested.measure(samples, distances(tested)), wanted, len(samples), called)
    write_rows(out / "rows.parquet", job.rows)


def low_resolution_of(dataset: DataSet) -> LowResolution:
    """The condition of a super-resolution data set.

    Raises:
        DataError: it has another condition or none.
    """
    if not isinstance(dataset.condition, LowResolution):
        raise DataError(
            f"{dataset.folder} has no low-resolution images; give the data set condition: {{low_resolution: {{factor: 4}}}}, "
            "and prepare it again"
        )
    return dataset.condition


def in_levels(dataset: DataSet, samples: NDArray) -> View:
    """Samples (n, C, H, W) in model space as images in the data set's levels."""

    def levels(rows: slice) -> NDArray[np.uint8]:
        found: NDArray[np.uint8] = dataset.to_data(np.asarray(samples[rows]))
        return found

    return View(len(samples), levels)
