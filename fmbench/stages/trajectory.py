"""Stage ``trajectory``: states on the way from noise to data, from the noise of the stage ``sample`` (Fig. 4 left, 6 and 9), and
the time at which half of this way is covered."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fmbench.config.evaluation_settings import TrajectorySettings
from fmbench.data.prepared import DataSet, read
from fmbench.metrics.half_way import LEAST_SAMPLES, LEAST_TIMES, half_way
from fmbench.stages.shared.adaptive_solve import States, states_at
from fmbench.stages.shared.job import Job
from fmbench.stages.shared.models import model_of
from fmbench.stages.shared.sample_files import preview
from fmbench.store.parquet import write_table
from fmbench.store.previews import PREVIEW_POINTS, TRAJECTORY, TRAJECTORY_IMAGES
from fmbench.store.records import write_rows

METRICS = ("half_way", "half_way_stderr", "half_way_spacing")


def run(job: Job, data: Path, model_folder: Path, out: Path) -> None:
    """Write ``trajectory.parquet`` and ``rows.parquet`` into ``out``: the state of each sample at each time, in data space,
    and the half-way time of these states.

    States of images are clamped to the range of the data and rounded to its levels, for display. The column ``t`` is the time of
    the settings: on a path that ends before 1 (diffusion), 1 shows its end. States that are not finite are left out. A training
    that diverged has no states.
    """
    dataset = read(data)
    settings = TrajectorySettings.model_validate(job.spec["settings"])
    model = model_of(job, model_folder, dataset)
    n = settings.n or (TRAJECTORY_IMAGES if dataset.is_images else PREVIEW_POINTS)
    pieces = []
    if model.unsolvable:
        _skip(job, model.unsolvable, n=n)
        job.console.say(f"skipped, {model.unsolvable}")
    else:
        solved = states_at(settings.times, model, job, n, settings)
        _add_half_way(job, dataset, settings, solved)
        for t, states in zip(settings.times, solved.states, strict=True):
            rows = preview(job, dataset, states)
            pieces.append(rows.append_column(TRAJECTORY.field("t"), pa.array([t] * len(rows), pa.float64())))
        spent, lost = solved.nfe.mean(), int(solved.failed.sum())
        job.console.say(f"{n} samples at {len(settings.times)} times, {spent:.1f} NFE per sample, {lost} failed -> {out}")
    write_table(out / "trajectory.parquet", pa.concat_tables(pieces) if pieces else TRAJECTORY.empty_table())
    write_rows(out / "rows.parquet", job.rows)


def _add_half_way(job: Job, dataset: DataSet, settings: TrajectorySettings, solved: States) -> None:
    """Add the rows of the half-way time of all states, or say why there is none."""
    n, lost = len(solved.nfe), int(solved.failed.sum())
    columns = {"n": n, "batch": min(settings.batch, n), "solver": "dopri5", "rtol": settings.rtol, "atol": settings.atol}
    if lost:
        return _skip(job, f"dopri5 failed on {lost} of {n} samples", **columns)
    found = half_way(settings.times, np.stack([dataset.to_data(states) for states in solved.states]))
    if found is None:
        reason = (
            f"a half-way time needs {LEAST_TIMES} times and {LEAST_SAMPLES} samples, and a way from the first to the last state"
        )
        return _skip(job, reason, **columns)
    for metric, value in zip(METRICS, found, strict=True):
        job.add(metric, value, "t", nfe=float(solved.nfe.mean()), **columns)


def _skip(job: Job, reason: str, **columns: Any) -> None:
    """Add a skipped row for every number of this stage."""
    for metric in METRICS:
        job.skip(metric, "t", reason, **columns)
