"""Fig. 3: trajectories of the conditional fields."""

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from fmbench.report.figures.panels import panels
from fmbench.report.figures.theory import PATHS


def trajectories(data: pd.DataFrame) -> Figure:
    """Draw a panel per path: lines of particles from noise (dots) to data (crosses), with marks at ten equal steps of time."""
    names = list(data.path.unique())
    figure, axes = panels(1, len(names), 2.95, sharex=True, sharey=True)
    palette = sns.color_palette("colorblind", 3)
    for axis, name in zip(axes[0], names, strict=True):
        here = data[data.path == name]
        for particle, track in here.groupby("particle"):
            colour = palette[int(particle) // 6 % 3]
            axis.plot(track.x, track.y, color=colour, linewidth=0.7, alpha=0.8)
            marks = track.iloc[:: max(1, len(track) // 10)]
            axis.scatter(marks.x, marks.y, s=3, color=colour, linewidths=0)
            axis.plot(track.x.iloc[0], track.y.iloc[0], "o", color=colour, markersize=3)
            axis.plot(track.x.iloc[-1], track.y.iloc[-1], "x", color="black", markersize=5)
        axis.set(xticks=[], yticks=[], aspect="equal")
        axis.set_title(PATHS.get(name, name))
    return figure
