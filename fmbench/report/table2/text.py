"""Table 2 as Markdown and LaTeX: a table for each super-resolution data set, with the paper's rows below ours."""

from collections.abc import Hashable
from typing import Any

import pandas as pd

from fmbench.report import layout
from fmbench.report.layout import LATEX, MARKDOWN, Style, comment, heading, latex_table, markdown_table, spread, tex
from fmbench.report.style import is_inception, label
from fmbench.report.table2.notes import missing, notes, statuses
from fmbench.report.table2.numbers import NUMBERS, PAPER, REFERENCE


def markdown(table: pd.DataFrame, records: pd.DataFrame) -> str:
    """Return a section for each data set of ours, or for the paper's rows alone. Notes on all of them come once, at the end."""
    lines = ["# Table 2: super-resolution", ""]
    parts = {dataset: _part(table, dataset) for dataset in _sections(table)}
    said = {dataset: notes(part, records[records.dataset == dataset]) for dataset, part in parts.items()}
    common = layout.common(list(said.values()))
    for dataset, part in parts.items():
        shown = _shown(part)
        rows = [row for group in _groups(part, shown, MARKDOWN) for row in group]
        lines += [heading(2, dataset), "", *markdown_table(["Model", *_header(part, shown)], rows)]
        lines += layout.notes(text for text in said[dataset] if text not in common)
    if common:
        lines += [heading(2, "On every data set"), *layout.notes(common)]
    if absent := missing(table):
        lines += [absent, ""]
    return "\n".join(lines)


def latex(table: pd.DataFrame) -> str:
    """Return a booktabs table for each data set of ours, or for the paper's rows alone; what is missing is in footnotes."""
    lines = []
    for dataset in _sections(table):
        part = _part(table, dataset)
        shown = _shown(part)
        header = " & ".join(["Model", *map(tex, _header(part, shown))]) + r" \\"
        ours, theirs = _groups(part, shown, LATEX)
        rows = [*ours, *([None] if ours and theirs else []), *theirs]
        body = [None if row is None else [tex(row[0]), *row[1:]] for row in rows]
        said = [*statuses(part), *([missing(table)] if missing(table) else [])]
        lines += [comment(dataset), *latex_table("l" + "r" * len(shown), [header], body, map(tex, said))]
    return "\n".join(lines)


def _sections(table: pd.DataFrame) -> list[str]:
    ours = list(table[table.source == "ours"].dataset.unique())
    return ours or [PAPER]


def _part(table: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """The rows of a data set, then the paper's."""
    return table[(table.dataset == dataset) | (table.source == "paper")].sort_values("source", kind="stable")


def _shown(part: pd.DataFrame) -> list[str]:
    """The columns in which some row has a number."""
    return [name for name in NUMBERS if part[f"{name}_mean"].notna().any()]


def _header(part: pd.DataFrame, shown: list[str]) -> list[str]:
    """The names of columns. A distance is called FID, and a score IS, only with Inception's features."""
    ours = part[part.source == "ours"]
    others = (
        {}
        if ours.features.map(is_inception).all()
        else {"fid": "Frechet", "fid_test": "Frechet, test", "inception_score": "Score"}
    )
    return [others.get(name, NUMBERS[name].name) for name in shown]


def _groups(part: pd.DataFrame, shown: list[str], style: Style) -> list[list[list[str]]]:
    """Our rows and the paper's rows, as text."""
    ours, theirs = part[part.source == "ours"], part[part.source == "paper"]
    prefix = "Paper: " if len(ours) else ""
    groups = ((ours, ""), (theirs, prefix))
    return [[_cells(row, group, shown, style, before) for row in group.to_dict("records")] for group, before in groups]


def _cells(row: dict[Hashable, Any], group: pd.DataFrame, shown: list[str], style: Style, prefix: str) -> list[str]:
    """A row as text. Bold is the best model of its group; the reference is real data and does not compete."""
    competing = group[group.model != REFERENCE]
    cells = [prefix + label(str(row["model"]))]
    for name in shown:
        column = NUMBERS[name]
        values = competing[f"{name}_mean"]
        best = {"lower": values.min(), "higher": values.max()}.get(column.better)
        mean = row[f"{name}_mean"]
        bold = row["model"] != REFERENCE and bool(best is not None and pd.notna(mean) and mean == best)
        mean, std, error = (_number(row[f"{name}_{what}"], column.scale) for what in ("mean", "std", "stderr"))
        digits = _decimals(mean) if row["source"] == "paper" else column.digits
        cells.append(spread(mean, std, digits, style, bold, error))
    return cells


def _number(value: Any, scale: float) -> float | None:
    return None if pd.isna(value) else float(value) * scale


def _decimals(value: float | None) -> int:
    """The decimals with which the paper prints a number."""
    return 0 if value is None else len(f"{value:.10g}".partition(".")[2])
