"""Texts of rows are text in every format: Markdown, HTML, LaTeX, CSV, figures and the terminal."""

import re
import shutil
from random import Random
from xml.etree import ElementTree

import pandas as pd
import pytest
from latex_checks import balanced
from markdown_it import MarkdownIt
from result_sets import config, make_results
from user_code import command

from fmbench.report.figures import as_text
from fmbench.report.layout import LONGEST, Markup, block, comment, heading, markdown_table, notes, plain, tex, to_csv
from fmbench.report.page.markup import to_html
from fmbench.report.render import TABLES

pytestmark = pytest.mark.usefixtures("no_fsync")

HOSTILE = [
    "![x](https://example.org/x.png)",
    "[x](https://example.org)",
    "[x][y]",
    "[x]: https://example.org",
    "<https://example.org>",
    "<img src=//example.org/x.png>",
    "</td></table><script>alert(1)</script>",
    "&lt;script&gt; &#42; &copy;",
    "**bold** *slant* __bold__ _slant_ ~~gone~~",
    "`code` ``two`` `",
    "a | b \\| c \\\\| d",
    "ends with \\",
    "# heading",
    "1. list",
    "- list",
    "+ list",
    "> quotation",
    "=====",
    "$x^2$ $\\input{/etc/passwd}$",
    "two\nlines\r\nthree\u2028four",
    "\x1b]0;title\x07\x1b[31mred",
    "\\input{/etc/passwd}\n\\write18{id}",
    "%x\n\\input{y}",
    "=cmd|' /C calc'!A0",
    "\u202eright to left",
]
PARSERS = {"commonmark": MarkdownIt("commonmark").enable("table"), "gfm": MarkdownIt("gfm-like", {"linkify": False})}


def shown(html: str) -> str:
    """The text of HTML that has no element but the given paragraphs, cells and pieces of code."""
    html = re.sub(r"</?(p|td|th|tr|table|thead|tbody|ul|li|h1|h2|code)>\n?", "", html)
    assert not re.search(r"<[^>]*>", html), html
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        html = html.replace(entity, character)
    return html.strip()


def on_one_line(text: str) -> str:
    from fmbench.errors import printable

    return " ".join(printable(text).split())


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("text", HOSTILE)
def test_a_parser_of_markdown_shows_the_text_as_it_is(parser, text):
    """As a cell, as a bullet, as a paragraph and as a heading; code in single backticks stays code."""
    render, expected = PARSERS[parser].render, on_one_line(text).replace("`code`", "code")
    assert shown(render("\n".join(markdown_table(["a"], [[text]])))).removeprefix("a").strip() == expected
    assert shown(render("\n".join(notes([text])))) == expected
    assert shown(render(block(text))) == expected
    assert shown(render(heading(2, f"x {text}"))).rstrip("#").rstrip() == f"x {expected}".rstrip("#").rstrip()
    assert shown(to_html(block(text))) == expected


def test_random_texts_of_active_characters_stay_text():
    random, render = Random(0), PARSERS["gfm"].render
    for _ in range(800):
        text = "".join(random.choices('[]()!<>&;#*_~`|\\$" ab1.:/\n-+=', k=random.randrange(1, 24)))
        text = re.sub("`", "'", text) if text.count("`") > 1 else text  # a piece of code stays code
        expected = on_one_line(text)
        assert shown(render("\n".join(markdown_table(["a"], [[text]])))).removeprefix("a").strip() == expected, repr(text)
        assert shown(render("\n".join(notes([text])))) == expected, repr(text)


def test_what_fmbench_writes_keeps_its_form():
    """The texts of the default run need no escape; numbers in bold stay bold; code stays code."""
    for text in (
        "score_matching, dopri5_shared",
        "1.23 ± 0.05 (2.99)",
        "[0.1, 0.2] nats",
        "n → ∞",
        "p < 0.05",
        "`fmbench render`",
    ):
        assert plain(text) == text
    assert plain(Markup("**1.2**")) == "**1.2**" and plain("**1.2**") == r"\*\*1.2\*\*"
    assert len(plain("x" * 10**6)) < LONGEST + 10


@pytest.mark.parametrize("text", HOSTILE)
def test_latex_cannot_be_told_anything(text):
    """Every backslash is the escape of a reserved character; a comment ends with its line."""
    made = tex(text)
    for command_of in re.findall(r"\\([A-Za-z]+|.)", made):
        assert command_of in ("textbackslash", "textasciitilde", "textasciicircum", "pm", "le", "ge", *"_%&#${}"), made
    assert balanced(made) and "\n" not in made and "\r" not in made
    assert len(comment(text).splitlines()) == 1 and comment(text).startswith("% ")


def test_a_spreadsheet_sees_no_formula_and_a_terminal_no_escape():
    texts = ["=1+1", "@x", "+cmd|'/C calc'!A0", "-2+cmd", "\tx", "-", "-1.5", "plain", "\x1b[31mred", None]
    lines = to_csv(pd.DataFrame({"text": texts, "number": range(-5, 5)})).splitlines()[1:]
    cells = [line.rsplit(",", 1)[0] for line in lines]
    assert cells == ["'=1+1", "'@x", "'+cmd|'/C calc'!A0", "'-2+cmd", "'\tx", "-", "-1.5", "plain", "\\x1b[31mred", ""]
    assert lines[0].endswith(",-5")  # a number keeps its sign


def test_text_in_a_figure_is_no_formula():
    data = pd.DataFrame({"method": ["fm_ot", "$\\frac$", "a\x1b\nb", "x" * 500], "value": [1.0, 2, 3, 4]})
    made = as_text(data)
    assert list(made.method)[:3] == ["fm_ot", r"\$\frac\$", "a\\x1b b"] and len(made.method[3]) < 120
    assert as_text(data.iloc[:1]) is not None and list(as_text(data.iloc[:1]).method) == ["fm_ot"]


EVIL = "evil ![x](https://example.org/x.png) <img src=//example.org> $\\frac$ | \x1b[31m\n# x"


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    """Results whose units, reasons, features and references are hostile."""

    def change(row):
        if row.stage == "likelihood" and row.seed == 1:
            return {"status": "skipped", "value": None, "reason": EVIL}
        return {"unit": f"{row.unit} {EVIL}", "features": f"{row.features}{EVIL}" if row.features else "", "reference": EVIL}

    return make_results(tmp_path_factory.mktemp("evil") / "results", config(), change=change)


def test_every_command_shows_hostile_rows_as_text(evil, whole_run, tmp_path):
    for name in ("claims", "table1"):
        TABLES[name][1](evil, config(), tmp_path / "out" / f"{name}.csv")
    assert command("figure", "fig07", "--results", evil, "--out", tmp_path / "out" / "fig07.svg").code == 0
    assert command("page", "--results", evil, "--out", tmp_path / "page.html").code == 0
    said = command("compare", evil, whole_run)
    assert said.code == 0 and "example.org" in said.out and "\x1b" not in said.out
    csv = command("compare", evil, whole_run, "--csv")
    assert csv.code == 0 and "example.org" in csv.out and "\x1b" not in csv.out
    merged = command("merge", evil, whole_run, "--out", tmp_path / "merged")
    assert merged.code == 3 and "example.org" in merged.err and "\x1b" not in merged.err
    text = (tmp_path / "page.html").read_text()
    assert "example.org" in text  # as text
    assert not re.search(r"<img(?! alt)|<a (?!href=\"#)|<[^>]*example", text)
    for path in sorted((tmp_path / "out").rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        assert b"\x1b" not in content or path.suffix in (".parquet", ".png"), path
        if path.suffix == ".svg":
            ElementTree.parse(path)
        if path.suffix == ".md":
            assert "(https://example.org" not in path.read_text().replace(r"\(https", "")
        if path.suffix == ".tex":
            lines = [line for line in content.decode().splitlines() if not line.startswith("%")]
            assert balanced("\n".join(lines)) and r"\frac" not in "\n".join(lines)


def test_a_hostile_name_of_a_method_is_drawn(whole_run, tmp_path):
    """matplotlib takes text between two dollars for a formula, and would raise for one that it cannot parse."""
    from fmbench.store.parquet import write_table
    from fmbench.store.records import read_rows

    folder = tmp_path / "results"
    shutil.copytree(whole_run, folder)
    rows = read_rows([folder / "records.parquet"])
    names = [name.replace("fm_ot", "$\\frac$<x>&\x1b") for name in rows["method"].to_pylist()]
    import pyarrow as pa

    write_table(folder / "records.parquet", rows.set_column(rows.schema.get_field_index("method"), "method", pa.array(names)))
    for name in ("fig07", "work_precision"):
        said = command("figure", name, "--results", folder, "--out", tmp_path / f"{name}.svg", "--out", tmp_path / f"{name}.png")
        assert said.code == 0, said.err
        ElementTree.parse(tmp_path / f"{name}.svg")
