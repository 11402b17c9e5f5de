"""Stage ``sweep``: every fixed-step solver at every NFE, against a fine reference from the same noise."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fmbench.config.cells import Cell, cells
from fmbench.config.evaluation_settings import SweepSettings
from fmbench.data.prepared import DataSet, read
from fmbench.flow.solvers.adaptive import dopri5
from fmbench.stages.common import Job, base_noise
from fmbench.stages.fixed_solve import fixed
from fmbench.stages.models import Model, cache_key, load_model
from fmbench.store.cache import Cache
from fmbench.store.records import DIVERGED, write_rows

CHECK_TOLERANCE = 1e-7


def run(job: Job, data: Path, model_folder: Path, out: Path, cache_folder: Path) -> None:
    """Write ``rows.parquet`` into ``out``: the mean squared error a coordinate (pixel) of each cell, its measured NFE, and
    its wall seconds a sample.

    Errors are in model space and not clamped (Fig. 7 left of Lipman et al. 2023: error to the 1000-NFE solution). The
    reference's own error, against dopri5 at a fine tolerance, is the row ``reference_mse``: a cell's error below it means
    nothing. A cell that is in the cache, under the same weights, code, noise and settings, is not computed again.
    """
    dataset = read(data)
    settings = SweepSettings.model_validate(job.spec["settings"])
    model = load_model(model_folder, dataset, job.device, job.spec["model"])
    wanted = cells(settings.solvers, settings.nfe)
    reference_name = f"{settings.reference_solver} at {settings.reference_nfe} NFE"
    timed = {"n": settings.n, "batch": min(settings.batch, settings.n)}
    shared = timed | {"reference": reference_name}
    unit = "squared model units"
    if model.reason:
        reason = f"training diverged: {model.reason}"
        for cell in wanted:
            job.skip("mse", unit, reason, solver=cell.label, nfe=float(cell.nfe), **shared)
            job.skip("seconds", "s", reason, solver=cell.label, nfe=float(cell.nfe), **timed)
        checked = {"n": min(settings.reference_check_n, settings.n), "reference": f"dopri5 at {CHECK_TOLERANCE:g}"}
        job.skip("reference_mse", unit, reason, solver=reference_name, **checked)
        write_rows(out / "rows.parquet", job.rows)
        job.console.say(f"skipped, {reason}")
        return

    cache = Cache(cache_folder)
    common = cache_key(model, job) | {"n": settings.n, "batch": settings.batch}
    reference_key = common | {"solver": settings.reference_solver, "nfe": settings.reference_nfe}
    reference: NDArray | None = None
    spent: float | None = None

    def the_reference() -> tuple[NDArray, float]:
        """Its samples, and the mean NFE that they cost."""
        nonlocal reference, spent
        if reference is None:
            reference, spent = cache.get_array(reference_key), cache.get(reference_key)
        if reference is None or spent is None:
            fine = Cell(settings.reference_solver, "uniform", settings.reference_nfe)
            reference, spent, _ = fixed(model, dataset, job, settings.n, settings.batch, fine)
            cache.put_array(reference_key, reference)
            cache.put(reference_key, spent)
        return reference, spent

    computed = 0
    progress = job.console.progress(len(wanted), "cells")
    for done, cell in enumerate(wanted, start=1):
        key = common | {"solver": cell.label, "nfe": cell.nfe, "reference": reference_name}
        found = cache.get(key)
        if found is None:
            solved = fixed(model, dataset, job, settings.n, settings.batch, cell)
            error = mean_squared_error(solved.samples, the_reference()[0])
            found = {"mse": error, "nfe": solved.nfe, "seconds": solved.seconds}
            cache.put(key, found)
            computed += 1
        bad = {}
        if found["mse"] is None:
            bad = {"status": DIVERGED, "reason": f"the error of {cell.label} at {cell.nfe} NFE is not finite"}
        job.add("mse", found["mse"], unit, solver=cell.label, nfe=found["nfe"], **shared, **bad)
        job.add("seconds", found["seconds"], "s", solver=cell.label, nfe=found["nfe"], **timed)
        progress.update(done)
    progress.close()

    n = min(settings.reference_check_n, settings.n)
    key = common | {"check": n, "reference": reference_name, "tolerance": CHECK_TOLERANCE}
    check = cache.get(key)
    if check is None:
        exact, dopri5_nfe = fine_solve(model, dataset, job, n)
        samples, nfe = the_reference()
        check = {"mse": mean_squared_error(samples[:n], exact), "nfe": nfe, "dopri5_nfe": dopri5_nfe}
        cache.put(key, check)
    # As of a cell: the columns of a solve are the reference's own, and dopri5 is what it is held to.
    held_to = f"dopri5 at {CHECK_TOLERANCE:g}, {check['dopri5_nfe']:.1f} NFE"
    columns = {"n": n, "batch": timed["batch"], "solver": reference_name, "nfe": check["nfe"], "reference": held_to}
    bad = {"status": DIVERGED, "reason": f"the error of {reference_name} is not finite"} if check["mse"] is None else {}
    job.add("reference_mse", check["mse"], unit, **columns, **bad)
    write_rows(out / "rows.parquet", job.rows)
    job.console.say(f"{computed} cells computed, {len(wanted) - computed} from the cache -> {out / 'rows.parquet'}")


def mean_squared_error(samples: NDArray, reference: NDArray) -> float | None:
    """The mean over samples and coordinates, or None if it is not finite (JSON, which caches it, has no infinity)."""
    error = np.mean((samples.astype(np.float64) - reference.astype(np.float64)) ** 2)
    return float(error) if np.isfinite(error) else None


def fine_solve(model: Model, dataset: DataSet, job: Job, n: int) -> tuple[NDArray, float]:
    """The first n samples by dopri5 at :data:`CHECK_TOLERANCE`, and the mean NFE; NaN where it failed."""
    objective, field = model.objective, model.field()
    x0 = base_noise(job.spec["seed"], range(n), dataset.shape, objective.path.base_std, job.device)
    with torch.no_grad():
        solution = dopri5(field, x0, objective.t_min, objective.t_max, rtol=CHECK_TOLERANCE, atol=CHECK_TOLERANCE)
    samples = solution.x.cpu().numpy()
    samples[solution.failed.cpu().numpy()] = np.nan
    return samples, field.evaluations / n
