"""The HTML page: what it begins with, what it says about missing parts, and that it needs no other file."""

import io

import pytest
from browser import opened
from PIL import Image
from user_code import command

from fmbench.errors import DataError
from fmbench.report.page import lead, page, title, to_html, write_page

CLAIMS = "# Claims\n\n| claim | verdict |\n|---|---|\n| 1 lowest NLL | holds |\n"
TABLE1 = "# Table 1\n\n## digits\n\n| Method | NFE |\n|---|---|\n| FM, OT path | **83.9 ± 2.3** |\n\n* a note\n"


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    (folder / "figures").mkdir(parents=True)
    (folder / "claims.md").write_text(CLAIMS)
    (folder / "table1.md").write_text(TABLE1)
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


def test_the_page_leads_with_the_claims_and_table_1(results):
    out, fragment = results / "index.html", results / "index.head.html"
    write_page(results, out, fragment, results.parent / "captions")
    whole = out.read_text()
    order = [
        whole.index(mark)
        for mark in ("<h2>Claims</h2>", "<h2>Table 1</h2>", "<h2>Figures</h2>", "<h3>Fig. 4</h3>", "<h3>Fig. 7</h3>")
    ]
    assert order == sorted(order)
    assert "from <code>records.parquet</code>" in whole and whole.count("<img ") == 2
    assert "<script" not in whole and "http" not in whole
    head = fragment.read_text()
    assert lead(results) in head and lead(results) in whole and "<img" not in head
    before = out.read_bytes()
    write_page(results, out, fragment, results.parent / "captions")
    assert out.read_bytes() == before


def test_a_missing_table_is_named(results):
    (results / "claims.md").unlink()
    assert "claims is not among these results" in lead(results)
    assert "<h2>Table 1</h2>" in lead(results)
    (results / "table1.md").unlink()
    with pytest.raises(DataError, match="nothing to show; run snakemake or `fmbench render` first"):
        lead(results)


def test_the_command_writes_the_page_or_names_what_is_missing(results, tmp_path):
    out = tmp_path / "page.html"
    assert command("page", "--results", str(results), "--out", str(out), "--progress", "none").code == 0
    assert "<h2>Claims</h2>" in out.read_text()
    said = command("page", "--results", str(tmp_path / "nowhere"), "--out", str(out))
    assert said.code == 3 and "there is no results folder or archive" in said.err
    (tmp_path / "empty").mkdir()
    said = command("page", "--results", str(tmp_path / "empty"), "--out", str(out))
    assert said.code == 3 and "nothing to show" in said.err


def test_pictures_have_a_text_for_screen_readers(results):
    text = page(results, results.parent / "captions")
    assert 'alt="Error against NFE, from records.parquet"' in text and 'alt="Fig. 4"' in text
    assert [title(name) for name in ("fig04_few_step", "nfe_distribution", "cost")] == [
        "Fig. 4, few step",
        "NFE distribution",
        "Cost",
    ]


def test_a_browser_shows_the_tables_and_the_pictures(results):
    out = results / "index.html"
    write_page(results, out)
    with opened(out) as page:
        assert page.locator("#table1 td").all_inner_texts() == ["FM, OT path", "83.9 ± 2.3"]
        assert page.locator("#claims td").all_inner_texts() == ["1 lowest NLL", "holds"]
        widths = page.evaluate("Object.fromEntries([...document.images].map(i => [i.alt, i.naturalWidth]))")
        assert widths == {"Fig. 4": 30, "Fig. 7": 40}
        shot = io.BytesIO(page.screenshot())
        assert len(set(Image.open(shot).convert("RGB").getdata())) > 10  # the screenshot is not blank
