"""Fig. 4 (right) and Fig. 16 to 17: samples with few evaluations."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from fmbench.config.cells import PICTURED
from fmbench.report.figures.pictures import pictures_over, plane, sheet
from fmbench.report.figures.preview_rows import Kind, preview_rows, with_failed_methods, with_real_data
from fmbench.report.style import solver_label


def few_step_data(results: Path, kind: Kind) -> pd.DataFrame:
    """Return samples of ``kind`` from the same noise, by one fixed-step solver at every ``nfe``.

    The solver is midpoint, or the first one where midpoint is missing (:func:`fmbench.config.cells.pictured`). Samples of the
    adaptive solver have ``nfe`` 0.
    """
    data = preview_rows(results, "few_step_previews.parquet", kind)
    fixed = list(data[data.nfe > 0].solver.unique())
    if not fixed:
        return data.iloc[:0]
    solver = PICTURED if PICTURED in fixed else fixed[0]
    data = data[(data.solver == solver) | (data.nfe == 0)]
    return with_failed_methods(results, with_real_data(results, data, kind))


def fig04_few_step(data: pd.DataFrame) -> Figure:
    """Draw a row per data set and method, a column per NFE: samples on the plane."""
    return _with_solver(data, pictures_over(data, "nfe", _nfe, plane))


def fig16(data: pd.DataFrame) -> Figure:
    """Draw a row per data set and method, a column per NFE: samples from the same four noises."""
    return _with_solver(data, pictures_over(data, "nfe", _nfe, lambda axis, mine, real: sheet(axis, mine, real, 2, 2)))


def _nfe(nfe: float) -> str:
    return f"NFE = {nfe:.0f}" if nfe else "adaptive"


def _with_solver(data: pd.DataFrame, figure: Figure) -> Figure:
    """The figure with the fixed-step solver in its title."""
    if len(data):
        solvers = [s for s in data.solver.dropna().unique() if not s.startswith("dopri5")]
        title = figure.get_suptitle()
        steps = f"{', '.join(map(solver_label, solvers))} steps"
        figure.suptitle(f"{title}: {steps}" if title else steps, fontsize=8)
    return figure
