"""Which solver at which number of evaluations: the best one for each method, by sample quality and by error."""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from fmbench.report.figures.panels import empty, nothing, panels
from fmbench.report.figures.solver_families import COLOURS, by_family, family
from fmbench.report.frames import records_frame
from fmbench.report.solvers.choice import LEADS, ONE_SEED
from fmbench.report.solvers.numbers import BUDGETS, ERROR, ORACLE, QUALITY, solvers
from fmbench.report.style import SMALL, WIDTH, label, solver_label

FULL, PALE = 0.75, 0.25
"""How opaque a cell is whose solver leads, and one whose solver ties with others."""
WIDE = 8
"""Names of so many letters or more are smaller, to fit into a cell."""
GAP = 0.4
"""The distance between the trained methods and the oracles, in rows."""


def solver_budget_data(results: Path) -> pd.DataFrame:
    """Return the table of solvers, with the number of solvers that tie with each best one."""
    table = solvers(records_frame(results / "records.parquet"), records_frame(results / "few_step.parquet"))
    return table.assign(tied=table.ties.map(lambda ties: len(ties.split("; ")) if ties else 0))


def solver_budget(data: pd.DataFrame) -> Figure:
    """Draw for each data set a grid of methods and NFE by each criterion: the best solver, in the colour of its family.

    A cell is full if its solver is significantly better than every other one, and pale if others tie with it; their number is in
    the cell. Oracles are below, apart.
    """
    if data.empty:
        return nothing("no solver at these NFE")
    datasets, methods = list(data.dataset.unique()), _rows(data)
    bottom = max(methods.values()) + 1
    figure, axes = panels(len(datasets), 2, 0.5 + 0.24 * bottom, WIDTH * 1.1, 0.4, sharey=True)
    for row, dataset in zip(axes, datasets, strict=True):
        for axis, by in zip(row, (QUALITY, ERROR), strict=True):
            here = data[(data.dataset == dataset) & (data.by == by)]
            for cell in here.to_dict("records"):
                _cell(axis, BUDGETS.index(cell["nfe"]), methods[cell["method"]], cell)
            measure = f" ({here.metric.iloc[0]})" if len(here) else ""
            axis.set(xlim=(0, len(BUDGETS)), ylim=(bottom, 0), title=f"{dataset}, by {by}{measure}")
            axis.set_xticks([x + 0.5 for x in range(len(BUDGETS))], [str(n) for n in BUDGETS])
            axis.set_yticks([y + 0.5 for y in methods.values()], [label(m) for m in methods])
            axis.tick_params(length=0)
            for side in axis.spines.values():
                side.set_visible(False)
            if here.empty:
                empty(axis, "no numbers")
    for axis in axes[-1]:
        axis.set_xlabel("NFE")
    _legend(figure, data)
    return figure


def _rows(data: pd.DataFrame) -> dict[str, float]:
    """The place of each method, from the top: trained ones first, oracles after a gap."""
    of_oracles = data[data.about == ORACLE].method.unique()
    trained = [m for m in data.method.unique() if m not in of_oracles]
    gap = GAP if trained else 0.0
    return {m: float(i) for i, m in enumerate(trained)} | {m: len(trained) + gap + i for i, m in enumerate(of_oracles)}


def _cell(axis: Axes, x: float, y: float, cell: dict[str, Any]) -> None:
    """One cell: the solver's name, its grid, and how many others tie with it."""
    if not cell["best"]:
        axis.text(x + 0.5, y + 0.5, "failed", ha="center", va="center", fontsize=SMALL - 1, color="0.4")
        return
    leads = cell["verdict"] == LEADS
    colour = to_rgba(COLOURS[family(cell["best"])], FULL if leads else PALE)
    axis.add_patch(
        Rectangle((x + 0.03, y + 0.05), 0.94, 0.9, facecolor=colour, edgecolor="black" if leads else "none", linewidth=0.6)
    )
    name, _, grid = solver_label(cell["best"]).partition("/")
    more = [f"+{cell['tied']}"] if cell["tied"] else []
    small = " ".join([*([grid] if grid else []), *more])
    style: dict[str, Any] = {"ha": "center", "va": "center", "clip_on": True}
    axis.text(
        x + 0.5,
        y + (0.36 if small else 0.5),
        name,
        fontsize=SMALL - (0.5 if len(name) < WIDE else 1.5),
        fontweight="bold" if leads else "normal",
        **style,
    )
    if small:
        axis.text(x + 0.5, y + 0.75, small, fontsize=SMALL - 1.5, color="0.25", **style)


def _legend(figure: Figure, data: pd.DataFrame) -> None:
    """The families, and what full and pale cells and their numbers mean."""
    entries: list[tuple[Patch, str]] = [
        (Patch(facecolor=to_rgba(COLOURS[name], FULL)), name) for name in by_family(data.best[data.best != ""])
    ]
    if not (data.verdict == ONE_SEED).all():
        entries.append((Patch(facecolor=to_rgba("0.3", FULL), edgecolor="black"), "better than every other solver"))
        entries.append((Patch(facecolor=to_rgba("0.3", PALE)), "+2: a tie with two others"))
    handles, texts = zip(*entries, strict=True)
    figure.legend(handles, texts, loc="outside lower center", ncols=3, fontsize=SMALL + 0.5)
