"""Fig. 5 and Fig. 10: distance to the data and NFE of the adaptive solver during training."""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fmbench.report.figures.axes import log_or_signed
from fmbench.report.figures.panels import band, curve, distance_names, nothing, panel_per_dataset
from fmbench.report.frames import MODEL, records_frame
from fmbench.report.style import DISTANCES


def fig05_data(results: Path) -> pd.DataFrame:
    """Return the primary distance of each model and snapshot."""
    return _learning_curve(results, tuple(DISTANCES))


def fig05(data: pd.DataFrame) -> Figure:
    """Draw a panel per data set: distance of samples to the data over iterations, mean and range over seeds."""
    return _over_iterations(data, None)


def fig10_data(results: Path) -> pd.DataFrame:
    """Return the NFE of the adaptive solver of each model and snapshot."""
    return _learning_curve(results, ("nfe",))


def fig10(data: pd.DataFrame) -> Figure:
    """Draw a panel per data set: NFE of a sample over iterations, mean and range over seeds."""
    return _over_iterations(data, "NFE (dopri5)")


def _learning_curve(results: Path, metrics: tuple[str, ...]) -> pd.DataFrame:
    rows = records_frame(results / "learning_curve.parquet")
    return rows[rows.metric.isin(metrics)][[*MODEL, "step", "metric", "value", "unit", "status", "reason", "n", "features"]]


def _over_iterations(data: pd.DataFrame, name: str | None) -> Figure:
    """``name``: that of the y axis; None for a distance, on an axis that :func:`log_or_signed` chooses."""

    def draw(axis: Axes, here: pd.DataFrame, look: dict[str, dict[str, Any]]) -> None:
        good = here[here.status == "ok"]
        for method in look:
            mine = good[good.method == method]
            curve(axis, band(mine.step, mine.value), **look[method])
        if name is None:
            log_or_signed(axis, good.value)
        axis.set(xlabel="iterations", ylabel=name or distance_names(here))

    return panel_per_dataset(data, draw) if len(data) else nothing("no learning curves")
