"""ImageNet: the downsampled releases, and ILSVRC 2012 from folders."""

from pathlib import Path

import numpy as np
import pytest
from data_sources import picture, prepared, saved

from fmbench.data import folders, imagenet
from fmbench.data.images import Item, Recipe, decode
from fmbench.data.sources import make
from fmbench.errors import DataError

G = np.random.default_rng(0)


@pytest.fixture
def downsampled(tmp_path, monkeypatch):
    """Ten batches of 5 to 14 images at 32 x 32, and 8 for validation; only train has a mean, as in the originals."""
    monkeypatch.setattr(imagenet, "TRAIN", sum(range(5, 15)))
    monkeypatch.setattr(imagenet, "VALIDATION", 8)
    folder = tmp_path / "imagenet32"
    folder.mkdir()
    for i in range(11):
        n = 5 + i if i < 10 else 8
        values = {"data": G.integers(0, 256, (n, 3072), np.uint8), "labels": G.integers(1, 1001, n)}
        if i < 10:
            np.savez_compressed(folder / f"train_data_batch_{i + 1}.npz", **values, mean=values["data"].mean(0))
        else:
            np.savez(folder / "val_data.npz", **values)
    return folder


@pytest.mark.parametrize("variant", imagenet.VARIANTS)
def test_downsampled_imagenet(downsampled, tmp_path, variant):
    found = prepared("imagenet_downsampled", tmp_path / "out", path=str(downsampled), variant=variant)
    batches = [np.load(downsampled / f"train_data_batch_{i}.npz") for i in range(1, 11)]
    assert np.array_equal(found.train.reshape(-1, 3072), np.concatenate([b["data"] for b in batches]))
    assert np.array_equal(found.labels("train") + 1, np.concatenate([b["labels"] for b in batches]))
    assert found.test.shape == (8, 3, 32, 32)
    assert found.manifest["variant"].startswith(variant)


def test_downsampled_imagenet_in_the_cache(downsampled, tmp_path):
    (tmp_path / "cache").mkdir()
    downsampled.rename(tmp_path / "cache" / "imagenet32")
    make("imagenet_downsampled", {"variant": "antialiased"})
    with pytest.raises(DataError, match=r"cache/imagenet64: train_data_batch_1.npz, .*image-net.org"):
        make("imagenet_downsampled", {"variant": "antialiased", "size": 64})


def damage(change):
    def apply(folder: Path) -> None:
        path = folder / "train_data_batch_3.npz"
        path.write_bytes(change(path.read_bytes()))

    return apply


def resave(**changes):
    def apply(folder: Path) -> None:
        path = folder / "train_data_batch_3.npz"
        with np.load(path) as old:
            values = dict(old) | changes
        np.savez(path, **{k: v for k, v in values.items() if v is not None})

    return apply


@pytest.mark.parametrize(
    ("apply", "said"),
    [
        (lambda f: (f / "train_data_batch_3.npz").unlink(), r"imagenet32: train_data_batch_3.npz missing. ImageNet is at https"),
        (damage(lambda d: d[:3000]), "train_data_batch_3.npz.* cannot be read: .*image-net"),
        (damage(lambda d: d[:3000] + bytes([d[3000] ^ 255]) + d[3001:]), "train_data_batch_3.npz.* cannot be read: .*image-net"),
        (resave(data=None), "train_data_batch_3.npz has no array 'data'; it has labels, mean"),
        (resave(data=np.zeros((7, 12288), np.uint8)), r"expected rows of 3 x 32 x 32 uint8, found shape \(7, 12288\) of uint8"),
        (resave(data=np.zeros((6, 3072), np.uint8)), "expected 95 images in train_data_batch_1.npz to .*, found 94"),
        (resave(labels=np.arange(7)), "batch_3.npz: expected 7 labels from 1 to 1000, found .* from 0 to 6"),
        (resave(labels=np.arange(1, 7)), r"expected 7 labels from 1 to 1000, found shape \(6,\)"),
        (resave(labels=np.array([{}] * 7, dtype=object)), "Python objects, which fmbench does not load"),
        (resave(data=np.asfortranarray(np.zeros((7, 3072), np.uint8))), "Fortran"),
    ],
)
def test_incomplete_downsampled_imagenet(downsampled, tmp_path, apply, said):
    apply(downsampled)
    with pytest.raises(DataError, match=said):
        prepared("imagenet_downsampled", tmp_path / "out", path=str(downsampled), variant="antialiased")
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize("resize", ["area", "antialias"])
def test_imagenet_from_folders(ilsvrc, tmp_path, resize):
    found = prepared("imagenet", tmp_path / "out", path=str(ilsvrc), size=16, resize=resize)
    assert (found.train.shape, found.test.shape) == ((21, 3, 16, 16), (6, 3, 16, 16))
    assert np.bincount(found.labels("train")).tolist() == [7, 7, 7]
    grey = (found.train[:, 0] == found.train[:, 1]).all((1, 2)) & (found.train[:, 0] == found.train[:, 2]).all((1, 2))
    assert grey.sum() == 3
    expected = {decode(Item(str(p)), Recipe(16, 16, 3, resize)).tobytes() for p in ilsvrc.glob("train/*/*.JPEG")}
    assert {x.tobytes() for x in found.train} == expected
    assert found.manifest["variant"] == "ILSVRC 2012" and resize in found.manifest["preprocessing"]


def test_a_flat_validation_set_with_kaggles_list(ilsvrc, tmp_path):
    labels = {}
    for path in list(ilsvrc.glob("val/*/*.JPEG")):
        labels[path.stem] = path.parent.name
        path.rename(ilsvrc / "val" / path.name)
    for empty in [p for p in (ilsvrc / "val").iterdir() if p.is_dir()]:
        empty.rmdir()
    with pytest.raises(DataError, match=r"val: expected a folder for each class, or .*LOC_val_solution.csv"):
        make("imagenet", {"path": str(ilsvrc)})
    lines = [f"{stem},{wnid} 1 2 30 40 {wnid} 5 5 6 6 " for stem, wnid in labels.items()]
    (ilsvrc / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *lines]))
    found = prepared("imagenet", tmp_path / "out", path=str(ilsvrc), size=8)
    classes = found.manifest["class_names"]
    order = [Path(name).stem for name, _ in folders.listing(ilsvrc / "val").files]
    assert [classes[k] for k in found.labels("test")] == [labels[stem] for stem in order]
    (ilsvrc / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *lines[1:]]))
    with pytest.raises(DataError, match=r"LOC_val_solution.csv: it lacks the class of 'ILSVRC2012_val_00', an image of val"):
        make("imagenet", {"path": str(ilsvrc)})
    for data in (b"id,label\nx,y\n", b"ImageId,PredictionString\nx\n", b"ImageId,PredictionString\nx,\xff\n"):
        (ilsvrc / "LOC_val_solution.csv").write_bytes(data)
        with pytest.raises(DataError, match=r"LOC_val_solution.csv: expected the columns ImageId and PredictionString in UTF-8"):
            make("imagenet", {"path": str(ilsvrc)})


def test_incomplete_imagenet(ilsvrc, tmp_path):
    with pytest.raises(
        DataError, match=r"cache/imagenet: expected the folders train and val, and train is not there.*image-net.org"
    ):
        make("imagenet", {})
    one = next(ilsvrc.glob("train/*/*.JPEG"))
    outside = one.rename(ilsvrc / "train" / one.name)
    with pytest.raises(DataError, match=rf"train: {one.name} is in no class folder, but there are the folders n01440764"):
        make("imagenet", {"path": str(ilsvrc)})
    outside.rename(one)
    data = one.read_bytes()
    one.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=rf"{one.name} cannot be read as an image: .*; replace or remove it"):
        prepared("imagenet", tmp_path / "out", path=str(ilsvrc), size=8)
    one.unlink()
    with pytest.raises(DataError, match=r"train: expected 21 images, found 20; .* source folder.*image-net.org"):
        make("imagenet", {"path": str(ilsvrc)})
    saved(picture(), ilsvrc / "train" / "n99999999" / "a.JPEG")
    with pytest.raises(DataError, match="expected 3 folders, one for each class, found 4"):
        make("imagenet", {"path": str(ilsvrc)})


def test_a_batch_that_is_a_copy_of_another(downsampled):
    """In the releases, nine of ten batches have as many images, so the counts do not show it."""
    for name in ("val_data.npz", "train_data_batch_2.npz"):
        with np.load(downsampled / "train_data_batch_1.npz") as one, np.load(downsampled / name) as other:
            np.savez(downsampled / name, data=one["data"], labels=other["labels"])
        with pytest.raises(DataError, match=rf"train_data_batch_1\.npz and {name} have the same images; download {name} again"):
            make("imagenet_downsampled", {"variant": "antialiased", "path": str(downsampled)})


def test_files_beside_the_images_are_said(ilsvrc, tmp_path):
    (ilsvrc / "train" / "n01440764" / "notes.txt").write_text("no image")
    found = prepared("imagenet", tmp_path / "out", path=str(ilsvrc), size=8)
    assert found.manifest["notes"] == ["train: 1 file was left out, as no images: 1 .txt"]
    one = next((ilsvrc / "train" / "n01440764").glob("*.JPEG"))
    one.rename(one.with_suffix(".JPEG.part"))
    with pytest.raises(
        DataError, match=r"train: expected 21 images, found 20 \(and other files: 1 \.part, 1 \.txt\); for a part"
    ):
        make("imagenet", {"path": str(ilsvrc)})
