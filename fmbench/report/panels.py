"""What figures share: how one is registered, panels, curves with bands, legends, and how what is missing is said."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogFormatter, LogLocator, NullFormatter, NullLocator

from fmbench.report.style import SMALL, WIDTH, colours, label, markers


class Drawing(NamedTuple):
    """A figure.

    Attributes:
        select: from a results folder to the data shown, all methods.
        draw: from that data to the drawing.
        methods: the known methods it shows unless others are asked for; the user's own are always shown. None: all.
    """

    select: Callable[[Path], pd.DataFrame]
    draw: Callable[[pd.DataFrame], Figure]
    methods: tuple[str, ...] | None = None


def band(x: pd.Series, values: pd.Series, log: bool = False) -> pd.DataFrame:
    """Over seeds at each x: ``mean`` (geometric with ``log``), ``low`` and ``high`` (their range), ``seeds`` (their number)."""
    groups = (np.log(values.clip(lower=1e-16)) if log else values).groupby(x)
    table = pd.DataFrame({"mean": groups.mean(), "low": groups.min(), "high": groups.max()})
    return (table.apply(np.exp) if log else table).assign(seeds=groups.count())


def curve(axis: Axes, table: pd.DataFrame, **look: Any) -> None:
    """A line through the means of :func:`band`, and the range over seeds."""
    axis.plot(table.index, table["mean"], **look)
    if (table.seeds > 1).any():
        axis.fill_between(table.index, table.low, table.high, color=look.get("color"), alpha=0.18, linewidth=0)


def panels(rows: int, columns: int, height: float, width: float = WIDTH, more: float = 0, **options: Any) -> tuple[Figure, Any]:
    """A figure ``width`` inches wide with panels ``height`` inches high and ``more`` inches for titles, and its axes as an
    array (rows, columns)."""
    size = (width, height * rows + more)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **options)
    return figure, axes


def wrapped(n: int, across: int) -> tuple[int, int]:
    """Rows and columns for n panels, at most ``across`` in a row."""
    columns = max(1, min(n, across))
    return max(1, -(-n // columns)), columns


def nothing(text: str) -> Figure:
    """A figure that says that there is nothing to show: the default target draws every figure, whatever the config has."""
    figure = plt.figure(figsize=(WIDTH / 2, 1.0))
    figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=7)
    return figure


def empty(axis: Axes, text: str) -> None:
    """Say in a panel why it is empty."""
    axis.text(0.5, 0.5, text, ha="center", va="center", fontsize=SMALL, transform=axis.transAxes)


def note(axis: Axes, lines: Sequence[str]) -> None:
    """Small text in a panel, where it covers least."""
    if lines:
        box = axis.legend([], [], title="\n".join(lines), title_fontsize=SMALL, loc="best", frameon=False, borderpad=0)
        box.get_title().set_color("0.35")


def lost(data: pd.DataFrame, methods: Sequence[str]) -> list[str]:
    """What is missing of each method in the rows of one data set: a line for each method and cause.

    It is counted in rows, but along training, where one that stopped has as many rows as it came to, in seeds.
    """
    along = "step" in data.columns
    lines = []
    for method in methods:
        mine = data[data.method == method]
        if mine.empty:
            lines.append(f"{label(method)}: no rows")
        bad = mine[mine.status != "ok"]
        if along:
            stopped = bad[bad.reason.str.startswith("training diverged")].seed.nunique()
            lines += [f"{label(method)}: {stopped} of {mine.seed.nunique()} seeds diverged"] if stopped else []
            bad = bad[~bad.reason.str.startswith("training diverged")]
        # What was skipped because a training diverged is no decision of anybody's.
        status = bad.status.mask(bad.reason.str.contains("diverged"), "diverged")
        lines += [f"{label(method)}: {count} of {len(mine)} {cause}" for cause, count in status.value_counts().items()]
    return lines


def log_or_signed(axis: Axes, values: pd.Series) -> None:
    """A logarithmic axis where all values are above 0.

    Estimates without bias may be negative: then the axis is linear while the largest value is of the size of the most
    negative one (:func:`_around_zero`), else linear between the most negative and as much above 0, and logarithmic from there.
    """
    if values.empty:
        return
    low, high = float(values.min()), float(values.max())
    if low > 0:
        axis.set_yscale("log")
        if high < 10 * low:  # within a decade the powers of ten alone leave the axis bare
            axis.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
            axis.tick_params(which="minor", labelsize=SMALL)
        return
    axis.axhline(0, color="0.7", linewidth=0.6)
    if _around_zero(values):
        return
    small = max(-low, high * 1e-6)
    axis.set_yscale("symlog", linthresh=small, linscale=0.3)
    # Ticks that do not touch the zero's. Between 2 small and 10 small there are always two of 1, 2 and 5 times a power of ten.
    decades = 10.0 ** np.arange(np.floor(np.log10(small)), np.floor(np.log10(high)) + 1)
    ticks = [d for d in decades if 2 * small <= d <= high]
    texts = [f"$10^{{{np.log10(tick):.0f}}}$" for tick in ticks]
    if len(ticks) < 2:
        ticks = [m * d for d in decades for m in (1, 2, 5) if 2 * small <= m * d <= high]
        texts = [f"{tick:g}" for tick in ticks]
    axis.set_yticks([0, *ticks], ["0", *texts])
    axis.yaxis.set_minor_locator(NullLocator())


def _around_zero(values: pd.Series) -> bool:
    """Whether values on both sides of 0 are within a decade in size, too little for a logarithmic axis."""
    return bool(values.max() <= -10 * values.min())


def limits(values: pd.Series) -> tuple[float, float]:
    """Limits a little beyond the values of an axis of :func:`log_or_signed`, the same for panels that are compared."""
    low, high = float(values.min()), float(values.max())
    if low > 0:
        margin = (high / low) ** 0.06 * 1.02
        return low / margin, high * margin
    if _around_zero(values):
        margin = 0.06 * (max(high, 0) - low) or 1.0
        return low - margin, max(high, 0) + margin
    return 2 * low - 1e-3 * high, 2 * high


def log_x(axis: Axes, values: pd.Series, large: bool = False) -> None:
    """A logarithmic x axis with few plain ticks: 1, 2 and 5 within a decade, 1 and 3 within two, else powers of ten.

    Args:
        large: label with k and M for thousands and millions.
    """
    axis.set_xscale("log")
    spread = values.max() / values.min()
    subs = (1.0, 2.0, 5.0) if spread < 12 else (1.0, 3.0) if spread < 100 else (1.0,)
    axis.xaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.xaxis.set_major_formatter(EngFormatter(sep="") if large else FuncFormatter(lambda x, _: f"{x:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def ticks_at(axis: Axes, values: Sequence[float]) -> None:
    """Ticks of a logarithmic x axis at the values there are, leaving out those that would touch."""
    kept: list[float] = []
    for value in sorted(values, reverse=True):
        if not kept or kept[-1] / value > 1.9:
            kept.append(value)
    axis.set_xticks(kept, [f"{v:g}" for v in kept])
    axis.xaxis.set_minor_locator(NullLocator())


def beyond(values: Sequence[float], furthest: float) -> list[float]:
    """1, 2 and 5 times powers of ten that continue ticks at ``values`` to ``furthest`` without touching them."""
    last = max(values, default=0.0)
    if not 0 < last < furthest:
        return []
    decades = 10.0 ** np.arange(np.floor(np.log10(last)), np.floor(np.log10(furthest)) + 1)
    return [float(m * d) for d in decades for m in (1, 2, 5) if 1.9 * last < m * d <= furthest]


def looks(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each method's line."""
    colour, marker = colours(list(methods)), markers(list(methods))
    return {m: {"color": colour[m], "marker": marker[m]} for m in methods}


def legend_below(figure: Figure, entries: Sequence[tuple[str, dict[str, Any]]], columns: int = 0) -> None:
    """One legend for all panels, under them: text and look of each line, in ``columns`` (0: as many as fit)."""
    columns = columns or (5 if len(entries) <= 5 else 4)
    handles = [plt.Line2D([], [], **look) for _, look in entries]
    figure.legend(handles, [text for text, _ in entries], loc="outside lower center", ncols=columns, fontsize=7)


def method_legend(figure: Figure, methods: Sequence[str]) -> None:
    look = looks(methods)
    legend_below(figure, [(label(m), look[m]) for m in methods])
