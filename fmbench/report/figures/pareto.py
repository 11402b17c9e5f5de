"""Quality against NFE, and against the cost of training: what no other method beats in both (not in the paper)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fmbench.report.claims.rows import main_distance, metric_name
from fmbench.report.figures.axes import log_or_signed, log_x
from fmbench.report.figures.cost import NAMES as COSTS
from fmbench.report.figures.cost import cost_data
from fmbench.report.figures.panels import empty, looks, method_legend, note_failures, nothing, panels
from fmbench.report.frames import first_known, records_frame
from fmbench.report.pareto import ADAPTIVE, by_budget, interval, trained
from fmbench.report.style import DISTANCES

COLUMNS = ["dataset", "method", "cost", "at", "solver", "metric", "mean", "low", "high", "seeds", "best", "status", "reason"]
NAMES = {"nfe": "NFE", "passes": COSTS["passes"]}
_APART = 0.012
"""How far the points of neighbouring methods are moved apart, as a share of their cost, so that their bars can be seen."""


def pareto_data(results: Path) -> pd.DataFrame:
    """Return a row for each method and cost ``at`` which its quality was measured, with Student's interval over seeds.

    The ``cost`` is ``nfe``, with the best solver at each number of evaluations and dopri5 (:func:`by_budget`), or ``passes`` of
    the training so far (:func:`cost_data`). ``best``: no other row has as low a mean at as low a cost.
    """
    few_step, curves = records_frame(results / "few_step.parquet"), cost_data(results)
    few_step = few_step[few_step.metric.isin(DISTANCES)]
    rows = []
    for dataset, method in trained(results):
        for cost, source, found in (("nfe", few_step, by_budget), ("passes", curves, _during_training)):
            mine = source[(source.dataset == dataset) & (source.method == method)]
            where = {"dataset": dataset, "method": method, "cost": cost, "metric": metric_name(mine, main_distance(mine) or "")}
            for point in found(mine):
                known = {"seeds": len(point["values"]), "status": "ok", "reason": ""}
                rows.append(where | point | interval(point["values"]) | known)
            bad = mine[mine.status != "ok"][["status", "reason"]]
            rows += [where | row for row in bad.to_dict("records")]
    numbers = dict.fromkeys(("at", "mean", "low", "high"), float)
    data = pd.DataFrame(rows, columns=COLUMNS).astype(numbers | {"best": bool, "seeds": "Int64"})
    for _, part in data.groupby(["dataset", "cost"], sort=False):
        data.loc[part.index, "best"] = frontier(part["at"].to_numpy(), part["mean"].to_numpy())
    return data


def _during_training(curve: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The quality of one method at each snapshot, at the mean cost over seeds."""
    for _, here in curve[curve.status == "ok"].groupby("step"):
        yield {"at": here.passes.mean(), "solver": ADAPTIVE, "values": here.value.tolist()}


def frontier(cost: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Return which points no other point beats: none has a lower value at the same or a lower cost, or the same at a lower."""
    known = np.isfinite(cost) & np.isfinite(value)
    return np.array(
        [
            known[i] and not np.any(known & (cost <= c) & (value <= v) & ((cost < c) | (value < v)))
            for i, (c, v) in enumerate(zip(cost, value, strict=True))
        ],
        dtype=bool,
    )


def pareto(data: pd.DataFrame) -> Figure:
    """Draw a row per data set: quality over NFE (left) and over the cost of training (right), a line per method.

    Bars are intervals over seeds. The grey line is the frontier of the means. The hollow points are the adaptive solver's. Over
    NFE, other points of a method are left out where it has a lower mean at fewer evaluations: few solvers spend an odd number.
    """
    if data.empty:
        return nothing("no trained methods")
    datasets, methods = list(data.dataset.unique()), list(data.method.unique())
    figure, axes = panels(len(datasets), 2, 2.6)
    for row, dataset in zip(axes, datasets, strict=True):
        for axis, (cost, name) in zip(row, NAMES.items(), strict=True):
            here = data[(data.dataset == dataset) & (data.cost == cost)]
            _panel(axis, here[here["at"].gt(0) & here["mean"].notna()], methods)
            axis.set(title=dataset, xlabel=name)
            axis.grid(True)
            note_failures(axis, here, [m for m in methods if (here.method == m).any()])
        row[0].set_ylabel(first_known(data[(data.dataset == dataset) & (data.metric != "")].metric) or "")
    method_legend(figure, methods)
    return figure


def _panel(axis: Axes, here: pd.DataFrame, methods: list[str]) -> None:
    """One panel: the points of each method, and the frontier below them."""
    if here.empty:
        empty(axis, "no numbers")
        return
    best = here[here.best].sort_values("at")
    axis.plot(best["at"], best["mean"], drawstyle="steps-post", color="0.8", linewidth=4, zorder=0)
    for place, (method, look) in enumerate(looks(methods).items()):
        mine = here[here.method == method].sort_values("at")
        mine = mine[(mine.cost != "nfe") | (mine.solver == ADAPTIVE) | frontier(mine["at"].to_numpy(), mine["mean"].to_numpy())]
        at = mine["at"] * (1 + _APART * (place - (len(methods) - 1) / 2))
        bars = np.abs(mine[["low", "high"]].to_numpy(float).T - mine["mean"].to_numpy())
        axis.errorbar(at, mine["mean"], yerr=np.nan_to_num(bars), elinewidth=0.5, **look)
        if (here.cost == "nfe").all():
            solved = mine.solver == ADAPTIVE
            axis.plot(at[solved], mine["mean"][solved], linestyle="", zorder=3, **look | {"markerfacecolor": "white"})
    log_x(axis, here["at"], large=True)
    log_or_signed(axis, here["mean"])
