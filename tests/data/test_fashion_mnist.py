"""IDX files, and Fashion-MNIST from them."""

import os
from pathlib import Path

import numpy as np
import pytest
from data_sources import prepared

from fmbench.data import idx, npy
from fmbench.data.sources import make
from fmbench.errors import DataError


def test_fashion_mnist_from_files(fashion, tmp_path):
    folder, original = fashion
    found = prepared("fashion_mnist", tmp_path / "out", path=str(folder))
    for split, prefix in (("train", "train"), ("test", "t10k")):
        assert np.array_equal(getattr(found, split)[:, 0], original[f"{prefix}-images-idx3-ubyte"])
        assert np.array_equal(found.labels(split), original[f"{prefix}-labels-idx1-ubyte"])
    assert found.manifest["class_names"][9] == "Ankle boot" and found.manifest["preprocessing"] == "none"


@pytest.mark.parametrize(("pad", "before"), [(32, 2), (33, 2), (28, 0)])
def test_padding_puts_zeros_around_the_image(fashion, pad, before):
    folder, original = fashion
    images = make("fashion_mnist", {"path": str(folder), "pad": pad}).train
    assert images.shape == (41, 1, pad, pad)
    inside = slice(before, before + 28)
    assert np.array_equal(images[:, 0, inside, inside], original["train-images-idx3-ubyte"])
    assert images.sum() == original["train-images-idx3-ubyte"].sum(dtype=int)


@pytest.mark.parametrize("place", ["cache/fashion_mnist", "debian"])
def test_fashion_mnist_in_its_customary_places(fashion, tmp_path, place):
    folder, _ = fashion
    (tmp_path / place).parent.mkdir(exist_ok=True)
    folder.rename(tmp_path / place)
    assert len(make("fashion_mnist", {"download": False}).train) == 41


def test_missing_fashion_mnist_names_its_source(tmp_path):
    with pytest.raises(DataError, match=r"neither in .*cache.* nor in .*debian.*dataset-fashion-mnist"):
        make("fashion_mnist", {"download": False})
    with pytest.raises(DataError, match=r"nowhere: expected the four IDX files .*it does not exist.*github.com"):
        make("fashion_mnist", {"path": str(tmp_path / "nowhere")})
    with pytest.raises(DataError, match="none of them is there"):
        make("fashion_mnist", {"path": str(tmp_path)})


def test_fashion_mnist_with_a_missing_file(fashion):
    folder, _ = fashion
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte is missing, with and without \.gz.*github"):
        make("fashion_mnist", {"path": str(folder)})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d[:-1], r"expected 9424 bytes for the shape \(12, 28, 28\), found 9423: truncated"),
        (lambda d: d[:10], "truncated"),
        (lambda d: b"", r"starts with b''"),
        (lambda d: b"\0\0\x09" + d[3:], r"is not an IDX file of bytes in 3 dimensions: it starts with b'\\x00\\x00\\t"),
        (lambda d: d[:-1] + bytes([d[-1] ^ 1]), "has the sha256 .*, expected .*dataset-fashion-mnist"),
    ],
)
def test_a_damaged_idx_file(fashion, change, said):
    folder, _ = fashion
    path = folder / "t10k-images-idx3-ubyte"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=f"t10k-images-idx3-ubyte.*{said}"):
        make("fashion_mnist", {"path": str(folder)})


@pytest.mark.parametrize("kept", [0, 20, -8])
def test_a_truncated_compressed_idx_file(fashion, kept):
    folder, _ = fashion
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz"):
        make("fashion_mnist", {"path": str(folder)})


REAL = Path(os.environ.get("FMBENCH_FASHION_MNIST") or idx.DEBIAN)


@pytest.mark.skipif(
    not (REAL / "train-images-idx3-ubyte.gz").exists() and not (REAL / "train-images-idx3-ubyte").exists(),
    reason=f"Fashion-MNIST is not in {REAL}; set FMBENCH_FASHION_MNIST to the folder with its files",
)
def test_the_whole_of_fashion_mnist(tmp_path, monkeypatch):
    """Its published mean and standard deviation are 0.2860 and 0.3530."""
    monkeypatch.setattr(npy, "PIECE_BYTES", 4_000_000)
    found = prepared("fashion_mnist", tmp_path, path=str(REAL))
    assert (found.train.shape, found.test.shape) == ((60_000, 1, 28, 28), (10_000, 1, 28, 28))
    entry = found.manifest["splits"]["train"]
    assert (round(entry["mean"] / 255, 4), round(entry["std"] / 255, 4)) == (0.2860, 0.3530)
    for split, n in (("train", 6000), ("test", 1000)):
        assert np.bincount(found.labels(split)).tolist() == [n] * 10
    padded = make("fashion_mnist", {"path": str(REAL), "pad": 32})
    assert np.array_equal(padded.train[:, :, 2:-2, 2:-2], found.train)
