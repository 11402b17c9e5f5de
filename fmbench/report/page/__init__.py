"""One HTML page with the content of a results folder: whether it reproduces the reference, then pictures before prose.

The page holds its pictures, its style and its script, and fetches nothing, so it can be mailed and opened offline. The script
sorts and filters tables and enlarges figures; without it everything is there. Results may come from a stranger, so four things
keep the page safe: the tables are made anew from the rows, whose texts become text (:mod:`fmbench.report.layout`); the parser of
Markdown knows neither links nor pictures nor HTML; the page's own policy forbids the browser to load anything; and it lets the
browser run one script and one style, which it names by their hashes.

The sentence on the reference, the claims and Table 1 are also written as a fragment, which Snakemake's report shows on its
first page.
"""

import base64
import hashlib
import io
from collections.abc import Mapping
from html import escape
from importlib import resources
from pathlib import Path

import pandas as pd

from fmbench.config.config import Config
from fmbench.config.names import FIGURES
from fmbench.errors import DataError, printable
from fmbench.report.page.claims import claims_section, read_lines
from fmbench.report.page.markup import folded, in_sections, sections, to_html
from fmbench.report.page.pictures import figures, pictures_in
from fmbench.report.render import Made, made_tables
from fmbench.report.reproduction import REFERENCE, Summary, summary
from fmbench.report.reproduction.html import sentence_html, with_verdicts
from fmbench.store.files import write_text

LEAD = ("claims", "table1")
OTHERS = ("pareto", "solvers", "grid3x3", "table2", "table3", "table4")
FIRST = ("fig07", "fig04", "fig11")
"""The figures that follow Table 1: error against NFE, and samples. The page draws the figure of the claims itself."""
NAV = {
    "claims": "Claims",
    "table1": "Table 1",
    "first": "Fig. 7 and samples",
    "tables": "Other tables",
    "figures": "Other figures",
}
TITLE = (
    "<h1>Flow matching against diffusion</h1>\n"
    "<p>The claims of Lipman et al. 2023, <em>Flow Matching for Generative Modeling</em>, tested with the same network, budget "
    "and seeds for every method.</p>\n"
)
FOOTER = "<footer>fmbench made every table from the parquet files of one results folder for this page. The figures {}.</footer>\n"
LYING, DRAWN = "are the pictures that lie in the folder", "are drawn from the same files"
NO_FIGURES = (
    '<p class="note">These results have no figures. <code>fmbench render</code> draws them from the parquet files, '
    "for an archive too.</p>\n"
)
FRAGMENT_STYLE = (
    # Snakemake's report centres its first page, so that a page taller than the window would begin above it.
    "<style>.h-screen.items-center { align-items: flex-start } .prose.max-w-lg { max-width: 56rem }</style>\n"
)


def _asset(name: str) -> str:
    return resources.files("fmbench.report.page").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """The source expression of a script or style in a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def policy(style: str, script: str) -> str:
    """Return what the browser may load and run: pictures in the page, this style, this script, and nothing from elsewhere."""
    allowed = f"img-src data:; style-src {_hash(style)}; script-src {_hash(script)}"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _section(name: str, body: str) -> str:
    return f'<section id="{escape(name)}">\n{body}</section>\n'


def _missing(name: str, made: Made) -> str:
    return f'<p class="note">{name} cannot be made: {escape(printable(made.reason))}.</p>\n'


def reproduction(results: Path) -> Summary:
    """Return the comparison with the reference; its sentence gives the reason if it cannot be made."""
    try:
        return summary(results)
    except DataError as error:
        return Summary(f"Not compared with the reference: {error}")


def fragment(tables: Mapping[str, Made], found: Summary) -> str:
    """Return the sentence on the reference, the claims and Table 1 as HTML for Snakemake's report."""
    html = FRAGMENT_STYLE + sentence_html(found)
    for name in LEAD:
        made = tables[name]
        text = "" if made.reason else made.files[f"{name}.md"].decode()
        shown = with_verdicts(text, found) if name == "claims" else text
        html += _section(name, _missing(name, made) if made.reason else to_html(shown, shift=1))
    return html


def _claims(results: Path, made: Made, found: Summary) -> str:
    """The section on the claims, with the reference's beside them, unless these results are the reference."""
    if made.reason:
        return _section("claims", _missing("claims", made))
    path = REFERENCE / "claims.csv"
    beside = bool(found.verdicts) and path.is_file() and results.resolve() != REFERENCE.resolve()
    reference = read_lines(path.read_bytes()) if beside else pd.DataFrame()
    return claims_section(made.files, reference, found.verdicts if beside else {})


def _table1(made: Made) -> str:
    """The section of Table 1, with a part for each data set."""
    if made.reason:
        return _section("table1", _missing("table1", made))
    datasets = pd.read_csv(io.BytesIO(made.files["table1.csv"]), dtype=str, keep_default_na=False).dataset.unique()
    return _section("table1", in_sections(made.files["table1.md"].decode(), datasets))


def _folded_table(name: str, made: Made) -> str:
    """A further table, folded, or a sentence that says why it cannot be made; nothing for a table without rows."""
    if made.reason:
        return _section(name, _missing(name, made))
    if made.files[f"{name}.csv"].count(b"\n") == 1:
        return ""
    title, *_ = (section.title for section in sections(made.files[f"{name}.md"].decode()) if section.level)
    return folded(to_html(title)[3:-5], in_sections(made.files[f"{name}.md"].decode()), name)


def page(
    results: Path,
    tables: Mapping[str, Made],
    captions: Path | None,
    found: Summary | None = None,
    drawn: Mapping[str, Path] | None = None,
) -> str:
    """Return the whole page.

    Args:
        tables: :func:`fmbench.report.render.made_tables` of the folder.
        found: :func:`reproduction` of the folder; made here if it is None.
        drawn: PNG pictures that have been drawn from these results just now, by figure; by default those that lie in the folder.

    Raises:
        DataError: neither the claims nor Table 1 can be made, or a picture is damaged.
    """
    if all(tables[name].reason for name in LEAD):
        reasons = "; ".join(f"{name}: {tables[name].reason}" for name in LEAD)
        raise DataError(f"{results} has nothing to show ({reasons})")
    found = reproduction(results) if found is None else found
    style, script = _asset("page.css"), _asset("page.js")
    pictures = pictures_in(results, FIGURES) if drawn is None else drawn
    first = figures(pictures, FIRST, captions)
    rest = figures(pictures, [name for name in FIGURES if name not in (*FIRST, "claims")], captions)
    others = "".join(_folded_table(name, tables[name]) for name in OTHERS if name in tables)
    parts = [
        _claims(results, tables["claims"], found),
        _table1(tables["table1"]),
        _section("first", first) if first else "",
        _section("tables", "<h2>Other tables</h2>\n" + others),
        _section("figures", "<h2>Other figures</h2>\n" + (rest or NO_FIGURES)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy(style, script)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<title>Flow matching against diffusion: fmbench</title>\n"
        f"<style>{style}</style>\n</head>\n<body>\n{sentence_html(found)}{_header()}<main>\n{''.join(parts)}</main>\n"
        f"{FOOTER.format(LYING if drawn is None else DRAWN)}"
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def _header() -> str:
    """The title of the page, what it is about, and links to its parts."""
    links = "".join(f'<a href="#{anchor}">{text}</a>' for anchor, text in NAV.items())
    return f'<header>\n{TITLE}<div class="bar"><nav>{links}</nav></div>\n</header>\n'


def write_page(
    results: Path,
    out: Path,
    head: Path | None = None,
    captions: Path | None = None,
    drawn: Mapping[str, Path] | None = None,
    config: Config | None = None,
) -> None:
    """Write the page to ``out``, and its beginning alone to ``head``.

    Args:
        captions: a folder with the caption of each figure, ``<figure>.rst`` of plain paragraphs.
        drawn: as for :func:`page`.
        config: the config of the tables; by default the one in the folder's ``benchmark.json``.

    Raises:
        DataError: neither the claims nor Table 1 can be made, or a picture is damaged.
    """
    tables = made_tables(results, (*LEAD, *OTHERS), config)
    found = reproduction(results)
    write_text(out, page(results, tables, captions, found, drawn))
    if head is not None:
        write_text(head, fragment(tables, found))
