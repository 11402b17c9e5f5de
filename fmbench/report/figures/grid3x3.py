"""Every prediction with every loss, as squares of colours (after Table 2 of Li & He 2025, arXiv:2511.13720)."""

import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from fmbench.config.grid3x3 import KINDS, Cell
from fmbench.report.figures.panels import nothing, panels
from fmbench.report.grid3x3 import ABSENT, by_cell, grid_table, measures, parts
from fmbench.report.style import SMALL
from fmbench.report.table1.cells import SHOWN

COLUMNS = ["title", "measure", "name", "predicted", "measured", "method", "mean", "std", "seeds", "status"]
_WIDEST = 4.0
"""Colours span at most this ratio to the lowest number, so that one bad cell leaves the others apart."""
_MAP = "cividis_r"


def grid3x3_data(results: Path) -> pd.DataFrame:
    """Return a row for each cell, data set and measure: mean and standard deviation over seeds, in the units of Table 1."""
    rows = []
    for title, part in parts(grid_table(results)):
        for measure, name in measures(part).items():
            scale = SHOWN[measure].scale
            for row in part.to_dict("records"):
                values = {"mean": scale * row[f"{measure}_mean"], "std": scale * row[f"{measure}_std"]}
                rows.append(row | values | {"title": title, "measure": measure, "name": name})
    return pd.DataFrame(rows, columns=COLUMNS).astype({"mean": float, "std": float})


def grid3x3(data: pd.DataFrame) -> Figure:
    """Draw a row of squares for each grid, one square a measure; a cell without a number says why in a word."""
    if data.empty:
        return nothing("no methods that differ in prediction and loss alone")
    titles = list(data.title.unique())
    figure, axes = panels(len(titles), 3, 2.0)
    for line, title in zip(axes, titles, strict=True):
        here = data[data.title == title]
        for axis, measure in zip(line, here.measure.unique(), strict=True):
            _square(axis, here[here.measure == measure])
        line[0].set_ylabel(textwrap.fill(title, 30) + "\n\nnetwork predicts", fontsize=7)
    return figure


def _square(axis: Axes, cells: pd.DataFrame) -> None:
    """One measure of one grid: bright is low, and the lowest is bold."""
    rows = by_cell(cells)
    values = np.array([[rows[Cell(p, m)]["mean"] for m in KINDS] for p in KINDS], dtype=float)
    norm, digits = _norm(values), SHOWN[cells.measure.iloc[0]].digits
    axis.imshow(np.ma.masked_invalid(values), cmap=_MAP, norm=norm, aspect="auto")
    axis.set_facecolor("0.9")
    for y, predicted in enumerate(KINDS):
        for x, measured in enumerate(KINDS):
            value, row = float(values[y, x]), rows[Cell(predicted, measured)]
            text = _number(value, digits) if np.isfinite(value) else _why(row["status"])
            if np.isfinite(row["std"]):
                text += f"\n±{_number(row['std'], digits)}"
            shade = float(np.clip(norm(value), 0, 1)) if np.isfinite(value) else 0.0
            best = np.isfinite(value) and value == np.nanmin(values) and SHOWN[cells.measure.iloc[0]].bold
            axis.text(
                *(x, y, text),
                ha="center",
                va="center",
                fontsize=SMALL,
                color=_readable(shade) if np.isfinite(value) else "0.35",
                fontweight="bold" if best else "normal",
            )
    axis.set(title=cells.name.iloc[0], xlabel="loss")
    axis.set_xticks(range(3), KINDS)
    axis.set_yticks(range(3), KINDS)
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _norm(values: np.ndarray) -> Normalize:
    """Colours by ratio where all numbers are positive, else by difference."""
    good = values[np.isfinite(values)]
    if not good.size:
        return Normalize(0, 1)
    low, high = float(good.min()), float(good.max())
    if low > 0:
        return LogNorm(low, max(min(high, _WIDEST * low), 1.001 * low))
    return Normalize(low, max(high, low + 1e-12))


def _number(value: float, digits: int) -> str:
    """A number that fits into a cell."""
    return f"{value:.{digits if abs(value) < 1000 else 0}f}" if abs(value) < 1e6 else f"{value:.3g}"


def _why(status: str) -> str:
    if status == ABSENT:
        return "not run"
    return "diverged" if "diverged" in status else "failed"


def _readable(shade: float) -> tuple[float, float, float]:
    """Black or white, whichever stands out more on this shade of the map."""
    red, green, blue, _ = plt.get_cmap(_MAP)(shade)
    grey = 0.0 if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.5 else 1.0
    return (grey, grey, grey)
