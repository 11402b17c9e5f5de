"""Stage ``baselines``: what Table 2 compares models with, without a training.

``reference`` are the test images themselves, and ``bicubic`` are their low-resolution images, interpolated. Both are of as many
images as each model upsamples.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from fmbench.config.super_resolution_settings import SuperResolutionSettings, super_resolution_problem
from fmbench.data.prepared import DataSet, read
from fmbench.data.resizing import upsampled
from fmbench.errors import DataError
from fmbench.metrics.extractors import View
from fmbench.stages.evaluators.against_test import against_test, called, distances, of_images, write_test_references
from fmbench.stages.evaluators.base import add_measurements
from fmbench.stages.evaluators.fidelity import Fidelity, add_fidelity
from fmbench.stages.evaluators.loading import load_evaluator
from fmbench.stages.shared.job import Job
from fmbench.stages.super_resolution import low_resolution_of
from fmbench.store.parquet import write_table
from fmbench.store.previews import preview_count, previews
from fmbench.store.records import write_rows

REFERENCE, BICUBIC, LOW_RESOLUTION = "reference", "bicubic", "low_resolution"


def run(job: Job, data: Path, features_folder: Path, out: Path) -> None:
    """Write ``rows.parquet``, ``previews.parquet`` and the features of the test images (``test-*.safetensors``) into ``out``.

    Rows: of both baselines the metrics of the stage ``sample_quality``, of ``bicubic`` also those of ``super_resolution``.
    Previews: the first low-resolution test images, and the interpolated ones.

    Raises:
        DataError: the test images are too few or too small, which of some sources is known only once they are prepared.
    """
    dataset = read(data)
    condition, n = low_resolution_of(dataset), job.spec["n"]
    settings = SuperResolutionSettings.model_validate(job.spec["settings"])
    if problem := super_resolution_problem(settings, n, 0, dataset.shape, len(dataset.test)):
        raise DataError(f"settings.{job.spec['dataset']}.evaluation.{problem}")
    evaluator = of_images(load_evaluator(features_folder, dataset, job.device, job.console))
    tested = against_test(evaluator, write_test_references(evaluator, out))
    interpolated = bicubic(dataset, condition.factor, n, job.device)
    without = "frechet_at_floor_n"
    wanted = [m for m in evaluator.metrics() if not m.metric.startswith(without)]
    only = [m.metric for m in wanted]
    add_measurements(job, evaluator.measure_data(dataset.test[:n], only), wanted, n, method=REFERENCE)
    add_measurements(job, evaluator.measure_levels(interpolated, only), wanted, n, method=BICUBIC)
    names = distances(tested)
    add_measurements(job, tested.measure_levels(interpolated, names), tested.metrics(names), n, called, method=BICUBIC)
    add_fidelity(job, Fidelity(dataset, condition, n, settings, job.device), interpolated, method=BICUBIC)
    write_table(out / "previews.parquet", _previews(dataset, interpolated))
    write_rows(out / "rows.parquet", job.rows)


def bicubic(dataset: DataSet, factor: int, n: int, device: torch.device) -> View:
    """The first n test images as their low-resolution images interpolated, uint8 (n, C, H, W)."""
    low = dataset.stored_condition("test")[0][:n]

    def read_rows(rows: slice) -> NDArray[np.uint8]:
        images = torch.from_numpy(np.array(low[rows])).to(device)
        found: NDArray[np.uint8] = upsampled(images, factor, levels=dataset.levels or 256).cpu().numpy()
        return found

    return View(n, read_rows)


def _previews(dataset: DataSet, interpolated: View) -> pa.Table:
    """The first low-resolution test images and interpolated ones."""
    (low,) = dataset.stored_condition("test")
    shown, name = min(preview_count(dataset.shape), len(interpolated)), dataset.manifest["dataset"]
    small = previews(name, LOW_RESOLUTION, None, low[:shown], range(shown))
    return pa.concat_tables([small, previews(name, BICUBIC, None, interpolated[slice(shown)], range(shown))])
