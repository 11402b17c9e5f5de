"""Densities of a 1-D mixture on every probability path (not in the paper)."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fmbench.report.figures.panels import panels
from fmbench.report.figures.theory import PATHS


def densities(data: pd.DataFrame) -> Figure:
    """Draw a panel per path: density on a grid of x and t (rows with ``particle`` < 0), and the flow's trajectories."""
    names = list(data.path.unique())
    figure, axes = panels(1, len(names), 2.0, sharey=True)
    for axis, name in zip(axes[0], names, strict=True):
        here = data[data.path == name]
        grid = here[here.particle < 0].pivot_table(index="x", columns="t", values="density")
        x, t = grid.index.to_numpy(), grid.columns.to_numpy()
        # The components are narrow at the end. Shading by the square root keeps the rest visible.
        axis.imshow(
            np.sqrt(grid.to_numpy()),
            origin="lower",
            aspect="auto",
            extent=(t[0], t[-1], x[0], x[-1]),
            cmap="mako",
            vmax=np.sqrt(np.quantile(grid.to_numpy(), 0.995)),
        )
        for _, track in here[here.particle >= 0].groupby("particle"):
            axis.plot(track.t, track.x, color="white", linewidth=0.4, alpha=0.8)
        axis.set(title=PATHS.get(name, name), xlabel="t", ylim=(x[0], x[-1]), xlim=(t[0], t[-1]))
        axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes[0, 0].set_ylabel("x / standard deviation of $p_t$")
    return figure
