"""Figures, each in two steps: select the data it shows (a small parquet), then draw from these data alone.

Every module of a figure of the paper has the figure's numbers in its name; :data:`~fmbench.report.figures.registry.FIGURES`
lists all figures.
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
from fmbench.errors import ConfigError, DataError, printable
from fmbench.report.figures.registry import FIGURES
from fmbench.report.style import SETTINGS
from fmbench.store.files import atomic
from fmbench.store.parquet import write_table
from fmbench.store.usable import usable

LONGEST = 100
"""The largest number of characters of a text in a figure; drawing takes time for each."""


def write_figure(
    name: str, results: Path, outputs: list[Path], data_path: Path | None = None, methods: Sequence[str] = ()
) -> None:
    """Draw figure ``name`` from a results folder into every file of ``outputs`` (.png, .svg, .pdf).

    Args:
        data_path: write the data that the figure shows into this parquet file, too.
        methods: show these instead of the figure's default methods.

    Raises:
        ConfigError: the figure or the format is unknown.
        DataError: the results lack the data to draw.
    """
    if name not in FIGURES:
        raise ConfigError(f"unknown figure {name!r}; known: {', '.join(FIGURES)}")
    for path in outputs:
        if path.suffix not in (".png", ".svg", ".pdf"):
            raise ConfigError(f"cannot draw {path}: give a file that ends in .png, .svg or .pdf")
    with usable(f"figure {name} of {results}"):
        _write(name, chosen(name, FIGURES[name].select(results), methods), outputs, data_path)


def _write(name: str, data: pd.DataFrame, outputs: list[Path], data_path: Path | None) -> None:
    """Write the data that a figure shows, and draw them."""
    if data_path is not None:
        write_table(data_path, pa.Table.from_pandas(data.reset_index(drop=True), preserve_index=False))
    with sns.axes_style("ticks"), plt.rc_context(SETTINGS):
        figure = FIGURES[name].draw(as_text(data))
        _freeze_layout(figure)
        for path in outputs:
            kind = path.suffix.lstrip(".")
            # Without a time stamp, the same data give the same file.
            metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
            with atomic(path) as temporary:
                figure.savefig(temporary, format=kind, metadata=metadata)
        plt.close(figure)


def as_text(data: pd.DataFrame) -> pd.DataFrame:
    """Return the data with texts that matplotlib draws as they are: on one line, not too long, and without formulas."""

    def shown(text: str) -> str:
        text = " ".join(printable(text).split())
        return (text if len(text) <= LONGEST else f"{text[:LONGEST]} (cut)").replace("$", r"\$")

    for name in data.columns:
        if pd.api.types.infer_dtype(data[name], skipna=True) == "string":
            texts = {text: shown(text) for text in data[name].dropna().unique()}
            if any(text != as_shown for text, as_shown in texts.items()):
                data = data.assign(**{name: data[name].map(texts)})
    return data


def chosen(name: str, data: pd.DataFrame, methods: Sequence[str] = ()) -> pd.DataFrame:
    """Return the rows of ``methods``, by default those of the figure's own methods and of every method not in the paper.

    If the results have none of the figure's own methods, all rows stay, since the figure would otherwise be empty.

    Raises:
        DataError: a method is not in the results, or the figure does not show methods one by one.
    """
    if methods and "method" not in data:
        raise DataError(f"figure {name} does not show methods one by one; leave --method out")
    if "method" not in data or (not methods and FIGURES[name].methods is None):
        return data
    there = [m for m in data.method.unique() if m and m not in names.NOT_METHODS]
    if methods:
        unknown = [m for m in methods if m not in there]
        if unknown:
            raise DataError(f"figure {name} has no data of {', '.join(unknown)}; choose from {', '.join(there) or 'no methods'}")
        shown = list(methods)
    else:
        defaults = FIGURES[name].methods or ()
        shown = [m for m in there if m in defaults or m not in names.OF_THE_PAPER]
        if not any(m in defaults for m in shown):
            shown = there
    return data[data.method.isin([*shown, *names.NOT_METHODS])]


def _freeze_layout(figure: Figure) -> None:
    """Lay the figure out once and round the positions, because the layout's solver is not exact to the last digit."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axis in figure.axes:
        x, y, width, height = (round(v, 6) for v in axis.get_position(original=True).bounds)
        axis.set_position((x, y, width, height))
