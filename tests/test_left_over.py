"""What another config left in a results folder is in none of this one's reports."""

import shutil

import pytest
from sets import config, make

from fmbench import specs
from fmbench.benchmark import left_over
from fmbench.report.claims import read_sources
from fmbench.report.page import page
from fmbench.report.render import render
from fmbench.report.table4 import write_table4
from fmbench.share import draws_files, members
from fmbench.stages.summary import artifacts

TABLE4 = {"draws.parquet", "table4.csv", "table4.md", "table4.tex"}


@pytest.fixture
def folders(tmp_path):
    """Results of points and images with their Table 4; and those of points alone, in a folder where that was before."""
    both = config()
    images = make(tmp_path / "images", both)
    write_table4(draws_files(images, both), specs.table4(both), images / "table4.csv", images / "draws.parquet")
    (images / "table1.md").write_text("# Table 1\n")
    points = make(tmp_path / "points", config(datasets=["board"]))
    for name in (*TABLE4, "table1.md"):
        shutil.copyfile(images / name, points / name)
    return images, points


def test_table_4_of_another_config_is_left_out(folders, tmp_path):
    images, points = folders
    assert left_over(images) == () and set(left_over(points)) == TABLE4
    assert "draws" in read_sources(images) and "draws" not in read_sources(points)
    assert "Table 4" in page(images, None) and "Table 4" not in page(points, None)
    for listed in (members, lambda folder: {name.rpartition("/")[2] for name in artifacts(folder)}):
        assert set(listed(images)) & TABLE4 and not set(listed(points)) & TABLE4
    reasons = {item.file: item.reason for item in render(points, tmp_path / "out")}
    assert reasons["table4.csv"] == "draws.parquet is missing"


def test_a_folder_that_says_nothing_of_itself_is_taken_as_it_is(folders):
    _, points = folders
    (points / "benchmark.json").unlink()
    assert left_over(points) == () and "draws" in read_sources(points)
    (points / "benchmark.json").write_text("{")
    assert left_over(points) == () and "draws" in read_sources(points)
