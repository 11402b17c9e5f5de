"""DDIM and Euler: which of their forms agree, and at which order the others differ (not in the paper)."""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fmbench.report.figures.panels import panels
from fmbench.report.figures.theory import PATHS
from fmbench.report.style import SMALL

MARKERS = {"rounding": "o", "different": "s"}
"""The marker of a difference by what theory expects."""


def equivalence(data: pd.DataFrame) -> Figure:
    """Draw the largest difference of every pair of forms by check (left), and the error of each form over steps (right).

    The rows of an error have the check ``error``; there is a line for order 1 and one for order 2.
    """
    figure, axes = panels(1, 3, 4.0, width_ratios=[1.7, 1, 1])
    axes = axes[0]
    _differences(axes[0], data[data.check != "error"])
    errors = data[data.check == "error"]
    forms = list(errors.form.unique())
    palette = dict(zip(forms, sns.color_palette("colorblind", len(forms)), strict=True))
    for axis, schedule in zip(axes[1:], ("straight", "vp"), strict=True):
        here = errors[errors.schedule == schedule]
        for form in forms:
            for order, line in ((1, ":"), (2, "-")):
                mine = here[(here.form == form) & (here.order == order)].sort_values("steps")
                axis.plot(mine.steps, mine.max_difference, line, color=palette[form], marker=".", markersize=4, linewidth=1)
        axis.set(xscale="log", yscale="log", xlabel="steps", title=f"{PATHS.get(schedule, 'straight path')}")
        axis.set_xticks(sorted(errors.steps.unique()), [str(s) for s in sorted(errors.steps.unique())])
        axis.minorticks_off()
        axis.grid(True, linewidth=0.4, alpha=0.5)
    axes[1].set_ylabel("largest error")
    names = {"velocity": "Euler, Heun on u"}
    handles = [plt.Line2D([], [], color=palette[f]) for f in forms]
    handles += [plt.Line2D([], [], color="black", linestyle=s) for s in (":", "-")]
    handles += [plt.Line2D([], [], marker=MARKERS[e], color=c, linestyle="", markersize=3) for e, c in _colours().items()]
    texts = [*(names.get(f, f"DDIM, form {f}") for f in forms), "order 1", "order 2"]
    texts += ["expected: rounding", "expected: different"]
    figure.legend(handles, texts, loc="outside lower center", ncols=4, fontsize=SMALL, frameon=False)
    return figure


def _colours() -> dict[str, Any]:
    """The colour of a difference by what theory expects."""
    palette = sns.color_palette("colorblind")
    return {"rounding": palette[0], "different": palette[3]}


def _differences(axis: Axes, rows: pd.DataFrame) -> None:
    """Relative differences, one line per check and schedule; rounding errors should lie in the shaded range."""
    ticks, names = [], []
    colours = _colours()
    y = 0.0
    for check in rows.check.unique():
        axis.text(3e-9, y + 0.15, check, fontsize=SMALL, color="0.35", va="center")
        y -= 0.5
        for schedule in rows[rows.check == check].schedule.unique():
            mine = rows[(rows.check == check) & (rows.schedule == schedule)]
            for expected, marker in MARKERS.items():
                part = mine[mine.expected == expected]
                relative = (part.max_difference / part.scale).clip(lower=1e-17)
                axis.scatter(relative, [y] * len(part), marker=marker, s=9, color=colours[expected], linewidths=0, alpha=0.8)
            ticks.append(y)
            names.append(schedule)
            y -= 1
        axis.axhline(y + 0.6, color="0.8", linewidth=0.5)
        y -= 0.3
    axis.set(xscale="log", xlim=(1e-17, 30), ylim=(y + 0.8, 0.9), xlabel="largest difference / scale")
    axis.set_yticks(ticks, names, fontsize=SMALL)
    axis.axvspan(1e-17, 1e-9, color=colours["rounding"], alpha=0.07, linewidth=0)
