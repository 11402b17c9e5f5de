"""Fig. 7 (left): error of fixed-step solvers against NFE."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fmbench.errors import DataError
from fmbench.report.figures.axes import ticks_at
from fmbench.report.figures.panels import band, curve, looks, panels
from fmbench.report.frames import MODEL, records_frame
from fmbench.report.style import SMALL, WIDTH, label, solver_label, wrap


def fig07_data(results: Path) -> pd.DataFrame:
    """Return the errors of the sweep, each with its model's NLL, because an underfit network is easy to integrate.

    Raises:
        DataError: the records have no sweep.
    """
    records = records_frame(results / "records.parquet")
    nll = records[records.metric == "nll"].set_index(MODEL)[["value", "unit"]]
    nll.columns = pd.Index(["nll", "nll_unit"])
    columns = [*MODEL, "metric", "solver", "nfe", "value", "status", "n", "reference"]
    sweep = records[(records.stage == "sweep") & records.metric.isin(["mse", "reference_mse"])][columns]
    if sweep.empty:
        raise DataError(f"{results / 'records.parquet'} has no rows of the sweep; set evaluation.sweep.solvers in the config")
    return sweep.join(nll, on=MODEL).rename(columns={"value": "mse"})


def fig07(data: pd.DataFrame) -> Figure:
    """Draw a row per data set and a column per solver: geometric means over seeds, with their range as a band.

    A dotted line is the reference's own error, drawn where a method's error comes near it. Errors below it mean nothing.
    """
    references = data[(data.metric == "reference_mse") & (data.status == "ok")]
    data = data[data.metric == "mse"]
    datasets, solvers = list(data.dataset.unique()), list(data.solver.unique())
    methods = list(data.method.unique())
    width = max(WIDTH, 2.2 + 1.15 * len(solvers))
    figure, axes = panels(len(datasets), len(solvers), 2.0, width, sharex=True, sharey="row")
    for i, (row, dataset) in enumerate(zip(axes, datasets, strict=True)):
        here = data[data.dataset == dataset]
        for axis, solver in zip(row, solvers, strict=True):
            _errors(axis, here[here.solver == solver], references[references.dataset == dataset], methods)
            ticks_at(axis, list(data.nfe.unique()))
            if i == 0:
                axis.set_title(solver_label(solver))
            if i == len(datasets) - 1:
                axis.set_xlabel("NFE")
        row[0].set_ylabel(f"{dataset}\nMSE to the reference")
        _legend(row[-1], here, methods)
    return figure


def _errors(axis: Axes, here: pd.DataFrame, references: pd.DataFrame, methods: list[str]) -> None:
    """One panel: the errors of one solver on one data set."""
    look = looks(methods)
    for method in methods:
        solves = here[(here.method == method) & (here.status == "ok")]
        if solves.empty:
            continue
        table = band(solves.nfe, solves.mse, log=True)
        curve(axis, table, **look[method])
        floor = references[references.method == method].mse.mean()
        if floor > table["mean"].min() / 30:
            axis.axhline(floor, color=look[method]["color"], linestyle=":", linewidth=0.8)
    axis.set(xscale="log", yscale="log")
    axis.grid(True)


def _legend(axis: Axes, here: pd.DataFrame, methods: list[str]) -> None:
    """The methods of one data set with their NLL and the number of failed solves, right of the last panel."""
    look, handles, names = looks(methods), [], []
    for method in methods:
        mine = here[here.method == method]
        quality = f"NLL {mine.nll.mean():.2f}" if mine.nll.notna().any() else "no NLL"
        failed = int((mine.status != "ok").sum())
        names.append(wrap(f"{label(method)} ({quality}{f'; {failed} solves diverged' if failed else ''})", 36))
        handles.append(Line2D([], [], **look[method]))
    unit = here.nll_unit.dropna().unique()
    title = f"NLL in {unit[0]}" if len(unit) else None
    place = {"loc": "center left", "bbox_to_anchor": (1.03, 0.5)}
    axis.legend(handles, names, title=title, fontsize=SMALL, title_fontsize=SMALL, **place)
