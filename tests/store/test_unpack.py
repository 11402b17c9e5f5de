"""Unpacking archives that anyone may have made: damaged, changed and hostile ones are refused, and nothing is imported."""

import hashlib
import io
import json
import re
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from pyarrow.parquet import read_table
from result_sets import config, files_in, make_results
from sealed_files import content_of
from user_code import command

from fmbench.config.hashing import settings_hash
from fmbench.config.messages import shortened
from fmbench.errors import DataError
from fmbench.store.archive import INDEX, export
from fmbench.store.benchmark import FILE
from fmbench.store.documents import write_document
from fmbench.store.merge import merge
from fmbench.store.result_set import read_set
from fmbench.store.unpack import opened, unpack

pytestmark = pytest.mark.usefixtures("no_fsync")


def repacked(archive: Path, out: Path, change: Any, kind: str = "zip") -> Path:
    """The archive with other members: ``change`` maps the list of (name, bytes, link target) to another list."""
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
        (lambda found: [(INDEX, b"[]", ""), *found[1:]], "is not an index of an archive"),
        (lambda found: [(INDEX, b"\xff{", ""), *found[1:]], "is not an index of an archive"),
        (lambda found: [(INDEX, found[0][1].replace(b'"format": 1', b'"format": 2'), ""), *found[1:]], "has format 2; this"),
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
            "says it belongs to config 0",
        ),
    ],
)
def test_a_changed_archive_is_refused_and_leaves_no_file(archive, tmp_path, kind, change, message):
    path = repacked(archive, tmp_path, change, kind)
    with pytest.raises(DataError, match=message):
        unpack(path, tmp_path / "inner" / "out")
    assert sorted(p.name for p in tmp_path.rglob("*")) == sorted(["inner", path.name])


def packed(changes: dict[str, bytes]) -> Any:
    """A change that replaces or adds members and lists them in the index."""

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
def test_an_archive_with_a_member_that_export_does_not_pack_is_refused(archive, tmp_path, kind, names):
    path = repacked(archive, tmp_path, packed(dict.fromkeys(names, b"raise SystemExit")), kind)
    said = re.escape(shortened(repr(names[0]), 100))
    with pytest.raises(DataError, match=rf"holds {said}, which `fmbench export` does not pack"):
        unpack(path, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.97])
def test_a_truncated_archive_is_an_error_with_a_remedy(whole_run, tmp_path, name, share):
    export(whole_run, tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(share * len(content))])
    said = command("unpack", tmp_path / name, "--out", tmp_path / "out")
    assert said.code == 3 and re.search(
        r"is truncated or damaged \(.*\); get it again|has no archive.json|name different", said.err
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz"])
def test_a_flipped_byte_is_found(whole_run, tmp_path, name):
    """The byte is in a member's compressed content. The archive's own checksums or those of the index find it."""
    export(whole_run, tmp_path / name)
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 0x10
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"damaged|differs|not a plain file|name different"):
        unpack(tmp_path / name, tmp_path / "out")


def test_an_archive_that_would_fill_the_disk_is_refused(archive, tmp_path, monkeypatch):
    monkeypatch.setattr("fmbench.store.limits.ARCHIVE", 1 << 10)
    with pytest.raises(DataError, match="would unpack to more than"):
        unpack(archive, tmp_path / "out")


def test_invalid_archive_names_and_folders_are_refused(whole_run, archive, tmp_path):
    with pytest.raises(DataError, match=r"should end in .zip, .tar.gz or .tgz"):
        export(whole_run, tmp_path / "set.rar")
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
def test_an_empty_folder_is_filled_and_stays_the_same_folder(whole_run, archive, tmp_path, monkeypatch, way):
    """The folder is given by its name, by a link to it, or as the working folder."""
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    out = {"name": tmp_path / "empty", "link": tmp_path / "link", "here": Path()}[way]
    one = read_set("A", whole_run)
    for fill in (lambda: unpack(archive, out), lambda: merge([one, one], out)):
        shutil.rmtree(tmp_path / "empty", ignore_errors=True)
        (tmp_path / "empty").mkdir()
        monkeypatch.chdir(tmp_path / "empty")
        before = (tmp_path / "empty").stat().st_ino
        fill()
        assert (tmp_path / "empty").stat().st_ino == before and (tmp_path / "link").is_symlink()
        assert Path("records.parquet").exists() and Path("data").is_dir() and not list(Path().glob(".*"))


def test_a_folder_is_opened_in_place_and_an_archive_in_a_temporary_folder(whole_run, archive):
    with opened(whole_run) as folder:
        assert folder == whole_run
    with opened(archive) as folder:
        assert files_in(folder).keys() >= {"records.parquet", FILE}
    assert not folder.exists()


class Watch:
    """An importer that comes before all others, notes every import of a module called evil, and refuses it."""

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


def test_no_module_named_in_a_description_is_imported(tmp_path, watch):
    mine = {"name": "mine", "path": "evil.paths:P", "prediction": "evil:Q", "weighting": "evil:W", "time": "evil:T"}
    parts = {
        "digits__data": {"source": "evil:load", "parameters": {"reader": "evil:read"}},
        "digits__network": {"kind": "evil.nets:Net", "parameters": {}},
        "digits__evaluation": {"features": {"extractor": "evil:E", "more_extractors": ["evil:F"]}},
        "methods": [mine, "oracle_ot"],
    }
    for name, seed in (("a", 0), ("b", 1)):
        export(make_results(tmp_path / name, config(seeds=[seed], **parts)), tmp_path / f"{name}.zip")
    assert "evil.paths:P" in (tmp_path / "a" / FILE).read_text()
    where = {"a": tmp_path / "a.zip", "b": tmp_path / "b.zip", "out": tmp_path / "out"}
    for words in READING:
        said = command(*(word.format(**where) for word in words))
        assert said.code == 0, (words, said.err)
    assert read_table(tmp_path / "out" / "merged" / "records.parquet").num_rows > 0
    assert (tmp_path / "out" / "table1.csv").exists()
    assert not watch.asked
    with pytest.raises(AssertionError, match="evil was imported"):  # the watch works
        __import__("evil")


@pytest.mark.parametrize("words", [words for words in READING if words[0] != "claims"], ids=" ".join)
def test_a_description_whose_method_is_not_written_out_is_refused(whole_run, archive, tmp_path, watch, words):
    values = content_of(whole_run / FILE)
    values["config"]["methods"].append({"name": "mine", "use": "evil:M"})
    write_document(tmp_path / FILE, values | {"hash": settings_hash(values["config"])})
    forged = (tmp_path / FILE).read_bytes()
    path = repacked(archive, tmp_path, packed({FILE: forged}))
    for a, b in ((path, whole_run), (whole_run, path)):
        said = command(*(word.format(a=a, b=b, out=tmp_path / "out") for word in words))
        if "{b}" not in words and a == whole_run:
            continue
        text = said.err + "".join(said.out.splitlines())
        assert "was not written by `fmbench collect`: the method mine is not written out but refers to 'evil:M'" in text
        assert said.code == (0 if words[0] == "render" else 3)  # tables that need no config are still made
    assert not watch.asked and not (tmp_path / "out" / "merged").exists()
    assert not (tmp_path / "out" / "table1.csv").exists() or a == whole_run
