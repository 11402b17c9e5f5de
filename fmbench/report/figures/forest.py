"""A forest plot of the claims: every line of evidence with its interval and its verdict (not in the paper)."""

import textwrap
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fmbench.errors import DataError
from fmbench.report.claims import claim_lines
from fmbench.report.claims.claim import short
from fmbench.report.claims.scale import COLOURS, on_scale
from fmbench.report.claims.verdicts import FAILS, HOLDS, INCONCLUSIVE, NOT_TESTED
from fmbench.report.figures.panels import legend_below, nothing
from fmbench.report.style import SMALL, WIDTH

MARKERS = {HOLDS: "o", FAILS: "X", INCONCLUSIVE: "d", NOT_TESTED: "_"}
ROW = 0.11
"""Height of a line of evidence, in inches."""
Tops = dict[int, float]
"""Where the block of each claim begins, in rows."""


def forest_data(results: Path) -> pd.DataFrame:
    """Return the rows of ``claims.csv``, made anew from the parquet files, without the lines on oracles."""
    if not (results / "records.parquet").exists():
        raise DataError("records.parquet is missing")
    lines = claim_lines(results)
    numbers = ["value", "low", "high", "threshold", "coverage", "paper"]
    return lines[lines.about != "oracle"].astype(dict.fromkeys(numbers, float))


def forest(data: pd.DataFrame) -> Figure:
    """Draw a block for each claim, with its title and verdict, and a column for each data set with the claim's lines.

    The vertical line is the threshold, and the claimed side is to its right. Each part of a claim has its own scale. A claim on
    definitions alone has text instead of lines.
    """
    lines = on_scale(data)
    if lines.empty:
        return nothing("no line of evidence has a threshold")
    datasets = list(lines.dataset.unique())
    tops, bottom = _tops(data, lines)
    figure, axes = plt.subplots(
        1,
        1 + len(datasets),
        figsize=(WIDTH, ROW * bottom + 0.7),
        width_ratios=[1.9] + [4.6 / len(datasets)] * len(datasets),
        sharey=True,
        layout="constrained",
    )
    _titles(axes[0], data[data.about == "overall"], tops)
    _definitions(axes[1], data[data.about == "definition"], tops)
    for axis, dataset in zip(axes[1:], datasets, strict=True):
        for claim, here in lines[lines.dataset == dataset].groupby("claim", sort=False):
            _block(axis, here, tops[int(claim)])
        axis.set(title=dataset, xlim=(-1.1, 1.1), xticks=[-0.55, 0.55])
        axis.set_xticklabels(["against the claim", "as claimed"])
    for axis in axes:
        axis.set(ylim=(bottom, 0))
        axis.tick_params(bottom=False, left=False, labelleft=False)
        axis.spines[:].set_visible(False)
        axis.patch.set_visible(False)
        for top in tops.values():
            axis.axhline(top, color="0.8", linewidth=0.5)
    shown = [verdict for verdict in COLOURS if (data.verdict == verdict).any()]
    legend_below(figure, [(v, {"color": COLOURS[v], "marker": MARKERS[v]}) for v in shown])
    return figure


def _title(whole: pd.Series) -> list[str]:
    return textwrap.wrap(f"{whole.claim}. {whole.title}", 34)


def _tops(data: pd.DataFrame, lines: pd.DataFrame) -> tuple[Tops, float]:
    """Where the blocks begin, and where the last ends, in rows."""
    tops, at = {}, 0.0
    for _, whole in data[data.about == "overall"].iterrows():
        here = lines[lines.claim == whole.claim]
        rows = [len(one) + one.part.nunique() for _, one in here.groupby("dataset")]
        tops[int(whole.claim)] = at
        at += max(len(_title(whole)) + 1, *rows, (data[data.claim == whole.claim].about == "definition").sum()) + 0.8
    return tops, at


def _titles(axis: Axes, wholes: pd.DataFrame, tops: Tops) -> None:
    """Write the number, title and verdict of each claim."""
    axis.set(xlim=(0, 1), xticks=[])
    for _, whole in wholes.iterrows():
        at = tops[int(whole.claim)] + 0.9
        for text in _title(whole):
            axis.text(0, at, text, fontsize=SMALL, va="center_baseline")
            at += 1
        colour = COLOURS[whole.verdict]
        axis.plot(0.03, at, color=colour, marker=MARKERS[whole.verdict], markersize=4, clip_on=False)
        axis.text(0.08, at, whole.verdict, color=colour, fontsize=SMALL, va="center_baseline", weight="bold")


def _definitions(axis: Axes, lines: pd.DataFrame, tops: Tops) -> None:
    """Write the numbers of the claims that follow from definitions."""
    for claim in lines.claim.unique():
        for at, (_, line) in enumerate(lines[lines.claim == claim].iterrows()):
            text = f"{line.part}: {line.statistic} {short(line.value)} {line.unit}"
            written = axis.text(-1.08, tops[int(claim)] + 0.9 + at, text, fontsize=SMALL, va="center_baseline")
            written.set_in_layout(False)  # it runs on into the next column, which is empty there


def _block(axis: Axes, here: pd.DataFrame, top: float) -> None:
    """Draw the lines of one claim on one data set, with a heading for each part."""
    at = top + 0.9
    for part in here.part.unique():
        lines = here[here.part == part]
        axis.text(-1.08, at, part, fontsize=SMALL, va="center_baseline", color="0.35")
        axis.plot([0, 0], [at + 0.45, at + len(lines) + 0.45], color="0.2", linewidth=0.7)
        for _, line in lines.iterrows():
            at += 1
            look: dict[str, Any] = {"color": COLOURS[line.verdict], "clip_on": False}
            axis.plot([line.left, line.right], [at, at], linewidth=0.9, **look)
            axis.plot(line["at"], at, marker=MARKERS[line.verdict], markersize=3.5, **look)
        at += 1
