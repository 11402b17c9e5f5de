"""Rendering: all tables and figures of a results folder."""

import shutil

import pytest
import yaml
from result_sets import config
from user_code import command

from fmbench.config import names, outputs
from fmbench.config.installation import REFERENCE
from fmbench.errors import DataError
from fmbench.report.render import TABLES, render
from fmbench.store.benchmark import FILE, config_of

pytestmark = pytest.mark.usefixtures("no_fsync")


def test_render_names_what_it_cannot_make_and_why(whole_run, tmp_path):
    said = command("render", "--results", whole_run, "--out", tmp_path / "out", "--format", "png", "--progress", "lines")
    assert said.code == 0
    absent = outputs.absent(config_of(whole_run))
    assert {"grid3x3", "pareto"} <= absent
    for name in absent:
        assert not list((tmp_path / "out").rglob(f"{name}.*")) and f"{name}." not in said.err
    for name in names.FIGURES.keys() - absent:
        files = names.FIGURES[name]
        there = all((whole_run / file).exists() for file in files)
        assert (tmp_path / "out" / "figures" / f"{name}.png").exists() == there
        if not there:
            assert f"not made: figures/{name}.png: " in said.err
    assert "not made: equivalence.csv: theory/equivalence.parquet is missing" in said.err
    assert "not made: figures/fig02.png: theory/fields.parquet is missing" in said.err
    made = len([p for p in (tmp_path / "out").rglob("*") if p.suffix in (".csv", ".png", ".gif", ".html")])
    wanted = len(TABLES.keys() - absent) + len(names.FIGURES.keys() - absent)
    assert f"{made} of {wanted + 2} tables, figures and pages -> " in said.err
    page = (tmp_path / "out" / "index.html").read_text()
    assert "are drawn from the same files" in page
    drawn = {path.stem for path in (tmp_path / "out" / "figures").glob("*.png")} - {"claims"}  # the page draws its own
    assert page.count("<figure>") == len(drawn) and page.count("<figcaption><p>") == len(drawn) > 3


def test_the_page_shows_no_picture_of_another_run(whole_run, tmp_path):
    """Not one that lay in the folder before, nor a figure in another format."""
    (tmp_path / "figures").mkdir()
    shutil.copy(REFERENCE / "fig02.png", tmp_path / "figures")
    said = command("render", "--results", whole_run, "--out", tmp_path, "--format", "png", "--progress", "lines")
    assert said.code == 0 and "not made: figures/fig02.png" in said.err
    page = (tmp_path / "index.html").read_text()
    assert '<section class="figure" id="fig07">' in page and 'id="fig02"' not in page
    said = command("render", "--results", whole_run, "--out", tmp_path / "svg", "--format", "svg", "--progress", "lines")
    assert (
        "not made: index.html: its figures are PNG; add --format png" in said.err and not (tmp_path / "svg/index.html").exists()
    )


def test_the_table_of_equivalences_is_made_again_from_its_rows(theory, tmp_path):
    """Not copied: a file in the folder may be older than the rows, or forged."""
    before = (theory / "equivalence.csv").read_bytes()
    shutil.copytree(theory / "theory", tmp_path / "results" / "theory")
    (tmp_path / "results" / "equivalence.csv").write_text("forged")
    done = {item.file: item.reason for item in render(tmp_path / "results", tmp_path / "out", config(), formats=["svg"])}
    assert done["equivalence.csv"] == "" and (tmp_path / "out" / "equivalence.csv").read_bytes() == before


def test_results_without_a_description_render_with_a_config(whole_run, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(whole_run, old)
    (old / FILE).unlink()
    done = {item.file: item.reason for item in render(old, tmp_path / "out", formats=["png"])}
    assert "is missing, so nothing says" in done["table1.csv"] and done["figures/fig07.png"] == ""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config().model_dump()))
    said = command(
        "render", "--results", old, "--out", tmp_path / "by config", "--configfile", tmp_path / "config.yaml", "--format", "png"
    )
    assert said.code == 0 and "index.html" not in said.err
    assert "<h2>Table 1</h2>" in (tmp_path / "by config" / "index.html").read_text()
    TABLES["table1"][1](whole_run, config(), tmp_path / "table1.csv")
    assert (tmp_path / "by config" / "table1.csv").read_bytes() == (tmp_path / "table1.csv").read_bytes()


def test_an_empty_folder_cannot_be_rendered(tmp_path):
    with pytest.raises(DataError, match=r"nothing can be rendered from .*records.parquet is missing"):
        render(tmp_path, tmp_path / "out")
    said = command("render", "--results", tmp_path, "--format", "gif")
    assert said.code == 2 and "must be png, svg or pdf, not 'gif'" in said.err
