"""The documentation site's own parts: links, gallery and library. `make docs` builds the site and checks every link."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools" / "website"))

pytest.importorskip("griffe", reason="the tools of the documentation site are not installed; `make docs` installs them")

from gallery import gallery, title  # noqa: E402
from library import ROOMS, library  # noqa: E402
from links import for_the_site, targets  # noqa: E402

REFERENCE = "results/reference/default"


@pytest.mark.parametrize(
    ("path", "text", "moved"),
    [
        ("README.md", "[m](docs/methods.md#sampling)", "[m](methods.md#sampling)"),
        ("README.md", f"![f]({REFERENCE}/fig07.png)", f"![f]({REFERENCE}/fig07.png)"),
        ("README.md", f"[r]({REFERENCE}/)", f"[r]({REFERENCE}/README.md)"),
        ("docs/methods.md", "[b](../benchmarks/README.md) [c](claims.md)", "[b](benchmarks/README.md) [c](claims.md)"),
        ("docs/methods.md", "[r](../README.md) [h](#sampling)", "[r](README.md) [h](#sampling)"),
        ("benchmarks/README.md", "[d](../docs/data.md)", "[d](../data.md)"),
        (
            "README.md",
            "[p](https://host.test/docs/a.md) [missing](docs/no.md)",
            "[p](https://host.test/docs/a.md) [missing](docs/no.md)",
        ),
        ("README.md", "```yaml\na[b](docs/data.md)\n```\n[d](docs/data.md)", "```yaml\na[b](docs/data.md)\n```\n[d](data.md)"),
    ],
)
def test_links_move_with_the_documents(path, text, moved):
    assert for_the_site(text, path) == moved


def test_the_targets_of_a_document_are_files_of_the_repository():
    text = "[a](claims.md#x) [b](../LICENSE) [c](https://host.test) [d](no.md) [e](../../outside)\n```sh\n[f](data.md)\n```\n"
    assert list(targets(text, "docs/methods.md")) == ["docs/claims.md", "LICENSE"]


def test_the_gallery_has_every_figure_of_the_reference_with_its_caption():
    text = gallery()
    figures = {path.stem for path in (ROOT / REFERENCE).glob("*.png")}
    assert len(figures) > 20
    for name in figures:
        (part,) = [part for part in text.split("\n### ") if part.startswith(f"{title(name)}\n")]
        caption = (ROOT / "workflow" / "report" / f"{name}.rst").read_text(encoding="utf-8").strip()
        assert (
            part.split("\n## ")[0]
            == f"{title(name)}\n\n[![{title(name)}]({name}.png)]({name}.svg)\n\n{caption.replace('``', '`')}\n"
        )


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("fig07", "Figure 7"),
        ("fig04_few_step", "Figure 4, few step"),
        ("table1", "Table 1"),
        ("nfe_distribution", "NFE distribution"),
    ],
)
def test_titles_of_figures_and_tables(name, shown):
    assert title(name) == shown


def test_the_library_has_a_page_for_each_module_and_every_function_there_says_what_it_does():
    pages, _ = library()
    modules = [path for room in ROOMS.values() for path in (ROOT / room).glob("*.py") if path.stem != "__init__"]
    assert len(modules) > 50
    for path in modules:
        name = path.relative_to(ROOT).with_suffix("")
        assert f"library/{name.relative_to('fmbench')}.md" in pages
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name} has no docstring, so the library leaves it out"
