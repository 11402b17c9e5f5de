"""Error of every fixed-step solver against NFE and against measured seconds (not in the paper)."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fmbench.report.figures.axes import limits, log_x, ticks_at
from fmbench.report.figures.panels import band, curve, empty, note_failures, nothing, panels
from fmbench.report.figures.solver_families import family_legend, solver_styles
from fmbench.report.frames import MODEL, records_frame
from fmbench.report.style import WIDTH, label, wrap


def work_precision_data(results: Path) -> pd.DataFrame:
    """Return the error of every solver with its cost: ``nfe``, and ``seconds`` per sample where they were measured."""
    records = records_frame(results / "records.parquet")
    sweep = records[records.stage == "sweep"]
    mse = sweep[sweep.metric == "mse"][[*MODEL, "solver", "nfe", "value", "status", "reason", "n", "batch", "device"]]
    timed = sweep[(sweep.metric == "seconds") & (sweep.status == "ok")].drop_duplicates([*MODEL, "solver", "nfe"])
    seconds = timed[[*MODEL, "solver", "nfe", "value"]].rename(columns={"value": "seconds"})
    return mse.rename(columns={"value": "mse"}).merge(seconds, on=[*MODEL, "solver", "nfe"], how="left")


def work_precision(data: pd.DataFrame) -> Figure:
    """Draw a row per method and, for each data set, a column over NFE and one over seconds per sample; a line per solver.

    Families of solvers differ by colour and dashes, their members by markers.

    Lines are geometric means over seeds, of errors and of seconds. Bands are the range of errors.
    """
    if data.empty:
        return nothing("no sweep of solvers")
    datasets, methods = list(data.dataset.unique()), list(data.method.unique())
    styles = solver_styles(data[data.status == "ok"], "mse")
    width = max(WIDTH, WIDTH / 2 * len(datasets))
    figure, axes = panels(len(methods), 2 * len(datasets), 1.25, width, sharex="col")
    for j, dataset in enumerate(datasets):
        here = data[data.dataset == dataset]
        good = here[(here.status == "ok") & (here.mse > 0)]
        for i, method in enumerate(methods):
            for axis, cost in zip(axes[i, 2 * j : 2 * j + 2], ("nfe", "seconds"), strict=True):
                _errors(axis, good[good.method == method], cost, styles)
                _scale(axis, good, cost)
                if i == 0:
                    axis.set_title(dataset)
                if i == len(methods) - 1:
                    axis.set_xlabel("NFE" if cost == "nfe" else "seconds per sample")
            note_failures(axes[i, 2 * j], here, [method], named=False)
    for i, method in enumerate(methods):
        axes[i, 0].set_ylabel(f"{wrap(label(method))}\nMSE", fontsize=7)
    family_legend(figure, styles)
    return figure


def _errors(axis: Axes, mine: pd.DataFrame, cost: str, styles: dict[str, dict[str, object]]) -> None:
    """One panel: the errors of one method on one data set over ``cost``."""
    known = mine[mine[cost] > 0]
    for solver, style in styles.items():
        rows = known[known.solver == solver]
        table = band(rows.nfe, rows.mse, log=True)
        if cost == "seconds":
            table.index = pd.Index(np.exp(np.log(rows.seconds).groupby(rows.nfe).mean()))
        curve(axis, table, **style)
    if known.empty:
        empty(axis, "no seconds\nmeasured" if cost == "seconds" and not mine.empty else "no errors")


def _scale(axis: Axes, good: pd.DataFrame, cost: str) -> None:
    """The same scales and limits for all panels of one data set and cost."""
    axis.grid(True)
    if (good[cost] > 0).any():
        log_x(axis, good[cost][good[cost] > 0])
    if not good.empty:
        axis.set(yscale="log", ylim=limits(good.mse))
    if cost == "nfe" and len(good):
        ticks_at(axis, list(good.nfe.unique()))
    if cost == "seconds":
        axis.tick_params(labelleft=False)
