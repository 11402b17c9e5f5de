"""The layout shared by all tables: tidy CSV, Markdown and LaTeX (booktabs), with the paper's numbers beside ours."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import pandas as pd

from fmbench.store.files import write_text

NONE = "-"
"""Printed where a number is missing."""


def paper(table: str) -> pd.DataFrame:
    """Return the numbers printed in the paper's ``table`` (``table1`` to ``table4``)."""
    text = resources.files("fmbench.report").joinpath("paper", f"{table}.csv").read_text(encoding="utf-8")
    return pd.read_csv(io.StringIO(text))


@dataclass(frozen=True)
class Style:
    """A markup language: what encloses bold text, and its plus-minus sign."""

    bold: tuple[str, str]
    plus_minus: str


MARKDOWN = Style(("**", "**"), "±")
LATEX = Style((r"\textbf{", "}"), r"$\pm$")


def spread(mean: float | None, std: float | None, digits: int, style: Style = MARKDOWN, best: bool = False) -> str:
    """Return ``mean ± std`` with ``digits`` decimals, in bold where ``best``; without a std, the mean alone."""
    if mean is None or pd.isna(mean):
        return NONE
    text = f"{mean:.{digits}f}" + ("" if std is None or pd.isna(std) else f" {style.plus_minus} {std:.{digits}f}")
    return f"{style.bold[0]}{text}{style.bold[1]}" if best else text


def beside(ours: str, printed: float | None, digits: int | None = None, measure: str = "") -> str:
    """Return our number, followed by the paper's in brackets if the paper has one.

    Args:
        digits: decimals of the paper's number; None for as many as it needs.
        measure: the name of the paper's measure, if ours is a different one.
    """
    if printed is None or pd.isna(printed):
        return ours
    number = f"{printed:g}" if digits is None else f"{printed:.{digits}f}"
    return f"{ours} ({measure} {number})" if measure else f"{ours} ({number})"


def to_csv(table: pd.DataFrame) -> str:
    """Return CSV with six significant digits: equal numbers give equal bytes."""
    return table.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def _cell(text: str) -> str:
    """The text on one line, with its pipes escaped."""
    return " ".join(text.replace("|", r"\|").split())


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = ["| " + " | ".join(map(_cell, header)) + " |", "|" + "---|" * len(header)]
    return lines + ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]


def notes(texts: Iterable[str]) -> list[str]:
    """Return the lines of a bullet list below a table, one bullet per text."""
    return ["", *(f"* {' '.join(text.split())}" for text in texts), ""]


_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "±": r"$\pm$",
        "≤": r"$\le$",
        "≥": r"$\ge$",
        "_": r"\_",
        "%": r"\%",
        "&": r"\&",
        "#": r"\#",
        "$": r"\$",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"$<$",
        ">": r"$>$",
        "\n": " ",
    }
)


def tex(text: str) -> str:
    """Return the text with the characters that LaTeX reserves escaped."""
    return text.translate(_ESCAPES)


def latex_table(
    columns: str, header: Sequence[str], rows: Iterable[Sequence[str] | None], footnotes: Iterable[str] = ()
) -> list[str]:
    """Return the lines of a booktabs table, with the footnotes as small paragraphs below it.

    Args:
        columns: the column specification, such as ``lrr``.
        header: the LaTeX lines between the top and the middle rule.
        rows: LaTeX cells; None stands for a rule.
        footnotes: LaTeX texts.
    """
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *header, r"\midrule"]
    lines += [r"\midrule" if row is None else " & ".join(row) + r" \\" for row in rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    return [*lines, *(rf"\par{{\footnotesize {text}\par}}" for text in footnotes), ""]


def write_all(out: Path, table: pd.DataFrame, markdown: str, latex: str) -> None:
    """Write a table as CSV to ``out``, and beside it ``.md`` and ``.tex``; the CSV last, because other jobs wait for it."""
    write_text(out.with_suffix(".md"), markdown)
    write_text(out.with_suffix(".tex"), latex)
    write_text(out, to_csv(table))
