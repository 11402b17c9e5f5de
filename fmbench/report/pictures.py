"""Figures of samples: densities of points on the plane, and sheets of images, one cell for each method and time or NFE."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fmbench.report.panels import Drawing, empty, nothing, panels
from fmbench.report.style import SMALL, WIDTH, label, solver_label, wrap
from fmbench.report.table1 import records_frame
from fmbench.store.records import read_table

Draw = Callable[[Axes, pd.DataFrame, pd.DataFrame], None]
"""Draws the samples of a cell, given the real ones of its data set."""

DENSE = 1000
"""From so many points on a density is drawn, for fewer the points themselves."""


def is_point(shape: Any) -> bool:
    """Points of the plane."""
    return len(shape) == 1 and bool(shape[0] == 2)


def is_image(shape: Any) -> bool:
    """Images (C, H, W)."""
    return len(shape) == 3


def _shown(results: Path, name: str, kind: Callable[[Any], bool]) -> pd.DataFrame:
    table = read_table(results / name).to_pandas()
    return table[table["shape"].map(kind).astype(bool)]


def _with_lost(results: Path, data: pd.DataFrame) -> pd.DataFrame:
    """With a row, without a sample and with the reason, for each method that diverged on a data set of ``data`` and has none.

    Without records nothing is known of them.
    """
    data = data.assign(reason="")
    records = records_frame(results / "records.parquet")
    trained = records[(records.metric == "final_loss") & records.dataset.isin(list(data.dataset.unique()))]
    bad = trained[trained.status != "ok"].drop_duplicates(["dataset", "method"])
    known = data[["dataset", "method"]].drop_duplicates()
    there = set(zip(known.dataset, known.method, strict=True))
    bad = bad[[pair not in there for pair in zip(bad.dataset, bad.method, strict=True)]]
    if bad.empty:
        return data
    rows = bad[["dataset", "method", "reason"]].reset_index(drop=True)
    whole = pd.concat([data, rows.reindex(columns=data.columns)], ignore_index=True)
    # In the records' order, so that what is lost stands where it would stand.
    order = list(records.method.unique())
    rank = whole.method.map(lambda m: order.index(m) if m in order else len(order))
    return whole.assign(rank=rank).sort_values("rank", kind="stable").drop(columns="rank").reset_index(drop=True)


def _with_data(results: Path, data: pd.DataFrame, kind: Callable[[Any], bool]) -> pd.DataFrame:
    """With the real samples of the same data sets, for scale."""
    real = _shown(results, "previews.parquet", kind)
    real = real[(real.method == "data") & real.dataset.isin(list(data.dataset.unique()))]
    return pd.concat([data[data.method != "data"], real], ignore_index=True) if len(real) else data


# Samples


def fig04_data(results: Path) -> pd.DataFrame:
    """Samples of 2-D data sets (Fig. 4 left at t = 1), all seeds, and the data."""
    return _with_lost(results, _shown(results, "previews.parquet", is_point))


def fig04(data: pd.DataFrame) -> Figure:
    """A row per data set, a column for the data and for each method: density of the samples on the plane."""
    return _sheets(data, plane)


def fig11_data(results: Path) -> pd.DataFrame:
    """Uncurated samples of image data sets (Fig. 11-13), first seed, in the order of their noise."""
    data = _shown(results, "previews.parquet", is_image)
    first = data[data.method != "data"].groupby("dataset").seed.transform("min")
    return _with_lost(results, data[(data.method == "data") | (data.seed == first.reindex(data.index))])


def fig11(data: pd.DataFrame) -> Figure:
    """A row per data set, a column for the data and for each method: a sheet of samples from the same noise."""
    return _sheets(data, lambda axis, mine, real: sheet(axis, mine, real, 6, 6))


def _sheets(data: pd.DataFrame, draw: Draw) -> Figure:
    datasets = list(data.dataset.unique())
    if not datasets:
        return nothing("no samples")
    methods = ["data", *(m for m in data.method.unique() if m != "data")]
    rows = [(dataset, {"dataset": dataset}) for dataset in datasets]
    columns = [(wrap(label(m), 11), {"method": m}) for m in methods]
    return _grid(data, rows, columns, draw)


# Along t


def states_data(results: Path, kind: Callable[[Any], bool]) -> pd.DataFrame:
    """States along t from the same noise (``t``: 0 noise, 1 data), and the data (without t)."""
    states = _shown(results, "trajectory.parquet", kind)
    return _with_lost(results, _with_data(results, states, kind)) if len(states) else states


def along_t(data: pd.DataFrame) -> Figure:
    """A row per data set and method, a column per t: density of the states on the plane."""
    return _over(data, "t", lambda t: f"t = {t:.3g}", plane)


def fig06(data: pd.DataFrame) -> Figure:
    """A row per data set and method, a column per t: states of the same two noises."""
    return _over(data, "t", lambda t: f"t = {t:.3g}", lambda axis, mine, real: sheet(axis, mine, real, 2, 1), tall=2)


# Few evaluations


def budget_data(results: Path, kind: Callable[[Any], bool]) -> pd.DataFrame:
    """Samples from the same noise at few evaluations, by midpoint steps (the first solver, where midpoint is not there), and by
    the adaptive solver (``nfe`` 0)."""
    data = _shown(results, "few_step_previews.parquet", kind)
    fixed = list(data[data.nfe > 0].solver.unique())
    if not fixed:
        return data.iloc[:0]
    solver = "midpoint" if "midpoint" in fixed else fixed[0]
    data = data[(data.solver == solver) | (data.nfe == 0)]
    return _with_lost(results, _with_data(results, data, kind))


def _nfe(nfe: float) -> str:
    return f"NFE = {nfe:.0f}" if nfe else "adaptive"


def fig04_few_step(data: pd.DataFrame) -> Figure:
    """A row per data set and method, a column per NFE: samples on the plane."""
    return _solver_title(data, _over(data, "nfe", _nfe, plane))


def fig16(data: pd.DataFrame) -> Figure:
    """A row per data set and method, a column per NFE: samples from the same four noises."""
    return _solver_title(data, _over(data, "nfe", _nfe, lambda axis, mine, real: sheet(axis, mine, real, 2, 2)))


def _solver_title(data: pd.DataFrame, figure: Figure) -> Figure:
    if len(data):
        solvers = [s for s in data.solver.dropna().unique() if not s.startswith("dopri5")]
        title = figure.get_suptitle()
        steps = f"{', '.join(map(solver_label, solvers))} steps"
        figure.suptitle(f"{title}: {steps}" if title else steps, fontsize=8)
    return figure


# Cells


def _over(
    data: pd.DataFrame,
    along: str,
    name: Callable[[float], str],
    draw: Draw,
    tall: float = 1,
) -> Figure:
    """A row per data set and method, a column for each value of ``along`` (0 as NFE, for the adaptive solver, last)."""
    if data.empty:
        return nothing("no samples")
    pairs = data[data.method != "data"][["dataset", "method"]].drop_duplicates()
    datasets = list(pairs.dataset.unique())
    rows = []
    for dataset in datasets:
        for method in pairs[pairs.dataset == dataset].method:
            text = wrap(label(method))
            rows.append((f"{dataset}\n{text}" if len(datasets) > 1 else text, {"dataset": dataset, "method": method}))
    values = sorted(data[along].dropna().unique(), key=lambda v: np.inf if along == "nfe" and v == 0 else v)
    columns = [(name(v), {along: v}) for v in values]
    figure = _grid(data, rows, columns, draw, tall)
    if len(datasets) == 1:
        figure.suptitle(datasets[0], fontsize=8)
    return figure


def _grid(
    data: pd.DataFrame,
    rows: Sequence[tuple[str, dict[str, Any]]],
    columns: Sequence[tuple[str, dict[str, Any]]],
    draw: Draw,
    tall: float = 1,
) -> Figure:
    """A cell for each row and column, which are texts and the values that pick the samples; ``tall``: height over width."""
    size = min((WIDTH - 0.25) / max(4, len(columns)), 1.2)
    # What the titles take must not be taken from the cells, which keep their shape.
    lines = max(title.count("\n") + 1 for title, _ in columns)
    figure, axes = panels(len(rows), len(columns), size * tall, size * len(columns) + 0.25, more=0.3 + 0.11 * lines)
    for i, (row, (text, of_row)) in enumerate(zip(axes, rows, strict=True)):
        here = _pick(data, {"dataset": of_row["dataset"]})
        real = here[here.method == "data"]
        for axis, (title, of_column) in zip(row, columns, strict=True):
            axis.set(xticks=[], yticks=[])
            mine = _pick(here, of_row | of_column)
            mine = mine[mine["values"].notna()]
            if mine.empty:
                reasons = _pick(here, {k: v for k, v in (of_row | of_column).items() if k == "method"})
                gone = "reason" in reasons and (reasons.reason.fillna("") != "").any()
                empty(axis, "diverged" if gone else "no samples")
                axis.set_aspect("equal", adjustable="box")
            else:
                draw(axis, mine, real)
            if i == 0:
                axis.set_title(title, fontsize=SMALL if len(columns) > 6 and "\n" in title else 7)
        row[0].set_ylabel(text, fontsize=SMALL if "\n" in text else 7)
    return figure


def _pick(data: pd.DataFrame, values: dict[str, Any]) -> pd.DataFrame:
    for column, value in values.items():
        data = data[data[column] == value]
    return data


def stacked(samples: pd.DataFrame) -> NDArray:
    """The samples (n, *) of rows of previews."""
    return np.stack(samples["values"].to_list()).reshape(-1, *samples["shape"].iloc[0])


def plane(axis: Axes, mine: pd.DataFrame, real: pd.DataFrame) -> None:
    """Points on the plane: their density, or the points themselves where they are few.

    The frame and the shades are the real data's, so that all cells of a data set compare; where there are none, the cell's own.
    How many points lie outside of the frame is said where it is more than a twentieth.
    """
    points = stacked(mine)
    truth = stacked(real) if len(real) else points
    reach = 1.25 * float(np.abs(truth).max())
    axis.set_aspect("equal")
    dense = len(points) >= DENSE
    outside = float((np.abs(points).max(axis=1) > reach).mean())
    if outside > 0.05:
        colour = "white" if dense else "0.35"
        axis.text(0.03, 0.03, f"{outside:.0%} outside", fontsize=SMALL, color=colour, transform=axis.transAxes)
    if not dense:
        size = min(max(400 / len(points), 0.7), 4.0)
        axis.scatter(points[:, 0], points[:, 1], s=size, color="#1b4965", linewidths=0)
        axis.set(xlim=(-reach, reach), ylim=(-reach, reach))
        return
    shades, true = density(points, reach), density(truth, reach)
    extent = (-reach, reach, -reach, reach)
    axis.imshow(shades, origin="lower", extent=extent, cmap="mako", vmin=0, vmax=np.quantile(true[true > 0], 0.9))


def density(points: NDArray, reach: float, bins: int = 60) -> NDArray:
    """Density of points (n, 2) on squares, rows from low to high y.

    Divided by the number of points, so that the number of seeds and samples does not change the shade.
    """
    edges = np.linspace(-reach, reach, bins + 1)
    counts = np.histogram2d(points[:, 0], points[:, 1], bins=(edges, edges))[0]
    return counts.T / len(points) / (edges[1] - edges[0]) ** 2


def sheet(axis: Axes, mine: pd.DataFrame, real: pd.DataFrame, down: int, across: int) -> None:
    """The first images, by their index, on a sheet of ``down`` times ``across``."""
    images = stacked(mine.sort_values("index", kind="stable"))
    brightest = float(stacked(real).max()) if len(real) else float(images.max()) or 1.0
    axis.imshow(tiled(images, down, across, brightest).squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def tiled(images: NDArray, down: int, across: int, brightest: float) -> NDArray:
    """The first images (n, C, H, W) of data levels as one picture (height, width, C) in [0, 1], a pixel of paper between."""
    channels, height, width = images.shape[1:]
    paper = np.ones((down * (height + 1) - 1, across * (width + 1) - 1, channels))
    for k, image in enumerate(images[: down * across]):
        top, left = (height + 1) * (k // across), (width + 1) * (k % across)
        shown = np.moveaxis(image, 0, -1) / brightest
        # One channel is drawn as ink on paper, which is what the digits are.
        paper[top : top + height, left : left + width] = 1 - shown if channels == 1 else shown
    return paper.clip(0, 1)


FIGURES: dict[str, Drawing] = {
    "fig04": Drawing(fig04_data, fig04),
    "fig04_densities": Drawing(
        lambda results: states_data(results, is_point), along_t, ("score_matching", "fm_diffusion", "fm_ot")
    ),
    "fig04_few_step": Drawing(lambda results: budget_data(results, is_point), fig04_few_step),
    "fig06": Drawing(lambda results: states_data(results, is_image), fig06, ("score_matching", "fm_diffusion", "fm_ot")),
    "fig09": Drawing(lambda results: states_data(results, is_point), along_t, ("scoreflow", "ddpm")),
    "fig11": Drawing(fig11_data, fig11),
    "fig16": Drawing(lambda results: budget_data(results, is_image), fig16),
}
"""Figures by name."""
