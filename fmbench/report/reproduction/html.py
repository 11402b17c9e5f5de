"""The comparison with the reference on the page: its sentence, and the reference's verdicts beside the run's own."""

import re
from html import escape

from fmbench.errors import printable
from fmbench.report.layout import plain
from fmbench.report.reproduction.summary import Summary

WHAT_IT_IS = "The reference is the run of the default config that fmbench ships."
LISTED = 50
"""How many numbers that are off the page lists; ``reproduction.csv`` has all."""
_FOUR_CELLS = re.compile(r"\|(?:[^|]*\|){4}")
"""Number, title, place and verdict of a claim, in the overview of ``claims.md``."""


def sentence_html(found: Summary) -> str:
    """Return the sentence as a paragraph, with what the reference is, and below it a list of the numbers that are off."""
    known = "" if found.table.empty else f" <small>{WHAT_IT_IS}</small>"
    text = f'<p class="reproduction">{_text(found.sentence)}.{known}</p>\n'
    if found.off:
        items = "".join(f"<li>{_text(line)}</li>\n" for line in found.off[:LISTED])
        more = f"<p>All {len(found.off)} are in <code>reproduction.csv</code>.</p>\n" if len(found.off) > LISTED else ""
        text += f'<details class="reproduction"><summary>Numbers that are off</summary>\n<ul>\n{items}</ul>\n{more}</details>\n'
    return text


def with_verdicts(claims: str, found: Summary) -> str:
    """Return ``claims.md`` with the reference's verdicts as a column beside the run's; unchanged if nothing was compared."""
    if not found.verdicts:
        return claims
    lines = claims.splitlines(keepends=True)
    start = next((i for i, line in enumerate(lines) if line.startswith("|")), len(lines))
    for i, line in enumerate(lines[start:], start):
        cells = _FOUR_CELLS.match(line)
        if cells is None:
            break
        number = cells.group().split("|")[1].strip()
        verdict = plain(found.verdicts.get(int(number), "")) if number.isdigit() else f"Reference ({found.seeds})"
        added = "---|" if i == start + 1 else f" {verdict} |"
        lines[i] = cells.group() + added + line[cells.end() :]
    return "".join(lines)


def _text(value: str) -> str:
    return escape(printable(value))
