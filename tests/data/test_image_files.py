"""Which files of a folder are images; the others are counted, never left out without a word."""

import os
import shutil

import numpy as np
import pytest
from data_sources import SPEC, picture, prepared, saved, tree
from PIL import Image

from fmbench.data import image_files
from fmbench.data.image_files import OF_IMAGES, scan
from fmbench.data.images import Item, Recipe, decode
from fmbench.data.prepared import read
from fmbench.data.sources import make
from fmbench.errors import DataError
from fmbench.stages import prepare
from fmbench.system.progress import Console

NOT_PICTURES = {
    *(".eps", ".ps", ".wmf", ".emf", ".pdf", ".palm"),  # Pillow runs a program for the first two and only writes the last two
    *(".fit", ".fits", ".iim", ".bufr", ".grib", ".h5", ".hdf", ".mpg", ".mpeg"),  # measurements, films, and stubs
}


def test_every_suffix_of_pillow_is_known():
    Image.init()
    assert {s.lower() for s in Image.registered_extensions()} - OF_IMAGES == NOT_PICTURES
    assert set(image_files.SUFFIXES) & set(Image.OPEN) == set(image_files.formats())
    assert all(len(set(s)) == len(s) for s in image_files.SUFFIXES.values()) and len(OF_IMAGES) == sum(
        len(s) for s in image_files.SUFFIXES.values()
    )


WRITTEN = ["JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000", "TGA", "PCX", "SGI", "DDS", "ICO"]
WRITTEN += ["ICNS", "IM", "MSP", "XBM", "QOI"]


@pytest.mark.parametrize("name", WRITTEN)
def test_a_format_is_an_image_by_suffix_or_by_content(tmp_path, name):
    """An image of each format that Pillow writes, under each suffix of the format, without one and with a wrong one."""
    if name not in Image.SAVE and (Image.init(), name not in Image.SAVE)[1]:
        pytest.skip(f"this Pillow does not write {name}")
    image = picture(64, 64, "1" if name in ("MSP", "XBM") else "RGB")
    suffixes = image_files.SUFFIXES[name]
    saved(image, tmp_path / "all" / f"0{suffixes[0]}", format=name)
    names = [*(f"{i}{s.upper() if i % 2 else s}" for i, s in enumerate(suffixes)), "bare", "wrong.dat", "note.txt"]
    for other in names[1:]:
        shutil.copy(tmp_path / "all" / names[0], tmp_path / "all" / other)
    found = scan(tmp_path / "all")
    by_content = name not in ("TGA", "IM")  # their first bytes show nothing
    assert sorted(f for f, _ in found.files) == sorted(names if by_content else names[: len(suffixes)])
    assert found.describe() == ("" if by_content else "1 .dat, 1 .txt, 1 without a suffix")


def test_a_format_that_runs_a_program_is_not_decoded(tmp_path):
    path = saved(picture(), tmp_path / "a.eps")
    os.rename(path, tmp_path / "a.jpg")
    with pytest.raises(DataError, match="cannot be read as an image: cannot identify image file"):
        decode(Item(str(tmp_path / "a.jpg")), Recipe(8, 8))


def junk(folder) -> None:
    """The files that lie beside images, none of which is a sample."""
    (folder / "sub").mkdir()
    for name in ("notes.txt", "captions.csv", "Thumbs.db", "sub/a.TXT", "empty", "data.tar", "x.heic", "y.jpg.part"):
        (folder / name).write_bytes(b"" if name == "empty" else b"no image, only bytes that say nothing")
    for name in (".DS_Store", "._000.png", ".hidden/000.png", "__MACOSX/._000.png"):
        saved(picture(), folder / name, format="PNG")
    shutil.copy(next(folder.glob("0*.png")), folder / "000.png~")
    shutil.copy(next(folder.glob("0*.png")), folder / "001.bak")
    os.symlink(folder / "nothing", folder / "gone.txt")
    os.mkfifo(folder / "pipe.jpg")


def test_what_is_left_out_is_said(tmp_path):
    root = tree(tmp_path / "pets", {"train/cat": 9, "train/dog": 7, "test/cat": 3, "test/dog": 2})
    junk(root / "train" / "cat")
    (root / "test" / "notes.md").write_text("no image")
    (root / "labels.csv").write_text("no image")
    (root / "val").mkdir()
    spec = SPEC | {"source": "folder", "parameters": {"path": str(root), "size": 8}}
    prepare.run(spec, tmp_path / "out", Console("prepare", "none", tmp_path / "log"))
    manifest = read(tmp_path / "out").manifest
    assert [manifest["splits"][s]["n"] for s in ("train", "test")] == [16, 5]
    assert manifest["notes"] == [
        "train: 16 files were left out, as no images: 4 hidden, 2 .txt, 1 .bak, 1 .csv, 1 .db, 1 .heic, 1 .part, 1 .png~, "
        "1 .tar, 1 broken link, 1 no regular file, 1 without a suffix",
        "test: 1 file was left out, as no images: 1 .md",
        "left out beside train and test: labels.csv, val",
    ]
    assert all(f"note: {note}" in (tmp_path / "log").read_text() for note in manifest["notes"])
    assert (
        prepared("folder", tmp_path / "b", path=str(tree(tmp_path / "clean", {"": 40})), size=8, test_share=0.3).manifest["notes"]
        == []
    )


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("content", [None, "x.heic", "sub/.hidden.png"])
def test_a_class_folder_without_an_image_is_refused(tmp_path, split, content):
    root = tree(tmp_path / "pets", {"train/cat": 3, "train/dog": 3, "test/cat": 3, "test/dog": 3})
    shutil.rmtree(root / split / "dog")
    (root / split / "dog" / "sub").mkdir(parents=True)
    if content:
        (root / split / "dog" / content).write_bytes(b"heic")
    said = {None: "no files", "x.heic": r"1 \.heic"}.get(content, "1 hidden")
    with pytest.raises(DataError, match=rf"{split}: 1 of the 2 class folders have no image .*: dog \({said}\)\. Convert"):
        make("folder", {"path": str(root), "size": 8})
    assert make("folder", {"path": str(root), "size": 8, "label": "none"}).class_names is None


def test_a_folder_of_other_files_only(tmp_path):
    root = tree(tmp_path / "a", {"train": 3})
    (root / "test").mkdir()
    (root / "test" / "all.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"test: expected two images or more for test, found 0; other files there: 1 \.zip"):
        make("folder", {"path": str(root), "size": 8})


def test_links_that_break_or_lead_back(tmp_path):
    root = tree(tmp_path / "a", {"cat": 3, "dog": 3})
    os.symlink("../cat", root / "dog" / "again")
    with pytest.raises(DataError, match=r"a/.* are the same folder, so its files would count twice"):
        scan(root)
    (root / "dog" / "again").unlink()
    os.symlink("..", root / "dog" / "loop")
    with pytest.raises(DataError, match="are the same folder"):
        scan(root)
    (root / "dog" / "loop").unlink()
    os.symlink("elsewhere.png", root / "dog" / "gone.png")
    with pytest.raises(DataError, match=r"dog/gone\.png, a broken link: it cannot be read: No such file"):
        scan(root)
    (root / "dog" / "gone.png").unlink()
    os.symlink(root / "cat" / "000.png", root / "dog" / "linked.png")  # links to files count: the hub's cache has only such
    os.symlink(root / "loop.png", root / "loop.png")
    with pytest.raises(DataError, match=r"loop\.png"):
        scan(root)
    (root / "loop.png").unlink()
    assert len(scan(root).files) == 7
    os.symlink("cat", root / "train")
    os.symlink("cat", root / "test")
    with pytest.raises(DataError, match="train and test are the same folder"):
        make("folder", {"path": str(root)})


def test_a_folder_named_like_an_image_and_an_image_without_a_byte(tmp_path):
    root = tree(tmp_path / "a", {"x.jpg": 3, "y": 3})
    (root / "y" / "bare").touch()
    found = scan(root)
    assert len(found.files) == 6 and found.filled == {"x.jpg", "y"} and found.describe() == "1 without a suffix"
    (root / "y" / "zero.JPG").touch()
    with pytest.raises(DataError, match=r"zero\.JPG cannot be read as an image"):
        prepared("folder", tmp_path / "out", path=str(root), size=8, test_share=0.5)


def test_names_that_are_not_utf8(tmp_path):
    root = tree(tmp_path / "a", {"cat": 30, "dog": 30})
    for path in (root / "cat").iterdir():
        os.rename(path, os.fsencode(path).replace(b"cat/", b"cat/\xff"))
    os.rename(root / "dog", os.fsencode(root) + b"/d\xf6g")
    found = prepared("folder", tmp_path / "out", path=str(root), size=8, test_share=0.3)
    assert found.manifest["class_names"] == ["cat", "d\\xf6g"]
    assert sum(np.bincount(found.labels(s))[1] for s in ("train", "test")) == 30


def test_a_split_folder_is_not_split_again(tmp_path):
    root = tree(tmp_path / "a", {"train/cat": 9, "test/cat": 9})
    with pytest.raises(DataError, match="it is split into test, train already; leave out the parameter test_share"):
        make("folder", {"path": str(root), "test_share": 0.5})


def test_the_suffixes_are_a_small_part_of_the_time(tmp_path):
    """A scan opens no file with a known suffix."""
    for i in range(50):
        (tmp_path / f"{i}.jpeg").touch()
    opened = []
    original, image_files.is_image = image_files.is_image, lambda path: opened.append(path) or False
    try:
        scan(tmp_path)
        assert opened == []
        (tmp_path / "bare").touch()
        scan(tmp_path)
        assert opened == [str(tmp_path / "bare")]
    finally:
        image_files.is_image = original
