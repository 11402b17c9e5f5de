"""Stage ``sweep``: the error of every fixed-step solver at every NFE, against a fine reference from the same noise."""

from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fmbench.config.cells import Cell, cells
from fmbench.config.evaluation_settings import SweepSettings
from fmbench.config.names import OPTIMAL_GRID
from fmbench.config.solver_settings import AdaptiveSettings
from fmbench.data.prepared import DataSet, read
from fmbench.flow.solvers.adaptive import dopri5
from fmbench.flow.solvers.tableaux import ADAPTIVE
from fmbench.stages.shared.batching import batches
from fmbench.stages.shared.cached_results import CachedResults
from fmbench.stages.shared.fixed_solve import Solved, fixed
from fmbench.stages.shared.grid_fit import SAMPLES, Fit, fit
from fmbench.stages.shared.job import Job
from fmbench.stages.shared.models import Model, cache_key, model_of
from fmbench.store.records import write_rows

FINE = AdaptiveSettings(name="dopri5", rtol=1e-7, atol=1e-7)
"""The solve that the reference itself is compared with."""
UNIT = "squared model units"
PATHS = {"straightness": UNIT, "path_length_ratio": "ratio"}
"""Metrics of the trajectories of the reference, and their units. Each has a row ``_stderr``."""


def run(job: Job, data: Path, model_folder: Path, out: Path, cache_folder: Path) -> None:
    """Write ``rows.parquet`` into ``out``: for each cell the mean squared error per coordinate (pixel), its standard error over
    samples, the measured NFE, and the wall seconds per sample.

    Errors are in model space, without clamping (Fig. 7 left of Lipman et al. 2023: error to the 1000-NFE solution). The row
    ``reference_mse`` is the error of the reference itself, against dopri5 at a fine tolerance: an error of a cell below it means
    nothing. ``straightness`` and ``path_length_ratio`` are of the trajectories of the reference. A cell is computed once: the
    cache knows its weights, code, noise and settings.
    """
    dataset = read(data)
    settings = SweepSettings.model_validate(job.spec["settings"])
    model = model_of(job, model_folder, dataset)
    wanted = cells(settings.solvers, settings.nfe)
    if model.unsolvable:
        _skip(job, settings, wanted, model.unsolvable)
        message = f"skipped, {model.unsolvable}"
    else:
        sweep = _Sweep(job, model, dataset, settings, cache_folder)
        computed = sweep.add_cells(wanted)
        sweep.add_adaptive_solves()
        sweep.add_reference_error()
        sweep.add_straightness()
        message = f"{computed} cells computed, {len(wanted) - computed} from the cache -> {out / 'rows.parquet'}"
    write_rows(out / "rows.parquet", job.rows)
    job.console.say(message)


def _columns(settings: SweepSettings) -> dict[str, Any]:
    return {"n": settings.n, "batch": min(settings.batch, settings.n)}


def _reference_name(settings: SweepSettings) -> str:
    return f"{settings.reference_solver} at {settings.reference_nfe} NFE"


def _skip(job: Job, settings: SweepSettings, wanted: list[Cell], reason: str) -> None:
    """Add a skipped row for every number of the sweep."""
    columns, reference = _columns(settings), _reference_name(settings)
    for cell in wanted:
        for metric in ("mse", "mse_stderr"):
            job.skip(metric, UNIT, reason, solver=cell.label, nfe=float(cell.nfe), reference=reference, **columns)
        job.skip("seconds", "s", reason, solver=cell.label, nfe=float(cell.nfe), **columns)
    if any(cell.grid == OPTIMAL_GRID for cell in wanted):
        job.skip("grid_nfe", "evaluations", reason, solver=OPTIMAL_GRID, n=SAMPLES)
    for solver in settings.adaptive:
        for name in (solver.name, f"{solver.name}_shared"):
            where = columns | {"solver": name, "rtol": solver.rtol, "atol": solver.atol}
            job.skip("adaptive_nfe", "evaluations", reason, **where)
            job.skip("adaptive_mse", UNIT, reason, reference=reference, **where)
    n, held_to = min(settings.reference_check_n, settings.n), f"dopri5 at {FINE.rtol:g}"
    job.skip("reference_mse", UNIT, reason, solver=reference, n=n, reference=held_to)
    for metric, unit in PATHS.items():
        for name in (metric, f"{metric}_stderr"):
            job.skip(name, unit, reason, solver=reference, **columns)


class _Sweep:
    """The sweep of one model."""

    def __init__(self, job: Job, model: Model, dataset: DataSet, settings: SweepSettings, cache_folder: Path) -> None:
        self.job, self.model, self.dataset, self.settings = job, model, dataset, settings
        self.reference_name = _reference_name(settings)
        self._folder, self._key = cache_folder, cache_key(model, job) | {"n": settings.n, "batch": settings.batch}

    def add_cells(self, wanted: list[Cell]) -> int:
        """Add the rows of all cells, and return how many cells were computed now."""
        columns = _columns(self.settings)
        results = self._results()
        progress = self.job.console.progress(len(wanted), "cells")
        for done, cell in enumerate(wanted, start=1):
            key = {"solver": cell.label, "nfe": cell.nfe, "reference": self.reference_name}
            found = results.value(key, partial(self._cell, cell))
            where = columns | {"solver": cell.label, "nfe": found["nfe"]}
            reason = "" if found["mse"] is not None else f"the error of {cell.label} at {cell.nfe} NFE is not finite"
            self._add_with_error("mse", found, UNIT, reference=self.reference_name, reason=reason, **where)
            self.job.add("seconds", found["seconds"], "s", **where)
            progress.update(done)
        progress.close()
        if any(cell.grid == OPTIMAL_GRID for cell in wanted):
            self.job.add("grid_nfe", self._fit.nfe, "evaluations", solver=OPTIMAL_GRID, n=SAMPLES, nfe=self._fit.nfe)
        return results.computed

    def add_adaptive_solves(self) -> None:
        """Add NFE and error of every adaptive solver, with a step size for each sample and with one for a batch."""
        for solver in self.settings.adaptive:
            for per_sample in (True, False):
                name = solver.name if per_sample else f"{solver.name}_shared"
                tolerance = {"rtol": solver.rtol, "atol": solver.atol}
                key = {"solver": name, "reference": self.reference_name, **tolerance}
                found = self._results().value(key, partial(self._adaptive, solver, per_sample))
                where = _columns(self.settings) | tolerance | {"solver": name, "nfe": found["nfe"]}
                self.job.add("adaptive_nfe", found["nfe"], "evaluations", **where)
                reason = "" if found["mse"] is not None else f"the error of {name} is not finite"
                self.job.add("adaptive_mse", found["mse"], UNIT, reference=self.reference_name, reason=reason, **where)

    def add_reference_error(self) -> None:
        """Add the row of the reference's own error, against :data:`FINE`."""
        settings = self.settings
        n = min(settings.reference_check_n, settings.n)
        key = {"check": n, "reference": self.reference_name, "tolerance": FINE.rtol}
        found = self._results().value(key, lambda: self._reference_error(n))
        # Solver and NFE are the reference's, as in the row of a cell. dopri5 is the solution that it is compared with.
        columns = {"n": n, "batch": min(settings.batch, settings.n), "solver": self.reference_name, "nfe": found["nfe"]}
        held_to = f"dopri5 at {FINE.rtol:g}, {found['dopri5_nfe']:.1f} NFE"
        reason = "" if found["mse"] is not None else f"the error of {self.reference_name} is not finite"
        self.job.add("reference_mse", found["mse"], UNIT, reference=held_to, reason=reason, **columns)

    def add_straightness(self) -> None:
        """Add the rows of how straight the reference's trajectories are: the mean over samples and its standard error."""
        about = self._results().value({"paths of": self.reference_name}, lambda: self._reference[1])
        columns = _columns(self.settings) | {"solver": self.reference_name, "nfe": about["nfe"]}
        for metric, unit in PATHS.items():
            reason = "" if about[metric] is not None else f"a trajectory of {self.reference_name} is not finite"
            self._add_with_error(metric, about, unit, reason=reason, **columns)

    def _add_with_error(self, metric: str, found: dict[str, Any], unit: str, **columns: Any) -> None:
        """Add the row of a mean over samples, and that of its standard error."""
        self.job.add(metric, found[metric], unit, **columns)
        if self.settings.n > 1:
            self.job.add(f"{metric}_stderr", found[f"{metric}_stderr"], unit, **columns)
        else:
            self.job.skip(f"{metric}_stderr", unit, **columns | {"reason": "one sample has no spread"})

    def _results(self) -> CachedResults:
        return CachedResults(self._folder, self._key, self.job.console.say)

    def _solve(self, cell: Cell, straight: bool = False) -> Solved:
        errors = self._fit.errors if cell.grid == OPTIMAL_GRID else None
        return fixed(self.model, self.job, self.settings.n, self.settings.batch, cell, errors, straight)

    @cached_property
    def _fit(self) -> Fit:
        """The local errors for optimal grids."""
        n = self.settings.n
        return Fit(*self._results().value_and_array({"grid": OPTIMAL_GRID}, lambda: fit(self.model, self.job, n)))

    def _cell(self, cell: Cell) -> dict[str, Any]:
        solved = self._solve(cell)
        reference = self._reference[0]
        errors = {"mse": mean_squared_error(solved.samples, reference), "mse_stderr": stderr_of_error(solved.samples, reference)}
        return errors | {"nfe": solved.nfe, "seconds": solved.seconds}

    def _adaptive(self, solver: AdaptiveSettings, per_sample: bool) -> dict[str, Any]:
        settings = self.settings
        end, nfe = adaptive(self.model, self.job, settings.n, settings.batch, solver, per_sample)
        return {"mse": mean_squared_error(end, self._reference[0]), "nfe": nfe}

    def _reference_error(self, n: int) -> dict[str, Any]:
        exact, dopri5_nfe = adaptive(self.model, self.job, n, n, FINE, per_sample=True)
        samples, about = self._reference
        return {"mse": mean_squared_error(samples[:n], exact), "nfe": about["nfe"], "dopri5_nfe": dopri5_nfe}

    @cached_property
    def _reference(self) -> tuple[NDArray, dict[str, float | None]]:
        """The samples of the reference, their mean NFE and the numbers of their paths; not computed unless a number needs it."""
        solver, nfe = self.settings.reference_solver, self.settings.reference_nfe

        def compute() -> tuple[dict[str, float | None], NDArray]:
            solved = self._solve(Cell(solver, "uniform", nfe), straight=True)
            about: dict[str, float | None] = {"nfe": solved.nfe}
            assert solved.straightness is not None
            for metric, values in zip(PATHS, solved.straightness.T, strict=True):
                error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
                numbers = {metric: values.mean(), f"{metric}_stderr": error}
                about |= {name: float(v) if np.isfinite(v) else None for name, v in numbers.items()}
            return about, solved.samples

        about, samples = self._results().value_and_array({"solver": solver, "nfe": nfe, "of": "reference"}, compute)
        return samples, about


def mean_squared_error(samples: NDArray, reference: NDArray) -> float | None:
    """The mean over samples and coordinates, or None if it is not finite (the cache is JSON, which has no infinity)."""
    error = np.mean((samples.astype(np.float64) - reference.astype(np.float64)) ** 2)
    return float(error) if np.isfinite(error) else None


def stderr_of_error(samples: NDArray, reference: NDArray) -> float | None:
    """The standard error of the mean squared error over samples; None if it is not finite, or of one sample."""
    of_each = ((samples.astype(np.float64) - reference.astype(np.float64)) ** 2).reshape(len(samples), -1).mean(1)
    error = of_each.std(ddof=1) / np.sqrt(len(samples)) if len(samples) > 1 else np.nan
    return float(error) if np.isfinite(error) else None


# Many parameters: those of the fixed-step solve, and the solver's.
def adaptive(model: Model, job: Job, n: int, batch: int, solver: AdaptiveSettings, per_sample: bool) -> tuple[NDArray, float]:
    """The first n samples by an adaptive solver, NaN where the solve failed, and the mean NFE of a sample."""
    objective, field, pieces = model.objective, model.field(), []
    with torch.no_grad():
        for indices in batches(n, batch):
            x0 = model.start(job.spec["seed"], indices)
            pair, rtol, atol = ADAPTIVE[solver.name], solver.rtol, solver.atol
            ends = objective.t_min, objective.t_max
            solution = dopri5(field.rows(indices), x0, *ends, pair=pair, rtol=rtol, atol=atol, per_sample=per_sample)
            pieces.append(solution.samples.cpu().numpy())
    return np.concatenate(pieces), field.evaluations / n
