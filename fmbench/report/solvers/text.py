"""The table of solvers in Markdown and LaTeX: the best solver at each number of evaluations, and the numbers behind it."""

from collections import Counter

import pandas as pd

from fmbench.report.layout import LATEX, MARKDOWN, NONE, Markup, Style, comment, heading, latex_table, markdown_table, plain, tex
from fmbench.report.layout import notes as note_lines
from fmbench.report.solvers.choice import LEADS, ONE_SEED
from fmbench.report.solvers.numbers import BUDGETS, ORACLE, TRAINED
from fmbench.report.style import label, solver_label

TITLE = "Which solver at which number of evaluations"
NOT_BEATEN = "Not beaten on most methods"
OF_ORACLES = {TRAINED: "", ORACLE: ", oracles"}
HEADER = ("Method", "NFE", "Best", "Value", "Runner-up", "Lead", "Not significantly better than", "Failed")


def _parts(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows of each data set and criterion with their heading; those of oracles are apart."""
    groups = table.groupby(["dataset", "by", "about"], sort=False)
    return [(f"{d}, by {by} ({part.metric.iloc[0]}){OF_ORACLES[str(about)]}", part) for (d, by, about), part in groups]


def _ties(row: pd.Series) -> list[str]:
    return row.ties.split("; ") if row.ties else []


def _best(row: pd.Series, style: Style) -> str:
    """The name of the best solver: bold if it leads, and with the number of the others that tie with it."""
    if not row.best:
        return "all failed" if row.failed == row.cells else NONE
    name, ties = solver_label(row.best), len(_ties(row))
    if row.verdict == LEADS:
        text = plain(name) if style == MARKDOWN else tex(name)
        return Markup(f"{style.bold[0]}{text}{style.bold[1]}")
    return f"{name} (+{ties})" if ties else name


def _overview(part: pd.DataFrame, style: Style) -> list[list[str]]:
    """A row for each method with the best solver at each number of evaluations, and one that sums up several methods."""
    rows = []
    for method, mine in part.groupby("method", sort=False):
        at = {row.nfe: row for _, row in mine.iterrows()}
        rows.append([label(str(method)), *(_best(at[n], style) if n in at else NONE for n in BUDGETS)])
    if len(rows) > 1 and (part.verdict != ONE_SEED).all():
        rows.append([NOT_BEATEN, *(_not_beaten(part[part.nfe == n]) for n in BUDGETS)])
    return rows


def _not_beaten(rows: pd.DataFrame) -> str:
    """The solver that is best, or ties with the best, on the most methods; of several the one that is best on more."""
    rows = rows[rows.best != ""]
    if rows.empty:
        return NONE
    best = Counter(rows.best)
    counts = Counter([*rows.best, *(name for _, row in rows.iterrows() for name in _ties(row))])
    name = max(counts, key=lambda solver: (counts[solver], best[solver]))
    return f"{solver_label(name)} ({counts[name]} of {len(rows)})"


def _number(mean: float, low: float, high: float) -> str:
    """A number with its interval, where it has one."""
    if pd.isna(mean):
        return NONE
    return f"{mean:.3g}" + ("" if pd.isna(low) else f" [{low:.3g}, {high:.3g}]")


def _details(part: pd.DataFrame) -> list[list[str]]:
    """A row for each method and number of evaluations."""
    return [
        [
            label(row.method),
            str(row.nfe),
            solver_label(row.best) if row.best else row.verdict,
            _number(row["mean"], row.low, row.high),
            solver_label(row.runner_up) if row.runner_up else NONE,
            _number(row.lead, row.lead_low, row.lead_high),
            ", ".join(map(solver_label, _ties(row))) or (row.verdict if row.verdict == ONE_SEED else NONE),
            f"{row.failed} of {row.cells}" if row.failed else "0",
        ]
        for _, row in part.iterrows()
    ]


def _notes(part: pd.DataFrame) -> list[str]:
    seeds, kind = part.seeds.max(), part.lead_is.iloc[0]
    mean = "geometric mean" if kind == "ratio" else "mean"
    found = [f"The best solver has the lowest {mean} over {seeds} seed{'s' if seeds != 1 else ''}."]
    if (part.verdict == ONE_SEED).all():
        found.append("One seed gives no interval, so nothing says whether a lead is more than chance.")
    else:
        found += [
            "Bold: significantly better than every other solver, paired by seed, at 2.5 % with Bonferroni's correction. "
            "(+3): not significantly better than 3 others, which are a tie with it.",
            f"{NOT_BEATEN}: the best solver, or a tie with it, on the most methods.",
            "The best number is chosen on the data that it is shown of, so it is a little too low.",
        ]
    if kind == "ratio":
        found.append("Errors below 100 times the reference's own error count as equal. The shown number is as measured.")
    failed = Counter(name for row in part[part.failed > 0].failed_solvers for name in row.split("; "))
    if failed:
        names = ", ".join(map(solver_label, failed))
        found.append(f"{part.failed.sum()} of {part.cells.sum()} cells failed ({names}). A solver with a failed seed cannot win.")
    tried = sorted(set(part.candidates))
    between = f"{tried[0]}" if len(tried) == 1 else f"{tried[0]} to {tried[-1]}"
    return [*found, f"Each is the best of {between} solvers and grids. Not every one was run at every number of evaluations."]


def markdown(table: pd.DataFrame) -> str:
    """Return a section for each data set and criterion: the best solvers, notes, and the numbers behind them."""
    lines = [f"# {TITLE}", ""]
    if table.empty:
        lines += [f"This run has no fixed-step solver at {', '.join(map(str, BUDGETS))} evaluations.", ""]
    for title, part in _parts(table):
        header = ["Method", *(f"NFE {n}" for n in BUDGETS)]
        lines += [heading(2, title), "", *markdown_table(header, _overview(part, MARKDOWN)), *note_lines(_notes(part))]
        lines += [heading(3, f"Numbers of {title}"), "", *markdown_table(_header(part), _details(part)), ""]
    return "\n".join(lines)


def _header(part: pd.DataFrame) -> list[str]:
    """The columns of the numbers, with what the value and the lead are."""
    names = {"Value": f"{part.metric.iloc[0]} [95 %]", "Lead": f"Lead, {part.lead_is.iloc[0]} [95 %]"}
    return [names.get(name, name) for name in HEADER]


def latex(table: pd.DataFrame) -> str:
    """Return a booktabs table for each data set and criterion."""
    lines = []
    for title, part in _parts(table):
        rows = [[cell if isinstance(cell, Markup) else tex(cell) for cell in row] for row in _overview(part, LATEX)]
        header = " & ".join(["Method", *(f"NFE {n}" for n in BUDGETS)]) + r" \\"
        lines.append(comment(title))
        lines += latex_table("l" * (1 + len(BUDGETS)), [header], rows, [tex(text) for text in _notes(part)])
    return "\n".join(lines)
