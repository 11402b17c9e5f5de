"""Arrays in .npy and .npz files."""

import zipfile

import numpy as np
import pytest
from data_sources import prepared

from fmbench.data import arrays
from fmbench.data.arrays import array
from fmbench.errors import DataError

G = np.random.default_rng(0)


@pytest.mark.parametrize("form", ["npz", "compressed", "folder"])
@pytest.mark.parametrize("layout", ["CHW", "HWC", "HW"])
def test_arrays_of_images(tmp_path, form, layout):
    images = {s: G.integers(0, 256, (n, 3 if layout != "HW" else 1, 9, 11), np.uint8) for s, n in (("train", 67), ("test", 30))}
    values: dict[str, np.ndarray] = {f"{s}_y": np.arange(len(x), dtype=np.int32) % 4 for s, x in images.items()}
    for split, x in images.items():
        values[split] = {"CHW": x, "HWC": np.ascontiguousarray(x.transpose(0, 2, 3, 1)), "HW": x[:, 0]}[layout]
    path = tmp_path / ("arrays" if form == "folder" else "arrays.npz")
    if form == "folder":
        path.mkdir()
        for name, x in values.items():
            np.save(path / f"{name}.npy", x)
    else:
        (np.savez if form == "npz" else np.savez_compressed)(path, **values)
    found = prepared("array", tmp_path / "out", path=str(path), layout=layout, train_labels="train_y", test_labels="test_y")
    assert np.array_equal(found.train, images["train"]) and np.array_equal(found.test, images["test"])
    assert np.array_equal(found.labels("train"), values["train_y"]) and found.labels("train").dtype == np.int64


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f4", np.float16])
def test_arrays_of_points(tmp_path, dtype):
    np.savez(tmp_path / "p.npz", train=G.standard_normal((900, 5)).astype(dtype), test=G.standard_normal((40, 5)).astype(dtype))
    found = prepared("array", tmp_path / "out", path=str(tmp_path / "p.npz"), scale=0.5)
    with np.load(tmp_path / "p.npz") as original:
        assert np.array_equal(found.train, original["train"].astype(np.float32))
    assert found.shape == (5,) and not found.is_images and found.manifest["scale"] == 0.5
    entry = found.manifest["splits"]["train"]
    assert entry["mean"] == pytest.approx(found.train.mean(dtype=float)) and entry["std"] == pytest.approx(
        found.train.std(dtype=float)
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"train": np.zeros((5, 3, 4, 4))}, r"train has shape \(5, 3, 4, 4\) of float64; expected images of uint8 .* round them"),
        ({"train": np.zeros((5, 4, 4), np.uint8)}, "axes NCHW"),
        ({"train": np.zeros((5, 3, 4, 4), np.int64)}, "of int64"),
        ({"train": np.array(3.0)}, "shape"),
        ({"train": np.zeros((5, 3, 4, 4), np.uint8), "test": np.zeros((5, 3, 4, 5), np.uint8)}, "does not match train's"),
        ({"train": np.zeros((5, 3, 4, 4), np.uint8)}, "has no array 'test'; it has train"),
        ({"train": np.zeros((5, 2)), "test": np.full((5, 2), np.nan)}, "test: some points are not finite"),
        ({"train": np.array([{}], dtype=object)}, "Python objects"),
        ({"train": np.zeros((5, 0)), "test": np.zeros((5, 0))}, r"train: samples of shape \(0,\) are empty"),
        ({"train": np.zeros((5, 3, 4, 0), np.uint8)} | {"test": np.zeros((5, 3, 4, 0), np.uint8)}, r"\(3, 4, 0\) are empty"),
    ],
)
def test_arrays_that_are_not_a_data_set(tmp_path, values, said):
    np.savez(tmp_path / "a.npz", **values)
    with pytest.raises(DataError, match=said):
        prepared("array", tmp_path / "out", path=str(tmp_path / "a.npz"))


def test_missing_or_damaged_files_of_arrays(tmp_path):
    with pytest.raises(DataError, match=r"a\.npz is missing"):
        array(str(tmp_path / "a.npz"))
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match=r"a/train\.npy is missing"):
        array(str(tmp_path / "a"))
    np.save(tmp_path / "a" / "train.npy", np.zeros((900, 2)))
    np.save(tmp_path / "a" / "test.npy", np.zeros((90, 2)))
    data = (tmp_path / "a" / "train.npy").read_bytes()
    for kept, said in ((0, "cannot be read"), (50, "cannot be read"), (-1, "it ends in row 899 of 900")):
        (tmp_path / "a" / "train.npy").write_bytes(data[:kept])
        with pytest.raises(DataError, match=rf"train\.npy cannot be read: .*{said if kept < 0 else ''}"):
            prepared("array", tmp_path / "out", path=str(tmp_path / "a"))
    np.savez(tmp_path / "l.npz", train=np.zeros((5, 2)), test=np.zeros((5, 2)), y=np.zeros(4, int), z=np.zeros(6, int))
    for labels in "yz":
        with pytest.raises(DataError, match="labels"):
            prepared("array", tmp_path / "out", path=str(tmp_path / "l.npz"), train_labels=labels, test_labels=labels)


def test_arrays_are_read_in_pieces(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=np.arange(100_000).reshape(-1, 4))
    pieces = list(arrays.rows(tmp_path / "a.npz", "x"))
    assert len(pieces) > 50 and max(p.nbytes for p in pieces) <= 7000
    assert np.array_equal(np.concatenate(pieces).ravel(), np.arange(100_000))
    assert np.array_equal(arrays.whole(tmp_path / "a.npz", "x").ravel(), np.arange(100_000))
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert archive.namelist() == ["x.npy"]


def test_arrays_that_no_parameter_names_are_said(tmp_path):
    x, y = np.zeros((4, 2)), np.array([0, 1, 0, 1])
    np.savez(tmp_path / "a.npz", train=x, test=x, train_labels=y, test_labels=y)
    found = prepared("array", tmp_path / "out", path=str(tmp_path / "a.npz"))
    assert found.manifest["classes"] is None
    assert found.manifest["notes"] == ["left out of a.npz, as no parameter names them: test_labels, train_labels"]
    (tmp_path / "a").mkdir()
    for name in ("train", "test", "y"):
        np.save(tmp_path / "a" / f"{name}.npy", y if name == "y" else x)
    np.savez(tmp_path / "a" / "train.npz", x)
    found = prepared("array", tmp_path / "folder", path=str(tmp_path / "a"), train_labels="y", test_labels="y.npy")
    assert found.manifest["classes"] == 2
    assert found.manifest["notes"] == ["left out of a, as no parameter names them: train.npz"]
    with pytest.raises(ValueError, match="train and test are both the array x"):
        array(str(tmp_path / "a.npz"), "x", "x")


def test_labels_of_an_array_that_are_no_classes_name_their_remedy(tmp_path):
    np.savez(tmp_path / "a.npz", train=np.zeros((30, 2)), test=np.zeros((30, 2)), y=np.arange(30), one_hot=np.eye(30))
    for labels, said in (("y", "30 different labels for 30 samples"), ("one_hot", "one-hot rows")):
        with pytest.raises(DataError, match=rf"{said}.*leave out the parameters train_labels and test_labels \(then"):
            prepared("array", tmp_path / "out", path=str(tmp_path / "a.npz"), train_labels=labels, test_labels=labels)


def test_a_pointer_in_place_of_an_array(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n")
    with pytest.raises(DataError, match="it is a pointer of Git LFS, not the file itself"):
        array(str(tmp_path / "a.npz"))
