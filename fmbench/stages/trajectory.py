"""Stage ``states``: states on the way from noise to data, from the noise that samples start from (Fig. 4 left, 6 and 9)."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from fmbench.config.evaluation_settings import TrajectorySettings
from fmbench.data.prepared import read
from fmbench.stages.adaptive_solve import stops
from fmbench.stages.common import Job
from fmbench.stages.models import load_model
from fmbench.store.records import PREVIEW_POINTS, TRAJECTORY, TRAJECTORY_IMAGES, previews, write_table


def run(job: Job, data: Path, model_folder: Path, out: Path) -> None:
    """Write ``trajectory.parquet`` into ``out``: each sample's state at each time, in data space.

    States of images are clamped to the range of data and rounded to its levels, as they are looked at. The column ``t`` is the
    time asked for: on a path that ends sooner (diffusion), 1 shows its end. States that are not finite are left out, and a
    training that diverged has none.
    """
    dataset = read(data)
    settings = TrajectorySettings.model_validate(job.spec["settings"])
    model = load_model(model_folder, dataset, job.device, job.spec["model"])
    n = settings.n or (TRAJECTORY_IMAGES if dataset.is_images else PREVIEW_POINTS)
    pieces = []
    if model.reason:
        job.console.say(f"skipped, training diverged: {model.reason}")
    else:
        solve = {"rtol": settings.rtol, "atol": settings.atol, "max_nfe": settings.max_nfe}
        found, nfe, failed = stops(model, dataset, job, n, settings.batch, settings.times, **solve)  # type: ignore[arg-type]
        for t, states in zip(settings.times, found, strict=True):
            kept = np.flatnonzero(np.isfinite(states).reshape(n, -1).all(1))
            rows = previews(
                dataset.manifest["dataset"], job.spec["method"], job.spec["seed"], dataset.to_data(states[kept]), kept
            )
            pieces.append(rows.append_column("t", pa.array([t] * len(kept), pa.float64())))
        job.console.say(
            f"{n} samples at {len(settings.times)} times, {nfe.mean():.1f} NFE a sample, {int(failed.sum())} failed -> {out}"
        )
    write_table(out / "trajectory.parquet", pa.concat_tables(pieces) if pieces else TRAJECTORY.empty_table())
