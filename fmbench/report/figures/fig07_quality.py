"""Fig. 7 (right): distance of samples to the data against NFE."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fmbench.report.figures.axes import beyond, limits, log_or_signed, ticks_at
from fmbench.report.figures.panels import (
    band,
    curve,
    distance_names,
    each_panel,
    note_failures,
    nothing,
    panels,
    wrapped,
)
from fmbench.report.figures.solver_families import family_legend, solver_styles
from fmbench.report.frames import MODEL, records_frame
from fmbench.report.style import DISTANCES, label

ADAPTIVE = "dopri5"


def fig07_quality_data(results: Path) -> pd.DataFrame:
    """Return the primary distance of few-step samples, and that of as many samples of the adaptive solver at its mean NFE."""
    few_step = records_frame(results / "few_step.parquet")
    columns = [*MODEL, "metric", "solver", "nfe", "value", "unit", "status", "reason", "n", "features"]
    return few_step[few_step.metric.isin(DISTANCES)][columns]


def fig07_quality(data: pd.DataFrame) -> Figure:
    """Draw a panel per data set and method: a line per solver with its range over seeds, and crosses of the adaptive solver.

    Families of solvers differ by colour and dashes, their members by markers.
    """
    if data.empty:
        return nothing("no few-step samples")
    datasets, methods = list(data.dataset.unique()), list(data.method.unique())
    styles = solver_styles(data[(data.solver != ADAPTIVE) & (data.status == "ok")], "value")
    down, across = wrapped(len(methods), 4)
    figure, axes = panels(len(datasets) * down, across, 1.55, sharex=True)
    for i, dataset in enumerate(datasets):
        block = axes[i * down : (i + 1) * down]
        here = data[data.dataset == dataset]
        good = here[here.status == "ok"]
        for axis, method in each_panel(block, methods):
            _distances(axis, good[good.method == method], styles)
            _scale(axis, good)
            axis.set_title(label(method), fontsize=7)
            note_failures(axis, here, [method], named=False)
        for row in block:
            row[0].set_ylabel(f"{dataset}\n{distance_names(here)}", fontsize=7)
    for axis in axes[-1]:
        axis.set_xlabel("NFE")
    cross = {"color": "black", "marker": "x", "linestyle": "", "markersize": 4}
    family_legend(figure, styles, [("adaptive (dopri5),\none cross per seed", cross)] if (data.solver == ADAPTIVE).any() else [])
    return figure


def _distances(axis: Axes, mine: pd.DataFrame, styles: dict[str, dict[str, object]]) -> None:
    """The distances of one method on one data set."""
    for solver, style in styles.items():
        rows = mine[mine.solver == solver]
        curve(axis, band(rows.nfe, rows.value), **style)
    crosses = mine[mine.solver == ADAPTIVE]
    axis.plot(crosses.nfe, crosses.value, "x", color="black", markersize=4, zorder=3)


def _scale(axis: Axes, good: pd.DataFrame) -> None:
    """The same scales, limits and ticks for all panels of one data set."""
    axis.set_xscale("log")
    log_or_signed(axis, good.value)
    if budgets := list(good[good.solver != ADAPTIVE].nfe.unique()):
        ticks_at(axis, [*budgets, *beyond(budgets, good.nfe.max())])
    if not good.empty:
        axis.set_ylim(*limits(good.value))
    axis.grid(True)
    axis.label_outer(remove_inner_ticks=False)
    axis.tick_params(labelbottom=True)
