"""Stale files of a results folder, which another config made, are in no report and no archive of the present config."""

import itertools
import shutil

import pytest
from PIL import Image
from result_sets import QUIET, config, make_results
from user_code import command

from fmbench.config import specs
from fmbench.config.config import Config
from fmbench.errors import DataError
from fmbench.report.claims import read_sources, write_claims
from fmbench.report.page import page
from fmbench.report.render import made_tables, render
from fmbench.report.table1 import write_table1
from fmbench.report.table2 import write_table2
from fmbench.report.table4 import write_table4
from fmbench.stages.gather import run as gather
from fmbench.stages.mlflow_summary import artifacts
from fmbench.store.parquet import read_source_hash
from fmbench.store.records import Row, write_rows
from fmbench.store.result_set import members, table4_files
from fmbench.store.stale import STALE, stale_files
from fmbench.store.unpack import unpack

TABLE4 = {"dequantisation.parquet", "table4.csv", "table4.md", "table4.tex"}


@pytest.fixture
def folders(tmp_path):
    """Results of points and images with their Table 4; and results of points alone, with that Table 4 still in the folder."""
    both = config()
    images = make_results(tmp_path / "images", both)
    write_table4(table4_files(images, both), specs.table4(both), images / "table4.csv", images / "dequantisation.parquet")
    (images / "table1.md").write_text("# Table 1\n")
    points = make_results(tmp_path / "points", config(datasets=["board"]))
    for name in (*TABLE4, "table1.md"):
        shutil.copyfile(images / name, points / name)
    return images, points


def test_a_table_4_of_another_config_is_stale(folders, tmp_path):
    images, points = folders
    assert stale_files(images) == () and set(stale_files(points)) == TABLE4
    assert "dequantisation" in read_sources(images) and "dequantisation" not in read_sources(points)
    assert 'id="table4"' in page(images, made_tables(images), None)
    assert "table4" not in page(points, made_tables(points), None)  # a run on points has no such table
    for listed in (members, lambda folder: {name.rpartition("/")[2] for name in artifacts(folder)}):
        assert set(listed(images)) & TABLE4 and not set(listed(points)) & TABLE4
    reasons = {item.file: item.reason for item in render(points, tmp_path / "out")}
    assert "table4.csv" not in reasons


def test_rows_of_other_settings_are_in_no_report_and_no_archive(tmp_path):
    """Settings change and only the main job runs again: the records are new, and the learning curves are stale."""
    before, wanted = config(), config(board__training={"iterations": 110})
    folder = make_results(tmp_path / "results", before)

    def gather_learning_curves(by: Config) -> None:
        for model in itertools.product(by.datasets, (m.name for m in by.methods if m.name != "oracle_ot"), by.seeds):
            rows = [Row(*model, "learning_curve", "nfe", 40.0 + k, "evaluations", step=k) for k in (1, 2)]
            write_rows(folder / specs.model_folder("learning_curve", *model) / "rows.parquet", rows)
        gather(specs.gather("learning_curve", by), folder, QUIET)
        write_claims(folder, folder / "claims.csv")
        write_table1(folder / "records.parquet", specs.table1(by), folder / "table1.csv")

    gather_learning_curves(before)
    (folder / "figures").mkdir()
    for name in ("fig05.png", "fig07.png"):
        Image.new("RGB", (20, 20), "navy").save(folder / "figures" / name)
    assert stale_files(folder) == () and "learning_curve" in read_sources(folder)
    assert {"learning_curve.parquet", "claims.md", "table1.csv"} <= set(members(folder))
    new = make_results(tmp_path / "new", wanted)
    for name in ("records.parquet", "benchmark.json"):
        shutil.copyfile(new / name, folder / name)
    gone = {"learning_curve.parquet", "claims.csv", "claims.md", "claims.tex", "fig05.png", "fig10.svg"}
    assert gone <= set(stale_files(folder)) and not {"records.parquet", "fig07.png"} & set(stale_files(folder))
    assert "learning_curve" not in read_sources(folder) and not gone & set(members(folder))
    assert 'id="fig07"' in (text := page(folder, made_tables(folder), None)) and 'id="fig05"' not in text
    # The page tests the claims again, on the rows that are not stale.
    assert "These results have no learning_curve.parquet" in text and f"claims is {STALE}" not in text
    reasons = {item.file: item.reason for item in render(folder, tmp_path / "out", formats=["svg"])}
    assert reasons["figures/fig05.svg"] == (
        "learning_curve.parquet is stale: another config made it; run snakemake where the results were made"
    )
    said = command("export", "--results", folder, "--out", tmp_path / "all.zip", "--progress", "lines")
    assert said.code == 0
    assert "left out, because another config made them: learning_curve.parquet; run snakemake first" in said.err
    gather_learning_curves(wanted)
    assert stale_files(folder) == () and "learning_curve" in read_sources(folder)


def test_export_makes_the_tables_from_the_rows_it_packs(folders, tmp_path):
    images, _ = folders
    write_table2(images / "records.parquet", images / "table2.csv")
    fresh = (images / "table2.csv").read_bytes()
    for name in ("table2.csv", "table2.md"):
        (images / name).write_text("a stale table")
    (images / "mine.md").write_text("# Mine\n")
    assert command("export", "--results", images, "--out", tmp_path / "all.zip").code == 0
    unpack(tmp_path / "all.zip", tmp_path / "out")
    assert (tmp_path / "out" / "table2.csv").read_bytes() == fresh and (tmp_path / "out" / "mine.md").exists()
    assert "a stale table" not in (tmp_path / "out" / "table2.md").read_text()


def test_a_folder_without_a_description_has_no_stale_files_and_a_damaged_one_is_refused(folders):
    _, points = folders
    (points / "benchmark.json").unlink()
    assert stale_files(points) == () and "dequantisation" in read_sources(points)
    (points / "benchmark.json").write_text("{")
    for read in (stale_files, read_sources):
        with pytest.raises(DataError, match=r"benchmark\.json cannot be used: it has no checksum"):
            read(points)


def test_a_damaged_file_is_not_taken_for_a_stale_one(folders):
    images, _ = folders
    path = images / "dequantisation.parquet"
    content = path.read_bytes()
    for place in (content.index(b"fmbench.source_hash"), content.rindex(read_source_hash(path).encode())):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert path.name not in stale_files(images)
        with pytest.raises(DataError, match=rf"{path.name} cannot be used: its content does not match its checksum"):
            read_sources(images)
