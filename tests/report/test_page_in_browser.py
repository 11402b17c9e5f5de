"""The page in a real browser: at two widths, without script, in print; what a click sorts, filters, opens and enlarges."""

import io
import itertools
import shutil

import pytest
from browser import opened
from PIL import Image

from fmbench.config.names import FIGURES
from fmbench.report.claims.scale import COLOURS
from fmbench.report.page import write_page
from fmbench.report.page.strips import CLASSES
from fmbench.report.reproduction import REFERENCE

pytestmark = pytest.mark.usefixtures("no_fsync")

CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const found = [];
  for (const part of document.querySelectorAll("details")) part.open = true;
  for (const element of document.body.querySelectorAll("*")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || ["SCRIPT", "STYLE", "title"].includes(element.tagName)) continue;
    let behind = element;
    while (behind && rgba(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
    const paper = behind ? rgba(getComputedStyle(behind).backgroundColor) : [255, 255, 255];
    const [one, other] = [light(rgba(getComputedStyle(element).color)), light(paper)].sort((a, b) => b - a);
    found.push([(one + 0.05) / (other + 0.05), element.tagName, element.textContent.slice(0, 40)]);
  }
  return found.sort((a, b) => a[0] - b[0]);
}"""
"""The contrast of every text with what is behind it (WCAG 2.1), lowest first."""


@pytest.fixture(scope="module")
def shown(whole_run, tmp_path_factory):
    """The page of a small run with two figures, one of them wider than a telephone."""
    folder = tmp_path_factory.mktemp("shown") / "results"
    shutil.copytree(whole_run, folder)
    (folder / "figures").mkdir()
    for name, width in (("fig07", 900), ("fig05", 30)):
        Image.new("RGB", (width, 20), "navy").save(folder / "figures" / f"{name}.png")
    write_page(folder, folder / "index.html")
    return folder / "index.html"


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The page of a run with the numbers of the reference, beside the reference, with all figures."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    shutil.copytree(REFERENCE, folder)
    write_page(folder, folder / "index.html")
    return folder / "index.html"


@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_of_the_reference_fits_the_window_and_an_email(reference, width):
    assert reference.stat().st_size < 15e6
    with opened(reference, width) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert (
            page.locator("figure:visible").count() == len(FIGURES) - 5
        )  # Fig. 14, 15, the grid and the frontier are of other runs
        assert "numbers agree with the reference" in page.locator(".reproduction").first.inner_text()
        bands, lines = (page.locator(f"#claim1 summary {name}").count() for name in (".reference", "svg.strip title"))
        assert bands == lines > 0 and page.locator("#claim8 .said small", has_text="reference: holds").is_visible()


@pytest.mark.parametrize(("width", "script"), itertools.product((400, 1280), (True, False)))
def test_nothing_is_wider_than_the_window_and_the_claims_come_first(shown, width, script):
    with opened(shown, width, script) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true })")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        names = ("#claims .tally", "#claim1", "#claim10", "#table1 h2", "#fig07", "#table3", "#fig05")
        tops = [page.locator(name).bounding_box()["y"] for name in names]
        assert tops == sorted(tops) and tops[0] < 400


def test_the_first_screen_has_the_verdicts_as_text_and_as_pictures(shown):
    with opened(shown) as page:
        assert "Of the paper's 11 claims" in page.locator(".tally").inner_text()
        strips = page.locator("#claim1 .strip")
        assert strips.count() == 2 and strips.first.bounding_box()["y"] < 800
        assert "lines of evidence" in strips.first.get_attribute("aria-label")
        for verdict, style in CLASSES.items():
            colour = page.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('--{style}')")
            assert colour.strip() == COLOURS[verdict]  # the figure of the claims has the same
        assert len(set(Image.open(io.BytesIO(page.screenshot())).convert("RGB").getdata())) > 10


def test_every_row_has_as_many_cells_as_the_header_of_its_table(shown):
    with opened(shown) as page:
        rows = page.evaluate("""[...document.querySelectorAll("table")].flatMap((table) =>
            [...table.tBodies[0].rows].map((row) => [table.tHead.rows[0].cells.length, row.cells.length]))""")
        assert len(rows) > 50 and all(header == cells for header, cells in rows)


def test_every_text_can_be_read_on_what_is_behind_it(shown):
    """Contrast AA: 4.5 to 1."""
    with opened(shown) as page:
        found = page.evaluate(CONTRASTS)
        assert len(found) > 100 and found[0][0] >= 4.5, found[:5]


def test_a_click_on_a_header_sorts_numbers_as_numbers(shown):
    with opened(shown) as page:
        table = page.locator("#table1 table").first
        column = table.locator("th").all_inner_texts().index("NFE")
        header = table.locator("th").nth(column)
        assert header.get_attribute("aria-sort") is None

        def values():
            cells = [row.locator("td").nth(column).inner_text() for row in table.locator("tbody tr").all()]
            return [float(cell.split(" ")[0]) for cell in cells]

        before = values()
        header.locator("button").click()
        assert values() == sorted(before) and header.get_attribute("aria-sort") == "ascending"
        header.locator("button").press("Enter")
        assert values() == sorted(before, reverse=True) and header.get_attribute("aria-sort") == "descending"
        table.locator("th button").first.click()
        names = table.locator("tbody tr td:first-child").all_inner_texts()
        assert names == sorted(names) and header.get_attribute("aria-sort") is None


def test_numbers_of_every_form_are_sorted_and_missing_ones_come_last(shown):
    with opened(shown) as page:
        page.evaluate("""() => {
            const body = document.querySelector("#table1 table").tBodies[0];
            const texts = ["10 ± 2", "-", "-0.5", "1e-3 [0, 1] nats", "", "9.5"];
            const rows = texts.map((text) => Object.assign(body.rows[0].cloneNode(true), { textContent: "" }));
            rows.forEach((row, i) => { row.insertCell().textContent = texts[i]; });
            body.replaceChildren(...rows);
        }""")
        table = page.locator("#table1 table").first
        table.locator("th button").first.click()
        assert table.locator("tbody td").all_inner_texts() == ["-0.5", "1e-3 [0, 1] nats", "9.5", "10 ± 2", "-", ""]
        table.locator("th button").first.click()
        assert table.locator("tbody td").all_inner_texts() == ["10 ± 2", "9.5", "1e-3 [0, 1] nats", "-0.5", "-", ""]


def test_filters_leave_one_data_set_and_one_method(shown):
    with opened(shown) as page:
        options = {name: page.locator(f"select[name={name}] option").all_inner_texts() for name in ("dataset", "method")}
        assert options["dataset"] == ["all", "board", "digits"] and {"DDPM", "FM (OT path)"} <= set(options["method"])
        page.locator("#claim1 summary").click()
        rows = page.locator("#claim1 tbody tr")
        all_rows = rows.count()
        page.locator("select[name=dataset]").select_option("board")
        assert page.locator('#table1 [data-dataset="board"]').is_visible()
        assert not page.locator('#table1 [data-dataset="digits"]').is_visible()
        left = [row.inner_text() for row in rows.all() if row.is_visible()]
        assert 0 < len(left) < all_rows and all("\tboard\t" in text for text in left)
        page.locator("select[name=method]").select_option("DDPM")
        methods = page.locator('#table1 [data-dataset="board"] table').first.locator("tbody tr td:first-child")
        assert [cell.inner_text() for cell in methods.all() if cell.is_visible()] == ["DDPM"]
        assert all("DDPM" in row.inner_text() for row in rows.all() if row.is_visible())
        for name in options:
            page.locator(f"select[name={name}]").select_option("")
        assert page.locator("[data-out]").count() == 0


@pytest.mark.parametrize("width", [400, 1280])
def test_a_figure_is_enlarged_and_closed(shown, width):
    with opened(shown, width) as page:
        button = page.locator("#fig07 button")
        assert button.bounding_box()["width"] <= width - 32
        button.click()
        large = page.locator("dialog img")
        assert large.bounding_box()["width"] >= 900 and large.get_attribute("alt") == "Fig. 7"
        page.keyboard.press("Escape")
        assert not large.is_visible()
        button.press("Enter")
        page.locator("dialog button").click()
        assert not large.is_visible()


def test_without_script_everything_is_there_and_folded_parts_open(shown):
    with opened(shown, script=False) as page:
        assert page.locator("select, button, dialog").count() == 0
        assert page.locator("#fig07 img").is_visible() and page.locator("#table1 td", has_text="DDPM").first.is_visible()
        evidence = page.locator("#claim1 .evidence td").first
        assert not evidence.is_visible()
        page.locator("#claim1 > summary").click()
        assert evidence.is_visible()


@pytest.mark.parametrize("script", [True, False])
def test_print_shows_folded_parts_and_no_controls(shown, script):
    with opened(shown, script=script) as page:
        page.emulate_media(media="print")
        assert page.locator("#claim1 .evidence td").first.is_visible() and page.locator("#table3 td").first.is_visible()
        assert not page.locator("nav").is_visible() and page.locator(".filters:visible").count() == 0
        assert page.pdf(format="A4").startswith(b"%PDF")
