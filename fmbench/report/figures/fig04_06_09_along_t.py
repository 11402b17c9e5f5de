"""Fig. 4 (left), Fig. 6 and Fig. 9: states along t, from noise (t = 0) to data (t = 1)."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from fmbench.report.figures.pictures import pictures_over, plane, sheet
from fmbench.report.figures.preview_rows import Kind, preview_rows, with_failed_methods, with_real_data


def states_data(results: Path, kind: Kind) -> pd.DataFrame:
    """Return states of ``kind`` at each ``t``, from the same noise, and the data (no ``t``)."""
    states = preview_rows(results, "trajectory.parquet", kind)
    return with_failed_methods(results, with_real_data(results, states, kind)) if len(states) else states


def along_t(data: pd.DataFrame) -> Figure:
    """Draw a row per data set and method, a column per t: density of the states on the plane."""
    return pictures_over(data, "t", _time, plane)


def fig06(data: pd.DataFrame) -> Figure:
    """Draw a row per data set and method, a column per t: states from the same two noises."""
    return pictures_over(data, "t", _time, lambda axis, mine, real: sheet(axis, mine, real, 2, 1), tall=2)


def _time(t: float) -> str:
    return f"t = {t:.3g}"
