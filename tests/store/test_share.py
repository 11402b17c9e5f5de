"""Archives, merging, rendering and comparing, on result sets with numbers made up (tests/sets.py)."""

import gzip
import hashlib
import io
import json
import math
import os
import re
import shutil
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from scipy import stats
from sets import config, make, number
from user_code import command

from fmbench.config import names, specs
from fmbench.config.hashing import settings_hash
from fmbench.config.reading import parse
from fmbench.config.specs import model_folder
from fmbench.config.training_settings import TrainingOverrides
from fmbench.errors import DataError
from fmbench.report.compare import COLUMNS, compare, compare_sets, welch
from fmbench.report.render import TABLES, render
from fmbench.store.benchmark import FILE, codes, config_of, read_benchmark, splits
from fmbench.store.files import read_json, sha256, write_json
from fmbench.store.records import Row, read_rows, read_table, write_rows, write_table
from fmbench.store.share import INDEX, ResultSet, export, in_order, merge, merge_tables, opened, read_set, unpack


@pytest.fixture(scope="module", autouse=True)
def no_waiting_for_the_disk():
    """Hundreds of small files are written here, and none has to survive a power cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("whole") / "results", config())


@pytest.fixture(scope="module")
def archive(whole, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("archive") / "set.zip"
    export(whole, out)
    return out


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def read(name: str, folder: Path) -> ResultSet:
    return read_set(name, folder)


def as_set(table: pa.Table) -> set[str]:
    return {json.dumps(row, sort_keys=True) for row in table.to_pylist()}


# The description


def test_the_description_has_the_config_with_its_defaults_and_where_the_rows_come_from(whole):
    found = read_benchmark(whole)
    assert config_of(whole).model_dump(exclude={"results_dir", "tracking"}) == config().model_dump(
        exclude={"results_dir", "tracking"}
    )
    assert "results_dir" not in found["config"] and "tracking" not in found["config"]
    assert found["config"]["settings"]["board"]["training"]["ema_decay"] == 0.999
    assert found["hash"] == settings_hash(found["config"])
    assert found["commits"] == ["c0ffee"] and found["versions"] == [{"torch": "2.14"}] and found["devices"] == ["cpu"]
    assert found["rows"] == read_table(whole / "records.parquet").num_rows == 2 + 2 * 3 * 2 * 10
    for dataset in ("board", "digits"):
        assert found["data"][dataset] == splits(read_json(whole / "data" / dataset / "manifest.json"))
        assert set(found["data"][dataset]) == {"test.sha256", "train.sha256"}
    assert found["code"] == {
        stage: [f"c0de-{'train' if stage == 'oracles' else stage}"]
        for stage in ("features", "likelihood", "oracles", "sample_quality", "sample", "sweep", "train")
    }


def test_the_description_is_the_same_bytes_wherever_the_results_and_mlflow_are(whole, tmp_path):
    elsewhere = config(results_dir="elsewhere", tracking={"enabled": False})
    assert (make(tmp_path / "results", elsewhere) / FILE).read_bytes() == (whole / FILE).read_bytes()


def test_a_method_of_ones_own_is_written_out_so_that_no_module_is_needed(monkeypatch):
    own = {"name": "mine", "use": "user_code:MY_METHOD", "training": {"iterations": 7}}
    with_module = config(methods=["ddpm", own])
    method = with_module.method("mine").resolve()
    values = json.loads(json.dumps(specs.describe(with_module)))
    monkeypatch.delitem(sys.modules, "user_code")
    monkeypatch.setattr(sys, "path", [])
    again = parse(values)
    assert again.method("mine").use is None
    assert again.method("mine").resolve() == method
    assert (method.path.name, method.prediction.name, method.weighting.name, method.t_min) == ("cosine_vp", "v", "velocity", 0.25)
    assert again.training("board", "mine").iterations == 7
    assert specs.describe(again) == values


def test_code_of_methods_of_ones_own_and_of_oracles_is_told_apart():
    mine = {"name": "mine", "path": "user_code:Slow", "prediction": "velocity"}
    rows = [
        {"stage": stage, "dataset": "board", "method": method, "code_hash": value}
        for stage, method, value in [
            ("train", "ddpm", "1"),
            ("train", "fm_ot", "1"),
            ("train", "oracle_ot", "2"),
            ("train", "mine", "3"),
            ("sweep", "ddpm", "4"),
            ("sweep", "oracle_ot", "4"),
            ("sweep", "mine", "5"),
            ("sweep", "mine", "6"),
            ("features", "", "7"),
        ]
    ]
    assert codes(config(methods=["ddpm", "fm_ot", "oracle_ot", mine]), rows) == {
        "features": ["7"],
        "oracles": ["2"],
        "sweep": ["4"],
        "sweep user_code:Slow": ["5", "6"],
        "train": ["1"],
        "train user_code:Slow": ["3"],
    }


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda v: v | {"format": 99}, "format 99, here 1"),
        (lambda v: v | {"config": v["config"] | {"device": "cuda"}}, "changed by hand"),
        (lambda v: {k: x for k, x in v.items() if k != "code"}, "not a description of this version"),
        (lambda v: [], "not a description of this version"),
    ],
)
def test_a_description_that_is_none_is_refused(whole, tmp_path, spoil, message):
    write_json(tmp_path / FILE, spoil(read_json(whole / FILE)))
    with pytest.raises(DataError, match=message):
        read_benchmark(tmp_path)


def test_results_without_a_description_say_how_to_get_one(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "old")
    (tmp_path / "old" / FILE).unlink()
    with pytest.raises(DataError, match=rf"{FILE} is missing.*run snakemake once more.*nothing is trained again"):
        export(tmp_path / "old", tmp_path / "set.zip")
    assert not (tmp_path / "set.zip").exists()


def test_a_setting_that_this_version_does_not_know_is_named(whole, tmp_path):
    values = read_json(whole / FILE)
    values["config"]["of_the_future"] = 3
    write_json(tmp_path / FILE, values | {"hash": settings_hash(values["config"])})
    with pytest.raises(DataError, match=r"this version of fmbench does not take.*\n.*of_the_future: unknown key"):
        config_of(tmp_path)


# Archives


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz", "set.tgz"])
def test_what_was_packed_comes_out_the_same_and_renders_the_same(whole, tmp_path, name):
    results = tmp_path / "results"
    shutil.copytree(whole, results)
    for table in ("table1", "table4"):
        TABLES[table][1](results, config(), results / f"{table}.csv")
    said = command("export", "--results", results, "--out", tmp_path / name)
    assert said.code == 0 and "files," in said.err
    assert command("unpack", tmp_path / name, "--out", tmp_path / "out").code == 0
    before, after = tree(results), tree(tmp_path / "out")
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
    again = tree(tmp_path / "again")
    assert len(again) == 6 and again == {name: before[name] for name in again}


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_an_archive_is_the_same_bytes_whenever_and_wherever_it_is_made(whole, tmp_path, name):
    copy = tmp_path / "copy"
    shutil.copytree(whole, copy)  # other times, another folder
    (copy / "records.parquet").touch()
    export(whole, tmp_path / name)
    export(copy, tmp_path / f"other-{name}")
    assert (tmp_path / name).read_bytes() == (tmp_path / f"other-{name}").read_bytes()


def test_the_index_has_size_and_hash_of_every_member(whole, archive):
    with zipfile.ZipFile(archive) as bundle:
        index = json.loads(bundle.read(INDEX))
        assert bundle.namelist() == [INDEX, *sorted(index["members"])]
    assert index["hash"] == read_benchmark(whole)["hash"]
    entry = index["members"]["records.parquet"]
    path = whole / "records.parquet"
    assert entry == {"bytes": path.stat().st_size, "sha256": sha256(path)}


def test_draws_of_every_model_are_one_file_in_the_archive(whole, archive, tmp_path):
    unpack(archive, tmp_path / "out")
    rows = read_rows([tmp_path / "out" / "dequantisation.parquet"])
    models = [(m, s) for m in ("ddpm", "fm_ot") for s in (0, 1)]
    assert rows.equals(read_rows([whole / model_folder("dequantisation", "digits", m, s) / "rows.parquet" for m, s in models]))


def test_a_figure_is_drawn_straight_from_an_archive(whole, archive, tmp_path):
    assert command("figure", "fig07", "--results", archive, "--out", tmp_path / "a.svg").code == 0
    assert command("figure", "fig07", "--results", whole, "--out", tmp_path / "b.svg").code == 0
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_the_spec_of_a_table_comes_from_the_results(archive, whole):
    said = command("spec", "table1", "--results", archive)
    assert json.loads(said.out) == specs.table1(config()) and said.code == 0
    assert json.loads(command("spec", "benchmark", "--results", whole).out) == read_benchmark(whole)["config"]


def repacked(archive: Path, out: Path, change: Any, kind: str = "zip") -> Path:
    """The archive with other members: ``change`` gets the list of (name, bytes, link) and gives another."""
    with zipfile.ZipFile(archive) as bundle:
        found = [(name, bundle.read(name), "") for name in bundle.namelist()]
    found = change(found)
    path = out / f"changed.{'zip' if kind == 'zip' else 'tar.gz'}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as bundle:
            for name, content, link in found:
                entry = zipfile.ZipInfo(name)
                entry.external_attr = (0o120777 if link else 0o100644) << 16
                bundle.writestr(entry, link.encode() if link else content)
    else:
        with tarfile.open(path, "w:gz") as tar:
            for name, content, link in found:
                member = tarfile.TarInfo(name)
                member.size = 0 if link else len(content)
                if link:
                    member.type, member.linkname = tarfile.SYMTYPE, link
                tar.addfile(member, io.BytesIO(content))
    return path


def renamed(old: str, new: str) -> Any:
    return lambda found: [(new if name == old else name, content, link) for name, content, link in found]


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed("records.parquet", "../records.parquet"), "'../records.parquet', which is not a plain file inside the folder"),
        (renamed("records.parquet", "/tmp/records.parquet"), "not a plain file inside"),
        (renamed("records.parquet", "a/../../b"), "not a plain file inside"),
        (renamed("records.parquet", "C:\\records.parquet"), "not a plain file inside"),
        (renamed("records.parquet", "./records.parquet"), "not a plain file inside"),
        (lambda found: [*found, ("link", b"", "/etc/passwd")], "'link', which is not a plain file"),
        (lambda found: [*found, found[-1]], "twice"),
        (lambda found: [*found, ("extra.csv", b"1", "")], "name different files: extra.csv"),
        (lambda found: [f for f in found if f[0] != "previews.parquet"], "name different files: previews.parquet"),
        (lambda found: found[1:], f"has no {INDEX}"),
        (lambda found: [(INDEX, b"[]", ""), *found[1:]], "that is none"),
        (lambda found: [(INDEX, b"\xff{", ""), *found[1:]], "that is none"),
        (lambda found: [(INDEX, found[0][1].replace(b'"format": 1', b'"format": 2'), ""), *found[1:]], "format 2; this version"),
        (
            lambda found: [(n, c[:-1] + b"x" if n == "records.parquet" else c, s) for n, c, s in found],
            "records.parquet in .* differs",
        ),
        (
            lambda found: [(n, c + b"x" if n == "loss_curves.parquet" else c, s) for n, c, s in found],
            "loss_curves.parquet in .* differs",
        ),
        (
            lambda found: [(n, c[:-9] if n == "loss_curves.parquet" else c, s) for n, c, s in found],
            "loss_curves.parquet in .* differs",
        ),
        (
            lambda found: [(INDEX, re.sub(rb'"hash": "\w+"', b'"hash": "0"', found[0][1]), ""), *found[1:]],
            "says it is of config 0",
        ),
    ],
)
def test_an_archive_that_is_not_as_it_was_packed_leaves_nothing(archive, tmp_path, kind, change, message):
    path = repacked(archive, tmp_path, change, kind)
    with pytest.raises(DataError, match=message):
        unpack(path, tmp_path / "inner" / "out")
    assert sorted(p.name for p in tmp_path.rglob("*")) == sorted(["inner", path.name])


def packed(changes: dict[str, bytes]) -> Any:
    """Other or further members, for which the index vouches."""

    def change(found: list[Any]) -> list[Any]:
        index = json.loads(found[0][1])
        for name, content in changes.items():
            index["members"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        if FILE in changes:
            index["hash"] = json.loads(changes[FILE])["hash"]
        kept = [f for f in found[1:] if f[0] not in changes]
        return [(INDEX, json.dumps(index).encode(), ""), *kept, *((n, c, "") for n, c in changes.items())]

    return change


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize(
    "names",
    [
        ["evil.py"],
        ["theory/evil.py"],
        ["evil/__init__.py"],
        ["sitecustomize.pth"],
        ["records.parquet.py"],
        ["a/b.parquet"],
        ["theory/a/b.parquet"],
        ["theory/table.csv"],
        ["models/board/ddpm/0/model.safetensors"],
        [".hidden.csv"],
        ["theory/.hidden.parquet"],
        ["plan.json"],
        ["data/manifest.json"],
        ["data/.board/manifest.json"],
        ["data/board/train.npy"],
        ["figures/fig07.png"],
        ["two\nlines.csv"],
        ["x" * 252 + ".csv"],
        [""],
        ["a", "a/b"],
        ["records.parquet/b.parquet"],
        ["theory"],
    ],
)
def test_a_member_that_export_does_not_pack_is_named_and_nothing_is_unpacked(archive, tmp_path, kind, names):
    path = repacked(archive, tmp_path, packed(dict.fromkeys(names, b"raise SystemExit")), kind)
    with pytest.raises(DataError, match=rf"holds {re.escape(repr(names[0]))}, which `fmbench export` does not pack"):
        unpack(path, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_what_export_packs_can_be_read_whatever_lies_in_the_folder(whole, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(whole, results)
    (results / "theory").mkdir()
    shutil.copy(whole / "loss_curves.parquet", results / "theory" / "loss_curves.parquet")
    for name in ("a table.csv", "notes.md", "t.tex", "x" * 251 + ".csv"):
        (results / name).write_text("mine")
    for name in ("two\nlines.csv", ".hidden.md", "theory/.x.parquet", "plan.json", "script.py"):
        (results / name).write_text("not packed")
    export(results, tmp_path / "set.zip")
    unpack(tmp_path / "set.zip", tmp_path / "out")
    added = set(tree(tmp_path / "out")) - set(tree(whole))
    assert added == {
        "a table.csv",
        "notes.md",
        "t.tex",
        "x" * 251 + ".csv",
        "theory/loss_curves.parquet",
        "dequantisation.parquet",
    }


class Watch:
    """The first of the importers: notes who asks for a module called evil, and lets nobody have it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] == "evil":
            self.asked.append(name)
            raise AssertionError(f"{name} was imported")


@pytest.fixture
def watch(monkeypatch) -> Watch:
    found = Watch()
    monkeypatch.setattr(sys, "meta_path", [found, *sys.meta_path])
    return found


READING = [
    ("compare", "{a}", "{b}"),
    ("merge", "{a}", "{b}", "--out", "{out}/merged"),
    ("render", "--results", "{a}", "--out", "{out}", "--format", "png"),
    ("spec", "table1", "--results", "{a}"),
    ("spec", "table4", "--results", "{a}"),
    ("claims", "--results", "{a}", "--out", "{out}/claims.csv"),
]


def test_what_a_description_names_is_compared_and_never_imported(tmp_path, watch):
    mine = {"name": "mine", "path": "evil.paths:P", "prediction": "evil:Q", "weighting": "evil:W", "time": "evil:T"}
    parts = {
        "digits__data": {"source": "evil:load", "parameters": {"reader": "evil:read"}},
        "digits__network": {"kind": "evil.nets:Net", "parameters": {}},
        "digits__evaluation": {"features": {"extractor": "evil:E", "more_extractors": ["evil:F"]}},
        "methods": [mine, "oracle_ot"],
    }
    for name, seed in (("a", 0), ("b", 1)):
        export(make(tmp_path / name, config(seeds=[seed], **parts)), tmp_path / f"{name}.zip")
    assert "evil.paths:P" in (tmp_path / "a" / FILE).read_text()
    where = {"a": tmp_path / "a.zip", "b": tmp_path / "b.zip", "out": tmp_path / "out"}
    for words in READING:
        said = command(*(word.format(**where) for word in words))
        assert said.code == 0, (words, said.err)
    assert read_table(tmp_path / "out" / "merged" / "records.parquet").num_rows > 0
    assert (tmp_path / "out" / "table1.csv").exists()
    assert not watch.asked
    with pytest.raises(AssertionError, match="evil was imported"):  # the watch does watch
        __import__("evil")


@pytest.mark.parametrize("words", [words for words in READING if words[0] != "claims"], ids=" ".join)
def test_a_description_whose_method_is_not_written_out_is_refused(whole, archive, tmp_path, watch, words):
    values = read_json(whole / FILE)
    values["config"]["methods"].append({"name": "mine", "use": "evil:M"})
    forged = json.dumps(values | {"hash": settings_hash(values["config"])}).encode()
    path = repacked(archive, tmp_path, packed({FILE: forged}))
    for a, b in ((path, whole), (whole, path)):
        said = command(*(word.format(a=a, b=b, out=tmp_path / "out") for word in words))
        if "{b}" not in words and a == whole:
            continue
        text = said.err + "".join(said.out.splitlines())
        assert "was not written by `fmbench collect`: the method mine is not written out but refers to 'evil:M'" in text
        assert said.code == (0 if words[0] == "render" else 3)  # tables that need no config are still made
    assert not watch.asked and not (tmp_path / "out" / "merged").exists()
    assert not (tmp_path / "out" / "table1.csv").exists() or a == whole


def test_results_described_with_every_override_are_read_as_they_were_meant(whole, tmp_path):
    """As older ones are: null for what a method did not override. They agree with what is written now."""
    shutil.copytree(whole, tmp_path / "older")
    values = read_json(whole / FILE)
    for method in values["config"]["methods"]:
        method["training"] = dict.fromkeys(TrainingOverrides.model_fields)
    write_json(tmp_path / "older" / FILE, values | {"hash": settings_hash(values["config"])})
    assert config_of(tmp_path / "older") == config_of(whole)
    merge([read("A", whole), read("B", tmp_path / "older")], tmp_path / "merged")


def test_a_description_without_a_config_is_refused(whole, tmp_path):
    write_json(tmp_path / FILE, read_json(whole / FILE) | {"config": ["x"], "hash": settings_hash(["x"])})
    with pytest.raises(DataError, match="has a config that is none"):
        config_of(tmp_path)


def test_claims_and_the_page_are_made_from_an_archive(whole, archive, tmp_path):
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
    assert '<section id="claims">' in text and '<section id="table4">' in text and "table1 is not among these results" in text
    assert "<img" not in text and "An archive holds none: <code>fmbench render</code>" in text
    export(whole, tmp_path / "bare.zip")
    said = command("page", "--results", tmp_path / "bare.zip", "--out", tmp_path / "c.html")
    assert said.code == 3 and "run snakemake or `fmbench render` first" in said.err and not (tmp_path / "c.html").exists()


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.97])
def test_a_truncated_archive_is_a_clear_error(whole, tmp_path, name, share):
    export(whole, tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(share * len(content))])
    said = command("unpack", tmp_path / name, "--out", tmp_path / "out")
    assert said.code == 3 and re.search(
        r"is truncated or damaged \(.*\); get it again|has no archive.json|name different", said.err
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz"])
def test_a_flipped_byte_is_found(whole, tmp_path, name):
    """Within a member's compressed bytes: the archive's own checksums or ours notice."""
    export(whole, tmp_path / name)
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 0x10
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"damaged|differs|not a plain file|name different"):
        unpack(tmp_path / name, tmp_path / "out")


def test_an_archive_that_would_fill_the_disk_is_refused(archive, tmp_path, monkeypatch):
    monkeypatch.setattr("fmbench.store.share.LARGEST", 1 << 10)
    with pytest.raises(DataError, match="would unpack to more than"):
        unpack(archive, tmp_path / "out")


def test_names_and_places_that_cannot_be(whole, archive, tmp_path):
    with pytest.raises(DataError, match=r"should end in .zip, .tar.gz or .tgz"):
        export(whole, tmp_path / "set.rar")
    with pytest.raises(DataError, match="there is no archive"):
        unpack(tmp_path / "none.zip", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("precious")
    with pytest.raises(DataError, match="is not an empty folder"):
        unpack(archive, tmp_path / "full")
    assert (tmp_path / "full" / "mine").read_text() == "precious"
    with pytest.raises(DataError, match="there is no results folder or archive"), opened(tmp_path / "nothing"):
        pass


@pytest.mark.parametrize("way", ["name", "link", "here"])
def test_an_empty_folder_is_filled_and_stays_the_folder_it_is(whole, archive, tmp_path, monkeypatch, way):
    """By its name, by a link to it, or as the working folder, which a shell is in."""
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    out = {"name": tmp_path / "empty", "link": tmp_path / "link", "here": Path()}[way]
    one = read("A", whole)
    for fill in (lambda: unpack(archive, out), lambda: merge([one, one], out)):
        shutil.rmtree(tmp_path / "empty", ignore_errors=True)
        (tmp_path / "empty").mkdir()
        monkeypatch.chdir(tmp_path / "empty")
        before = (tmp_path / "empty").stat().st_ino
        fill()
        assert (tmp_path / "empty").stat().st_ino == before and (tmp_path / "link").is_symlink()
        assert Path("records.parquet").exists() and Path("data").is_dir() and not list(Path().glob(".*"))


def test_a_folder_is_used_where_it_is_and_an_archive_goes_again(whole, archive):
    with opened(whole) as folder:
        assert folder == whole
    with opened(archive) as folder:
        assert tree(folder).keys() >= {"records.parquet", FILE}
    assert not folder.exists()


# Merging


def halves(tmp_path: Path, one: dict[str, Any], other: dict[str, Any], **what: Any) -> list[Path]:
    return [make(tmp_path / name, config(**changes), **what) for name, changes in (("a", one), ("b", other))]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"seeds": [0]}, {"seeds": [1]}),
        ({"seeds": [1]}, {"seeds": [0]}),
        ({"methods": ["ddpm"]}, {"methods": ["fm_ot", "oracle_ot"]}),
        ({"datasets": ["board"]}, {"datasets": ["digits"]}),
        ({"seeds": [0, 1], "methods": ["ddpm", "fm_ot"]}, {"seeds": [0, 1], "methods": ["fm_ot", "oracle_ot"]}),
    ],
)
def test_parts_of_a_run_merge_to_the_whole_run(whole, archive, tmp_path, one, other):
    a, b = halves(tmp_path, one, other)
    export(b, tmp_path / "b.tar.gz")
    said = command("merge", a, tmp_path / "b.tar.gz", "--out", tmp_path / "merged", "--progress", "lines")
    assert said.code == 0 and "missing" not in said.err and f"fmbench render --results {tmp_path / 'merged'}" in said.err
    merged = tmp_path / "merged"
    for name in ("records", "previews", "loss_curves", "models"):
        assert read_table(merged / f"{name}.parquet").equals(read_table(whole / f"{name}.parquet")), name
    found, wanted = read_benchmark(merged), read_benchmark(whole)
    assert found.pop("merged") == [read_benchmark(a)["hash"], read_benchmark(b)["hash"]]
    # What is joined here is of neither config alone, so that nothing in it is held to one.
    assert found == {k: v for k, v in wanted.items() if k not in ("merged", "gathered")} and "gathered" in wanted
    if one == {"seeds": [0]}:  # every figure, once
        with opened(archive) as folder:  # with its NLL over draws in one file, where the claims look for it
            render(folder, tmp_path / "from whole", formats=["svg"])
        render(merged, tmp_path / "from merged", formats=["svg"])
    else:
        for table in ("table1", "table4"):
            for name, folder in (("whole", whole), ("merged", merged)):
                TABLES[table][1](folder, config_of(folder), tmp_path / f"from {name}" / f"{table}.csv")
    ours, theirs = tree(tmp_path / "from merged"), tree(tmp_path / "from whole")
    assert ours == theirs and {"table1.csv", "table1.md", "table4.tex"} <= set(ours)
    assert ("figures/fig07.svg" in ours) == ("figures/fig04.svg" in ours) == (one == {"seeds": [0]})


def test_three_sets_and_merged_ones_merge(whole, tmp_path):
    parts = [make(tmp_path / m, config(methods=[m])) for m in ("ddpm", "fm_ot", "oracle_ot")]
    merge([read(p.name, p) for p in parts], tmp_path / "at once")
    merge([read(p.name, p) for p in parts[:2]], tmp_path / "two")
    merge([read(p.name, p) for p in (tmp_path / "two", parts[2])], tmp_path / "in turn")
    for folder in ("at once", "in turn"):
        assert read_table(tmp_path / folder / "records.parquet").equals(read_table(whole / "records.parquet"))
    export(tmp_path / "in turn", tmp_path / "again.zip")  # what was merged can be shared again


def test_what_no_set_has_is_said(tmp_path):
    a, b = halves(tmp_path, {"seeds": [0], "methods": ["ddpm"]}, {"seeds": [1], "methods": ["fm_ot"]})
    found = merge([read("a", a), read("b", b)], tmp_path / "out")
    gone = [f"missing: {d}/{m}/{s}" for d in ("board", "digits") for m, s in (("ddpm", 1), ("fm_ot", 0))]
    assert found["notes"] == gone == read_benchmark(tmp_path / "out")["notes"]


def refused(a: Path, b: Path, tmp_path: Path, *allow: str) -> str:
    with pytest.raises(DataError) as error:
        merge([read("A", a), read("B", b)], tmp_path / "out", allow)
    assert not (tmp_path / "out").exists()
    return str(error.value)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"board__training": {"iterations": 300}}, "settings.board.training.iterations: 100 in A, 300 in B"),
        ({"digits__network": {"kind": "unet", "channels": 16}}, "settings.digits.network.channels: 8 in A, 16 in B"),
        (
            {"digits__data": {"source": "digits", "parameters": {"test": 9}}},
            "settings.digits.data.parameters.test: (not set) in A, 9 in B",
        ),
        ({"board__evaluation": {"sample": {"rtol": 1e-3}}}, "settings.board.evaluation.sample.rtol: 1e-05 in A, 0.001 in B"),
        (
            {"methods": ["ddpm", {"name": "mine", "path": "vp", "prediction": "x"}]},
            'methods.mine.prediction.name: "v" in A, "x" in B',
        ),
        (
            {"methods": [{"name": "ddpm", "training": {"learning_rate": 0.5}}]},
            "methods.ddpm.training.learning_rate: (not set) in A, 0.5 in B",
        ),
        (
            {"methods": [{"name": "ddpm", "training": {"clip_norm": None}}]},
            "methods.ddpm.training.clip_norm: (not set) in A, null in B",
        ),
    ],
)
def test_settings_that_do_not_agree_are_refused_with_both_values(tmp_path, changes, line):
    mine = {"name": "mine", "path": "vp", "prediction": "v"}
    a = make(tmp_path / "a", config(seeds=[0], methods=["ddpm", mine]))
    b = make(tmp_path / "b", config(seeds=[1], **changes))
    said = refused(a, b, tmp_path, "code", "device", "extractor", "rows")  # nothing allows it
    assert said.splitlines() == ["these result sets do not belong together:", f"  {line}"]


def test_where_files_are_is_free_and_what_is_in_them_is_not(tmp_path):
    at = [{"source": "digits", "parameters": {"path": f"/data/{i}", "download": bool(i)}} for i in range(2)]
    a, b = (make(tmp_path / str(i), config(seeds=[i], digits__data=at[i])) for i in range(2))
    assert merge([read("A", a), read("B", b)], tmp_path / "merged")["config"]["seeds"] == [0, 1]
    c = make(tmp_path / "c", config(seeds=[2], digits__data=at[0]), data="other")
    said = refused(a, c, tmp_path, "code", "device", "extractor", "rows")
    hashes = [read_benchmark(s)["data"]["digits"]["train.sha256"] for s in (a, c)]
    assert f"  data of digits, train.sha256: {hashes[0]} in A, {hashes[1]} in B" in said.splitlines()
    assert "data of board" in said and said.count("\n") == 4


def test_other_code_is_refused_unless_allowed(tmp_path):
    a, b = make(tmp_path / "a", config(seeds=[0])), make(tmp_path / "b", config(seeds=[1]), code="f00d")
    lines = refused(a, b, tmp_path).splitlines()[1:]
    assert "  code of sweep: c0de-sweep in A, f00d-sweep in B [--allow code]" in lines and len(lines) == 8  # and draws, oracles
    said = command("merge", a, b, "--out", tmp_path / "out", "--allow", "code", "--progress", "lines")
    assert said.code == 0 and f"differs: code of sweep: c0de-sweep in {a}, f00d-sweep in {b}" in said.err
    assert read_benchmark(tmp_path / "out")["code"]["sweep"] == ["c0de-sweep", "f00d-sweep"]


def test_another_device_is_refused_unless_allowed(tmp_path):
    a, b = make(tmp_path / "a", config(seeds=[0])), make(tmp_path / "b", config(seeds=[1], device="cuda"))
    assert refused(a, b, tmp_path).splitlines()[1:] == ['  device: "cpu" in A, "cuda" in B [--allow device]']
    assert merge([read("A", a), read("B", b)], tmp_path / "out", ["device"])["notes"] == [
        'differs: device: "cpu" in A, "cuda" in B'
    ]


def test_another_judge_is_refused_unless_allowed(tmp_path):
    a, b = make(tmp_path / "a", config(seeds=[0])), make(tmp_path / "b", config(seeds=[1]), judge="bbbb")
    (line,) = refused(a, b, tmp_path).splitlines()[1:]
    assert line.endswith("features, aaaa) in A, classifier(digits, 64 features, bbbb) in B [--allow extractor]")
    merge([read("A", a), read("B", b)], tmp_path / "out", ["extractor"])


def off_by(delta: float) -> Any:
    """A set whose NLL of FM-OT on the board, seed 0, is another; and whose trainings took another time."""

    def change(row: Row) -> dict[str, Any]:
        if row.metric == "train_seconds":
            return {"value": 99.0, "device": "another", "threads": 7}
        mine = (row.dataset, row.method, row.seed, row.metric) == ("board", "fm_ot", 0, "nll")
        return {"value": row.value + delta} if mine and row.value is not None else {}

    return change


def test_numbers_that_both_have_are_there_once_and_must_be_the_same(whole, tmp_path):
    same = make(tmp_path / "same", config(), change=off_by(0.0))
    merge([read("A", whole), read("B", same)], tmp_path / "merged")
    assert read_table(tmp_path / "merged" / "records.parquet").equals(read_table(whole / "records.parquet"))

    other = make(tmp_path / "other", config(seeds=[0], methods=["fm_ot"]), change=off_by(0.5))
    mine = 2 * number("board", "fm_ot", 0)
    line = "records.parquet: dataset board, method fm_ot, seed 0, stage likelihood, metric nll, solver dopri5_shared, n 50: "
    line += f"value is {mine!r} in A, {mine + 0.5!r} in B"
    assert refused(whole, other, tmp_path).splitlines()[1:] == [f"  {line} [--allow rows]"]
    found = merge([read("A", whole), read("B", other)], tmp_path / "out", ["rows"])
    assert found["notes"] == [f"differs: {line}"]
    assert read_table(tmp_path / "out" / "records.parquet").equals(read_table(whole / "records.parquet"))


def test_a_number_that_one_set_lost_conflicts_with_one_that_has_it(tmp_path):
    def lost(row: Row) -> dict[str, Any]:
        return {"status": "diverged", "value": None, "reason": "nan"} if row.metric == "nll" else {}

    a = make(tmp_path / "a", config(datasets=["board"], methods=["ddpm"], seeds=[0]))
    b = make(tmp_path / "b", config(datasets=["board"], methods=["ddpm"], seeds=[0]), change=lost)
    (line,) = refused(a, b, tmp_path).splitlines()[1:]
    assert "metric nll" in line and "in A, None in B [--allow rows]" in line


def test_samples_that_differ_conflict(whole, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(whole, other)
    table = read_table(other / "previews.parquet")
    rows = table.to_pylist()
    rows[4]["values"] = [0.0, 0.5]
    write_table(other / "previews.parquet", pa.Table.from_pylist(rows, table.schema))
    (line,) = refused(whole, other, tmp_path).splitlines()[1:]
    assert re.search(
        r"previews.parquet: dataset board, method ddpm, seed 1, index 1: values is \[1\..*\] in A, \[0.0, 0.5\] in B", line
    )


def test_every_difference_is_listed_at_once_and_a_flood_is_cut(whole, tmp_path):
    shifted = make(tmp_path / "b", config(board__training={"iterations": 9}), code="f00d", change=lambda r: {"n": 7, "nfe": 5.0})
    lines = refused(whole, shifted, tmp_path, "rows").splitlines()
    assert any("iterations" in line for line in lines) and any("code of" in line for line in lines)
    every = make(tmp_path / "c", config(), change=lambda r: {"value": -1.0} if r.metric != "train_seconds" else {})
    lines = refused(whole, every, tmp_path).splitlines()
    assert len(lines) == 42 and re.fullmatch(r"  and \d+ more", lines[-1])


def test_an_nfe_that_was_asked_for_tells_rows_apart_and_one_that_was_found_does_not(tmp_path):
    def rows(path: Path, **found: float) -> pa.Table:
        write_rows(path, [Row("d", "m", 0, "s", "x", 1.0, "u", solver=s, nfe=n) for s, n in found.items()])
        return read_table(path)

    one, other = rows(tmp_path / "a", euler=4.0, dopri5=40.0), rows(tmp_path / "b", euler=8.0, dopri5=41.0)
    table, conflicts = merge_tables("records.parquet", [("A", one), ("B", other)])
    assert [(r["solver"], r["nfe"]) for r in table.to_pylist()] == [("euler", 4.0), ("dopri5", 40.0), ("euler", 8.0)]
    assert len(conflicts) == 1 and "solver dopri5: nfe is 40.0 in A, 41.0 in B" in conflicts[0]


def test_files_of_other_stages_are_joined_by_what_tells_their_rows_apart():
    """By columns that are no number of a measurement: whole blocks of what an owner has along a column of floats."""
    a = pa.table({"method": ["x", "x", "y"], "t": [0.0, 0.5, 0.0], "level": [1.0, 2.0, float("nan")]})
    b = pa.table({"method": ["y", "z"], "t": [0.0, 0.0], "level": [float("nan"), 4.0]})
    joined, conflicts = merge_tables("theory/noise_levels.parquet", [("A", a), ("B", b)])
    assert joined["method"].to_pylist() == ["x", "x", "y", "z"] and not conflicts
    changed = b.set_column(1, "t", pa.array([0.25, 0.0]))
    assert merge_tables("t", [("A", a), ("B", changed)])[1] == ["t: method y: t is 0.0 in A, 0.25 in B"]
    assert merge_tables("t", [("A", a), ("B", a.slice(0, 1))])[1] == ["t: method x: 2 rows in A, 1 in B"]
    with pytest.raises(DataError, match="t of B has other columns"):
        merge_tables("t", [("A", a), ("B", a.select(["method"]))])
    counts = pa.table({"dataset": ["d"], "method": ["x"], "seed": [0], "index": [0], "nfe": [40]})
    other = counts.set_column(4, "nfe", pa.array([46]))
    assert merge_tables("nfe.parquet", [("A", counts), ("B", other)])[1] == [
        "nfe.parquet: dataset d, method x, index 0: nfe is 40 in A, 46 in B".replace("x, index", "x, seed 0, index")
    ]


def test_a_setting_with_two_values_conflicts_unless_it_is_compared_elsewhere(whole, tmp_path):
    path = tmp_path / "other" / "settings.parquet"
    shutil.copytree(whole, tmp_path / "other")
    table = read_table(path)
    rows = table.to_pylist()

    def write(**values: str) -> None:
        mine = {"dataset": "board", "method": "ddpm", "seed": 1}
        changed = [r | {"value": values[r["key"]]} if mine.items() <= r.items() and r["key"] in values else r for r in rows]
        assert changed != rows
        write_table(path, pa.Table.from_pylist(changed, table.schema))

    write(code_hash='"f00d"', spec_hash='"f00d"', data='"f00d"', device='"cuda"')
    merge([read("A", whole), read("B", tmp_path / "other")], tmp_path / "merged")
    assert read_table(tmp_path / "merged" / "settings.parquet").equals(table)
    write(parameters="4321")
    (line,) = refused(whole, tmp_path / "other", tmp_path).splitlines()[1:]
    wanted = "settings.parquet: dataset board, method ddpm, seed 1, key parameters: value is '1234' in A, '4321' in B"
    assert line == f"  {wanted} [--allow rows]"


def test_a_measured_time_conflicts_with_none_but_a_training_that_diverged_does(tmp_path):
    def table(name: str, **columns: Any) -> pa.Table:
        write_rows(tmp_path / name, [Row(**({"status": "ok"} | columns), **OWNER)])
        return read_table(tmp_path / name)

    OWNER: dict[str, Any] = {"dataset": "d", "method": "m", "seed": 0, "stage": "train", "metric": "train_seconds", "unit": "s"}
    one, other = table("a", value=7.0), table("b", value=9.0)
    assert merge_tables("records.parquet", [("A", one), ("B", other)]) == (one, [])
    lost = table("c", value=None, status="diverged", reason="nan at 12")
    where = "records.parquet: dataset d, method m, seed 0, stage train, metric train_seconds"
    for (a, b), said in (((one, lost), "'ok' in A, 'diverged' in B"), ((lost, one), "'diverged' in A, 'ok' in B")):
        assert merge_tables("records.parquet", [("A", a), ("B", b)])[1] == [f"{where}: status is {said}"]
    write_rows(tmp_path / "e", [Row(**(OWNER | {"unit": "loss"}), value=7.0)])
    found = merge_tables("records.parquet", [("A", one), ("B", read_table(tmp_path / "e"))])[1]
    assert found == [f"{where}: unit is 's' in A, 'loss' in B"]


def test_what_follows_from_definitions_may_differ_by_rounding_and_by_no_more():
    def conflicts(a: pa.Table, b: pa.Table) -> list[str]:
        joined, found = merge_tables("theory/t.parquet", [("A", a), ("B", b)])
        assert joined.num_rows == a.num_rows and str(joined.to_pylist()) == str(a.to_pylist())  # nan is nan
        return found

    def table(x: list[float | None], panel: list[str] | None = None) -> pa.Table:
        return pa.table({"panel": panel or ["p", "p", "q"], "k": [1, 2, 3], "x": pa.array(x, pa.float64())})

    a = table([1e-16, 2.0, 1e3])
    assert not conflicts(a, table([-3e-16, 2.0 * (1 + 9e-7), 1e3]))
    assert not conflicts(table([math.nan, math.inf, None]), table([math.nan, math.inf, None]))
    assert conflicts(a, table([1e-16, 2.0 * (1 + 2e-6), 1e3])) == ["theory/t.parquet: x is 2.0 in A, 2.000004 in B"]
    assert conflicts(a, table([1e-8, 2.0, 1e3])) == ["theory/t.parquet: x is 1e-16 in A, 1e-08 in B"]
    for spoilt in (math.nan, math.inf, None):
        assert len(conflicts(a, table([1e-16, spoilt, 1e3]))) == 1
    assert conflicts(a, table([1e-16, 2.0, 1e3], ["p", "q", "q"])) == ["theory/t.parquet: panel is 'p' in A, 'q' in B"]
    assert conflicts(a, a.slice(0, 2)) == ["theory/t.parquet: 3 rows in A, 2 in B"]

    # A difference that should be none is held against what it is a difference of, not against others that are large.
    def checks(difference: float, found: str = "rounding") -> pa.Table:
        return pa.table(
            {"check": ["x", "y"], "max_difference": [difference, 1e8], "scale": [10.0, 1e8], "found": [found, "different"]}
        )

    assert not conflicts(checks(1e-15), checks(9e-9))
    assert conflicts(checks(1e-15), checks(2e-8)) == ["theory/t.parquet: max_difference is 1e-15 in A, 2e-08 in B"]
    assert conflicts(checks(1e-15), checks(1e-15, "different")) == [
        "theory/t.parquet: found is 'rounding' in A, 'different' in B"
    ]


def test_sets_whose_theory_was_rounded_otherwise_merge_and_the_firsts_stands(tmp_path):
    a, b = halves(tmp_path, {"seeds": [0], "datasets": ["board"]}, {"seeds": [1], "datasets": ["board"]})
    for folder, delta in ((a, 0.0), (b, 1e-9)):
        write_table(folder / "theory" / "fields.parquet", pa.table({"panel": ["p", "q"], "u": [1.0 + delta, -2.0]}))
    merge([read("A", a), read("B", b)], tmp_path / "out")
    assert read_table(tmp_path / "out" / "theory" / "fields.parquet")["u"].to_pylist() == [1.0, -2.0]


def test_of_what_has_one_seed_only_the_least_is_kept():
    values = specs.describe(config())
    table = pa.table(
        {"dataset": ["board"] * 4, "method": ["ddpm", "ddpm", "fm_ot", "data"], "seed": [1, 0, 1, None], "t": [0.0] * 4}
    )
    kept = in_order("trajectory.parquet", table, values).to_pylist()
    assert [(r["method"], r["seed"]) for r in kept] == [("ddpm", 0), ("fm_ot", 1), ("data", None)]
    assert in_order("previews.parquet", table, values).num_rows == 4


def test_data_that_was_prepared_anew_is_not_the_descriptions(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "set")
    path = tmp_path / "set" / "data" / "board" / "manifest.json"
    manifest = read_json(path)
    manifest["splits"]["test"]["sha256"] = "0" * 64
    write_json(path, manifest)
    with pytest.raises(DataError, match=r"is not of the data that benchmark.json names; run snakemake"):
        read_set("A", tmp_path / "set")


def test_merges_that_cannot_be(whole, tmp_path):
    one = read("A", whole)
    with pytest.raises(DataError, match="takes two result sets or more"):
        merge([one], tmp_path / "out")
    with pytest.raises(DataError, match=r"--allow everything: known are code \("):
        merge([one, one], tmp_path / "out", ["everything"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").write_text("mine")
    with pytest.raises(DataError, match="is not an empty folder"):
        merge([one, one], tmp_path / "out")


# Rendering


def test_what_cannot_be_made_is_said_with_its_reason(whole, tmp_path):
    said = command("render", "--results", whole, "--out", tmp_path / "out", "--format", "png", "--progress", "lines")
    assert said.code == 0
    for name, files in names.FIGURES.items():
        there = all((whole / file).exists() for file in files)
        assert (tmp_path / "out" / "figures" / f"{name}.png").exists() == there
        if not there:
            assert f"not made: figures/{name}.png: " in said.err
    assert "not made: equivalence.csv: equivalence.csv is missing" in said.err
    assert "not made: figures/fig02.png: theory/fields.parquet is missing" in said.err
    made = len([p for p in (tmp_path / "out").rglob("*") if p.suffix in (".csv", ".png")])
    assert f"{made} of {len(TABLES) + len(names.FIGURES)} tables and figures -> " in said.err


def test_results_of_before_there_were_descriptions_render_by_a_config(whole, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(whole, old)
    (old / FILE).unlink()
    done = {item.file: item.reason for item in render(old, tmp_path / "out", formats=["png"])}
    assert "is missing, so nothing says" in done["table1.csv"] and done["figures/fig07.png"] == ""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config().model_dump()))
    said = command(
        "render", "--results", old, "--out", tmp_path / "by config", "--configfile", tmp_path / "config.yaml", "--format", "png"
    )
    assert said.code == 0
    TABLES["table1"][1](whole, config(), tmp_path / "table1.csv")
    assert (tmp_path / "by config" / "table1.csv").read_bytes() == (tmp_path / "table1.csv").read_bytes()


def test_a_folder_of_nothing_renders_nothing(tmp_path):
    with pytest.raises(DataError, match=r"nothing can be rendered from .*records.parquet is missing"):
        render(tmp_path, tmp_path / "out")
    said = command("render", "--results", tmp_path, "--format", "gif")
    assert said.code == 2 and "must be png, svg or pdf, not 'gif'" in said.err


# Comparing


def values(folder: Path, **seeds: list[float]) -> pd.DataFrame:
    """The NLL of methods, a number for each seed."""
    rows = [Row("d", m, s, "likelihood", "nll", v, "nats", n=9) for m, found in seeds.items() for s, v in enumerate(found)]
    write_rows(folder / "r.parquet", rows)
    return read_rows([folder / "r.parquet"]).to_pandas()


def test_differences_and_spreads_by_hand(tmp_path):
    a = values(tmp_path, far=[1.0, 2.0, 3.0], near=[1.0, 2.0, 3.0], one=[1.0], same=[2.0, 2.0], gone=[1.0, 2.0])
    b = values(tmp_path, far=[11.0, 12.0, 13.0], near=[2.0, 3.0, 4.0], one=[5.0, 6.0], same=[2.5, 2.5], new=[1.0])
    table = compare(a, b)
    assert list(table.columns) == COLUMNS
    row = {r["method"]: r for r in table.to_dict("records")}
    assert (row["far"]["mean_a"], row["far"]["std_a"], row["far"]["seeds_a"]) == (2.0, 1.0, 3)
    assert row["far"]["difference"] == 10.0 and row["far"]["exceeds"] == "yes"
    # s^2 / n = 1/3 on each side: standard error sqrt(2/3), 4 degrees of freedom, t at 0.975: 2.776
    assert row["far"]["t"] == pytest.approx(10 / math.sqrt(2 / 3)) and row["far"]["degrees"] == pytest.approx(4)
    assert row["far"]["critical"] == pytest.approx(2.7764451)
    assert row["near"]["t"] == pytest.approx(1 / math.sqrt(2 / 3)) and row["near"]["exceeds"] == "no"
    assert row["one"]["difference"] == 4.5 and row["one"]["exceeds"] == "no spread" and math.isnan(row["one"]["t"])
    assert row["same"]["exceeds"] == "yes" and row["same"]["difference"] == 0.5
    assert row["gone"]["exceeds"] == "only in A" and math.isnan(row["gone"]["mean_b"])
    assert row["new"]["exceeds"] == "only in B" and row["new"]["seeds_a"] == 0
    assert list(table.method) == ["far", "near", "one", "same", "gone", "new"]


def test_two_seeds_a_side_need_a_large_difference():
    """At one degree of freedom the critical value is 12.7; unequal spreads have fewer degrees than pooled ones."""
    found = welch(1.0, 0.1, 2, 1e-9, 2)
    assert found["degrees"] == pytest.approx(1, abs=1e-6) and found["critical"] == pytest.approx(12.706, abs=1e-3)
    assert found["t"] == pytest.approx(1 / (0.1 / math.sqrt(2))) and found["exceeds"] == "yes"
    assert welch(0.8, 0.1, 2, 1e-9, 2)["exceeds"] == "no"


def test_the_test_is_scipys():
    g = np.random.default_rng(3)
    for n, m in ((2, 2), (3, 7), (10, 4)):
        x, y = g.normal(0, 1, n), g.normal(1, 3, m)
        expected = stats.ttest_ind(y, x, equal_var=False)
        found = welch(y.mean() - x.mean(), x.std(ddof=1), n, y.std(ddof=1), m)
        assert found["t"] == pytest.approx(expected.statistic) and found["degrees"] == pytest.approx(expected.df)
        assert (found["exceeds"] == "yes") == (expected.pvalue < 0.05)


def test_a_diverged_seed_is_no_seed_and_a_budget_is_a_row_of_its_own(tmp_path):
    rows = [
        Row("d", "m", 0, "sweep", "mse", 1.0, "squared", solver="euler", nfe=4.0),
        Row("d", "m", 1, "sweep", "mse", None, "squared", "diverged", "nan", solver="euler", nfe=4.0),
        Row("d", "m", 0, "sweep", "mse", 0.5, "squared", solver="euler/karras", nfe=8.0),
        Row("d", "m", 0, "sample", "nfe", 40.0, "evaluations", solver="dopri5", nfe=40.0),
        Row("d", "m", 1, "sample", "nfe", 44.0, "evaluations", solver="dopri5", nfe=44.0),
        Row("d", "m", 0, "train", "train_seconds", 9.0, "s"),
        Row("d", "", 0, "features", "data_std", 9.0, "model units"),
    ]
    write_rows(tmp_path / "r.parquet", rows)
    frame = read_rows([tmp_path / "r.parquet"]).to_pandas()
    found = compare(frame, frame)
    shown = [(r.metric, r.solver, r.seeds_a, r.exceeds) for r in found.itertuples()]
    assert shown == [
        ("mse", "euler", 1, "no spread"),
        ("mse", "euler/karras", 1, "no spread"),
        ("nfe", "dopri5", 2, "no"),
    ]
    assert found.budget.tolist()[:2] == [4.0, 8.0] and math.isnan(found.budget[2])


def test_what_is_measured_along_training_over_budgets_and_over_draws_is_compared(whole, archive, tmp_path):
    with opened(archive) as folder:  # with its draws in one file
        for name in ("one", "other"):
            shutil.copytree(folder, tmp_path / name)
    rows = {
        "learning_curve": [
            Row("board", "ddpm", s, "learning_curve", "nfe", 40.0 + s, "evaluations", step=k) for s in (0, 1) for k in (10, 20)
        ],
        "few_step": [Row("board", "ddpm", s, "few_step", "mmd", 1.0 + s, "squared", solver="euler", nfe=4.0) for s in (0, 1)],
    }
    for name, more in (("one", 0.0), ("other", 1000.0)):
        for file, found in rows.items():
            write_rows(tmp_path / name / f"{file}.parquet", [replace(r, value=r.value + more) for r in found])
    draws = read_rows([tmp_path / "other" / "dequantisation.parquet"])
    shifted = pa.array([None if v is None else v + 1000 for v in draws["value"].to_pylist()], pa.float64())
    write_table(
        tmp_path / "other" / "dequantisation.parquet", draws.set_column(draws.schema.get_field_index("value"), "value", shifted)
    )
    said = command("compare", tmp_path / "one", tmp_path / "other", "--csv", "--fail")
    table = pd.read_csv(io.StringIO(said.out))
    assert said.code == 1 and set(table[table.exceeds == "yes"].stage) == {"learning_curve", "few_step", "dequantisation"}
    assert set(table[table.stage == "learning_curve"].step) == {10, 20} and set(table[table.stage == "dequantisation"].draws) == {
        1,
        5,
        20,
    }
    text = command("compare", tmp_path / "one", tmp_path / "other").out
    assert "nfe, iteration 20 (evaluations)" in text and "nll_paper, K = 5 (bits/dim)" in text
    # Rows of other settings are not this config's.
    write_table(tmp_path / "other" / "dequantisation.parquet", draws, of="another")
    assert set(compare_sets(tmp_path / "one", tmp_path / "other")[0].query("stage == 'dequantisation'").exceeds) == {"only in A"}


def test_compare_prints_the_settings_that_differ_and_writes_what_it_is_asked_for(whole, archive, tmp_path):
    changed = config(seeds=[0, 1, 2], methods=["ddpm", "fm_ot"], board__training={"iterations": 500})
    other = make(
        tmp_path / "b", changed, code="f00d", judge="bbbb", change=lambda r: {"value": r.value + 7, "versions": '{"torch": "3"}'}
    )
    said = command("compare", archive, other, "--out", tmp_path / "table.csv")
    assert said.code == 0
    for line in (
        "seeds: [0, 1] in A, [0, 1, 2] in B",
        "methods: ['ddpm', 'fm_ot', 'oracle_ot'] in A, ['ddpm', 'fm_ot'] in B",
        "settings.board.training.iterations: 100 in A, 500 in B",
        'code of sweep: ["c0de-sweep"] in A, ["f00d-sweep"] in B',
        'versions: [{"torch": "2.14"}] in A, [{"torch": "3"}] in B',
        "classifier(digits, 64 features, aaaa) in A, classifier(digits, 64 features, bbbb) in B",
    ):
        assert line in said.out, line
    table = pd.read_csv(tmp_path / "table.csv")
    both = table[table.method != "oracle_ot"]
    final = both[both.metric == "final_loss"]
    assert len(final) == 4 and (final.difference > 5).all() and set(final.exceeds) == {"yes"}
    assert set(table[table.method == "oracle_ot"].exceeds) == {"only in A"}
    assert command("compare", archive, other, "--fail").code == 1
    assert command("compare", whole, archive, "--fail").code == 0
    same = command("compare", whole, archive, "--csv", "--out", tmp_path / "t.md")
    assert "Settings, code and machines are the same." in (tmp_path / "t.md").read_text()
    assert set(pd.read_csv(io.StringIO(same.out)).exceeds) == {"no"}
    assert command("compare", whole, archive, "--out", tmp_path / "t.xls").code == 2


def test_results_without_descriptions_are_compared_by_their_numbers(whole, tmp_path):
    (tmp_path / "old").mkdir()
    shutil.copy(whole / "records.parquet", tmp_path / "old")
    said = command("compare", whole, tmp_path / "old")
    assert said.code == 0 and f"settings are not compared: no {FILE} in B" in said.out and "0 of " in said.out


def test_tar_archives_hold_no_time_and_no_owner(whole, tmp_path):
    export(whole, tmp_path / "set.tar.gz")
    content = (tmp_path / "set.tar.gz").read_bytes()
    assert content[4:8] == b"\0\0\0\0"  # gzip's own time
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(content))) as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in tar} == {(0, 0, 0, "", 0o644)}
