"""Fig. 4 (at t = 1) and Fig. 11 to 13: samples of every method beside the data."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from fmbench.report.figures.panels import nothing
from fmbench.report.figures.pictures import Draw, picture_grid, plane, sheet
from fmbench.report.figures.preview_rows import is_image, is_point, preview_rows, with_failed_methods
from fmbench.report.style import label, wrap


def fig04_data(results: Path) -> pd.DataFrame:
    """Return samples of 2-D data sets, all seeds, and the data."""
    return with_failed_methods(results, preview_rows(results, "previews.parquet", is_point))


def fig04(data: pd.DataFrame) -> Figure:
    """Draw a row per data set, a column for the data and for each method: density of the samples on the plane."""
    return _by_method(data, plane)


def fig11_data(results: Path) -> pd.DataFrame:
    """Return uncurated samples of image data sets, first seed, in the order of their noise."""
    data = preview_rows(results, "previews.parquet", is_image)
    first = data[data.method != "data"].groupby("dataset").seed.transform("min")
    return with_failed_methods(results, data[(data.method == "data") | (data.seed == first.reindex(data.index))])


def fig11(data: pd.DataFrame) -> Figure:
    """Draw a row per data set, a column for the data and for each method: a sheet of samples from the same noise."""
    return _by_method(data, lambda axis, mine, real: sheet(axis, mine, real, 6, 6))


def _by_method(data: pd.DataFrame, draw: Draw) -> Figure:
    datasets = list(data.dataset.unique())
    if not datasets:
        return nothing("no samples")
    methods = ["data", *(m for m in data.method.unique() if m != "data")]
    rows = [(dataset, {"dataset": dataset}) for dataset in datasets]
    columns = [(wrap(label(m), 11), {"method": m}) for m in methods]
    return picture_grid(data, rows, columns, draw)
