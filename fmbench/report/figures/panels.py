"""What figures share: their registration, panels, curves with bands, legends, and notes on missing data."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fmbench.report.style import SMALL, WIDTH, colours, distance_label, label, markers


class Drawing(NamedTuple):
    """How one figure is made.

    Attributes:
        select: returns the data it shows, with all methods, from a results folder.
        draw: draws these data.
        methods: those of the paper's methods that it shows by default, beside every other method; None for all.
    """

    select: Callable[[Path], pd.DataFrame]
    draw: Callable[[pd.DataFrame], Figure]
    methods: tuple[str, ...] | None = None


def band(x: pd.Series, values: pd.Series, log: bool = False) -> pd.DataFrame:
    """Return ``mean`` (geometric with ``log``), ``low``, ``high`` (the range) and ``seeds`` (the number) over seeds at each x."""
    groups = (np.log(values.clip(lower=1e-16)) if log else values).groupby(x)
    table = pd.DataFrame({"mean": groups.mean(), "low": groups.min(), "high": groups.max()})
    return (table.apply(np.exp) if log else table).assign(seeds=groups.count())


def curve(axis: Axes, table: pd.DataFrame, **look: Any) -> None:
    """Draw a line through the means of a :func:`band` and shade the range over seeds."""
    axis.plot(table.index, table["mean"], **look)
    if (table.seeds > 1).any():
        axis.fill_between(table.index, table.low, table.high, color=look.get("color"), alpha=0.18, linewidth=0)


def panels(rows: int, columns: int, height: float, width: float = WIDTH, more: float = 0, **options: Any) -> tuple[Figure, Any]:
    """Return a figure and its axes, an array (rows, columns).

    Args:
        height, width: of a panel and of the figure, in inches.
        more: inches added to the figure's height for titles.
    """
    size = (width, height * rows + more)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **options)
    return figure, axes


def wrapped(n: int, across: int) -> tuple[int, int]:
    """Return rows and columns for n panels, with at most ``across`` in a row."""
    columns = max(1, min(n, across))
    return max(1, -(-n // columns)), columns


def nothing(text: str) -> Figure:
    """Return a figure with ``text`` alone: the default target draws every figure, even one without data."""
    figure = plt.figure(figsize=(WIDTH / 2, 1.0))
    figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=7)
    return figure


def empty(axis: Axes, text: str) -> None:
    """Write in a panel why it is empty."""
    axis.text(0.5, 0.5, text, ha="center", va="center", fontsize=SMALL, transform=axis.transAxes)


def note_failures(axis: Axes, data: pd.DataFrame, methods: Sequence[str], named: bool = True) -> None:
    """Write the :func:`failures` of methods in small text in a panel, where they cover least.

    Args:
        named: begin each line with the method's name. A panel of one method has it in its title.
    """
    if lines := [line if named else line.partition(": ")[2] for line in failures(data, methods)]:
        box = axis.legend([], [], title="\n".join(lines), title_fontsize=SMALL, loc="best", frameon=False, borderpad=0)
        box.get_title().set_color("0.35")


def failures(data: pd.DataFrame, methods: Sequence[str]) -> list[str]:
    """Return a line for each method and cause of missing values in the rows of one data set.

    A line counts rows. During training it counts seeds, because a training that diverged has rows up to that point only.
    """
    during_training = "step" in data.columns
    lines = []
    for method in methods:
        mine = data[data.method == method]
        if mine.empty:
            lines.append(f"{label(method)}: no rows")
        bad = mine[mine.status != "ok"]
        if during_training:
            stopped = bad[bad.reason.str.startswith("training diverged")].seed.nunique()
            lines += [f"{label(method)}: {stopped} of {mine.seed.nunique()} seeds diverged"] if stopped else []
            bad = bad[~bad.reason.str.startswith("training diverged")]
        # A row skipped because the training diverged counts as diverged.
        status = bad.status.mask(bad.reason.str.contains("diverged"), "diverged")
        lines += [f"{label(method)}: {count} of {len(mine)} {cause}" for cause, count in status.value_counts().items()]
    return lines


def looks(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the colour and marker of each method's line."""
    colour, marker = colours(list(methods)), markers(list(methods))
    return {m: {"color": colour[m], "marker": marker[m]} for m in methods}


def legend_below(figure: Figure, entries: Sequence[tuple[str, dict[str, Any]]], columns: int = 0) -> None:
    """Draw one legend below all panels.

    Args:
        entries: text and look of each line.
        columns: of the legend; 0 for as many as fit.
    """
    columns = columns or (5 if len(entries) <= 5 else 4)
    handles = [plt.Line2D([], [], **look) for _, look in entries]
    figure.legend(handles, [text for text, _ in entries], loc="outside lower center", ncols=columns, fontsize=7)


def each_panel(axes: np.ndarray, names: list[str]) -> list[tuple[Axes, str]]:
    """Return one panel per name, in reading order, and remove the panels that are left."""
    flat = list(axes.flat)
    for spare in flat[len(names) :]:
        spare.remove()
    return list(zip(flat[: len(names)], names, strict=True))


def distance_names(rows: pd.DataFrame) -> str:
    """Return the names in print of the distances in ``rows``."""
    names = {distance_label(m, f) for m, f in zip(rows.metric, rows.features, strict=True)}
    return " or ".join(sorted(names))


def method_legend(figure: Figure, methods: Sequence[str]) -> None:
    """Draw the legend of the methods below all panels."""
    legend_below(figure, [(label(method), look) for method, look in looks(methods).items()])


def panel_per_dataset(data: pd.DataFrame, draw: Callable[[Axes, pd.DataFrame, dict[str, dict[str, Any]]], None]) -> Figure:
    """Return a figure with a panel for each data set, a note on its failures, and a legend of the methods.

    Args:
        draw: draws one panel, from its axis, the rows of its data set, and the look of each method.
    """
    datasets, methods = list(data.dataset.unique()), list(data.method.unique())
    figure, axes = panels(*wrapped(len(datasets), 3), 2.1)
    for axis, dataset in each_panel(axes, datasets):
        here = data[data.dataset == dataset]
        draw(axis, here, looks(methods))
        axis.set_title(dataset)
        axis.grid(True)
        note_failures(axis, here, methods)
    method_legend(figure, methods)
    return figure
