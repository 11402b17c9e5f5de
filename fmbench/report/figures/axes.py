"""Scales, limits and ticks of axes."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, FuncFormatter, LogFormatter, LogLocator, NullFormatter, NullLocator

from fmbench.report.style import SMALL


def log_or_signed(axis: Axes, values: pd.Series) -> None:
    """Make the y axis logarithmic if all values are above 0.

    An unbiased estimate may be negative. The axis is then linear if all values are of similar size (:func:`_around_zero`).
    Otherwise it is linear from the most negative value to its mirror image above 0, and logarithmic from there on.
    """
    if values.empty:
        return
    low, high = float(values.min()), float(values.max())
    if low > 0:
        axis.set_yscale("log")
        if high < 10 * low:  # within one decade, powers of ten alone would leave the axis without labels
            axis.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
            axis.tick_params(which="minor", labelsize=SMALL)
        return
    axis.axhline(0, color="0.7", linewidth=0.6)
    if _around_zero(values):
        return
    small = max(-low, high * 1e-6)
    axis.set_yscale("symlog", linthresh=small, linscale=0.3)
    # No tick may touch that of 0. Two of 1, 2 and 5 times a power of ten always lie between 2 small and 10 small.
    decades = 10.0 ** np.arange(np.floor(np.log10(small)), np.floor(np.log10(high)) + 1)
    ticks = [d for d in decades if 2 * small <= d <= high]
    texts = [f"$10^{{{np.log10(tick):.0f}}}$" for tick in ticks]
    if len(ticks) < 2:
        ticks = [m * d for d in decades for m in (1, 2, 5) if 2 * small <= m * d <= high]
        texts = [f"{tick:g}" for tick in ticks]
    axis.set_yticks([0, *ticks], ["0", *texts])
    axis.yaxis.set_minor_locator(NullLocator())


def _around_zero(values: pd.Series) -> bool:
    """Whether the largest value is less than ten times the size of the most negative one."""
    return bool(values.max() <= -10 * values.min())


def limits(values: pd.Series) -> tuple[float, float]:
    """Return limits a little beyond the values, for panels with :func:`log_or_signed` axes that share them."""
    low, high = float(values.min()), float(values.max())
    if low > 0:
        margin = (high / low) ** 0.06 * 1.02
        return low / margin, high * margin
    if _around_zero(values):
        margin = 0.06 * (max(high, 0) - low) or 1.0
        return low - margin, max(high, 0) + margin
    return 2 * low - 1e-3 * high, 2 * high


def log_x(axis: Axes, values: pd.Series, large: bool = False) -> None:
    """Make the x axis logarithmic: ticks at 1, 2 and 5 within one decade, 1 and 3 within two, else at powers of ten.

    Args:
        large: write k and M for thousands and millions.
    """
    axis.set_xscale("log")
    spread = values.max() / values.min()
    subs = (1.0, 2.0, 5.0) if spread < 12 else (1.0, 3.0) if spread < 100 else (1.0,)
    axis.xaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.xaxis.set_major_formatter(EngFormatter(sep="") if large else FuncFormatter(lambda x, _: f"{x:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def ticks_at(axis: Axes, values: Sequence[float]) -> None:
    """Set the ticks of a logarithmic x axis at the values, leaving out labels that would touch."""
    kept: list[float] = []
    for value in sorted(values, reverse=True):
        if not kept or kept[-1] / value > 1.9:
            kept.append(value)
    axis.set_xticks(kept, [f"{v:g}" for v in kept])
    axis.xaxis.set_minor_locator(NullLocator())


def beyond(values: Sequence[float], furthest: float) -> list[float]:
    """Return further ticks from the last of ``values`` to ``furthest``, at 1, 2 and 5 times powers of ten."""
    last = max(values, default=0.0)
    if not 0 < last < furthest:
        return []
    decades = 10.0 ** np.arange(np.floor(np.log10(last)), np.floor(np.log10(furthest)) + 1)
    return [float(m * d) for d in decades for m in (1, 2, 5) if 1.9 * last < m * d <= furthest]
