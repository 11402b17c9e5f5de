"""Folders of images."""

import json
import os

import numpy as np
import pytest
from data_sources import picture, prepared, saved, tree
from PIL import Image

from fmbench.data import folders
from fmbench.data.images import Item, Recipe, decode
from fmbench.data.sources import make
from fmbench.errors import DataError


def test_a_folder_with_classes_and_splits(tmp_path):
    root = tree(tmp_path / "pets", {"train/cat": 9, "train/dog": 7, "test/cat": 3, "test/dog": 2})
    (root / "train" / "cat" / "notes.txt").write_text("no image")
    found = prepared("folder", tmp_path / "out", path=str(root), size=8)
    assert (found.train.shape, found.test.shape) == ((16, 3, 8, 8), (5, 3, 8, 8))
    assert found.manifest["class_names"] == ["cat", "dog"] and found.manifest["classes"] == 2
    assert np.bincount(found.labels("train")).tolist() == [9, 7]
    assert not np.array_equal(np.sort(found.labels("train")), found.labels("train"))  # mixed
    recipe = Recipe(8, 8)
    known = {decode(Item(str(p)), recipe).tobytes(): p.parent.name for p in root.glob("train/*/*.png")}
    assert [known[x.tobytes()] for x in found.train] == [["cat", "dog"][k] for k in found.labels("train")]
    assert "centred square, box (area)" in found.manifest["preprocessing"]


def test_a_folder_is_split_by_a_hash_of_names(tmp_path):
    root = tree(tmp_path / "all", {"": 40})
    first = make("folder", {"path": str(root), "size": 8, "test_share": 0.25})
    assert first.train.n + first.test.n == 40 and 4 <= first.test.n <= 16
    before = {f for f, _ in folders.listing(root).files if folders.in_test(f, 0.25)}
    tree(root, {"": 50})
    after = {f for f, _ in folders.listing(root).files if folders.in_test(f, 0.25)}
    assert before == {f for f in after if int(f[:3]) < 40}
    found = prepared("folder", tmp_path / "out", path=str(root), size=8, test_share=0.25)
    assert found.manifest["classes"] is None and found.manifest["class_names"] is None
    assert np.mean([folders.in_test(f"{i}", 0.25) for i in range(4000)]) == pytest.approx(0.25, abs=0.03)


def test_folders_whose_sub_folders_are_no_classes(tmp_path):
    root = tree(tmp_path / "all", {"": 3, **{f"{i:02x}": 1 for i in range(40)}})
    with pytest.raises(DataError, match=r"is in no class folder, .*the parameter label: none takes no classes"):
        make("folder", {"path": str(root), "test_share": 0.25})
    assert prepared("folder", tmp_path / "a", path=str(root), size=8, test_share=0.25, label="none").manifest["classes"] is None
    for path in root.glob("*.png"):
        path.unlink()
    with pytest.raises(DataError, match=r"different labels for .* identifiers or measurements, .*the parameter label: none"):
        prepared("folder", tmp_path / "b", path=str(root), size=8, test_share=0.25)


def test_images_of_one_size_keep_it(tmp_path):
    for i in range(30):
        saved(picture(5, 7, seed=i), tmp_path / "same" / f"{i}.png")
    assert prepared("folder", tmp_path / "out", path=str(tmp_path / "same"), test_share=0.5, channels=1).shape == (1, 5, 7)
    saved(picture(6, 7), tmp_path / "same" / "other.png")
    with pytest.raises(DataError, match=r"\d x 7 pixels, others \d x 7; set the parameter size"):
        prepared("folder", tmp_path / "out", path=str(tmp_path / "same"), test_share=0.5)


def test_folders_without_a_data_set(tmp_path):
    with pytest.raises(DataError, match="expected a folder of images, found nothing"):
        make("folder", {"path": str(tmp_path / "no"), "test_share": 0.5})
    with pytest.raises(DataError, match=r"expected the folders train and test \(or val\); to split one folder, give test_share"):
        make("folder", {"path": str(tmp_path)})
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: expected two images or more for train, found 0 in a test share of 0.5$"):
        make("folder", {"path": str(tmp_path / "empty"), "test_share": 0.5})
    mixed = tree(tmp_path / "mixed", {"": 6, "cat": 6})
    with pytest.raises(DataError, match=r"mixed: \d+.png is in no class folder, but there are the folders cat"):
        make("folder", {"path": str(mixed), "test_share": 0.5})
    other = tree(tmp_path / "other", {"train/cat": 3, "test/horse": 3})
    with pytest.raises(DataError, match=r"other/test: its classes horse differ from those of train: cat;"):
        make("folder", {"path": str(other)})
    for flat, said in (("test", r"\(none\) differ from those of train: cat"), ("train", r"cat differ .*: \(none\)")):
        root = tree(tmp_path / f"flat-{flat}", {s if s == flat else f"{s}/cat": 3 for s in ("train", "test")})
        with pytest.raises(DataError, match=rf"flat-{flat}/test: its classes {said}"):
            make("folder", {"path": str(root)})


def test_replaced_images_are_decoded_again(tmp_path):
    """Uncompressed files all have the same size. An interrupted preparation must not resume with the old images."""

    def fill(level: int) -> None:
        for split in ("train", "test"):
            for i in range(40):
                path = saved(Image.new("RGB", (8, 8), (level, level, level)), tmp_path / "all" / split / f"{i}.bmp")
                os.utime(path, (level, level))

    fill(1)
    last = tmp_path / "all" / "train" / folders.listing(tmp_path / "all" / "train").files[-1][0]
    last.write_bytes(bytes(last.stat().st_size))
    with pytest.raises(DataError, match="cannot be read as an image"):
        prepared("folder", tmp_path / "out", path=str(tmp_path / "all"))
    assert json.loads((tmp_path / "out" / ".partial" / "train.json").read_text())["n"] > 0
    fill(200)
    assert np.unique(prepared("folder", tmp_path / "out", path=str(tmp_path / "all")).train).tolist() == [200]
