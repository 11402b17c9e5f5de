"""One page for a browser, from what is in a results folder: the claims and Table 1 first, then every other table and figure.

The page is whole in itself (pictures inside, no script, nothing fetched), so it can be mailed and opens offline. Its head, claims
and Table 1 alone, is written beside it as a fragment, which Snakemake's report shows on its first page.
"""

import base64
from html import escape
from pathlib import Path

from markdown_it import MarkdownIt

from fmbench.config.names import FIGURES
from fmbench.errors import DataError
from fmbench.store.benchmark import stale_files
from fmbench.store.files import write_text

LEAD = ("claims", "table1")
TABLES = ("table2", "table3", "table4")
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1b1b; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-size: 13px; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { padding: .25rem .6rem; text-align: left; border-bottom: 1px solid #ddd; vertical-align: top; }
th { border-bottom: 2px solid #555; }
tbody tr:hover { background: #f4f6f8; }
figure { margin: 2rem 0; }
figure img { max-width: 100%; height: auto; }
figcaption, .note { font-size: 13px; color: #444; }
nav a { margin-right: 1rem; }
"""
FRAGMENT_STYLE = (
    # Snakemake's report centres its first page, and what is taller than the window then begins above it.
    "<style>.h-screen.items-center { align-items: flex-start } .prose.max-w-lg { max-width: 56rem }</style>\n"
)


def to_html(markdown: str, shift: int = 0) -> str:
    """Markdown with tables as HTML; raw HTML in it is shown as text. Headings move down by ``shift`` levels."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(markdown)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1:]) + shift)}"
    return str(parser.renderer.render(tokens, parser.options, {}))


def _section(name: str, body: str) -> str:
    return f'<section id="{escape(name)}">\n{body}</section>\n'


def title(figure: str) -> str:
    """The heading of a figure: "Fig. 4, few step" for ``fig04_few_step``, "NFE distribution" for ``nfe_distribution``."""
    words = figure.split("_")
    if words[0].startswith("fig"):
        return ", ".join(filter(None, [f"Fig. {int(words[0][3:])}", " ".join(words[1:])]))
    first = words[0].upper() if words[0] == "nfe" else words[0].capitalize()
    return " ".join([first, *words[1:]])


def _picture(path: Path, caption: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    # For who cannot see it: what is drawn, as the caption begins.
    said = " ".join(caption.split()).partition(". ")[0].replace("`", "").rstrip(".")
    image = f'<img alt="{escape(said or title(path.stem))}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}\n<figcaption>{to_html(caption)}</figcaption></figure>\n"


def lead(results: Path) -> str:
    """Claims and Table 1 as HTML; one that is not there is said to be missing.

    Raises:
        DataError: neither is there.
    """
    others = stale_files(results)
    found = [name for name in LEAD if (results / f"{name}.md").is_file() and f"{name}.md" not in others]
    if not found:
        raise DataError(
            f"{results} has no table1.md and no claims.md, so there is nothing to show; run snakemake or `fmbench render` first"
        )
    parts = []
    for name in LEAD:
        if name in found:
            parts.append(_section(name, to_html((results / f"{name}.md").read_text(encoding="utf-8"), shift=1)))
        else:
            why = "of another config; run snakemake" if f"{name}.md" in others else "not among these results"
            parts.append(_section(name, f'<p class="note">{name} is {why}.</p>\n'))
    return "".join(parts)


def page(results: Path, captions: Path | None) -> str:
    """The whole page. Figures come in the order of :data:`fmbench.config.names.FIGURES`, those that are there."""
    head, others = lead(results), stale_files(results)
    tables = "".join(
        _section(name, to_html((results / f"{name}.md").read_text(encoding="utf-8"), shift=1))
        for name in TABLES
        if (results / f"{name}.md").is_file() and f"{name}.md" not in others
    )
    figures = ""
    for name in FIGURES:
        path = results / "figures" / f"{name}.png"
        if not path.is_file():
            path = results / f"{name}.png"  # where results are kept for reference, figures lie beside the tables
        if path.is_file() and path.name not in others:
            text = captions / f"{name}.rst" if captions is not None else None
            caption = text.read_text(encoding="utf-8") if text is not None and text.is_file() else ""
            figures += _section(name, f"<h3>{escape(title(name))}</h3>\n{_picture(path, caption)}")
    if not figures:
        figures = (
            '<p class="note">There are no figures among these results. An archive holds none: '
            "<code>fmbench render</code> makes them from its parquet files.</p>\n"
        )
    links = [("claims", "Claims"), ("table1", "Table 1"), ("tables", "Other tables"), ("figures", "Figures")]
    nav = "".join(f'<a href="#{anchor}">{text}</a>' for anchor, text in links)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>fmbench</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>fmbench</h1>\n"
        "<p>Flow matching and diffusion under one network, budget and seed list; beside the numbers of Lipman et al. 2023, "
        "<em>Flow Matching for Generative Modeling</em>. Every number here comes from the parquet files of one results "
        "folder.</p>\n"
        f'<nav>{nav}</nav>\n{head}<section id="tables">\n{tables}</section>\n'
        f'<section id="figures">\n<h2>Figures</h2>\n{figures}</section>\n</body>\n</html>\n'
    )


def write_page(results: Path, out: Path, fragment: Path | None = None, captions: Path | None = None) -> None:
    """Write the page to ``out`` and its head to ``fragment``.

    Args:
        captions: folder with a ``.rst`` of plain paragraphs for each figure.
    """
    write_text(out, page(results, captions))
    if fragment is not None:
        write_text(fragment, FRAGMENT_STYLE + lead(results))
