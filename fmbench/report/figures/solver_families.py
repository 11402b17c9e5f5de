"""Families of solvers, and how figures tell solvers apart: a family by colour and dashes, its members by markers and shades."""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fmbench.report.style import SMALL, solver_label

RUNGE_KUTTA, ADAMS, ONE_STEP, MULTISTEP, OWN = (
    "Runge-Kutta",
    "Adams-Bashforth",
    "exponential, one step",
    "exponential, multistep",
    "others",
)
MEMBERS = {
    RUNGE_KUTTA: ("euler", "midpoint", "heun", "rk4", "ralston", "heun3", "rk4_38"),
    ADAMS: ("ab2", "ab3", "ab4"),
    ONE_STEP: ("ddim", "ddim2", "edm_heun", "dpm_2s", "dpm_3s"),
    MULTISTEP: ("dpmpp_2m", "dpmpp_3m", "unipc2", "unipc3", "deis2", "deis3", "ipndm"),
    OWN: (),
}
"""The built-in solvers of each family. A solver of the user's own is in the last one."""
COLOURS = {RUNGE_KUTTA: "#0077BB", ADAMS: "#EE7733", ONE_STEP: "#009988", MULTISTEP: "#CC3377", OWN: "#555555"}
"""Colours that colour-blind people can tell apart (Tol's "vibrant")."""
_DASHES: dict[str, Any] = {
    RUNGE_KUTTA: "-",
    ADAMS: (0, (5, 1.5)),
    ONE_STEP: (0, (1.2, 1.2)),
    MULTISTEP: (0, (5, 1.2, 1.2, 1.2)),
    OWN: (0, (3, 1, 1, 1, 1, 1)),
}
_MARKERS = "os^DvPX*<>hp"
_SHADES = (0.0, -0.4, 0.4, -0.65, 0.6)
"""By how much the members of a family are lighter (or darker, below 0) than its colour."""
CONTEXT: dict[str, Any] = {"color": "0.8", "linewidth": 0.5, "marker": "", "zorder": 1}
"""The look of the solvers without one of their own."""
MOST = 14
"""The largest number of solvers with a look of their own in a figure."""


def family(solver: str) -> str:
    """The family of a solver, which may have a grid in its name."""
    name = solver.partition("/")[0]
    return next((family for family, members in MEMBERS.items() if name in members), OWN)


def by_family(solvers: Iterable[str]) -> dict[str, list[str]]:
    """The solvers of each family that has any, in the families' order, built-in ones in theirs."""
    found: dict[str, list[str]] = {name: [] for name in MEMBERS}
    for solver in dict.fromkeys(solvers):
        found[family(solver)].append(solver)

    def place(name: str, solver: str) -> int:
        plain = solver.partition("/")[0]
        return MEMBERS[name].index(plain) if plain in MEMBERS[name] else 0

    return {name: sorted(s, key=lambda solver: place(name, solver)) for name, s in found.items() if s}


def solver_looks(solvers: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The look of each solver's line. Families differ by colour and dashes, members by markers and shades."""
    return {
        solver: {
            "color": _shade(COLOURS[name], _SHADES[i % len(_SHADES)]),
            "linestyle": _DASHES[name],
            "marker": _MARKERS[i % len(_MARKERS)],
            "markersize": 2.5,
        }
        for name, members in by_family(solvers).items()
        for i, solver in enumerate(members)
    }


def _shade(colour: str, by: float) -> tuple[float, float, float]:
    """A colour mixed with white, or with black for a share below 0."""
    end = 1.0 if by > 0 else 0.0
    red, green, blue = (value + (end - value) * abs(by) for value in to_rgb(colour))
    return red, green, blue


def foremost(rows: pd.DataFrame, value: str) -> list[str]:
    """At most :data:`MOST` solvers of a figure: the ones that have the lowest mean most often, if there are more.

    Args:
        rows: with the columns ``dataset``, ``method``, ``solver``, ``nfe`` and ``value``, where all are numbers.
    """
    solvers = list(rows.solver.unique())
    if len(solvers) <= MOST:
        return solvers
    means = rows.groupby(["dataset", "method", "nfe", "solver"])[value].mean().unstack()
    wins = means.idxmin(axis="columns").value_counts()
    return sorted(solvers, key=lambda solver: -int(wins.get(solver, 0)))[:MOST]


def solver_styles(rows: pd.DataFrame, value: str) -> dict[str, dict[str, Any]]:
    """The look of every solver's line: :func:`foremost` ones have one of their own and come last, the others are thin and grey.

    Args:
        rows, value: as in :func:`foremost`.
    """
    chosen = foremost(rows, value)
    return {s: CONTEXT for s in rows.solver.unique() if s not in chosen} | solver_looks(chosen)


def family_legend(figure: Figure, styles: dict[str, dict[str, Any]], more: Sequence[tuple[str, dict[str, Any]]] = ()) -> None:
    """Draw one legend below all panels with a column for each family, under its name.

    Args:
        more: text and look of further entries, in a column of their own.
    """
    blank = {"linestyle": "", "marker": ""}
    named = by_family(s for s, look in styles.items() if look is not CONTEXT)
    columns = [[(name, blank), *((solver_label(s), styles[s]) for s in members)] for name, members in named.items()]
    further = len(styles) - sum(map(len, named.values()))
    last = [*more, *([(f"{further} further solvers", CONTEXT)] if further else [])]
    columns += [[("", blank), *last]] if last else []
    tallest = max((len(column) for column in columns), default=0)
    entries = [entry for column in columns for entry in column + [("", blank)] * (tallest - len(column))]
    if not entries:
        return
    handles = [Line2D([], [], **look) for _, look in entries]
    names = [text for text, _ in entries]
    legend = figure.legend(handles, names, loc="outside lower center", ncols=len(columns), fontsize=SMALL, columnspacing=1.2)
    for text in legend.get_texts():
        if text.get_text() in MEMBERS:
            text.set_fontweight("bold")
            text.set_color(COLOURS[text.get_text()])
