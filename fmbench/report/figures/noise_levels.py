"""The weight that each loss gives to each noise level (not in the paper)."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fmbench.report.figures.panels import nothing, panels
from fmbench.report.style import SMALL, colours, label


def noise_levels(data: pd.DataFrame) -> Figure:
    """Draw log SNR over time, the density of training times over log SNR, and the weighted emphasis, scaled to 1 at log SNR 0."""
    methods = list(data.method.unique())
    if not methods:
        return nothing("no method with a loss")
    colour = colours(methods)
    styles = ["-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1))]  # some methods coincide
    figure, axes = panels(1, 3, 2.3)
    axes = axes[0]
    for k, method in enumerate(methods):
        mine = data[data.method == method]
        look = {"color": colour[method], "linestyle": styles[k % len(styles)], "linewidth": 1.2}
        axes[0].plot(mine.t, mine.log_snr, label=label(method), **look)
        axes[1].plot(mine.log_snr, mine.density, **look)
        axes[2].plot(mine.log_snr, mine.emphasis, **look)
    axes[0].set(xlabel="t (0: noise, 1: data)", ylabel="log SNR", title="schedule")
    axes[1].set(xlabel="log SNR", ylabel="density", title="training times")
    axes[2].set(xlabel="log SNR", yscale="log", title="weight of the noise error\n× density (1 at log SNR 0)")
    low, high = 10.0 ** np.floor(np.log10(data.emphasis[data.emphasis > 0].quantile([0.02, 0.98])))
    axes[2].set_ylim(max(low, 1e-4) / 2, min(high, 1e3) * 20)
    for axis in axes:
        axis.grid(True, linewidth=0.4, alpha=0.5)
        axis.tick_params(labelsize=7)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=SMALL, frameon=False)
    return figure
