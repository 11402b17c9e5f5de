"""Packing result sets into archives, and making tables and figures from archives."""

import gzip
import io
import json
import shutil
import tarfile
import zipfile

import pytest
from result_sets import config, files_in
from user_code import command

from fmbench.config import specs
from fmbench.config.specs import model_folder
from fmbench.report.render import TABLES
from fmbench.store.archive import INDEX, export
from fmbench.store.benchmark import FILE, config_of, read_benchmark
from fmbench.store.files import sha256
from fmbench.store.parquet import write_table
from fmbench.store.records import read_rows
from fmbench.store.tables import THEORY
from fmbench.store.unpack import unpack

pytestmark = pytest.mark.usefixtures("no_fsync")


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz", "set.tgz"])
def test_an_unpacked_archive_has_the_same_files_and_gives_the_same_tables(whole_run, tmp_path, name):
    results = tmp_path / "results"
    shutil.copytree(whole_run, results)
    for table in ("table1", "table4"):
        TABLES[table][1](results, config(), results / f"{table}.csv")
    said = command("export", "--results", results, "--out", tmp_path / name)
    assert said.code == 0 and "files," in said.err
    assert command("unpack", tmp_path / name, "--out", tmp_path / "out").code == 0
    before, after = files_in(results), files_in(tmp_path / "out")
    assert set(after) - set(before) == {"dequantisation.parquet"}
    assert {k: v for k, v in after.items() if k in before} == {k: before[k] for k in after if k in before}
    assert {
        "records.parquet",
        "previews.parquet",
        "models.parquet",
        "loss_curves.parquet",
        "table1.csv",
        "table4.tex",
        FILE,
    } <= set(after)
    assert {f"data/{d}/manifest.json" for d in ("board", "digits")} <= set(after)
    assert not [n for n in after if n.endswith(".npy") or n.startswith(("models/", "draws/"))]
    for table in ("table1", "table4"):
        TABLES[table][1](tmp_path / "out", config_of(tmp_path / "out"), tmp_path / "again" / f"{table}.csv")
    again = files_in(tmp_path / "again")
    assert len(again) == 6 and again == {name: before[name] for name in again}


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_the_bytes_of_an_archive_do_not_depend_on_time_and_folder(whole_run, tmp_path, name):
    copy = tmp_path / "copy"
    shutil.copytree(whole_run, copy)  # other times, another folder
    (copy / "records.parquet").touch()
    export(whole_run, tmp_path / name)
    export(copy, tmp_path / f"other-{name}")
    assert (tmp_path / name).read_bytes() == (tmp_path / f"other-{name}").read_bytes()


def test_the_index_has_size_and_hash_of_every_member(whole_run, archive):
    with zipfile.ZipFile(archive) as bundle:
        index = json.loads(bundle.read(INDEX))
        assert bundle.namelist() == [INDEX, *sorted(index["members"])]
    assert index["hash"] == read_benchmark(whole_run)["hash"]
    entry = index["members"]["records.parquet"]
    path = whole_run / "records.parquet"
    assert entry == {"bytes": path.stat().st_size, "sha256": sha256(path)}


def test_tar_archives_contain_no_time_and_no_owner(whole_run, tmp_path):
    export(whole_run, tmp_path / "set.tar.gz")
    content = (tmp_path / "set.tar.gz").read_bytes()
    assert content[4:8] == b"\0\0\0\0"  # gzip's own time
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(content))) as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in tar} == {(0, 0, 0, "", 0o644)}


def test_the_rows_of_table_4_are_one_file_in_the_archive(whole_run, archive, tmp_path):
    unpack(archive, tmp_path / "out")
    rows = read_rows([tmp_path / "out" / "dequantisation.parquet"])
    models = [(m, s) for m in ("ddpm", "fm_ot") for s in (0, 1)]
    assert rows.equals(
        read_rows([whole_run / model_folder("dequantisation", "digits", m, s) / "rows.parquet" for m, s in models])
    )


def test_export_packs_only_what_unpack_accepts(whole_run, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(whole_run, results)
    (results / "theory").mkdir()
    write_table(results / "theory" / "fields.parquet", THEORY["fields"].empty_table())
    shutil.copy(whole_run / "loss_curves.parquet", results / "theory" / "loss_curves.parquet")
    for name in ("a table.csv", "notes.md", "t.tex", "x" * 251 + ".csv"):
        (results / name).write_text("mine")
    for name in ("two\nlines.csv", ".hidden.md", "theory/.x.parquet", "plan.json", "script.py"):
        (results / name).write_text("not packed")
    export(results, tmp_path / "set.zip")
    unpack(tmp_path / "set.zip", tmp_path / "out")
    added = set(files_in(tmp_path / "out")) - set(files_in(whole_run))
    assert added == {
        "a table.csv",
        "notes.md",
        "t.tex",
        "x" * 251 + ".csv",
        "theory/fields.parquet",
        "dequantisation.parquet",
    }


def test_a_figure_can_be_drawn_from_an_archive(whole_run, archive, tmp_path):
    assert command("figure", "fig07", "--results", archive, "--out", tmp_path / "a.svg").code == 0
    assert command("figure", "fig07", "--results", whole_run, "--out", tmp_path / "b.svg").code == 0
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_the_spec_of_a_table_comes_from_the_results(archive, whole_run):
    said = command("spec", "table1", "--results", archive)
    assert json.loads(said.out) == specs.table1(config()) and said.code == 0
    assert json.loads(command("spec", "benchmark", "--results", whole_run).out) == read_benchmark(whole_run)["config"]


def test_claims_and_page_can_be_made_from_an_archive(whole_run, archive, tmp_path):
    results = tmp_path / "results"
    unpack(archive, results)
    assert command("claims", "--results", results, "--out", results / "claims.csv").code == 0
    TABLES["table4"][1](results, config(), results / "table4.csv")
    export(results, tmp_path / "set.tgz")
    assert command("claims", "--results", tmp_path / "set.tgz", "--out", tmp_path / "again" / "claims.csv").code == 0
    for kind in ("csv", "md", "tex"):
        assert (tmp_path / "again" / f"claims.{kind}").read_bytes() == (results / f"claims.{kind}").read_bytes()
    for source, out in ((results, "a.html"), (tmp_path / "set.tgz", "b.html")):
        assert command("page", "--results", source, "--out", tmp_path / out).code == 0
    text = (tmp_path / "b.html").read_text()
    assert (tmp_path / "a.html").read_text() == text
    assert all(f'<section id="{name}">\n<h2>' in text for name in ("claims", "table1"))
    assert all(f'<details id="{name}">' in text for name in ("table2", "table3", "table4"))
    assert "<img" not in text and "These results have no figures. <code>fmbench render</code>" in text
    export(whole_run, tmp_path / "bare.zip")  # no table was made in this folder: the page makes them
    assert command("page", "--results", tmp_path / "bare.zip", "--out", tmp_path / "c.html").code == 0
    assert (tmp_path / "c.html").read_text() == text
