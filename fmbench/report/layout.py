"""The layout shared by all tables: tidy CSV, Markdown and LaTeX (booktabs), with the paper's numbers beside ours.

Texts of rows, such as the name of a method or the reason of a failure, may come from a stranger's file. They become text in every
format: :func:`plain` for Markdown, which the functions here call for all that they write, :func:`tex` and :func:`comment` for
LaTeX, :func:`to_csv` for spreadsheets.
"""

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import pandas as pd

from fmbench.errors import printable
from fmbench.store.files import write_text

NONE = "-"
"""Printed where a number is missing."""
LONGEST = 2000
"""The largest number of characters of a text in Markdown and LaTeX. A reason is a sentence or two."""


class Markup(str):
    """Markdown that fmbench wrote itself, such as a number in bold; :func:`plain` leaves it as it is."""


_CODE = re.compile(r"(?<!`)`[\w ./:=<>-]+`(?!`)")
"""A piece of code, such as a command in a reason; other backticks become text."""
_ACTIVE = re.compile(
    r"[\\*`~|$]"  # escapes, emphasis, code, deletions, cells, formulas
    r"|(?<![^\W_])_|_(?![^\W_])"  # emphasis; inside a word an underscore is none
    r"|<(?=[\w/!?])|&(?=#?\w+;)"  # HTML, links in angle brackets, entities
    r"|(?<=\])[(\[:]"  # what makes a link or a picture of brackets
)


def plain(text: str) -> str:
    """Return Markdown that shows ``text`` as it is, on one line; :class:`Markup` stays."""
    if isinstance(text, Markup):
        return text
    text = _one_line(text)
    pieces, at = [], 0
    for code in _CODE.finditer(text):
        pieces += [_ACTIVE.sub(r"\\\g<0>", text[at : code.start()]), code.group()]
        at = code.end()
    return "".join([*pieces, _ACTIVE.sub(r"\\\g<0>", text[at:])])


def _one_line(text: str) -> str:
    """The text on one line, without control characters, and cut if it is very long."""
    text = " ".join(printable(text).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} (cut)"


def heading(level: int, text: str) -> str:
    """Return a heading in Markdown."""
    return f"{'#' * level} {plain(text)}"


def block(text: str) -> str:
    """Return a paragraph, or the text of a bullet, in Markdown."""
    text = plain(text)
    start = re.match(r"\d{1,9}(?=[.)])|(?=[#>+=\[-])", text)
    return text if start is None or isinstance(text, Markup) else f"{start.group()}\\{text[start.end() :]}"


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


def spread(
    mean: float | None, std: float | None, digits: int, style: Style = MARKDOWN, best: bool = False, stderr: float | None = None
) -> str:
    """Return ``mean ± std [stderr]`` with ``digits`` decimals, in bold where ``best``; what is missing is left out."""
    if mean is None or pd.isna(mean):
        return NONE
    text = f"{mean:.{digits}f}" + ("" if std is None or pd.isna(std) else f" {style.plus_minus} {std:.{digits}f}")
    text += "" if stderr is None or pd.isna(stderr) else f" [{stderr:.{digits}f}]"
    return Markup(f"{style.bold[0]}{text}{style.bold[1]}") if best else text


def beside(ours: str, printed: float | None, digits: int | None = None, measure: str = "") -> str:
    """Return our number, followed by the paper's in brackets if the paper has one.

    Args:
        digits: decimals of the paper's number; None for as many as it needs.
        measure: the name of the paper's measure, if ours is a different one.
    """
    if printed is None or pd.isna(printed):
        return ours
    number = f"{printed:g}" if digits is None else f"{printed:.{digits}f}"
    text = f"{ours} ({measure} {number})" if measure else f"{ours} ({number})"
    return Markup(text) if isinstance(ours, Markup) else text


_FORMULA = re.compile(r"[=@\t\r]|[+-](?![\d.,e+-]*$)")
"""How a text begins that a spreadsheet takes for a formula."""


def to_csv(table: pd.DataFrame) -> str:
    """Return CSV with six significant digits: equal numbers give equal bytes.

    A text that a spreadsheet would take for a formula gets an apostrophe in front, and control characters become escapes.
    """

    def shown(value: object) -> object:
        if not isinstance(value, str):
            return value
        return ("'" if _FORMULA.match(value) else "") + printable(value)

    texts = {name: table[name].map(shown) for name in table.columns if not pd.api.types.is_numeric_dtype(table[name])}
    return table.assign(**texts).to_csv(index=False, float_format="%.6g", lineterminator="\n")


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = ["| " + " | ".join(map(plain, header)) + " |", "|" + "---|" * len(header)]
    return lines + ["| " + " | ".join(map(plain, row)) + " |" for row in rows]


def notes(texts: Iterable[str]) -> list[str]:
    """Return the lines of a bullet list below a table, one bullet per text."""
    return ["", *(f"* {block(text)}" for text in texts), ""]


def common(said: Sequence[Sequence[str]]) -> list[str]:
    """Return the notes that all of several tables have, to be said once; none for one table alone."""
    first, *others = said
    return [text for text in first if others and all(text in other for other in others)]


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
    }
)


def tex(text: str) -> str:
    """Return the text on one line, with the characters that LaTeX reserves escaped."""
    return _one_line(text).translate(_ESCAPES)


def comment(text: str) -> str:
    """Return a comment in LaTeX, which ends with its line."""
    return f"% {_one_line(text)}"


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
