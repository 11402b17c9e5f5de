"""Deterministic and stochastic samplers on the exact field of a 2-D mixture (not in the paper)."""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fmbench.report.figures.panels import panels
from fmbench.report.figures.theory import PATHS
from fmbench.report.style import SMALL

TICKS = [6, 12, 24, 48, 96, 384]


def samplers(data: pd.DataFrame) -> Figure:
    """Draw a panel per path: energy distance over NFE; dashed lines are stochastic samplers, crosses the adaptive solver."""
    names = list(data.path.unique())
    fixed = list(data[data.kind != "adaptive"].sampler.unique())
    colour = dict(zip(fixed, sns.color_palette("colorblind", len(fixed)), strict=True))
    line = {s: "--" if (data[data.sampler == s].kind == "sde").all() else "-" for s in fixed}
    figure, axes = panels(1, len(names), 2.7, sharey=True)
    for axis, name in zip(axes[0], names, strict=True):
        _distances(axis, data[data.path == name], colour, line)
        axis.set_title(PATHS.get(name, name))
    axes[0, 0].set_ylabel("|energy distance to the data|")
    handles: list[Any] = [plt.Line2D([], [], color=colour[s], linestyle=line[s]) for s in fixed]
    handles += [plt.Line2D([], [], marker="x", color="black", linestyle="")]
    handles += [plt.Line2D([], [], marker="o", color="black", markerfacecolor="white", markersize=4, linestyle="")]
    handles += [plt.Rectangle((0, 0), 1, 1, color="0.5", alpha=0.12)]
    texts = [*fixed, "adaptive, 1e-5", "negative estimate", "below the distance of exact samples"]
    figure.legend(handles, texts, loc="outside lower center", ncols=3, fontsize=SMALL, frameon=False)
    return figure


def _distances(axis: Axes, here: pd.DataFrame, colour: dict[str, Any], line: dict[str, str]) -> None:
    """One path. The size of a negative estimate is drawn as a hollow circle."""
    floor = here.floor.iloc[0]
    axis.axhspan(floor / 100, floor, color="0.5", alpha=0.12, linewidth=0)
    for sampler in colour:
        mine = here[here.sampler == sampler].sort_values("nfe")
        look = {"color": colour[sampler], "linestyle": line[sampler]}
        axis.plot(mine.nfe, mine.energy_distance.abs(), **look, marker=".", markersize=4, linewidth=1)
        negative = mine[mine.energy_distance < 0]
        hollow: dict[str, Any] = {"marker": "o", "markersize": 4, "markerfacecolor": "white", "linestyle": ""}
        axis.plot(negative.nfe, negative.energy_distance.abs(), color=colour[sampler], **hollow)
    adaptive = here[here.kind == "adaptive"]
    axis.plot(adaptive.nfe, adaptive.energy_distance.abs(), "x", color="black", markersize=4)
    axis.set(xscale="log", yscale="log", xlabel="NFE", ylim=(floor / 100, None))
    axis.set_xticks(TICKS, [str(t) for t in TICKS])
    axis.minorticks_off()
    axis.grid(True, linewidth=0.4, alpha=0.5)
