"""Grids of pictures, and the two kinds of picture: points on the plane and sheets of images."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fmbench.report.figures.panels import empty, nothing, panels
from fmbench.report.style import SMALL, WIDTH, label, wrap

Draw = Callable[[Axes, pd.DataFrame, pd.DataFrame], None]
"""Draws one cell, from its samples and the real samples of its data set."""

DENSE = 1000
"""From this number of points on, a cell shows their density, below it the points themselves."""


def pictures_over(data: pd.DataFrame, along: str, name: Callable[[float], str], draw: Draw, tall: float = 1) -> Figure:
    """Draw a row per data set and method, and a column for each value of the column ``along``.

    Args:
        along: ``t`` or ``nfe``; NFE 0 stands for the adaptive solver and comes last.
        name: the title of a column.
        tall: height of a cell over its width.
    """
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
    figure = picture_grid(data, rows, columns, draw, tall)
    if len(datasets) == 1:
        figure.suptitle(datasets[0], fontsize=8)
    return figure


def picture_grid(
    data: pd.DataFrame,
    rows: Sequence[tuple[str, dict[str, Any]]],
    columns: Sequence[tuple[str, dict[str, Any]]],
    draw: Draw,
    tall: float = 1,
) -> Figure:
    """Draw a cell for each row and column.

    Args:
        rows, columns: the title of each, and the values that select its samples.
        tall: height of a cell over its width.
    """
    size = min((WIDTH - 0.25) / max(4, len(columns)), 1.2)
    # Titles get inches of their own, so that the cells keep their shape.
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
                failed = "reason" in reasons and (reasons.reason.fillna("") != "").any()
                empty(axis, "diverged" if failed else "no samples")
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


def _stacked(samples: pd.DataFrame) -> NDArray:
    """The samples (n, *) of rows of previews."""
    return np.stack(samples["values"].to_list()).reshape(-1, *samples["shape"].iloc[0])


def plane(axis: Axes, mine: pd.DataFrame, real: pd.DataFrame) -> None:
    """Draw points on the plane: their density, or the points themselves if they are few.

    The real data set the frame and the shades, so all cells of a data set compare; without real data, the cell's own points
    do. A share of points outside the frame above 5 % is written into the cell.
    """
    points = _stacked(mine)
    truth = _stacked(real) if len(real) else points
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
    """Return the density of points (n, 2) on squares (bins, bins), rows from low to high y.

    It is divided by the number of points, so the number of seeds and samples does not change the shade.
    """
    edges = np.linspace(-reach, reach, bins + 1)
    counts = np.histogram2d(points[:, 0], points[:, 1], bins=(edges, edges))[0]
    return counts.T / len(points) / (edges[1] - edges[0]) ** 2


def sheet(axis: Axes, mine: pd.DataFrame, real: pd.DataFrame, down: int, across: int) -> None:
    """Draw the first images, by their index, on a sheet of ``down`` times ``across``."""
    images = _stacked(mine.sort_values("index", kind="stable"))
    brightest = float((_stacked(real) if len(real) else images).max()) or 1.0
    channels = images.shape[1]
    if channels not in (1, 3):
        images = channel_blocks(images)
        axis.set_xlabel(f"{channels} channels, tile by tile", fontsize=SMALL)
    show(axis, tiled(images, down, across, brightest))


def show(axis: Axes, paper: NDArray) -> None:
    """Draw a picture (height, width, C) in [0, 1] of one channel, in grey, or of three."""
    axis.imshow(paper[..., 0] if paper.shape[2] == 1 else paper, cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def channel_blocks(images: NDArray) -> NDArray:
    """Return images (n, C, H, W) as images of one channel (n, 1, rows H, columns W): a tile for each channel, row by row.

    Tiles that are left over are 0.
    """
    n, channels, height, width = images.shape
    columns = math.ceil(math.sqrt(channels))
    rows = -(-channels // columns)
    tiles = np.zeros((n, rows * columns, height, width), images.dtype)
    tiles[:, :channels] = images
    blocks = tiles.reshape(n, rows, columns, height, width).swapaxes(2, 3)
    return blocks.reshape(n, 1, rows * height, columns * width)


def tiled(images: NDArray, down: int, across: int, brightest: float) -> NDArray:
    """Return the first images (n, C, H, W) of data levels as one picture (height, width, C) in [0, 1], 1 pixel apart."""
    channels, height, width = images.shape[1:]
    paper = np.ones((down * (height + 1) - 1, across * (width + 1) - 1, channels))
    for k, image in enumerate(images[: down * across]):
        top, left = (height + 1) * (k // across), (width + 1) * (k % across)
        shown = np.moveaxis(image, 0, -1) / brightest
        # One channel is drawn as ink on paper, as digits are.
        paper[top : top + height, left : left + width] = 1 - shown if channels == 1 else shown
    return paper.clip(0, 1)
