"""The HTML page: what it begins with, what it says about missing parts, that it needs no other file, and whom it trusts."""

import base64
import hashlib
import io
import re
import shutil

import pandas as pd
import pytest
from PIL import Image
from result_sets import config
from user_code import command

from fmbench.config.names import FIGURES
from fmbench.errors import DataError
from fmbench.report.page import LEAD, OTHERS, page, write_page
from fmbench.report.page.claims import claims_section
from fmbench.report.page.markup import in_sections, sections, to_html
from fmbench.report.page.pictures import read_picture, title
from fmbench.report.render import TABLES, made_tables

pytestmark = pytest.mark.usefixtures("no_fsync")


@pytest.fixture(scope="module")
def tables(whole_run):
    return made_tables(whole_run, (*LEAD, *OTHERS))


@pytest.fixture
def results(whole_run, tmp_path):
    """The results of a small run, with two figures and a caption."""
    folder = tmp_path / "results"
    shutil.copytree(whole_run, folder)
    (folder / "figures").mkdir(parents=True)
    for name, width in (("fig07", 40), ("fig04", 30)):
        Image.new("RGB", (width, 20), "navy").save(folder / "figures" / f"{name}.png")
    captions = tmp_path / "captions"
    captions.mkdir()
    (captions / "fig07.rst").write_text("Error against NFE, from ``records.parquet``.\n")
    return folder


def test_tables_become_tables_and_headings_move_down():
    html = to_html("# One\n\n| a | b |\n|---|---|\n| **1** | <b>2</b> |\n", shift=1)
    assert "<h2>One</h2>" in html and "<h1>" not in html
    assert html.count("<td>") == 2 and "<strong>1</strong>" in html
    assert "&lt;b&gt;2&lt;/b&gt;" in html  # HTML in a table is text


@pytest.mark.parametrize(
    "text",
    [
        "![x](https://example.org/x.png)",
        "[x](https://example.org)",
        "<https://example.org>",
        "<img src=//example.org/x.png>",
        "![x]\n\n[x]: https://example.org/x.png",
        '<div style="background: url(//example.org/x.png)">\n\n</div>',
    ],
)
def test_the_parser_makes_no_link_no_picture_and_no_html(text):
    """Even where the text of a row came into Markdown as it is."""
    html = to_html(f"{text}\n")
    assert "src=" not in html.replace("src=//", "") and "href=" not in html and "<div" not in html and "<img" not in html


def test_pictures_come_before_prose(results):
    """In this order: the reference, the claims, Table 1, Fig. 7, samples, further tables and figures. Long parts are folded."""
    out = results / "index.html"
    write_page(results, out, None, results.parent / "captions")
    whole = out.read_text()
    assert re.search(r'<body>\n<p class="reproduction">Not compared with the reference: [^<]*</p>\n<header>', whole)
    marks = ('class="tally"', 'id="claim1"', "<h2>Table 1</h2>", "<h3>Fig. 7</h3>", "<h3>Fig. 4</h3>", "<h2>Other tables</h2>")
    order = [whole.index(mark) for mark in (*marks, '<details id="table3">', "<h2>Other figures</h2>")]
    assert order == sorted(order)
    assert "from <code>records.parquet</code>" in whole and whole.count("<img ") == 2
    assert whole.index("<summary>Further measures of board</summary>") < whole.index('<div data-dataset="digits">')
    before = out.read_bytes()
    write_page(results, out, None, results.parent / "captions")
    assert out.read_bytes() == before


def test_an_undecided_claim_says_at_how_many_seeds_it_would_be_decided_and_how(results):
    csv = pd.read_csv(
        io.BytesIO(made_tables(results, ["claims"])["claims"].files["claims.csv"]), dtype=str, keep_default_na=False
    )
    for number, decided_as in (("7", "fails"), ("4", "holds")):
        whole = (csv.claim == number) & (csv.about == "overall")
        csv.loc[whole, ["verdict", "seeds_to_decide", "decided_as"]] = ["inconclusive", number, decided_as]
    files = {"claims.csv": csv.to_csv(index=False).encode(), "claims.md": b"# Claims\n"}
    html = claims_section(files, pd.DataFrame(), {})
    assert "<small>fails at about 7 seeds</small>" in html and "<small>holds at about 4 seeds</small>" in html


def test_the_browser_may_run_one_script_and_one_style_named_by_their_hashes(results):
    write_page(results, results / "index.html")
    text = (results / "index.html").read_text()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    found = []
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        found.append(f"{tag}-src 'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'")
        assert text.count(f"<{tag}") == 1
    base = "base-uri 'none'; form-action 'none'"
    assert policy == f"default-src 'none'; img-src data:; {found[0]}; {found[1]}; {base}"
    assert 'href="http' not in text and 'src="http' not in text and " style=" not in text
    assert not re.search(r"<[^>]* on\w+=", text)


def test_the_fragment_of_snakemakes_report_has_the_claims_and_table_1(results, tables):
    fragment = results / "index.head.html"
    write_page(results, results / "index.html", fragment)
    head = fragment.read_text()
    assert head.startswith("<style>") and "<img" not in head and "<script" not in head
    for name in LEAD:
        assert f'<section id="{name}">\n{to_html(tables[name].files[f"{name}.md"].decode(), shift=1)}</section>' in head


def test_sections_and_notes_are_folded():
    markdown = "# T\n\nfirst\n\n## a\n\n| x |\n|---|\n| 1 |\n\n* one\n* two\n\nlast\n\n### deep <b>\n\nbody\n\n## b\n\n* only\n"
    assert [(s.level, s.title) for s in sections(markdown)] == [(1, "T"), (2, "a"), (3, "deep <b>"), (2, "b")]
    html = in_sections(markdown, ["a", "b"])
    order = ["<h2>T</h2>", '<div data-dataset="a">', "<h3>a</h3>", "<td>1</td>", "<summary>2 notes</summary>", "<p>last</p>"]
    order += ["<summary>deep &lt;b&gt;</summary>", "<p>body</p>", "</details>\n</div>", '<div data-dataset="b">', "1 note<"]
    places = [html.index(mark) for mark in order]
    assert places == sorted(places) and html.count("<div") == html.count("</div>") and html.count("<details>") == 3
    assert "data-dataset" not in in_sections(markdown)


def test_the_tables_come_from_the_rows_and_not_from_the_files_in_the_folder(results, tables):
    """A table in the folder may be older than the rows, damaged or forged."""
    for name in TABLES:
        (results / f"{name}.md").write_text(f"# Forged {name}\n\n![x](https://example.org/x.png)\n")
    write_page(results, results / "index.html")
    text = (results / "index.html").read_text()
    assert "Forged" not in text and "example.org" not in text
    assert in_sections(tables["table1"].files["table1.md"].decode(), ["board", "digits"]) in text


def test_a_table_that_cannot_be_made_is_named_with_the_reason(results):
    (results / "settings.parquet").unlink()
    write_page(results, results / "index.html")
    assert "table3 cannot be made: settings.parquet is missing." in (results / "index.html").read_text()
    (results / "records.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"has nothing to show \(claims: .*records.parquet.*; table1: .*records.parquet"):
        write_page(results, results / "other.html")
    assert not (results / "other.html").exists()


def test_the_command_writes_the_page_or_names_what_is_missing(results, tmp_path):
    out = tmp_path / "page.html"
    assert command("page", "--results", str(results), "--out", str(out), "--progress", "none").code == 0
    assert "<h2>Claims</h2>" in out.read_text()
    said = command("page", "--results", str(tmp_path / "nowhere"), "--out", str(out))
    assert said.code == 3 and "there is no results folder or archive" in said.err
    (tmp_path / "empty").mkdir()
    said = command("page", "--results", str(tmp_path / "empty"), "--out", str(out))
    assert said.code == 3 and "nothing to show" in said.err and "records.parquet is missing" in said.err


def test_pictures_have_a_text_for_screen_readers(results, tables):
    text = page(results, tables, results.parent / "captions")
    assert 'alt="Error against NFE, from records.parquet"' in text and 'alt="Fig. 4"' in text
    assert [title(name) for name in ("fig04_few_step", "nfe_distribution", "cost")] == [
        "Fig. 4, few step",
        "NFE distribution",
        "Cost",
    ]


def damages(content: bytes) -> list[bytes]:
    """A PNG cut short, with one bit flipped in every third byte, and a picture of another format."""
    found = [content[:20], content[:-20], content[:-4], b"", b"GIF89a" + content[6:]]
    for at in range(0, len(content), 3):
        flipped = bytearray(content)
        flipped[at] ^= 0x10
        found.append(bytes(flipped))
    jpeg = io.BytesIO()
    Image.new("RGB", (9, 9)).save(jpeg, "JPEG")
    return [*found, jpeg.getvalue()]


def test_a_damaged_picture_is_an_error_with_its_name_and_a_remedy(results, tables, tmp_path):
    path = tmp_path / "x.png"
    Image.effect_noise((12, 9), 50).save(path)
    content = path.read_bytes()
    assert read_picture(path) == content
    for damaged in damages(content):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"x\.png .*run snakemake or `fmbench render`"):
            read_picture(path)
    (results / "figures" / "fig07.png").write_bytes(content[:-9])
    said = command("page", "--results", results, "--out", tmp_path / "page.html")
    assert said.code == 3 and "fig07.png" in said.err and not (tmp_path / "page.html").exists()


def test_a_picture_that_would_fill_the_memory_is_refused(tmp_path):
    Image.new("1", (10_000, 10_000)).save(tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size < 1 << 20
    with pytest.raises(DataError, match="is not a whole PNG picture"):
        read_picture(tmp_path / "x.png")


def test_every_figure_of_a_run_has_a_place_on_the_page(results, tables):
    """The figure of the claims is drawn into the page itself."""
    for name in FIGURES.keys() - {"fig07"}:
        shutil.copyfile(results / "figures" / "fig07.png", results / "figures" / f"{name}.png")
    assert page(results, tables, None).count("<img ") == len(FIGURES) - 1 and config().datasets == ["board", "digits"]
