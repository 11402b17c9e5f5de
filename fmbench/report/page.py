"""One HTML page with the content of a results folder: the claims and Table 1 first, then every other table and figure.

The page holds its pictures, has no script and fetches nothing, so it can be mailed and opened offline. Results may come from a
stranger, so three things keep it so: the tables are made anew from the rows, whose texts become text (:mod:`.layout`); the
parser of Markdown knows neither links nor pictures nor HTML; and the page's own policy forbids the browser to load anything.

The claims and Table 1 are also written as a fragment, which Snakemake's report shows on its first page.
"""

import base64
import io
import warnings
from collections.abc import Mapping
from html import escape
from pathlib import Path

from markdown_it import MarkdownIt
from PIL import Image

from fmbench.config.names import FIGURES
from fmbench.errors import DataError, printable
from fmbench.report.render import Made, made_tables
from fmbench.store.files import write_text
from fmbench.store.stale import stale_files

LEAD = ("claims", "table1")
OTHERS = ("table2", "table3", "table4")
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""What the browser may load for the page: the pictures and the style that are in it, and nothing from elsewhere."""
END_OF_PNG = b"\0\0\0\0IEND\xaeB`\x82"
PICTURE = 32 << 20
"""The largest picture in bytes. The largest of the default run has 0.8 MB."""
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
INTRODUCTION = (
    "<p>Flow matching and diffusion with the same network, budget and seeds, beside the numbers of Lipman et al. 2023, "
    "<em>Flow Matching for Generative Modeling</em>. fmbench made every table from the parquet files of one results folder when "
    "it wrote this page. The figures are the pictures that lie in the folder.</p>\n"
)
NO_FIGURES = (
    '<p class="note">These results have no figures. <code>fmbench render</code> draws them from the parquet files, '
    "for an archive too.</p>\n"
)
FRAGMENT_STYLE = (
    # Snakemake's report centres its first page, so that a page taller than the window would begin above it.
    "<style>.h-screen.items-center { align-items: flex-start } .prose.max-w-lg { max-width: 56rem }</style>\n"
)


def to_html(markdown: str, shift: int = 0) -> str:
    """Return Markdown with tables as HTML. HTML, links and pictures in it become text; headings move down by ``shift`` levels."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.disable(["link", "image", "autolink", "html_inline", "html_block", "reference"])
    tokens = parser.parse(markdown)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1:]) + shift)}"
    return str(parser.renderer.render(tokens, parser.options, {}))


def _section(name: str, body: str) -> str:
    return f'<section id="{escape(name)}">\n{body}</section>\n'


def title(figure: str) -> str:
    """Return the heading of a figure: "Fig. 4, few step" for ``fig04_few_step``, "NFE distribution" for ``nfe_distribution``."""
    words = figure.split("_")
    if words[0].startswith("fig"):
        return ", ".join(filter(None, [f"Fig. {int(words[0][3:])}", " ".join(words[1:])]))
    first = words[0].upper() if words[0] == "nfe" else words[0].capitalize()
    return " ".join([first, *words[1:]])


def read_picture(path: Path) -> bytes:
    """Return the bytes of a PNG file, after a check that it is whole.

    Raises:
        DataError: it is not a PNG, a checksum in it does not match, or it is too large.
    """
    remedy = "run snakemake or `fmbench render`, which draw it again"
    if path.stat().st_size > PICTURE:
        raise DataError(f"{path} has more than {PICTURE >> 20} MiB; {remedy}")
    content = path.read_bytes()
    try:
        if not content.endswith(END_OF_PNG):
            raise ValueError("its end is missing")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            Image.open(io.BytesIO(content), formats=["PNG"]).verify()  # the checksum of every piece
            Image.open(io.BytesIO(content), formats=["PNG"]).load()  # the pixels, and that none is missing
    except Exception as error:  # Pillow raises SyntaxError, OSError, ValueError, struct.error and others for a damaged file
        raise DataError(f"{path} is not a whole PNG picture ({error}); {remedy}") from None
    return content


def _picture(path: Path, caption: str) -> str:
    data = base64.b64encode(read_picture(path)).decode()
    # The first sentence of the caption is the text for screen readers.
    said = " ".join(caption.split()).partition(". ")[0].replace("`", "").rstrip(".")
    image = f'<img alt="{escape(said or title(path.stem))}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}\n<figcaption>{to_html(caption)}</figcaption></figure>\n"


def _table(name: str, made: Made) -> str:
    """The section of a table, or a sentence that says why it cannot be made."""
    if made.reason:
        return _section(name, f'<p class="note">{name} cannot be made: {escape(printable(made.reason))}.</p>\n')
    return _section(name, to_html(made.files[f"{name}.md"].decode(), shift=1))


def lead(results: Path, tables: Mapping[str, Made]) -> str:
    """Return the claims and Table 1 as HTML, or a sentence in the place of one that cannot be made.

    Args:
        tables: :func:`fmbench.report.render.made_tables` of the folder.

    Raises:
        DataError: both cannot be made.
    """
    if all(tables[name].reason for name in LEAD):
        reasons = "; ".join(f"{name}: {tables[name].reason}" for name in LEAD)
        raise DataError(f"{results} has nothing to show ({reasons})")
    return "".join(_table(name, tables[name]) for name in LEAD)


def _figures(results: Path, stale: tuple[str, ...], captions: Path | None) -> str:
    """The sections of the figures that exist, in the order of :data:`fmbench.config.names.FIGURES`."""
    figures = ""
    for name in FIGURES:
        path = results / "figures" / f"{name}.png"
        if not path.is_file():
            path = results / f"{name}.png"  # a reference run keeps its figures beside the tables
        if path.is_file() and path.name not in stale:
            text = captions / f"{name}.rst" if captions is not None else None
            caption = text.read_text(encoding="utf-8") if text is not None and text.is_file() else ""
            figures += _section(name, f"<h3>{escape(title(name))}</h3>\n{_picture(path, caption)}")
    return figures or NO_FIGURES


def page(results: Path, tables: Mapping[str, Made], captions: Path | None) -> str:
    """Return the whole page."""
    head = lead(results, tables)
    others = "".join(_table(name, tables[name]) for name in OTHERS)
    links = [("claims", "Claims"), ("table1", "Table 1"), ("tables", "Other tables"), ("figures", "Figures")]
    nav = "".join(f'<a href="#{anchor}">{text}</a>' for anchor, text in links)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n<title>fmbench</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>fmbench</h1>\n{INTRODUCTION}"
        f'<nav>{nav}</nav>\n{head}<section id="tables">\n{others}</section>\n'
        f'<section id="figures">\n<h2>Figures</h2>\n{_figures(results, stale_files(results), captions)}</section>\n'
        "</body>\n</html>\n"
    )


def write_page(results: Path, out: Path, fragment: Path | None = None, captions: Path | None = None) -> None:
    """Write the page to ``out``, and the claims and Table 1 alone to ``fragment``.

    Args:
        captions: a folder with the caption of each figure, ``<figure>.rst`` of plain paragraphs.

    Raises:
        DataError: neither the claims nor Table 1 can be made, or a picture is damaged.
    """
    tables = made_tables(results, (*LEAD, *OTHERS))
    write_text(out, page(results, tables, captions))
    if fragment is not None:
        write_text(fragment, FRAGMENT_STYLE + lead(results, tables))
