"""Fixtures that isolate the tests from the machine, make pieces small, and prepare sources for several files of tests."""

import gzip
import hashlib

import numpy as np
import pytest
from data_sources import idx_bytes, picture, saved

from fmbench.data import idx, imagenet, npy


@pytest.fixture(autouse=True)
def nothing_from_elsewhere(tmp_path, monkeypatch):
    """No test sees the files, or the cache, of the machine it runs on."""
    monkeypatch.setenv("FMBENCH_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(idx, "DEBIAN", tmp_path / "debian")


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Pieces so small that every array has many, and that do not hold a whole number of rows."""
    monkeypatch.setattr(npy, "PIECE_BYTES", 7000)


@pytest.fixture
def fashion(tmp_path, monkeypatch):
    """The four files, with 41 and 12 images, two of them compressed."""
    arrays_ = {}
    g = np.random.default_rng(0)
    for name in idx.FILES:
        n = 41 if name.startswith("train") else 12
        arrays_[name] = g.integers(0, 256, (n, 28, 28), np.uint8) if "images" in name else np.arange(n, dtype=np.uint8) % 10
    folder = tmp_path / "fashion"
    folder.mkdir()
    for name, values in arrays_.items():
        data = idx_bytes(values)
        if name.startswith("train"):
            (folder / f"{name}.gz").write_bytes(gzip.compress(data))
        else:
            (folder / name).write_bytes(data)
    monkeypatch.setattr(idx, "FILES", {k: hashlib.sha256(idx_bytes(v)).hexdigest() for k, v in arrays_.items()})
    return folder, arrays_


@pytest.fixture
def patient(monkeypatch):
    """Downloads from this machine only, without the waits between tries."""
    pytest.importorskip("pooch")
    import pooch.core

    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pooch.core.time, "sleep", lambda seconds: None)


@pytest.fixture
def ilsvrc(tmp_path, monkeypatch):
    """Three classes of JPEGs, some grey and one CMYK, and a validation set in folders."""
    monkeypatch.setattr(imagenet, "CLASSES", 3)
    monkeypatch.setattr(imagenet, "TRAIN", 21)
    monkeypatch.setattr(imagenet, "VALIDATION", 6)
    root = tmp_path / "imagenet"
    for k, wnid in enumerate(("n01440764", "n01443537", "n02085620")):
        for i in range(7):
            mode = {1: "L", 4: "CMYK"}.get(i, "RGB")
            saved(picture(60 + i, 40 + 9 * i, mode, 10 * k + i), root / "train" / wnid / f"{wnid}_{i}.JPEG", quality=95)
        for i in range(2):
            saved(picture(50, 50, seed=90 + k), root / "val" / wnid / f"ILSVRC2012_val_{k}{i}.JPEG")
    return root
