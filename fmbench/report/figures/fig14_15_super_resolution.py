"""Fig. 14 and 15: low-resolution images, what each model makes of them, and the originals."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from fmbench.report.figures.panels import nothing
from fmbench.report.figures.pictures import Draw, picture_grid, sheet, show, tiled
from fmbench.report.figures.preview_rows import is_image, preview_rows, with_failed_methods
from fmbench.report.style import label, wrap, wrap_name

IMAGES, ZOOMED = 6, 3
"""Images of each data set: whole ones, and those with a zoomed part."""
GIVEN = ("low_resolution", "bicubic", "regression")
"""The columns before the methods."""
FRAME = "#d1495b"


def upsampled_data(results: Path, images: int = IMAGES) -> pd.DataFrame:
    """Return the first images of super-resolution data sets, first seed, by every model, with what they are made from."""
    data = preview_rows(results, "previews.parquet", is_image)
    upsampled = data[data.method == "low_resolution"].dataset.unique()
    data = data[data.dataset.isin(upsampled)]
    first = data.groupby("dataset").seed.transform("min")
    data = data[(data.seed.isna() | (data.seed == first)) & (data["index"] < images)]
    return with_failed_methods(results, data)


def fig14(data: pd.DataFrame) -> Figure:
    """Draw a row per image: the low-resolution one, the interpolated one, that of each model, and the original."""
    return _by_image(data, lambda axis, mine, real: sheet(axis, mine, real, 1, 1))


def fig15(data: pd.DataFrame) -> Figure:
    """Draw a row per image as :func:`fig14` does, each above its framed part with the most detail, zoomed."""
    return _by_image(data, zoomed, tall=2)


def _by_image(data: pd.DataFrame, draw: Draw, tall: float = 1) -> Figure:
    if data.empty:
        return nothing("no upsampled images")
    methods = [m for m in GIVEN if (data.method == m).any()]
    methods += [m for m in data.method.unique() if m not in (*GIVEN, "data")] + ["data"]
    rows = []
    for dataset in data.dataset.unique():
        for i in sorted(data[(data.dataset == dataset) & (data.method == "data")]["index"].unique()):
            rows.append((f"{wrap_name(dataset)}\nimage {i:.0f}", {"dataset": dataset, "index": i}))
    names = {"data": "Original"}
    columns = [(wrap(names.get(m, label(m)), 11), {"method": m}) for m in methods]
    return picture_grid(data, rows, columns, draw, tall)


def zoomed(axis: Axes, mine: pd.DataFrame, real: pd.DataFrame) -> None:
    """Draw one image, and below it the part of it in which the original has the most detail."""
    image, original = (_image(rows) for rows in (mine, real[real["index"] == mine["index"].iloc[0]]))
    brightest = float(np.stack(real["values"].to_list()).max()) or 1.0
    side, (top, left) = most_detail(original)
    factor = original.shape[-1] // image.shape[-1]
    across = math.lcm(original.shape[-1], side)
    part = enlarged(image, factor)[:, top : top + side, left : left + side]
    pair = np.concatenate([enlarged(image, across // image.shape[-1]), enlarged(part, across // side)], 1)
    show(axis, tiled(pair[None], 1, 1, brightest))
    scale = across // original.shape[-1]
    frames = [(scale * left, scale * top, scale * side), (0, scale * original.shape[1], across)]
    for x, y, size in frames:
        axis.add_patch(Rectangle((x - 0.5, y - 0.5), size, size, fill=False, edgecolor=FRAME, linewidth=0.7))


def most_detail(image: NDArray) -> tuple[int, tuple[int, int]]:
    """Return the side of a square part of an image (C, H, W), and the top left corner of the part with the largest variance.

    A part is about a quarter of the image wide and at least 4 pixels. Parts begin at multiples of half their side.
    """
    height, width = image.shape[1:]
    sides = [s for s in range(1, min(height, width) + 1) if height % s == 0 and width % s == 0]
    side = next((s for s in sides if s >= max(4, height // 4)), sides[-1])
    step = max(side // 2, 1)
    corners = [(y, x) for y in range(0, height - side + 1, step) for x in range(0, width - side + 1, step)]
    return side, max(corners, key=lambda c: float(image[:, c[0] : c[0] + side, c[1] : c[1] + side].var(axis=(1, 2)).sum()))


def enlarged(image: NDArray, factor: int) -> NDArray:
    """Return an image (C, H, W) with each pixel as a square of ``factor`` times ``factor``."""
    return image.repeat(factor, 1).repeat(factor, 2)


def _image(rows: pd.DataFrame) -> NDArray:
    """The image (C, H, W) of the only row."""
    return np.asarray(rows["values"].iloc[0]).reshape(rows["shape"].iloc[0])
