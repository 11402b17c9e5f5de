"""Figures, each in two steps: the data it shows (a small parquet), and the drawing from that data alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyarrow as pa
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fmbench.errors import DataError
from fmbench.files import atomic
from fmbench.records import read_table, write_table
from fmbench.report import theory
from fmbench.report.style import COLUMN, colours, label, markers
from fmbench.report.tables import records_frame


def fig07_data(results: Path) -> pd.DataFrame:
    """Error against NFE (Fig. 7 left): the sweep's rows, each with its model's NLL beside, since an underfit network is
    easy to integrate."""
    records = records_frame(results / "records.parquet")
    nll = records[records.metric == "nll"].set_index(["dataset", "method", "seed"])[["value", "unit"]]
    nll.columns = pd.Index(["nll", "nll_unit"])
    columns = ["dataset", "method", "seed", "metric", "solver", "nfe", "value", "status", "n", "reference"]
    sweep = records[(records.stage == "sweep") & records.metric.isin(["mse", "reference_mse"])][columns]
    if sweep.empty:
        raise DataError(f"{results / 'records.parquet'} has no rows of a sweep, so there is nothing to draw")
    return sweep.join(nll, on=["dataset", "method", "seed"]).rename(columns={"value": "mse"})


def fig07(data: pd.DataFrame) -> Figure:
    """A row per data set, a column per solver; lines are geometric means over seeds, bands their range.

    A dotted line is the reference's own error, drawn where a method's error comes near it: below, errors mean nothing.
    """
    references = data[(data.metric == "reference_mse") & (data.status == "ok")]
    data = data[data.metric == "mse"]
    datasets, solvers = list(data.dataset.unique()), list(data.solver.unique())
    methods = list(data.method.unique())
    colour, marker = colours(methods), markers(methods)
    figure, axes = plt.subplots(
        len(datasets),
        len(solvers),
        figsize=(1.0 + 1.75 * len(solvers), 0.3 + 2.1 * len(datasets)),
        sharex=True,
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for i, (row, dataset) in enumerate(zip(axes, datasets, strict=True)):
        here = data[data.dataset == dataset]
        for axis, solver in zip(row, solvers, strict=True):
            for method in methods:
                cells = here[(here.solver == solver) & (here.method == method) & (here.status == "ok")]
                if cells.empty:
                    continue
                logs = np.log(cells.mse.clip(lower=1e-16)).groupby(cells.nfe)
                mean, low, high = (np.exp(v) for v in (logs.mean(), logs.min(), logs.max()))
                axis.plot(mean.index, mean, color=colour[method], marker=marker[method], markersize=3, linewidth=1.1)
                axis.fill_between(mean.index, low, high, color=colour[method], alpha=0.18, linewidth=0)
                floor = references[(references.dataset == dataset) & (references.method == method)].mse.mean()
                if floor > mean.min() / 30:
                    axis.axhline(floor, color=colour[method], linestyle=":", linewidth=0.8)
            axis.set(xscale="log", yscale="log")
            ticks = [t for t in sorted(data.nfe.unique()) if t in (4, 8, 20, 40, 100)] or sorted(data.nfe.unique())
            axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
            axis.minorticks_off()
            axis.grid(True, linewidth=0.4, alpha=0.5)
            if i == 0:
                axis.set_title(solver)
            if i == len(datasets) - 1:
                axis.set_xlabel("NFE")
        row[0].set_ylabel(f"{dataset}\nMSE to the reference")
        handles, names = [], []
        for method in methods:
            mine = here[here.method == method]
            quality = f"NLL {mine.nll.mean():.2f}" if mine.nll.notna().any() else "no NLL"
            lost = mine[mine.status != "ok"].shape[0]
            names.append(f"{label(method)} ({quality}{f'; {lost} cells diverged' if lost else ''})")
            handles.append(plt.Line2D([], [], color=colour[method], marker=marker[method], markersize=3, linewidth=1.1))
        unit = here.nll_unit.dropna().unique()
        title = f"NLL in {unit[0]}" if len(unit) else None
        place = {"loc": "center left", "bbox_to_anchor": (1.03, 0.5), "frameon": False}
        row[-1].legend(handles, names, title=title, fontsize=6, title_fontsize=6, **place)
    return figure


def _previews(results: Path, dimensions: int) -> pd.DataFrame:
    table = read_table(results / "previews.parquet").to_pandas()
    return table[table["shape"].map(len) == dimensions]


def fig04_data(results: Path) -> pd.DataFrame:
    """Samples of 2-D data sets (Fig. 4 left at t = 1), all seeds, and the data."""
    data = _previews(results, 1)
    return data[data["shape"].map(lambda shape: shape[0] == 2).astype(bool)]


def fig04(data: pd.DataFrame) -> Figure:
    """A row per data set, a column for the data and for each method: density of the samples on the plane."""
    return _grid(data, _density)


def fig11_data(results: Path) -> pd.DataFrame:
    """Uncurated samples of image data sets (Fig. 11-13), first seed, in the order of their noise."""
    data = _previews(results, 3)
    first = data[data.method != "data"].groupby("dataset").seed.transform("min")
    return data[(data.method == "data") | (data.seed == first.reindex(data.index))]


def fig11(data: pd.DataFrame) -> Figure:
    """A row per data set, a column for the data and for each method: a sheet of samples from the same noise."""
    return _grid(data, _sheet)


def _grid(data: pd.DataFrame, draw: Callable[[Axes, pd.DataFrame, pd.DataFrame], None]) -> Figure:
    datasets = list(data.dataset.unique())
    methods = ["data", *(m for m in data.method.unique() if m != "data")]
    size = 2 * COLUMN / max(4, len(methods))
    figure, axes = plt.subplots(
        max(1, len(datasets)),
        len(methods),
        figsize=(size * len(methods), (size + 0.15) * max(1, len(datasets)) + 0.15),
        squeeze=False,
        layout="constrained",
    )
    for i, (row, dataset) in enumerate(zip(axes, datasets or [None], strict=True)):
        here = data[data.dataset == dataset]
        for axis, method in zip(row, methods, strict=True):
            axis.set(xticks=[], yticks=[])
            mine = here[here.method == method]
            if dataset is None or mine.empty:
                axis.text(0.5, 0.5, "no samples", ha="center", va="center", fontsize=7, transform=axis.transAxes)
            else:
                draw(axis, mine, here[here.method == "data"])
            if i == 0:
                axis.set_title(label(method), fontsize=7)
        row[0].set_ylabel(dataset or "", fontsize=8)
    return figure


def _density(axis: Axes, mine: pd.DataFrame, real: pd.DataFrame) -> None:
    reach = 1.25 * np.abs(np.stack(real["values"].to_list())).max()
    points = np.stack(mine["values"].to_list())
    bins = np.linspace(-reach, reach, 61)

    def density(xy: NDArray) -> NDArray:
        # Normalised by the number of points, so that the number of seeds and samples does not change the shade.
        counts = np.histogram2d(xy[:, 0], xy[:, 1], bins=(bins, bins))[0]
        return counts.T / len(xy) / (bins[1] - bins[0]) ** 2

    true = density(np.stack(real["values"].to_list()))
    extent = (-reach, reach, -reach, reach)
    axis.imshow(density(points), origin="lower", extent=extent, cmap="mako", vmin=0, vmax=np.quantile(true[true > 0], 0.9))


def _sheet(axis: Axes, mine: pd.DataFrame, real: pd.DataFrame) -> None:
    images = np.stack(mine["values"].to_list()).reshape(-1, *mine["shape"].iloc[0])
    side = int(np.ceil(np.sqrt(min(len(images), 36))))
    channels, height, width = images.shape[1:]
    brightest = np.stack(real["values"].to_list()).max()
    sheet = np.ones((side * (height + 1) - 1, side * (width + 1) - 1, channels))
    for k, image in enumerate(images[: side * side]):
        top, left = (height + 1) * (k // side), (width + 1) * (k % side)
        shown = np.moveaxis(image, 0, -1) / brightest
        # One channel is drawn as ink on paper, which is what the digits are.
        sheet[top : top + height, left : left + width] = 1 - shown if channels == 1 else shown
    axis.imshow(sheet.clip(0, 1).squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")


Figures = dict[str, tuple[Callable[[Path], pd.DataFrame], Callable[[pd.DataFrame], Figure]]]

FIGURES: Figures = {
    **theory.FIGURES,
    "fig04": (fig04_data, fig04),
    "fig07": (fig07_data, fig07),
    "fig11": (fig11_data, fig11),
}
"""Figures by the paper's number: from a results folder to the data shown, and from that data to the drawing."""


def _settle(figure: Figure) -> None:
    """Lay out once and for all, with places rounded: the layout's solver differs in the last digit from run to run."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axis in figure.axes:
        x, y, width, height = (round(v, 6) for v in axis.get_position(original=True).bounds)
        axis.set_position((x, y, width, height))


def write_figure(name: str, results: Path, outputs: list[Path], data_path: Path | None = None) -> None:
    """Draw figure ``name`` from a results folder into every file of ``outputs`` (.png, .svg, .pdf).

    Raises:
        DataError: an unknown figure, a format that cannot be written, or results with nothing to show.
    """
    if name not in FIGURES:
        raise DataError(f"unknown figure {name!r}; known: {', '.join(FIGURES)}")
    for path in outputs:
        if path.suffix not in (".png", ".svg", ".pdf"):
            raise DataError(f"cannot draw {path}: give a file that ends in .png, .svg or .pdf")
    select, draw = FIGURES[name]
    data = select(results)
    if data_path is not None:
        write_table(data_path, pa.Table.from_pandas(data.reset_index(drop=True), preserve_index=False))
    settings: dict[str, Any] = {"svg.hashsalt": "fmbench", "savefig.dpi": 300, "font.size": 8, "axes.titlesize": 8}
    with sns.axes_style("ticks"), plt.rc_context(settings):
        figure = draw(data)
        _settle(figure)
        for path in outputs:
            kind = path.suffix.lstrip(".")
            # No time stamp, so that the same data gives the same file.
            metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
            with atomic(path) as temporary:
                figure.savefig(temporary, format=kind, metadata=metadata)
        plt.close(figure)
