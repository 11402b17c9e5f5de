"""An animated picture of points on their way from noise to data: FM with the OT path beside DDPM, from ``trajectory.parquet``."""

import io
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from fmbench.errors import DataError
from fmbench.report.figures.pictures import density
from fmbench.report.figures.preview_rows import is_point, preview_rows, with_real_data
from fmbench.report.style import SETTINGS, label
from fmbench.store.files import atomic
from fmbench.store.usable import usable

NAME = "noise_to_data.gif"
METHODS = ("fm_ot", "ddpm")
SIZE, DPI = (4.8, 5.4), 100
"""Inches, and pixels in an inch."""
FRAME, HOLD = 700, 3000
"""How long a time is shown, and the last one, in milliseconds."""
COLOURS = 128


def write_animation(results: Path, out: Path) -> None:
    """Write a GIF with a frame for each time at which the states were saved. Nothing is drawn between these times.

    It shows the first data set of points, the first seed, and every saved sample. It loops, and stays at the data for a while.

    Raises:
        DataError: the results have no states of points of both methods.
    """
    with usable(f"{NAME} of {results}"):
        frames = list(_frames(with_real_data(results, preview_rows(results, "trajectory.parquet", is_point), is_point)))
        palette = Image.fromarray(np.concatenate([np.asarray(frame) for frame in frames])).quantize(COLOURS)
        drawn = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
        times = [FRAME] * (len(drawn) - 1) + [HOLD]
        with atomic(out) as temporary:
            drawn[0].save(temporary, "GIF", save_all=True, append_images=drawn[1:], duration=times, loop=0, optimize=True)


def _frames(data: pd.DataFrame) -> Iterator[Image.Image]:
    """A picture for each time, of the first data set with both methods."""
    states = data[data.method.isin(METHODS)]
    both = [name for name in states.dataset.unique() if set(states[states.dataset == name].method) == set(METHODS)]
    if not both:
        raise DataError(f"an animation needs states of points of {' and '.join(map(label, METHODS))}")
    real = _points(data[(data.dataset == both[0]) & (data.method == "data")])
    states = states[(states.dataset == both[0]) & (states.seed == states.seed.min())]
    times = sorted(states.t.unique())
    for t in times:
        here = states[states.t == t]
        with sns.axes_style("ticks"), plt.rc_context({**SETTINGS, "font.size": 9}):
            yield _picture(_frame({m: _points(here[here.method == m]) for m in METHODS}, real, times, t))


def _points(rows: pd.DataFrame) -> NDArray:
    """The points (n, 2) of rows of previews."""
    return np.stack(rows["values"].to_list()) if len(rows) else np.zeros((0, 2))


def _frame(points: dict[str, NDArray], real: NDArray, times: list[float], t: float) -> Figure:
    """The densities above the samples, a column for each method, and the time below."""
    truth = real if len(real) else np.concatenate(list(points.values()))
    reach = 1.25 * float(np.abs(truth).max())
    true = density(truth, reach)
    figure, axes = plt.subplots(2, 2, figsize=SIZE, dpi=DPI)
    figure.subplots_adjust(left=0.07, right=0.98, top=0.94, bottom=0.12, wspace=0.05, hspace=0.05)
    for k, (method, mine) in enumerate(points.items()):
        extent = (-reach, reach, -reach, reach)
        top = np.quantile(true[true > 0], 0.9)
        axes[0, k].imshow(density(mine, reach), origin="lower", extent=extent, cmap="mako", vmin=0, vmax=top)
        axes[1, k].scatter(mine[:, 0], mine[:, 1], s=1.5, color="#1b4965", linewidths=0)
        axes[0, k].set_title(label(method), fontsize=11)
        axes[1, k].set(xlim=(-reach, reach), ylim=(-reach, reach))
        axes[1, k].set_aspect("equal")
    for axis, name in zip(axes[:, 0], ("density", "samples"), strict=True):
        axis.set_ylabel(name, fontsize=10)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    _clock(figure.add_axes((0.17, 0.03, 0.66, 0.06)), times, t)
    return figure


def _clock(axis: Axes, times: list[float], t: float) -> None:
    """The way from noise to data, with a tick for each saved time and a mark at the present one."""
    axis.plot([0, 1], [0, 0], color="0.6", linewidth=1)
    axis.plot(times, np.zeros(len(times)), "|", color="0.4", markersize=7)
    axis.plot(t, 0, "o", color="#a83e00", markersize=8)
    axis.text(-0.03, 0, "noise", ha="right", va="center_baseline")
    axis.text(1.03, 0, "data", ha="left", va="center_baseline")
    axis.text(0.5, -0.9, f"t = {t:g}", ha="center", va="top", fontsize=9)
    axis.set(xlim=(-0.02, 1.02), ylim=(-1, 1))
    axis.axis("off")


def _picture(figure: Figure) -> Image.Image:
    """The figure as a picture, and the figure closed."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI)
    plt.close(figure)
    return Image.open(stream).convert("RGB")
