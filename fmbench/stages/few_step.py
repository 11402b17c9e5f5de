"""Stage ``budget``: samples made with few evaluations, how good they are and how they look (Fig. 4 right, 7 right, 16, 17)."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fmbench.config.cells import cells
from fmbench.config.evaluation_settings import FewStepSettings
from fmbench.data.prepared import DataSet, read
from fmbench.stages.common import Job
from fmbench.stages.evaluator import Evaluator, evaluator_key, load_evaluator
from fmbench.stages.fixed_solve import fixed
from fmbench.stages.models import cache_key, load_model
from fmbench.stages.sample_quality import load_samples
from fmbench.store.cache import Cache
from fmbench.store.records import (
    DIVERGED,
    FEW_STEP_IMAGES,
    FEW_STEP_PREVIEWS,
    PREVIEW_POINTS,
    previews,
    read_rows,
    read_table,
    write_rows,
    write_table,
)


def run(
    job: Job, data: Path, model_folder: Path, samples_folder: Path, features_folder: Path, out: Path, cache_folder: Path
) -> None:
    """Write ``rows.parquet`` and ``previews.parquet`` into ``out``.

    Rows: the evaluator's main distance of the samples of each cell, and the wall seconds a sample; the same distance of as many
    samples of the stage ``sample`` is the row with solver ``dopri5``. Previews: the first samples of each cell, in data space;
    those of the adaptive solve have solver ``dopri5`` and NFE 0. All start from the same noise. A cell that is in the cache,
    under the same weights, code, noise, features and settings, is not computed again.
    """
    dataset = read(data)
    settings = FewStepSettings.model_validate(job.spec["settings"])
    model = load_model(model_folder, dataset, job.device, job.spec["model"])
    evaluator = load_evaluator(features_folder, dataset, job.device, job.console)
    (main,) = evaluator.metrics(only=(evaluator.primary,))
    extracted = {"features": main.features, "reference": main.reference}
    wanted, n = cells(settings.solvers, settings.nfe), settings.n
    shown = settings.shown
    if shown is None:
        shown = FEW_STEP_IMAGES if dataset.is_images else PREVIEW_POINTS
    shown = min(shown, n)
    columns = {"n": n, "batch": min(settings.batch, n)}
    if model.reason:
        reason = f"training diverged: {model.reason}"
        for cell in wanted:
            job.skip(main.metric, main.unit, reason, solver=cell.label, nfe=float(cell.nfe), **columns, **extracted)
            job.skip("seconds", "s", reason, solver=cell.label, nfe=float(cell.nfe), **columns)
        job.skip(main.metric, main.unit, reason, solver="dopri5", n=n, **extracted)
        write_rows(out / "rows.parquet", job.rows)
        write_table(out / "previews.parquet", FEW_STEP_PREVIEWS.empty_table())
        job.console.say(f"skipped, {reason}")
        return

    cache = Cache(cache_folder)
    common = cache_key(model, job) | evaluator_key(features_folder) | {"n": n, "batch": settings.batch}
    computed = 0
    pictures = []
    progress = job.console.progress(len(wanted), "cells")
    for done, cell in enumerate(wanted, start=1):
        key = common | {"solver": cell.label, "nfe": cell.nfe}
        found, picture = cache.get(key), cache.get_array(key)
        if found is None or picture is None or len(picture) < shown:
            solved = fixed(model, dataset, job, n, settings.batch, cell)
            picture = solved.samples[:shown]
            found = {"distance": _distance(evaluator, solved.samples), "nfe": solved.nfe, "seconds": solved.seconds}
            cache.put(key, found)
            cache.put_array(key, picture)
            computed += 1
        where = columns | {"solver": cell.label, "nfe": found["nfe"]}
        bad = {}
        if found["distance"] is None:
            bad = {"status": DIVERGED, "reason": f"samples of {cell.label} at {cell.nfe} NFE, or their distance, are not finite"}
        job.add(main.metric, found["distance"], main.unit, **where, **extracted, **bad)
        job.add("seconds", found["seconds"], "s", **where)
        pictures.append(_pictures(job, dataset, picture[:shown], cell.label, cell.nfe))
        progress.update(done)
    progress.close()

    samples = load_samples(samples_folder, dataset)
    spent = read_table(samples_folder / "nfe.parquet").column("nfe").slice(0, n).to_numpy()
    (solve,) = [row for row in read_rows([samples_folder / "rows.parquet"]).to_pylist() if row["metric"] == "nfe"]
    where = extracted | {"n": n, "batch": solve["batch"], "solver": "dopri5", "rtol": solve["rtol"], "atol": solve["atol"]}
    if len(samples) < n:
        job.skip(main.metric, main.unit, f"the stage sample made {len(samples)} samples, and {n} are compared", **where)
    elif not np.isfinite(samples[:n]).all():
        job.skip(main.metric, main.unit, f"some of the first {n} samples are not finite", **where)
    else:
        job.add(main.metric, _distance(evaluator, samples[:n]), main.unit, nfe=float(spent.mean()), **where)
    pictures.append(_pictures(job, dataset, samples[:shown], "dopri5", 0))
    write_rows(out / "rows.parquet", job.rows)
    write_table(out / "previews.parquet", pa.concat_tables(pictures))
    job.console.say(f"{computed} cells computed, {len(wanted) - computed} from the cache -> {out}")


def _distance(evaluator: Evaluator, samples: NDArray) -> float | None:
    """The evaluator's main measurement, or None where samples or distance are not finite (the cache is JSON, which has no
    infinity)."""
    if not np.isfinite(samples).all():
        return None
    (found,) = evaluator.measure(samples, only=(evaluator.primary,))
    return found.value if np.isfinite(found.value) else None


def _pictures(job: Job, dataset: DataSet, samples: NDArray, solver: str, nfe: int) -> pa.Table:
    kept = np.flatnonzero(np.isfinite(samples).all(tuple(range(1, samples.ndim))))
    rows = previews(dataset.manifest["dataset"], job.spec["method"], job.spec["seed"], dataset.to_data(samples[kept]), kept)
    rows = rows.append_column("solver", pa.array([solver] * len(kept), pa.string()))
    return rows.append_column("nfe", pa.array([nfe] * len(kept), pa.int64()))
