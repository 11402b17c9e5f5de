"""How a table is laid out, the same for all: tidy CSV, Markdown, LaTeX (booktabs), the paper's numbers beside ours."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import pandas as pd

from fmbench.store.files import write_text

NONE = "-"
"""What stands where there is no number."""
SECOND_ORDER_UP_TO = 1.0
"""Variance of log p, in nats^2, from which on what noise is estimated to do to NLL over draws is a least value
(:func:`fmbench.flow.likelihood.probe_bias`)."""


def paper(table: str) -> pd.DataFrame:
    """The numbers printed in the paper's ``table`` (``table1`` .. ``table4``)."""
    text = resources.files("fmbench.report").joinpath("paper", f"{table}.csv").read_text(encoding="utf-8")
    return pd.read_csv(io.StringIO(text))


@dataclass(frozen=True)
class Style:
    """A language: what stands about bold text, and its plus-minus sign."""

    bold: tuple[str, str]
    plus_minus: str


MARKDOWN = Style(("**", "**"), "±")
LATEX = Style((r"\textbf{", "}"), r"$\pm$")


def spread(mean: float | None, std: float | None, digits: int, style: Style = MARKDOWN, best: bool = False) -> str:
    """``mean ± std`` with so many digits after the point, without the spread where there is none, in bold where best."""
    if mean is None or pd.isna(mean):
        return NONE
    text = f"{mean:.{digits}f}" + ("" if std is None or pd.isna(std) else f" {style.plus_minus} {std:.{digits}f}")
    return f"{style.bold[0]}{text}{style.bold[1]}" if best else text


def beside(ours: str, printed: float | None, digits: int | None = None, what: str = "") -> str:
    """Our number with the paper's in brackets, where it has one.

    Args:
        digits: decimals that are printed there; None for as many as the number needs.
        what: the paper's measure, where ours is another.
    """
    if printed is None or pd.isna(printed):
        return ours
    number = f"{printed:g}" if digits is None else f"{printed:.{digits}f}"
    return f"{ours} ({what} {number})" if what else f"{ours} ({number})"


def to_csv(table: pd.DataFrame) -> str:
    """CSV with six significant digits, the same bytes for the same numbers."""
    return table.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def _cell(text: str) -> str:
    """Text that cannot end a cell or a row of a Markdown table."""
    return " ".join(text.replace("|", r"\|").split())


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    lines = ["| " + " | ".join(map(_cell, header)) + " |", "|" + "---|" * len(header)]
    return lines + ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]


def notes(texts: Iterable[str]) -> list[str]:
    """The lines below a table, what it stands on."""
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
    """Text with LaTeX's own characters escaped, each once."""
    return text.translate(_ESCAPES)


def latex_table(
    columns: str, header: Sequence[str], rows: Iterable[Sequence[str] | None], footnotes: Iterable[str] = ()
) -> list[str]:
    """The lines of a booktabs table, footnotes as small paragraphs below. Cells and footnotes are LaTeX already.

    Args:
        columns: such as ``lrr``.
        header: the lines between the top and the middle rule, as written.
        rows: a row that is None is a rule.
    """
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *header, r"\midrule"]
    lines += [r"\midrule" if row is None else " & ".join(row) + r" \\" for row in rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    return [*lines, *(rf"\par{{\footnotesize {text}\par}}" for text in footnotes), ""]


def write_all(out: Path, csv: str, markdown: str, latex: str) -> None:
    """Write ``out`` (CSV) and beside it ``.md`` and ``.tex``; the CSV last, since it is what others wait for."""
    write_text(out.with_suffix(".md"), markdown)
    write_text(out.with_suffix(".tex"), latex)
    write_text(out, csv)
