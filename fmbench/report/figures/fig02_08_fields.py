"""Fig. 2 and Fig. 8: conditional fields and the conditional score, for one data point."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from fmbench.report.figures.panels import panels
from fmbench.report.figures.theory import theory_frame
from fmbench.report.style import SMALL


def fields_data(results: Path, figure: str) -> pd.DataFrame:
    """Return the arrows of ``figure`` (``fig02``, ``fig08``)."""
    frame = theory_frame(results, "fields")
    return frame[frame.figure == figure]


def fields(data: pd.DataFrame) -> Figure:
    """Draw a row per panel and a column per time: arrows of equal length show direction, colour the magnitude (log scale)."""
    names, times = list(data.panel.unique()), list(data.t.unique())
    figure, axes = panels(len(names), len(times), 1.75)
    for row, panel in zip(axes, names, strict=True):
        here = data[data.panel == panel]
        # The field grows as 1 / s towards the end of the path. The colours are for the times before; larger values saturate.
        before = here[here.t < 1]
        size = np.hypot(before.u, before.v)
        norm = LogNorm(*np.quantile(size[size > 0], [0.01, 0.99]))
        for axis, t in zip(row, times, strict=True):
            mine = here[here.t == t]
            length = np.hypot(mine.u, mine.v)
            unit = length.where(length > 0, 1)
            shade = length.clip(norm.vmin, norm.vmax)
            arrows = axis.quiver(
                mine.x, mine.y, mine.u / unit, mine.v / unit, shade, cmap="viridis", norm=norm, scale=18, width=0.008, pivot="mid"
            )
            axis.plot(0.75, 0.75, "x", color="black", markersize=5, markeredgewidth=1.2)
            axis.set(xticks=[], yticks=[], aspect="equal")
            axis.set_title(f"t = {t:.2g}", fontsize=7)
        row[0].set_ylabel(panel.replace(": ", ":\n"), fontsize=7)
        bar = figure.colorbar(arrows, ax=list(row), fraction=0.03, pad=0.01, extend="max")
        bar.set_label("magnitude", fontsize=SMALL)
        bar.ax.tick_params(labelsize=SMALL, which="both")
    return figure
