"""Figures with axes: error and quality against NFE, seconds, and along training."""

from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fmbench.errors import DataError
from fmbench.report.panels import (
    Drawing,
    band,
    beyond,
    curve,
    empty,
    legend_below,
    limits,
    log_or_signed,
    log_x,
    looks,
    lost,
    method_legend,
    note,
    nothing,
    panels,
    ticks_at,
    wrapped,
)
from fmbench.report.style import DISTANCES, SMALL, WIDTH, distance_label, label, solver_label, wrap
from fmbench.report.table1 import records_frame
from fmbench.store.records import read_table

MODEL = ["dataset", "method", "seed"]
ADAPTIVE = "dopri5"

# Along training


def along_data(results: Path, metrics: tuple[str, ...]) -> pd.DataFrame:
    """The rows of the stage ``learning_curve`` with one of ``metrics``: a row for each model and snapshot."""
    rows = records_frame(results / "learning_curve.parquet")
    return rows[rows.metric.isin(metrics)][[*MODEL, "step", "metric", "value", "unit", "status", "reason", "n", "features"]]


def fig05_data(results: Path) -> pd.DataFrame:
    """The primary distance along training (Fig. 5)."""
    return along_data(results, tuple(DISTANCES))


def fig05(data: pd.DataFrame) -> Figure:
    """A panel per data set: distance of samples to the data over iterations, mean and range over seeds."""
    return _along(data, None)


def fig10_data(results: Path) -> pd.DataFrame:
    """NFE of the adaptive solver along training (Fig. 10)."""
    return along_data(results, ("nfe",))


def fig10(data: pd.DataFrame) -> Figure:
    """A panel per data set: NFE of a sample over iterations, mean and range over seeds."""
    return _along(data, "NFE (dopri5)")


def _along(data: pd.DataFrame, name: str | None) -> Figure:
    if data.empty:
        return nothing("nothing measured along training")
    datasets, methods = list(data.dataset.unique()), list(data.method.unique())
    look = looks(methods)
    figure, axes = panels(*wrapped(len(datasets), 3), 2.1)
    for axis, dataset in _each(axes, datasets):
        here = data[data.dataset == dataset]
        good = here[here.status == "ok"]
        for method in methods:
            mine = good[good.method == method]
            curve(axis, band(mine.step, mine.value), **look[method])
        if name is None:
            log_or_signed(axis, good.value)
        axis.set(title=dataset, xlabel="iterations", ylabel=name or _distance(here))
        axis.grid(True)
        note(axis, lost(here, methods))
    method_legend(figure, methods)
    return figure


def _distance(rows: pd.DataFrame) -> str:
    names = {distance_label(m, f) for m, f in zip(rows.metric, rows.features, strict=True)}
    return " or ".join(sorted(names))


def _each(axes: np.ndarray, names: list[str]) -> list[tuple[Axes, str]]:
    """Panels in reading order, a name to each; the rest is taken away."""
    flat = list(axes.flat)
    for spare in flat[len(names) :]:
        spare.remove()
    return list(zip(flat[: len(names)], names, strict=True))


# Training cost


def cost_data(results: Path) -> pd.DataFrame:
    """The primary distance along training with what the training had cost by then.

    ``images`` and ``seconds`` are those of the whole training times the share of its iterations that was done.
    """
    rows = fig05_data(results)
    records = records_frame(results / "records.parquet")
    whole = records[records.stage == "train"].drop_duplicates([*MODEL, "metric"])
    cost = whole.pivot(index=MODEL, columns="metric", values="value").reindex(columns=["images_seen", "train_seconds"])
    # The step of the last row is where the training ended, also where it diverged and has no number of iterations.
    cost["end"] = whole[whole.metric == "images_seen"].set_index(MODEL).step
    joined = rows.merge(cost.reset_index(), on=MODEL, how="left")
    share = joined.step / joined.end
    joined["images"], joined["seconds"] = joined.images_seen * share, joined.train_seconds * share
    return joined.drop(columns=["images_seen", "train_seconds", "end"])


def cost(data: pd.DataFrame) -> Figure:
    """A row per data set: distance over training images and over training seconds, mean and range over seeds.

    Seeds differ in their seconds, so a snapshot is drawn at the mean of them.
    """
    if data.empty:
        return nothing("nothing measured along training")
    datasets, methods = list(data.dataset.unique()), list(data.method.unique())
    look = looks(methods)
    figure, axes = panels(len(datasets), 2, 2.0, sharey="row")
    for row, dataset in zip(axes, datasets, strict=True):
        here = data[data.dataset == dataset]
        good = here[here.status == "ok"]
        for axis, column, name in zip(row, ("images", "seconds"), ("training images", "training seconds"), strict=True):
            known = good[good[column] > 0]
            for method in methods:
                mine = known[known.method == method]
                table = band(mine.step, mine.value)
                table.index = pd.Index(mine[column].groupby(mine.step).mean())
                curve(axis, table, **look[method])
            if known.empty and not good.empty:
                empty(axis, f"no {name} in the records")
            elif not known.empty:
                log_x(axis, known[column], large=column == "images")
                log_or_signed(axis, known.value)
            axis.set(title=dataset, xlabel=name)
            axis.grid(True)
        row[0].set_ylabel(_distance(here))
        note(row[0], lost(here, methods))
    method_legend(figure, methods)
    return figure


# Over NFE


def fig07_data(results: Path) -> pd.DataFrame:
    """Error against NFE (Fig. 7 left): the sweep's rows, each with its model's NLL beside, since an underfit network is
    easy to integrate."""
    records = records_frame(results / "records.parquet")
    nll = records[records.metric == "nll"].set_index(MODEL)[["value", "unit"]]
    nll.columns = pd.Index(["nll", "nll_unit"])
    columns = [*MODEL, "metric", "solver", "nfe", "value", "status", "n", "reference"]
    sweep = records[(records.stage == "sweep") & records.metric.isin(["mse", "reference_mse"])][columns]
    if sweep.empty:
        raise DataError(f"{results / 'records.parquet'} has no rows of a sweep, so there is nothing to draw")
    return sweep.join(nll, on=MODEL).rename(columns={"value": "mse"})


def fig07(data: pd.DataFrame) -> Figure:
    """A row per data set, a column per solver; lines are geometric means over seeds, bands their range.

    A dotted line is the reference's own error, drawn where a method's error comes near it: below, errors mean nothing.
    """
    references = data[(data.metric == "reference_mse") & (data.status == "ok")]
    data = data[data.metric == "mse"]
    datasets, solvers = list(data.dataset.unique()), list(data.solver.unique())
    methods = list(data.method.unique())
    look = looks(methods)
    width = max(WIDTH, 2.2 + 1.15 * len(solvers))
    figure, axes = panels(len(datasets), len(solvers), 2.0, width, sharex=True, sharey="row")
    for i, (row, dataset) in enumerate(zip(axes, datasets, strict=True)):
        here = data[data.dataset == dataset]
        for axis, solver in zip(row, solvers, strict=True):
            for method in methods:
                cells = here[(here.solver == solver) & (here.method == method) & (here.status == "ok")]
                if cells.empty:
                    continue
                table = band(cells.nfe, cells.mse, log=True)
                curve(axis, table, **look[method])
                floor = references[(references.dataset == dataset) & (references.method == method)].mse.mean()
                if floor > table["mean"].min() / 30:
                    axis.axhline(floor, color=look[method]["color"], linestyle=":", linewidth=0.8)
            axis.set(xscale="log", yscale="log")
            ticks_at(axis, list(data.nfe.unique()))
            axis.grid(True)
            if i == 0:
                axis.set_title(solver_label(solver))
            if i == len(datasets) - 1:
                axis.set_xlabel("NFE")
        row[0].set_ylabel(f"{dataset}\nMSE to the reference")
        handles, names = [], []
        for method in methods:
            mine = here[here.method == method]
            quality = f"NLL {mine.nll.mean():.2f}" if mine.nll.notna().any() else "no NLL"
            gone = mine[mine.status != "ok"].shape[0]
            names.append(wrap(f"{label(method)} ({quality}{f'; {gone} cells diverged' if gone else ''})", 36))
            handles.append(Line2D([], [], **look[method]))
        unit = here.nll_unit.dropna().unique()
        title = f"NLL in {unit[0]}" if len(unit) else None
        place = {"loc": "center left", "bbox_to_anchor": (1.03, 0.5)}
        row[-1].legend(handles, names, title=title, fontsize=SMALL, title_fontsize=SMALL, **place)
    return figure


def fig07_quality_data(results: Path) -> pd.DataFrame:
    """The primary distance against NFE (Fig. 7 right), with that of as many samples of the adaptive solver at its mean NFE."""
    budget = records_frame(results / "few_step.parquet")
    columns = [*MODEL, "metric", "solver", "nfe", "value", "unit", "status", "reason", "n", "features"]
    return budget[budget.metric.isin(DISTANCES)][columns]


def fig07_quality(data: pd.DataFrame) -> Figure:
    """For each data set a panel per method, a line per solver: mean and range over seeds; a cross for the adaptive solver."""
    if data.empty:
        return nothing("no samples of few evaluations were judged")
    datasets, methods = list(data.dataset.unique()), list(data.method.unique())
    solvers = [s for s in data.solver.unique() if s != ADAPTIVE]
    styles = _solver_looks(solvers)
    down, across = wrapped(len(methods), 4)
    figure, axes = panels(len(datasets) * down, across, 1.55, sharex=True)
    for i, dataset in enumerate(datasets):
        block = axes[i * down : (i + 1) * down]
        here = data[data.dataset == dataset]
        good = here[here.status == "ok"]
        for axis, method in _each(block, methods):
            mine = good[good.method == method]
            for solver in solvers:
                cells = mine[mine.solver == solver]
                curve(axis, band(cells.nfe, cells.value), **styles[solver])
            crosses = mine[mine.solver == ADAPTIVE]
            axis.plot(crosses.nfe, crosses.value, "x", color="black", markersize=4, zorder=3)
            axis.set_xscale("log")
            log_or_signed(axis, good.value)
            if budgets := list(good[good.solver != ADAPTIVE].nfe.unique()):
                ticks_at(axis, [*budgets, *beyond(budgets, good.nfe.max())])
            if not good.empty:
                axis.set_ylim(*limits(good.value))
            axis.set_title(label(method), fontsize=7)
            axis.grid(True)
            axis.label_outer(remove_inner_ticks=False)
            axis.tick_params(labelbottom=True)
            note(axis, [line.partition(": ")[2] for line in lost(here, [method])])
        for row in block:
            row[0].set_ylabel(f"{dataset}\n{_distance(here)}", fontsize=7)
    for axis in axes[-1]:
        axis.set_xlabel("NFE")
    entries = [(solver_label(s), styles[s]) for s in solvers]
    if (data.solver == ADAPTIVE).any():
        entries.append(("adaptive (dopri5), a cross a seed", {"color": "black", "marker": "x", "linestyle": "", "markersize": 4}))
    legend_below(figure, entries)
    return figure


def _solver_looks(solvers: list[str]) -> dict[str, dict[str, object]]:
    """Solvers, in figures with a panel per method: greys and greens apart from the methods' colours, own dashes and markers."""
    shades = sns.color_palette("viridis", max(2, len(solvers)))
    dashes = ["-", (0, (4, 1.2)), (0, (1.2, 1)), (0, (5, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1))]
    kinds = "os^Dv<>*"
    return {
        s: {"color": shades[i], "linestyle": dashes[i % len(dashes)], "marker": kinds[i % len(kinds)], "markersize": 2.5}
        for i, s in enumerate(solvers)
    }


def work_precision_data(results: Path) -> pd.DataFrame:
    """Error of every solver with what it cost: ``nfe``, and ``seconds`` a sample where they were measured."""
    records = records_frame(results / "records.parquet")
    sweep = records[records.stage == "sweep"]
    mse = sweep[sweep.metric == "mse"][[*MODEL, "solver", "nfe", "value", "status", "reason", "n", "batch", "device"]]
    timed = sweep[(sweep.metric == "seconds") & (sweep.status == "ok")].drop_duplicates([*MODEL, "solver", "nfe"])
    seconds = timed[[*MODEL, "solver", "nfe", "value"]].rename(columns={"value": "seconds"})
    return mse.rename(columns={"value": "mse"}).merge(seconds, on=[*MODEL, "solver", "nfe"], how="left")


def work_precision(data: pd.DataFrame) -> Figure:
    """A row per method, for each data set a column over NFE and one over seconds a sample; a line per solver.

    Lines are geometric means over seeds, of errors and of seconds; bands the range of errors.
    """
    if data.empty:
        return nothing("no solver was swept")
    datasets, methods, solvers = (list(data[c].unique()) for c in ("dataset", "method", "solver"))
    styles = _solver_looks(solvers)
    width = max(WIDTH, WIDTH / 2 * len(datasets))
    figure, axes = panels(len(methods), 2 * len(datasets), 1.25, width, sharex="col")
    for j, dataset in enumerate(datasets):
        here = data[data.dataset == dataset]
        good = here[(here.status == "ok") & (here.mse > 0)]
        for i, method in enumerate(methods):
            mine = good[good.method == method]
            for axis, cost in zip(axes[i, 2 * j : 2 * j + 2], ("nfe", "seconds"), strict=True):
                known = mine[mine[cost] > 0]
                for solver in solvers:
                    cells = known[known.solver == solver]
                    table = band(cells.nfe, cells.mse, log=True)
                    if cost == "seconds":
                        table.index = pd.Index(np.exp(np.log(cells.seconds).groupby(cells.nfe).mean()))
                    curve(axis, table, **styles[solver])
                axis.grid(True)
                if (good[cost] > 0).any():
                    log_x(axis, good[cost][good[cost] > 0])
                if not good.empty:
                    axis.set(yscale="log", ylim=limits(good.mse))
                if known.empty:
                    empty(axis, "no seconds\nmeasured" if cost == "seconds" and not mine.empty else "no errors")
                if i == 0:
                    axis.set_title(dataset)
                if cost == "nfe" and len(good):
                    ticks_at(axis, list(good.nfe.unique()))
                if cost == "seconds":
                    axis.tick_params(labelleft=False)
                if i == len(methods) - 1:
                    axis.set_xlabel("NFE" if cost == "nfe" else "seconds a sample")
            note(axes[i, 2 * j], [line.partition(": ")[2] for line in lost(here, [method])])
    for i, method in enumerate(methods):
        axes[i, 0].set_ylabel(f"{wrap(label(method))}\nMSE", fontsize=7)
    legend_below(figure, [(solver_label(s), styles[s]) for s in solvers], columns=6)
    return figure


# NFE of single samples


def nfe_distribution_data(results: Path) -> pd.DataFrame:
    """How many samples of each model took how many evaluations: ``count`` of each ``nfe``; a row with the reason, and without
    an NFE, for a model that could not be sampled."""
    table = read_table(results / "nfe.parquet").to_pandas()
    counts = table.groupby([*MODEL, "nfe"], sort=False).size().rename("count").reset_index()
    counts = counts.assign(status="ok", reason="")
    records = records_frame(results / "records.parquet")
    gone = records[(records.stage == "sample") & (records.metric == "nfe") & (records.status != "ok")]
    gone = gone[[*MODEL, "status", "reason"]].assign(nfe=None, count=0)
    whole = pd.concat([counts, gone[counts.columns]]) if len(gone) else counts
    # In the records' order, which is the config's.
    known = records.drop_duplicates(["dataset", "method"])
    order = {pair: i for i, pair in enumerate(zip(known.dataset, known.method, strict=True))}
    rank = [order.get(pair, len(order)) for pair in zip(whole.dataset, whole.method, strict=True)]
    whole = whole.assign(rank=rank, nfe=whole.nfe.astype("Int64")).sort_values(["rank", "seed", "nfe"], kind="stable")
    return whole.drop(columns="rank").reset_index(drop=True)


def nfe_distribution(data: pd.DataFrame) -> Figure:
    """A panel per data set: share of samples that took at most so many evaluations, mean and range over seeds."""
    if data.empty:
        return nothing("no sample's evaluations were counted")
    datasets, methods = list(data.dataset.unique()), list(data.method.unique())
    look = looks(methods)
    figure, axes = panels(*wrapped(len(datasets), 3), 2.1)
    for axis, dataset in _each(axes, datasets):
        here = data[data.dataset == dataset]
        for method in methods:
            table = shares(here[(here.method == method) & (here.status == "ok")])
            if table.empty:
                continue
            line = {"color": look[method]["color"], "linewidth": 1.1}
            axis.step(table.index, table["mean"], where="post", **line)
            axis.fill_between(table.index, table.low, table.high, step="post", alpha=0.18, linewidth=0, color=line["color"])
            # One marker, at the median.
            middle = table[table["mean"] >= 0.5].iloc[:1]
            axis.plot(middle.index, middle["mean"], **look[method], markersize=4)
        axis.set(title=dataset, xlabel="NFE of a sample, dopri5", ylabel="share of samples", ylim=(-0.02, 1.02))
        axis.grid(True)
        note(axis, lost(here, methods))
    method_legend(figure, methods)
    return figure


def shares(counts: pd.DataFrame) -> pd.DataFrame:
    """The share of samples with at most so many evaluations, over NFE: mean, low and high over seeds."""
    by_seed = counts.pivot_table(index="nfe", columns="seed", values="count", aggfunc="sum", fill_value=0)
    if by_seed.empty:
        return pd.DataFrame(columns=["mean", "low", "high"])
    first = int(by_seed.index[0]) - 1
    by_seed.loc[first] = 0  # the line starts from zero
    share = by_seed.sort_index().cumsum() / by_seed.sum()
    return pd.DataFrame({"mean": share.mean(axis=1), "low": share.min(axis=1), "high": share.max(axis=1)})


FIGURES: dict[str, Drawing] = {
    "fig05": Drawing(fig05_data, fig05),
    "fig07": Drawing(fig07_data, fig07),
    "fig07_quality": Drawing(fig07_quality_data, fig07_quality),
    "fig10": Drawing(fig10_data, fig10),
    "work_precision": Drawing(work_precision_data, work_precision),
    "nfe_distribution": Drawing(nfe_distribution_data, nfe_distribution),
    "cost": Drawing(cost_data, cost),
}
"""Figures by name."""
