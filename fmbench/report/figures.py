"""Figures, each in two steps: the data it shows (a small parquet), and the drawing from that data alone.

Here is their one registry, and how they are written; they are in ``pictures``, ``curves`` and ``theory``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import pandas as pd
import pyarrow as pa
import seaborn as sns
from matplotlib.figure import Figure

from fmbench.config import names
from fmbench.errors import DataError
from fmbench.report import curves, pictures, theory
from fmbench.report.panels import Drawing
from fmbench.report.style import SETTINGS
from fmbench.store.files import atomic
from fmbench.store.records import write_table

FIGURES: dict[str, Drawing] = {**theory.FIGURES, **pictures.FIGURES, **curves.FIGURES}
"""Figures by the paper's number or by what they show."""


def chosen(name: str, data: pd.DataFrame, methods: Sequence[str] = ()) -> pd.DataFrame:
    """The rows of ``methods``; of the figure's own choice and the user's methods, if none are asked for.

    Where the results have none of the figure's own choice, all methods are shown, rather than an empty figure.

    Raises:
        DataError: a method that is not in the results, or a figure that is not of methods.
    """
    if methods and "method" not in data:
        raise DataError(f"figure {name} does not show methods one by one; leave --method out")
    if "method" not in data or (not methods and FIGURES[name].methods is None):
        return data
    there = [m for m in data.method.unique() if m and m != "data"]
    if methods:
        unknown = [m for m in methods if m not in there]
        if unknown:
            raise DataError(f"figure {name} has nothing of {', '.join(unknown)}; methods there: {', '.join(there) or 'none'}")
        shown = list(methods)
    else:
        own = FIGURES[name].methods or ()
        shown = [m for m in there if m in own or m not in names.METHODS]
        if not any(m in own for m in shown):
            shown = there
    return data[data.method.isin([*shown, "data"])]


def _settle(figure: Figure) -> None:
    """Lay out once and for all, with places rounded: the layout's solver differs in the last digit from run to run."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axis in figure.axes:
        x, y, width, height = (round(v, 6) for v in axis.get_position(original=True).bounds)
        axis.set_position((x, y, width, height))


def write_figure(
    name: str, results: Path, outputs: list[Path], data_path: Path | None = None, methods: Sequence[str] = ()
) -> None:
    """Draw figure ``name`` from a results folder into every file of ``outputs`` (.png, .svg, .pdf).

    Args:
        data_path: the data shown is written there too, as parquet.
        methods: show these instead of the figure's own choice.

    Raises:
        DataError: an unknown figure, a format that cannot be written, or results with nothing to show.
    """
    if name not in FIGURES:
        raise DataError(f"unknown figure {name!r}; known: {', '.join(FIGURES)}")
    for path in outputs:
        if path.suffix not in (".png", ".svg", ".pdf"):
            raise DataError(f"cannot draw {path}: give a file that ends in .png, .svg or .pdf")
    data = chosen(name, FIGURES[name].select(results), methods)
    if data_path is not None:
        write_table(data_path, pa.Table.from_pandas(data.reset_index(drop=True), preserve_index=False))
    with sns.axes_style("ticks"), plt.rc_context(SETTINGS):
        figure = FIGURES[name].draw(data)
        _settle(figure)
        for path in outputs:
            kind = path.suffix.lstrip(".")
            # No time stamp, so that the same data gives the same file.
            metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
            with atomic(path) as temporary:
                figure.savefig(temporary, format=kind, metadata=metadata)
        plt.close(figure)
