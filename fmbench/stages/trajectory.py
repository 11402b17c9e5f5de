"""Stage ``trajectory``: states on the way from noise to data, from the noise of the stage ``sample`` (Fig. 4 left, 6 and 9)."""

from pathlib import Path

import pyarrow as pa

from fmbench.config.evaluation_settings import TrajectorySettings
from fmbench.data.prepared import read
from fmbench.stages.shared.adaptive_solve import states_at
from fmbench.stages.shared.job import Job
from fmbench.stages.shared.models import load_model
from fmbench.stages.shared.sample_files import preview
from fmbench.store.parquet import write_table
from fmbench.store.previews import PREVIEW_POINTS, TRAJECTORY, TRAJECTORY_IMAGES


def run(job: Job, data: Path, model_folder: Path, out: Path) -> None:
    """Write ``trajectory.parquet`` into ``out``: the state of each sample at each time, in data space.

    States of images are clamped to the range of the data and rounded to its levels, for display. The column ``t`` is the time of
    the settings: on a path that ends before 1 (diffusion), 1 shows its end. States that are not finite are left out. A training
    that diverged has no states.
    """
    dataset = read(data)
    settings = TrajectorySettings.model_validate(job.spec["settings"])
    model = load_model(model_folder, dataset, job.device, job.spec["model"])
    n = settings.n or (TRAJECTORY_IMAGES if dataset.is_images else PREVIEW_POINTS)
    pieces = []
    if model.reason:
        job.console.say(f"skipped, {model.reason}")
    else:
        found, nfe, failed = states_at(settings.times, model, dataset, job, n, settings)
        for t, states in zip(settings.times, found, strict=True):
            rows = preview(job, dataset, states)
            pieces.append(rows.append_column(TRAJECTORY.field("t"), pa.array([t] * len(rows), pa.float64())))
        job.console.say(
            f"{n} samples at {len(settings.times)} times, {nfe.mean():.1f} NFE per sample, {int(failed.sum())} failed -> {out}"
        )
    write_table(out / "trajectory.parquet", pa.concat_tables(pieces) if pieces else TRAJECTORY.empty_table())
