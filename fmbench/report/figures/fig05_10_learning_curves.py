"""Fig. 5 and Fig. 10: distance to the data and NFE of the adaptive solver during training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fmbench.report.figures.axes import log_or_signed
from fmbench.report.figures.panels import band, curve, distance_names, nothing, panel_per_dataset
from fmbench.report.frames import MODEL, records_frame
from fmbench.report.style import DISTANCES


def learning_curve(results: Path, metrics: Sequence[str] = tuple(DISTANCES)) -> pd.DataFrame:
    """Return some metrics of each model and snapshot, by default the primary distance."""
    rows = records_frame(results / "learning_curve.parquet")
    return rows[rows.metric.isin(metrics)][[*MODEL, "step", "metric", "value", "unit", "status", "reason", "n", "features"]]


def over_iterations(data: pd.DataFrame, name: str = "") -> Figure:
    """Draw a panel per data set: values over iterations, mean and range over seeds.

    Args:
        name: that of the y axis; empty for a distance, on an axis that :func:`log_or_signed` chooses.
    """

    def draw(axis: Axes, here: pd.DataFrame, look: dict[str, dict[str, Any]]) -> None:
        good = here[here.status == "ok"]
        for method in look:
            mine = good[good.method == method]
            curve(axis, band(mine.step, mine.value), **look[method])
        if not name:
            log_or_signed(axis, good.value)
        axis.set(xlabel="iterations", ylabel=name or distance_names(here))

    return panel_per_dataset(data, draw) if len(data) else nothing("no learning curves")
