"""Stage ``few_step``: the quality and the looks of samples made with few evaluations (Fig. 4 right, 7 right, 16 and 17)."""

from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fmbench.config.cells import Cell, cells, jumps, pictured
from fmbench.config.evaluation_settings import FewStepSettings
from fmbench.config.names import OPTIMAL_GRID, STOCHASTIC_SOLVERS
from fmbench.data.prepared import DataSet, read
from fmbench.stages.evaluators.base import Evaluator, add_primary, skip_primary
from fmbench.stages.evaluators.loading import evaluator_key, load_evaluator
from fmbench.stages.shared.cached_results import CachedResults
from fmbench.stages.shared.fixed_solve import fixed
from fmbench.stages.shared.grid_fit import Fit, fit
from fmbench.stages.shared.job import Job
from fmbench.stages.shared.models import Model, cache_key, model_of
from fmbench.stages.shared.sample_files import load_samples, preview, solve_of
from fmbench.store.parquet import read_table, write_table
from fmbench.store.previews import FEW_STEP_IMAGES, FEW_STEP_PREVIEWS, NFE, PREVIEW_POINTS
from fmbench.store.records import write_rows

NO_SCORE = (
    "a stochastic sampler needs the score, and a velocity gives it only where the paths of a method start at noise that is "
    "independent of the data"
)
"""The reason given for stochastic samplers of a method whose paths start at the condition, or whose pairs are coupled."""


def run(
    job: Job, data: Path, model_folder: Path, samples_folder: Path, features_folder: Path, out: Path, cache_folder: Path
) -> None:
    """Write ``rows.parquet`` and ``previews.parquet`` into ``out``.

    Rows: for each cell the evaluator's primary metric of its samples, the error of this metric, and the wall seconds per sample.
    The rows with the solver ``dopri5`` have the same of as many samples of the stage ``sample``. Previews: the first samples of
    each cell of one solver, in data space. Those of the adaptive solve have the solver ``dopri5`` and NFE 0. All samples start
    from the same noise; a stochastic sampler adds noise of its own. A cell is computed once: the cache knows its weights, code,
    noise, features and settings.
    """
    dataset = read(data)
    settings = FewStepSettings.model_validate(job.spec["settings"])
    model = model_of(job, model_folder, dataset)
    evaluator = load_evaluator(features_folder, dataset, job.device, job.console)
    wanted = cells(settings.solvers, settings.nfe) + ([] if model.mean_velocity is None else jumps(settings.jumps))
    if model.unsolvable:
        _skip(job, evaluator, settings, wanted, model.unsolvable)
        pictures, message = FEW_STEP_PREVIEWS.empty_table(), f"skipped, {model.unsolvable}"
    else:
        few_step = _FewStep(job, model, dataset, settings, evaluator)
        if not model.flow().has_score:
            unfit = [cell for cell in wanted if cell.solver in STOCHASTIC_SOLVERS]
            wanted = [cell for cell in wanted if cell not in unfit]
            _skip_cells(job, evaluator, settings, unfit, NO_SCORE)
        key = cache_key(model, job) | evaluator_key(features_folder) | {"n": settings.n, "batch": settings.batch}
        results = CachedResults(cache_folder, key, job.console.say)
        found = few_step.add_cells(wanted, results)
        pictures = pa.concat_tables([*found, few_step.add_adaptive_solve(samples_folder)])
        message = f"{results.computed} cells computed, {len(wanted) - results.computed} from the cache -> {out}"
    write_rows(out / "rows.parquet", job.rows)
    write_table(out / "previews.parquet", pictures)
    job.console.say(message)


def _columns(settings: FewStepSettings) -> dict[str, Any]:
    return {"n": settings.n, "batch": min(settings.batch, settings.n)}


def _skip(job: Job, evaluator: Evaluator, settings: FewStepSettings, wanted: list[Cell], reason: str) -> None:
    """Add a skipped row for every number of this stage."""
    _skip_cells(job, evaluator, settings, wanted, reason)
    skip_primary(job, evaluator.primary_metric(), reason, solver="dopri5", n=settings.n)


def _skip_cells(job: Job, evaluator: Evaluator, settings: FewStepSettings, cells: list[Cell], reason: str) -> None:
    """Add a skipped row for every number of these cells."""
    for cell in cells:
        columns = _columns(settings) | {"solver": cell.label, "nfe": float(cell.nfe)}
        skip_primary(job, evaluator.primary_metric(), reason, **columns)
        job.skip("seconds", "s", reason, **columns)


class _FewStep:
    """The samples of one model with few evaluations."""

    def __init__(self, job: Job, model: Model, dataset: DataSet, settings: FewStepSettings, evaluator: Evaluator) -> None:
        self.job, self.model, self.dataset, self.settings, self.evaluator = job, model, dataset, settings, evaluator
        self.primary = evaluator.primary_metric()
        shown = settings.shown
        if shown is None:
            shown = FEW_STEP_IMAGES if dataset.is_images else PREVIEW_POINTS
        self.shown = min(shown, settings.n)

    def add_cells(self, wanted: list[Cell], results: CachedResults) -> list[pa.Table]:
        """Add the rows of all cells, and return the previews of one solver's."""
        pictures, shown = [], pictured(wanted)
        progress = self.job.console.progress(len(wanted), "cells")
        for done, cell in enumerate(wanted, start=1):
            key = {"solver": cell.label, "nfe": cell.nfe}
            found, samples = results.value_and_array(key, partial(self._cell, cell), least=self.shown)
            where = _columns(self.settings) | {"solver": cell.label, "nfe": found["nfe"]}
            reason = ""
            if found["distance"] is None:
                reason = f"the samples of {cell.label} at {cell.nfe} NFE, or their distance, are not finite"
            add_primary(self.job, self.primary, found["distance"], found["distance_stderr"], reason, **where)
            self.job.add("seconds", found["seconds"], "s", **where)
            if cell in shown:
                pictures.append(self._preview(samples, cell.label, cell.nfe))
            progress.update(done)
        progress.close()
        return pictures

    def add_adaptive_solve(self, folder: Path) -> pa.Table:
        """Add the rows of the samples of the stage ``sample``, and return their previews."""
        n, samples = self.settings.n, load_samples(folder, self.dataset)
        solve = solve_of(folder)
        where: dict[str, Any] = {"n": n, "solver": "dopri5"} | {name: solve[name] for name in ("batch", "rtol", "atol")}
        if len(samples) < n:
            reason = f"the stage sample made {len(samples)} samples, and {n} are compared"
            skip_primary(self.job, self.primary, reason, **where)
        elif not np.isfinite(samples[:n]).all():
            skip_primary(self.job, self.primary, f"some of the first {n} samples are not finite", **where)
        else:
            spent = read_table(folder / "nfe.parquet", NFE).column("nfe").slice(0, n).to_numpy()
            add_primary(self.job, self.primary, *self._distance(samples[:n]), nfe=float(spent.mean()), **where)
        return self._preview(samples, "dopri5", 0)

    def _cell(self, cell: Cell) -> tuple[dict[str, Any], NDArray]:
        """The numbers of a cell, and the samples that are shown."""
        errors = self._fit.errors if cell.grid == OPTIMAL_GRID else None
        solved = fixed(self.model, self.job, self.settings.n, self.settings.batch, cell, errors)
        distance, error = self._distance(solved.samples)
        numbers = {"distance": distance, "distance_stderr": error, "nfe": solved.nfe, "seconds": solved.seconds}
        return numbers, solved.samples[: self.shown]

    @cached_property
    def _fit(self) -> Fit:
        """The local errors for optimal grids."""
        return fit(self.model, self.job, self.settings.n)

    def _distance(self, samples: NDArray) -> tuple[float | None, float | None]:
        """Primary metric and its error; None if they or a sample are not finite (the cache is JSON, which has no infinity)."""
        if not np.isfinite(samples).all():
            return None, None
        measured, error = self.evaluator.measure_primary(samples)
        if not np.isfinite(measured.value):
            return None, None
        return measured.value, error if error is not None and np.isfinite(error) else None

    def _preview(self, samples: NDArray, solver: str, nfe: int) -> pa.Table:
        """Previews of the samples that are shown."""
        rows = preview(self.job, self.dataset, samples[: self.shown])
        rows = rows.append_column(FEW_STEP_PREVIEWS.field("solver"), pa.array([solver] * len(rows), pa.string()))
        return rows.append_column(FEW_STEP_PREVIEWS.field("nfe"), pa.array([nfe] * len(rows), pa.int64()))
