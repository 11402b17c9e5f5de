"""One whole set of parquet files for each split, under all names that the hub gives them."""

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_sources import prepared
from PIL import Image

from fmbench.data.shards import Series, find, matches, parsed
from fmbench.data.sources import make
from fmbench.errors import DataError

G = np.random.default_rng(0)


def shard(path: Path, n: int = 3, names: list[str] | None = None, **columns) -> Path:
    """A parquet file of n random images, with labels 0, 1, 0, ... unless other columns are given."""
    values = []
    for _ in range(n):
        stream = io.BytesIO()
        Image.fromarray(G.integers(0, 256, (4, 4, 3), np.uint8)).save(stream, "PNG")
        values.append(stream.getvalue())
    table = pa.table({"img": pa.array(values, pa.binary())} | (columns or {"label": pa.array(np.arange(n) % 2)}))
    if names is not None:
        features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def shards(root: Path, *names: str) -> Path:
    for name in names:
        shard(root / name)
    return root


TEST = "test-00000-of-00001.parquet"


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (["train.parquet"], "test.parquet"),
        (["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"], TEST),
        (["train-00000-of-00002-1359597a978bc4fa.parquet", "train-00001-of-00002-0a.parquet"], "test-00000-of-00001-ab.parquet"),
        (["data/train-00000-of-00001.parquet"], f"data/{TEST}"),
        (["plain_text/train/0000.parquet", "plain_text/train/0001.parquet"], "plain_text/test/0000.parquet"),
        (["mnist-train.parquet"], "mnist-test.parquet"),
        (["mnist-train-00000-of-00002.parquet", "mnist-train-00001-of-00002.parquet"], "mnist-test.parquet"),
        (["Train-00000-of-00002.parquet", "train-00001-of-00002.PARQUET"], "TEST.parquet"),
        (["train_1.parquet", "train_2.parquet"], "test_1.parquet"),
        (["train-1-of-2.parquet", "train-2-of-2.parquet"], "test.parquet"),
        (["train2017.parquet"], "test2017.parquet"),
        (["train-2017.parquet"], "test-2017.parquet"),
        (["train/part-00000-0a1b2c3d-1111-2222-3333-444444444444-c000.snappy.parquet"], "test.parquet"),
    ],
)
def test_the_names_of_the_hub(tmp_path, train, test):
    shards(tmp_path, *train, test)
    found, notes = find(tmp_path, {"train": None, "test": None})
    assert [f.relative_to(tmp_path).as_posix() for f in found["train"].files] == train and notes == ()
    assert [f.relative_to(tmp_path).as_posix() for f in found["test"].files] == [test]
    assert len(prepared("hf_parquet", tmp_path / "out", path=str(tmp_path)).train) == 3 * len(train)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["train-00000-of-00002-1359597a978bc4fa.parquet"],
            r"train-00001-of-00002-\*\.parquet missing \(1 of 2 files\)\. Found for train: train-\*-of-00002-\*\.parquet",
        ),
        (
            ["train-00000-of-00001.parquet", "train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
            r"expected one set of files for train, found 2: train-\*-of-00001\.parquet \(1 of 1 files\), "
            r"train-\*-of-00002\.parquet \(2 of 2 files\)\. Give a narrower path, or .* such as 'train-\*-of-00002\.parquet'",
        ),
        (
            ["a/train-00000-of-00001.parquet", "b/train-00000-of-00001.parquet"],
            r"found 2: a/train-\*-of-00001\.parquet \(1 of 1 files\), b/train-.* such as 'b/train-\*-of-00001\.parquet'",
        ),
        (["train-00000-of-00002-aa.parquet", "train-00001-of-00002.parquet"], "expected one set of files for train, found 2"),
        (
            ["train-00000-of-00001-aa.parquet", "train-00000-of-00001-bb.parquet"],
            "train-00000-of-00001-bb.* have the same number",
        ),
        (["train-00000-of-00001.parquet", "train-0-of-00001.parquet"], "have the same number"),
        (["train-00000-of-00001.parquet", "train.parquet"], "expected one set of files for train, found 2"),
        (["train-00000-of-00001.parquet", "train/0000.parquet"], "expected one set of files for train, found 2"),
        (
            ["train-00000-of-00001.parquet", "train-00001-of-00001.parquet"],
            "train-00001-of.*: the number is larger than the count",
        ),
        (["train-00001-of-00002.parquet"], r"train-00000-of-00002\.parquet missing \(1 of 2 files\)"),
        (["train/0000.parquet", "train/0002.parquet"], r"0001\.parquet missing \(1 of 3 files\)"),
        (["train/0001.parquet"], r"0000\.parquet missing \(1 of 2 files\)"),
        (["train_1.parquet", "train_3.parquet"], "train_0002.parquet missing"),
        (["train_extra.parquet", "train.parquet"], "expected one set of files for train, found 2"),
        (["train-0-of-99999999999.parquet"], "the names promise 99999999999 files"),
        (
            ["default/partial-train/0000.parquet"],
            r"partial-train/\*\.parquet .* \(a folder partial-\.\.\. has a part of the split only\)",
        ),
        (["data-00000-of-00002.txt"], "found no parquet file among 2 files|test-"),
    ],
)
def test_a_set_that_is_not_whole_or_not_alone_is_refused(tmp_path, names, said):
    shards(tmp_path, *names, TEST)
    with pytest.raises(DataError, match=said):
        make("hf_parquet", {"path": str(tmp_path)})


def test_a_pattern_chooses_one_of_several_sets(tmp_path):
    shards(tmp_path, "a/train-00000-of-00001.parquet", "b/train-00000-of-00001.parquet", "b/c/train.parquet", f"a/{TEST}")
    found, notes = find(tmp_path, {"train": "b/train-*.parquet", "test": None})
    assert found["train"].files == (tmp_path / "b/train-00000-of-00001.parquet",)
    assert notes == ("left out, as of neither split: a/train-*-of-00001.parquet (1 of 1 files), b/c/train.parquet (1 file)",)
    assert find(tmp_path, {"train": "**/c/*.parquet"})[0]["train"].files == (tmp_path / "b/c/train.parquet",)


def test_a_partial_split_is_taken_if_the_config_names_it(tmp_path):
    shards(tmp_path, "default/partial-train/0000.parquet", "default/test/0000.parquet")
    with pytest.raises(DataError, match=r"is a part of train only, as the hub calls it partial"):
        find(tmp_path, {"train": "*/0000.parquet"} | {"train": "*train/*.parquet"})
    found, notes = find(tmp_path, {"train": "partial-train/*.parquet", "test": None})
    assert found["train"].partial and notes == (
        "train: default/partial-train/*.parquet is a part of the split only, as the hub calls it partial",
    )


def test_a_file_in_both_splits(tmp_path):
    shards(tmp_path, "all.parquet")
    with pytest.raises(DataError, match="is in both splits, train and test"):
        find(tmp_path, {"train": "all*", "test": "*.parquet"})
    os.symlink("all.parquet", tmp_path / "other.parquet")
    with pytest.raises(DataError, match="is in both splits, train and test"):
        find(tmp_path, {"train": "all*", "test": "other*"})


def test_the_cache_of_the_hub(tmp_path):
    """Revisions of links into blobs; leftovers of downloads. One revision is a data set, two are not."""
    root = tmp_path / "datasets--some"
    for i, (revision, name) in enumerate((r, n) for r in ("aaa", "bbb") for n in ("train-00000-of-00001.parquet", TEST)):
        shard(root / f"blobs/{i}")
        (root / "snapshots" / revision / "data").mkdir(parents=True, exist_ok=True)
        os.symlink(f"../../../blobs/{i}", root / "snapshots" / revision / "data" / name)
    (root / "blobs" / "4.incomplete").touch()
    (root / ".cache" / "x").mkdir(parents=True)
    shutil.copy(root / "blobs" / "0", root / ".cache" / "x" / "train-00000-of-00001.parquet")
    with pytest.raises(DataError, match=r"found 2: snapshots/aaa/data/train-.*, snapshots/bbb/data/train-.*Give a narrower path"):
        make("hf_parquet", {"path": str(root)})
    assert len(prepared("hf_parquet", tmp_path / "out", path=str(root / "snapshots" / "bbb")).train) == 3
    shutil.rmtree(root / "snapshots" / "aaa")
    assert make("hf_parquet", {"path": str(root)}).notes == ("there are unfinished downloads: blobs/4.incomplete",)
    (root / "blobs" / "2").unlink()
    with pytest.raises(DataError, match="is a broken link; download the file it leads to"):
        make("hf_parquet", {"path": str(root)})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n",
            "it is a pointer of Git LFS, .*run git lfs pull",
        ),
        (b"<!DOCTYPE html><html>Sign in", "it is a web page, not the file itself"),
        (b"../.git/annex/objects/x", "it is a pointer of git-annex"),
        (b"", "it is empty"),
        (b"PAR1 no", "is truncated or not a parquet file: "),
    ],
)
def test_what_stands_in_for_a_file(tmp_path, content, said):
    shards(tmp_path, "train.parquet", "test.parquet")
    (tmp_path / "train.parquet").write_bytes(content)
    with pytest.raises(DataError, match=said):
        make("hf_parquet", {"path": str(tmp_path)})
    (tmp_path / "images").mkdir()
    for i in range(20):
        (tmp_path / "images" / f"{i}.png").write_bytes(content)
    if b"PAR1" not in content:
        with pytest.raises(DataError, match=f"cannot be read as an image: {said}"):
            prepared("folder", tmp_path / "out", path=str(tmp_path / "images"), size=8, test_share=0.5)


def test_files_of_the_same_content(tmp_path):
    shards(tmp_path, "train-00000-of-00002.parquet", "test.parquet")
    shutil.copy(tmp_path / "train-00000-of-00002.parquet", tmp_path / "train-00001-of-00002.parquet")
    with pytest.raises(DataError, match=r"train-00000-.* and .*train-00001-.* have the same content"):
        make("hf_parquet", {"path": str(tmp_path)})
    shard(tmp_path / "train-00001-of-00002.parquet")
    shutil.copy(tmp_path / "train-00001-of-00002.parquet", tmp_path / "test.parquet")
    with pytest.raises(DataError, match=r"train-00001-.* and .*test\.parquet have the same content"):
        make("hf_parquet", {"path": str(tmp_path)})


def test_shards_that_do_not_agree(tmp_path):
    shard(tmp_path / "train-00000-of-00002.parquet", names=["cat", "dog"])
    shard(tmp_path / "train-00001-of-00002.parquet", names=["cat", "dog"])
    shard(tmp_path / "test.parquet", names=["dog", "cat"])
    with pytest.raises(DataError, match=r"have different class names in the column label: .*label: none takes no labels"):
        make("hf_parquet", {"path": str(tmp_path)})
    shard(tmp_path / "test.parquet", label=["0", "1", "0"])
    with pytest.raises(DataError, match="have different kinds of labels in the column label: numbers and text"):
        make("hf_parquet", {"path": str(tmp_path)})
    shard(tmp_path / "test.parquet", label=pa.array([0, 1, -1]))
    with pytest.raises(
        DataError, match=r"expected integers from 0 to 1, found -1, which often stands for a hidden label.*label: none"
    ):
        prepared("hf_parquet", tmp_path / "out", path=str(tmp_path))
    shard(tmp_path / "test.parquet", fine=[0, 1, 0])
    with pytest.raises(DataError, match=r"test\.parquet: expected a column label, found fine, img"):
        make("hf_parquet", {"path": str(tmp_path)})
    assert make("hf_parquet", {"path": str(tmp_path), "label": "none"}).notes == ()


def test_shards_without_rows_and_labels_of_another_name_are_said(tmp_path):
    shard(tmp_path / "train-00000-of-00002.parquet", fine_label=[0, 1, 0], coarse_label=[0, 0, 0])
    shard(tmp_path / "train-00001-of-00002.parquet", 0, fine_label=pa.array([], pa.int64()))
    shard(tmp_path / "test.parquet", fine_label=[0, 1, 1])
    found = prepared("hf_parquet", tmp_path / "out", path=str(tmp_path))
    assert len(found.train) == 3 and found.manifest["notes"] == [
        "shards without a row: train-00001-of-00002.parquet",
        "no column label or labels, so the images have no labels. The parameter label names a column of labels; there are "
        "coarse_label, fine_label",
    ]
    found = prepared("hf_parquet", tmp_path / "fine", path=str(tmp_path), label="fine_label")
    assert found.labels("train").tolist() == [0, 1, 0]


def test_arrow_files_are_no_parquet_files(tmp_path):
    (tmp_path / "data-00000-of-00002.arrow").touch()
    with pytest.raises(DataError, match=r"found no parquet file, but arrow files, .* to_parquet"):
        make("hf_parquet", {"path": str(tmp_path)})
    with pytest.raises(DataError, match="expected a folder of parquet files, found a file"):
        make("hf_parquet", {"path": str(tmp_path / "data-00000-of-00002.arrow")})


@pytest.mark.parametrize(
    ("name", "series", "index"),
    [
        ("train-00003-of-00012.parquet", Series("", "train-", "00012", True, False), 3),
        ("a/b/Train-00003-of-00012-ff.PARQUET", Series("a/b/", "train-", "00012", True, True), 3),
        ("x/0007.parquet", Series("x/", "", "", True, False), 7),
        ("x/part.10.zstd.parquet", Series("x/", "part.", "", True, False), 10),
        ("train2017.parquet", Series("", "train2017"), 0),
    ],
)
def test_names_are_parsed(name, series, index):
    assert parsed(name) == (series, index)


@pytest.mark.parametrize(
    ("name", "pattern", "found"),
    [
        ("a/train.parquet", "train*.parquet", True),
        ("a/train/0.parquet", "train*.parquet", False),
        ("a/train/0.parquet", "train/*.parquet", True),
        ("a/train/b/0.parquet", "train/*.parquet", False),
        ("a/train/b/0.parquet", "train/**/*.parquet", True),
        ("a/TRAIN/0.Parquet", "./train//*.parquet", True),
        ("train/0.parquet", "a/train/*.parquet", False),
        ("0.parquet", "**", True),
    ],
)
def test_patterns_match_the_end_of_a_path(name, pattern, found):
    assert matches(name, pattern) is found
