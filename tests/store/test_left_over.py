"""What another config left in a results folder is in none of this one's reports."""

import itertools
import shutil

import pytest
from sets import QUIET, config, make
from user_code import command

from fmbench.config import specs
from fmbench.config.config import Config
from fmbench.report.claims import read_sources, write_claims
from fmbench.report.page import page
from fmbench.report.render import render
from fmbench.report.table1 import write_table1
from fmbench.report.table2 import write_table2
from fmbench.report.table4 import write_table4
from fmbench.stages.gather import run as join
from fmbench.stages.mlflow_summary import artifacts
from fmbench.store.benchmark import stale_files
from fmbench.store.records import Row, write_rows
from fmbench.store.share import draws_files, members, unpack

TABLE4 = {"dequantisation.parquet", "table4.csv", "table4.md", "table4.tex"}


@pytest.fixture
def folders(tmp_path):
    """Results of points and images with their Table 4; and those of points alone, in a folder where that was before."""
    both = config()
    images = make(tmp_path / "images", both)
    write_table4(draws_files(images, both), specs.table4(both), images / "table4.csv", images / "dequantisation.parquet")
    (images / "table1.md").write_text("# Table 1\n")
    points = make(tmp_path / "points", config(datasets=["board"]))
    for name in (*TABLE4, "table1.md"):
        shutil.copyfile(images / name, points / name)
    return images, points


def test_table_4_of_another_config_is_left_out(folders, tmp_path):
    images, points = folders
    assert stale_files(images) == () and set(stale_files(points)) == TABLE4
    assert "dequantisation" in read_sources(images) and "dequantisation" not in read_sources(points)
    assert "Table 4" in page(images, None) and "Table 4" not in page(points, None)
    for listed in (members, lambda folder: {name.rpartition("/")[2] for name in artifacts(folder)}):
        assert set(listed(images)) & TABLE4 and not set(listed(points)) & TABLE4
    reasons = {item.file: item.reason for item in render(points, tmp_path / "out")}
    assert reasons["table4.csv"] == "dequantisation.parquet is missing"


def test_rows_of_other_settings_are_in_no_report_and_no_archive(tmp_path):
    """Settings change, and the main job alone runs anew: the records are new, and rows along training are of before."""
    before, wanted = config(), config(board__training={"iterations": 110})
    folder = make(tmp_path / "results", before)

    def join_along(by: Config) -> None:
        for model in itertools.product(by.datasets, (m.name for m in by.methods if m.name != "oracle_ot"), by.seeds):
            rows = [Row(*model, "learning_curve", "nfe", 40.0 + k, "evaluations", step=k) for k in (1, 2)]
            write_rows(folder / specs.model_folder("learning_curve", *model) / "rows.parquet", rows)
        join(specs.gather("learning_curve", by), folder, QUIET)
        write_claims(folder, folder / "claims.csv")
        write_table1(folder / "records.parquet", specs.table1(by), folder / "table1.csv")

    join_along(before)
    (folder / "figures").mkdir()
    for name in ("fig05.png", "fig07.png"):
        (folder / "figures" / name).write_bytes(b"png")
    assert stale_files(folder) == () and "learning_curve" in read_sources(folder)
    assert {"learning_curve.parquet", "claims.md", "table1.csv"} <= set(members(folder))
    new = make(tmp_path / "new", wanted)
    for name in ("records.parquet", "benchmark.json"):
        shutil.copyfile(new / name, folder / name)
    gone = {"learning_curve.parquet", "claims.csv", "claims.md", "claims.tex", "fig05.png", "fig10.svg"}
    assert gone <= set(stale_files(folder)) and not {"records.parquet", "fig07.png"} & set(stale_files(folder))
    assert "learning_curve" not in read_sources(folder) and not gone & set(members(folder))
    assert 'id="fig07"' in (text := page(folder, None)) and 'id="fig05"' not in text
    assert "claims is of another config; run snakemake" in text and "What Lipman et al. (2023) claim" not in text
    reasons = {item.file: item.reason for item in render(folder, tmp_path / "out", formats=["svg"])}
    assert (
        reasons["figures/fig05.svg"] == "learning_curve.parquet is of another config: run snakemake where the results were made"
    )
    said = command("export", "--results", folder, "--out", tmp_path / "all.zip", "--progress", "lines")
    assert said.code == 0 and "left out, because another config made them: learning_curve.parquet; run snakemake first" in said.err
    join_along(wanted)
    assert stale_files(folder) == () and "learning_curve" in read_sources(folder)


def test_the_tables_of_an_archive_are_those_of_its_rows(folders, tmp_path):
    images, _ = folders
    write_table2(images / "records.parquet", images / "table2.csv")
    fresh = (images / "table2.csv").read_bytes()
    for name in ("table2.csv", "table2.md"):
        (images / name).write_text("of before")
    (images / "mine.md").write_text("# Mine\n")
    assert command("export", "--results", images, "--out", tmp_path / "all.zip").code == 0
    unpack(tmp_path / "all.zip", tmp_path / "out")
    assert (tmp_path / "out" / "table2.csv").read_bytes() == fresh and (tmp_path / "out" / "mine.md").exists()
    assert "of before" not in (tmp_path / "out" / "table2.md").read_text()


def test_a_folder_that_says_nothing_of_itself_is_taken_as_it_is(folders):
    _, points = folders
    (points / "benchmark.json").unlink()
    assert stale_files(points) == () and "dequantisation" in read_sources(points)
    (points / "benchmark.json").write_text("{")
    assert stale_files(points) == () and "dequantisation" in read_sources(points)
