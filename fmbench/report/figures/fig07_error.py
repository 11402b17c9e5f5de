"""Fig. 7 (left): error of fixed-step solvers against NFE."""

import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fmbench.errors import DataError
from fmbench.report.claims.rows import PAPER_SOLVERS
from fmbench.report.figures.axes import limits, ticks_at
from fmbench.report.figures.panels import band, curve, each_panel, looks, panels, wrapped
from fmbench.report.figures.solver_families import by_family
from fmbench.report.frames import MODEL, records_frame
from fmbench.report.style import SMALL, WIDTH, label, solver_label, wrap

ACROSS = 4
"""Panels in a row."""
NAMED = 4
"""The largest number of solvers that the title of a panel names."""


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
    """Draw for each data set a panel per solver of the paper, and one per family of the other solvers with its best at each NFE.

    Lines are geometric means over seeds, with their range as a band. A dotted line is the reference's own error, drawn where a
    method's error comes near it. Errors below it mean nothing.
    """
    references = data[(data.metric == "reference_mse") & (data.status == "ok")]
    data = data[data.metric == "mse"]
    datasets, methods = list(data.dataset.unique()), list(data.method.unique())
    groups = _groups(list(data.solver.unique()))
    down, across = wrapped(len(groups), ACROSS)
    width = max(WIDTH, 2.2 + 1.15 * across)
    figure, axes = panels(len(datasets) * down, across, 2.0, width, sharex=True)
    for i, dataset in enumerate(datasets):
        block = axes[i * down : (i + 1) * down]
        here = data[data.dataset == dataset]
        for axis, title in each_panel(block, list(groups)):
            _errors(axis, here[here.solver.isin(groups[title])], references[references.dataset == dataset], methods)
            ticks_at(axis, list(data.nfe.unique()))
            axis.set_title(title, fontsize=7)
            if (here.mse > 0).any():
                axis.set_ylim(*limits(here.mse[here.mse > 0]))
            axis.label_outer(remove_inner_ticks=False)
            axis.tick_params(labelbottom=True)
        for row in block:
            row[0].set_ylabel(f"{dataset}\nMSE to the reference")
        _legend(block[0][-1], here, methods)
    for axis in axes[-1]:
        axis.set_xlabel("NFE")
    return figure


def _groups(solvers: list[str]) -> dict[str, list[str]]:
    """The solvers of each panel by its title: each of the paper's, and the others by family."""
    groups = {solver_label(s): [s] for s in solvers if s in PAPER_SOLVERS}
    for name, members in by_family(s for s in solvers if s not in PAPER_SOLVERS).items():
        known = ", ".join(map(solver_label, members)) if len(members) <= NAMED else f"{len(members)}: {name}"
        groups[solver_label(members[0]) if len(members) == 1 else textwrap.fill(f"best of {known}", 26)] = members
    return groups


def _errors(axis: Axes, here: pd.DataFrame, references: pd.DataFrame, methods: list[str]) -> None:
    """One panel on one data set: each method's errors by the solver of the panel, or by its best solver at each NFE."""
    look = looks(methods)
    for method in methods:
        solves = here[(here.method == method) & (here.status == "ok")]
        if solves.empty:
            continue
        solves = _best_at_each_nfe(solves)
        table = band(solves.nfe, solves.mse, log=True)
        curve(axis, table, **look[method])
        floor = references[references.method == method].mse.mean()
        if floor > table["mean"].min() / 30:
            axis.axhline(floor, color=look[method]["color"], linestyle=":", linewidth=0.8)
    axis.set(xscale="log", yscale="log")
    axis.grid(True)


def _best_at_each_nfe(solves: pd.DataFrame) -> pd.DataFrame:
    """The solves of the solver with the lowest geometric mean over seeds at each NFE, over the seeds that it has."""
    logs = np.log(solves.mse.clip(lower=1e-16)).groupby([solves.nfe, solves.solver]).mean().unstack()
    best = logs.idxmin(axis="columns")
    return solves[solves.solver.to_numpy() == best.loc[solves.nfe].to_numpy()]


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
