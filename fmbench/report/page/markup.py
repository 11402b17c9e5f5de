"""Markdown as HTML: without links, pictures and HTML of a stranger, with long parts folded and rows that can be filtered."""

import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import NamedTuple

from markdown_it import MarkdownIt

FOLDED = 3
"""Sections with headings of this level and deeper are folded."""


class Section(NamedTuple):
    """A heading of Markdown with the text up to the next heading; level 0 and no title for the text before the first."""

    level: int
    title: str
    body: str


def sections(markdown: str) -> list[Section]:
    """Return the sections of Markdown that fmbench wrote, in order. No text of a stranger begins a line with ``#``."""
    first, *rest = re.split(r"^(#+) (.*)\n?", markdown, flags=re.MULTILINE)
    found = [Section(0, "", first)] if first.strip() else []
    return found + [Section(len(rest[i]), rest[i + 1], rest[i + 2]) for i in range(0, len(rest), 3)]


def to_html(markdown: str, shift: int = 0) -> str:
    """Return Markdown with tables as HTML. HTML, links and pictures in it become text; headings move down by ``shift`` levels."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.disable(["link", "image", "autolink", "html_inline", "html_block", "reference"])
    tokens = parser.parse(markdown)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1:]) + shift)}"
    return scrolling(str(parser.renderer.render(tokens, parser.options, {})))


def scrolling(html: str) -> str:
    """Return HTML whose tables are in boxes that scroll, also by keyboard, where a table is wider than the window."""
    html = html.replace("<table>", '<div class="scroll" tabindex="0"><table>')
    return html.replace("</table>", "</table></div>")


def folded(title: str, html: str, name: str = "") -> str:
    """Return a part that a click opens. ``title`` and ``html`` are HTML."""
    anchor = f' id="{escape(name)}"' if name else ""
    return f"<details{anchor}>\n<summary>{title}</summary>\n{html}</details>\n"


def in_sections(markdown: str, datasets: Iterable[str] = ()) -> str:
    """Return Markdown as HTML, one heading level down, with notes and sections from level :data:`FOLDED` on folded.

    Args:
        datasets: the section of a data set, by its heading, gets the attribute ``data-dataset``.
    """
    known, html, open_dataset = set(datasets), "", False
    for level, title, body in sections(markdown):
        heading, text = to_html(title)[3:-5], _with_notes_folded(body)  # without <p> and </p>
        if level >= FOLDED:
            html += folded(heading, text)
            continue
        if level and open_dataset:
            html, open_dataset = html + "</div>\n", False
        if title in known:
            html, open_dataset = html + f'<div data-dataset="{escape(title)}">\n', True
        html += (f"<h{level + 1}>{heading}</h{level + 1}>\n" if level else "") + text
    return html + ("</div>\n" if open_dataset else "")


def _with_notes_folded(body: str) -> str:
    """The body of a section, with the bullets below its table folded."""
    before, *rest = re.split(r"((?:^\* .*\n?)+)", body, maxsplit=1, flags=re.MULTILINE)
    if not rest:
        return to_html(before)
    bullets, after = rest
    count = len(bullets.splitlines())
    return to_html(before) + folded(f"{count} note{'s' if count > 1 else ''}", to_html(bullets)) + to_html(after)


def table(header: Iterable[str], rows: Iterable[tuple[Mapping[str, str], Iterable[str]]]) -> str:
    """Return a table as HTML from cells that are HTML.

    Args:
        rows: attributes of each row, such as ``data-method``, and its cells.
    """
    lines = ["<table>", "<thead>", "<tr>" + "".join(f"<th>{name}</th>" for name in header) + "</tr>", "</thead>", "<tbody>"]
    for attributes, cells in rows:
        names = "".join(f' {name}="{escape(value)}"' for name, value in attributes.items())
        lines.append(f"<tr{names}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return scrolling("\n".join([*lines, "</tbody>", "</table>"]) + "\n")
