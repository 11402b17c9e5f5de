"""Figures of what follows from the definitions alone (Fig. 2, 3, 8 and more), drawn from the stage ``theory``'s parquet."""

from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from fmbench.errors import DataError
from fmbench.report.panels import Drawing
from fmbench.report.style import COLUMN, SMALL, colours, label
from fmbench.store.records import read_table

PATHS = {"ot": "OT path", "vp": "VP diffusion path", "cosine_vp": "cosine VP path", "ve": "VE diffusion path"}


def _read(results: Path, name: str, some: bool = True) -> pd.DataFrame:
    frame = read_table(results / "theory" / f"{name}.parquet").to_pandas()
    if some and frame.empty:
        raise DataError(f"{results / 'theory' / name}.parquet has no rows, so there is nothing to draw")
    return frame


def fields_data(figure: str) -> Callable[[Path], pd.DataFrame]:
    """The arrows of one figure."""

    def select(results: Path) -> pd.DataFrame:
        frame = _read(results, "fields")
        return frame[frame.figure == figure]

    return select


def fields(data: pd.DataFrame) -> Figure:
    """A row per panel, a column per time: arrows of equal length for direction, colour for magnitude on a log scale."""
    panels, times = list(data.panel.unique()), list(data.t.unique())
    figure, axes = plt.subplots(
        len(panels), len(times), figsize=(2 * COLUMN, 1.75 * len(panels)), squeeze=False, layout="constrained"
    )
    for row, panel in zip(axes, panels, strict=True):
        here = data[data.panel == panel]
        # At the end of the path the field is as large as 1 / s; the colours are for the times before, those above the top one.
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


def trajectories(data: pd.DataFrame) -> Figure:
    """A panel per path: lines from noise (dots) to data (crosses), marks at ten equal times."""
    names = list(data.path.unique())
    figure, axes = plt.subplots(1, len(names), figsize=(2 * COLUMN, 2.95), sharex=True, sharey=True, squeeze=False)
    figure.set_layout_engine("constrained")
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


def densities(data: pd.DataFrame) -> Figure:
    """A panel per path: density over t, and the flow's trajectories."""
    names = list(data.path.unique())
    figure, axes = plt.subplots(1, len(names), figsize=(2 * COLUMN, 2.0), sharey=True, squeeze=False, layout="constrained")
    for axis, name in zip(axes[0], names, strict=True):
        here = data[data.path == name]
        grid = here[here.particle < 0].pivot_table(index="x", columns="t", values="density")
        x, t = grid.index.to_numpy(), grid.columns.to_numpy()
        # The components are narrow at the end; shade by the square root, so that the rest is seen too.
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


def noise_levels(data: pd.DataFrame) -> Figure:
    """Log SNR over time; the density of training times over log SNR; the weighted emphasis, one at log SNR 0.

    Nothing where no method has a loss: the default target draws every figure, whatever the methods are.
    """
    methods = list(data.method.unique())
    colour = colours(methods)
    styles = ["-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1))]  # some methods coincide
    figure, axes = plt.subplots(1, 3, figsize=(2 * COLUMN, 2.3), layout="constrained")
    if not methods:
        figure.text(0.5, 0.5, "no method with a loss", ha="center", va="center", fontsize=7)
        return figure
    for k, method in enumerate(methods):
        mine = data[data.method == method]
        look = {"color": colour[method], "linestyle": styles[k % len(styles)], "linewidth": 1.2}
        axes[0].plot(mine.t, mine.log_snr, label=label(method), **look)
        axes[1].plot(mine.log_snr, mine.density, **look)
        axes[2].plot(mine.log_snr, mine.emphasis, **look)
    axes[0].set(xlabel="t (0: noise, 1: data)", ylabel="log SNR", title="schedule")
    axes[1].set(xlabel="log SNR", ylabel="density", title="training times")
    axes[2].set(xlabel="log SNR", yscale="log", title="weight of the noise's error\n× density (one at 0)")
    low, high = 10.0 ** np.floor(np.log10(data.emphasis[data.emphasis > 0].quantile([0.02, 0.98])))
    axes[2].set_ylim(max(low, 1e-4) / 2, min(high, 1e3) * 20)
    for axis in axes:
        axis.grid(True, linewidth=0.4, alpha=0.5)
        axis.tick_params(labelsize=7)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=SMALL, frameon=False)
    return figure


def equivalence(data: pd.DataFrame) -> Figure:
    """Left: largest differences that should be rounding or not. Right: error of each form over steps, orders 1 and 2."""
    figure, axes = plt.subplots(1, 3, figsize=(2 * COLUMN, 4.0), layout="constrained", width_ratios=[1.7, 1, 1])
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
    handles += [plt.Line2D([], [], marker=m, color=c, linestyle="", markersize=3) for m, c in EXPECTED.values()]
    texts = [*(names.get(f, f"DDIM, form {f}") for f in forms), "order 1", "order 2"]
    texts += ["expected: rounding", "expected: different"]
    figure.legend(handles, texts, loc="outside lower center", ncols=4, fontsize=SMALL, frameon=False)
    return figure


def samplers(data: pd.DataFrame) -> Figure:
    """A panel per path: energy distance to the data over NFE; lines for fixed steps (dashed: stochastic), crosses adaptive."""
    names = list(data.path.unique())
    fixed = list(data[data.kind != "adaptive"].sampler.unique())
    colour = dict(zip(fixed, sns.color_palette("colorblind", len(fixed)), strict=True))
    figure, axes = plt.subplots(1, len(names), figsize=(2 * COLUMN, 2.7), sharey=True, squeeze=False, layout="constrained")
    for axis, name in zip(axes[0], names, strict=True):
        here = data[data.path == name]
        floor = here.floor.iloc[0]
        axis.axhspan(floor / 100, floor, color="0.5", alpha=0.12, linewidth=0)
        for sampler in fixed:
            mine = here[here.sampler == sampler].sort_values("nfe")
            line = "--" if (mine.kind == "sde").all() else "-"
            axis.plot(mine.nfe, mine.energy_distance.abs(), line, color=colour[sampler], marker=".", markersize=4, linewidth=1)
            below = mine[mine.energy_distance < 0]
            hollow = {"marker": "o", "markersize": 4, "markerfacecolor": "white", "linestyle": ""}
            axis.plot(below.nfe, below.energy_distance.abs(), color=colour[sampler], **hollow)
        adaptive = here[here.kind == "adaptive"]
        axis.plot(adaptive.nfe, adaptive.energy_distance.abs(), "x", color="black", markersize=4)
        axis.set(xscale="log", yscale="log", xlabel="NFE", title=PATHS.get(name, name), ylim=(floor / 100, None))
        ticks = [6, 12, 24, 48, 96, 384]
        axis.set_xticks(ticks, [str(t) for t in ticks])
        axis.minorticks_off()
        axis.grid(True, linewidth=0.4, alpha=0.5)
    axes[0, 0].set_ylabel("|energy distance to the data|")
    handles = [
        plt.Line2D([], [], color=colour[s], linestyle="--" if (data[data.sampler == s].kind == "sde").all() else "-")
        for s in fixed
    ]
    handles += [plt.Line2D([], [], marker="x", color="black", linestyle="")]
    handles += [plt.Line2D([], [], marker="o", color="black", markerfacecolor="white", markersize=4, linestyle="")]
    handles += [plt.Rectangle((0, 0), 1, 1, color="0.5", alpha=0.12)]
    texts = [*fixed, "adaptive, 1e-5", "an estimate below 0", "below the distance of exact draws"]
    figure.legend(handles, texts, loc="outside lower center", ncols=3, fontsize=SMALL, frameon=False)
    return figure


_PALETTE = sns.color_palette("colorblind")
EXPECTED = {"rounding": ("o", _PALETTE[0]), "different": ("s", _PALETTE[3])}
"""Marker and colour of a difference by what it should be."""


def _differences(axis: Axes, rows: pd.DataFrame) -> None:
    ticks, names = [], []
    y = 0.0
    for check in rows.check.unique():
        axis.text(3e-9, y + 0.15, check, fontsize=SMALL, color="0.35", va="center")
        y -= 0.5
        for schedule in rows[rows.check == check].schedule.unique():
            mine = rows[(rows.check == check) & (rows.schedule == schedule)]
            for expected, (marker, colour) in EXPECTED.items():
                part = mine[mine.expected == expected]
                relative = (part.max_difference / part.scale).clip(lower=1e-17)
                axis.scatter(relative, [y] * len(part), marker=marker, s=9, color=colour, linewidths=0, alpha=0.8)
            ticks.append(y)
            names.append(schedule)
            y -= 1
        axis.axhline(y + 0.6, color="0.8", linewidth=0.5)
        y -= 0.3
    axis.set(xscale="log", xlim=(1e-17, 30), ylim=(y + 0.8, 0.9), xlabel="largest difference / scale")
    axis.set_yticks(ticks, names, fontsize=SMALL)
    axis.axvspan(1e-17, 1e-9, color=EXPECTED["rounding"][1], alpha=0.07, linewidth=0)


FIGURES: dict[str, Drawing] = {
    "fig02": Drawing(fields_data("fig02"), fields),
    "fig03": Drawing(lambda results: _read(results, "trajectories"), trajectories),
    "fig08": Drawing(fields_data("fig08"), fields),
    "densities": Drawing(lambda results: _read(results, "densities"), densities),
    "noise_levels": Drawing(lambda results: _read(results, "noise_levels", some=False), noise_levels),
    "equivalence": Drawing(lambda results: _read(results, "equivalence"), equivalence),
    "samplers": Drawing(lambda results: _read(results, "samplers"), samplers),
}
"""Figures by name."""
