"""CIFAR-10 from its pickles, and pickles that must not be loaded."""

import hashlib
import io
import os
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from data_sources import prepared

from fmbench.data import cifar
from fmbench.data.sources import make
from fmbench.errors import DataError


class Python2(pickle._Pickler):
    """Pickles as Python 2 wrote the originals: protocol 2, texts as BINSTRING, arrays by numpy.core.multiarray."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012

    def __init__(self, stream):
        super().__init__(stream, 2)

    def _text(self, value):
        data = value if isinstance(value, bytes) else value.encode("latin1")
        if len(data) < 256:
            self.write(b"U" + bytes([len(data)]) + data)
        else:
            self.write(b"T" + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = _text

    def save_global(self, obj, name=None):
        module = obj.__module__.replace("numpy._core", "numpy.core")
        self.write(f"c{module}\n{obj.__name__}\n".encode())
        self.memoize(obj)


Python2.dispatch[type(np.ndarray)] = Python2.save_global
Python2.dispatch[type(lambda: 0)] = Python2.save_global


def python2(value) -> bytes:
    stream = io.BytesIO()
    Python2(stream).dump(value)
    return stream.getvalue()


ROWS = 23


def batch(name: str, seed: int, dump=python2, **changes) -> tuple[bytes, np.ndarray, list[int]]:
    g = np.random.default_rng(seed)
    images, labels = g.integers(0, 256, (ROWS, 3072), np.uint8), [int(k) for k in g.integers(0, 10, ROWS)]
    text = str if dump is python2 else str.encode
    values = {"batch_label": name, "labels": labels, "data": images, "filenames": [f"{i}.png" for i in range(ROWS)]} | changes
    return dump({text(k): v for k, v in values.items() if v is not None}), images, labels


@pytest.fixture
def cifar_folder(tmp_path, monkeypatch):
    """Six batches of 23 images."""
    monkeypatch.setattr(cifar, "ROWS", ROWS)
    folder = tmp_path / "src" / cifar.FOLDER
    folder.mkdir(parents=True)
    images, labels, hashes = [], [], {}
    for seed, name in enumerate(cifar.BATCHES):
        data, x, y = batch(name, seed)
        (folder / name).write_bytes(data)
        hashes[name] = hashlib.md5(data).hexdigest()
        images.append(x)
        labels.append(y)
    (folder / "batches.meta").write_bytes(python2({"label_names": ["airplane"]}))
    monkeypatch.setattr(cifar, "BATCHES", hashes)
    return folder, np.stack(images), np.array(labels)


def pack(folder: Path) -> Path:
    """The archive with its batches in the order of the original, which is not sorted."""
    path = folder.parent / cifar.ARCHIVE.name
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, folder.name, recursive=False)
        for name in (
            "batches.meta",
            "data_batch_4",
            "test_batch",
            *(b for b in cifar.BATCHES if b not in ("data_batch_4", "test_batch")),
        ):
            archive.add(folder / name, f"{folder.name}/{name}")
    return path


def test_the_pickles_of_these_tests_are_those_of_python_2(cifar_folder):
    data = (cifar_folder[0] / "data_batch_1").read_bytes()
    assert data[:2] == b"\x80\x02" and b"cnumpy.core.multiarray\n_reconstruct\n" in data and b"U\x04data" in data
    assert set(pickle.loads(data, encoding="bytes")) == {b"batch_label", b"labels", b"data", b"filenames"}


@pytest.mark.parametrize("form", ["folder", "parent", "archive", "cache"])
def test_cifar10(cifar_folder, tmp_path, form):
    folder, images, labels = cifar_folder
    parameters = {"folder": folder, "parent": folder.parent, "archive": folder.parent / cifar.ARCHIVE.name}
    if form in ("archive", "cache"):
        pack(folder)
    if form == "cache":
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / "cifar10").symlink_to(folder.parent)
    found = prepared("cifar10", tmp_path / "out", **({} if form == "cache" else {"path": str(parameters[form])}))
    assert np.array_equal(found.train, images[:5].reshape(-1, 3, 32, 32))
    assert np.array_equal(found.test, images[5].reshape(-1, 3, 32, 32))
    assert np.array_equal(found.labels("train"), labels[:5].ravel()) and np.array_equal(found.labels("test"), labels[5])
    channels = images[:5].reshape(-1, 3, 1024)
    assert found.manifest["splits"]["train"]["channel_mean"] == pytest.approx(channels.mean((0, 2)))
    assert found.manifest["splits"]["train"]["channel_std"] == pytest.approx(channels.std((0, 2)))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_batches_pickled_by_python_3(monkeypatch, protocol):
    """Protocol 2 spells bytes through _codecs.encode; newer numpy says numpy._core."""
    monkeypatch.setattr(cifar, "ROWS", ROWS)
    data, images, labels = batch("a", 0, lambda v: pickle.dumps(v, protocol))
    if protocol == 5:  # protocol 5 makes arrays by _frombuffer, which no original does
        with pytest.raises(DataError, match="_frombuffer, which could run code"):
            cifar.read_batch(data, "a")
        return
    found = cifar.read_batch(data, "a")
    assert np.array_equal(found[0].reshape(ROWS, -1), images) and found[1].tolist() == labels


class Evil:
    def __reduce__(self):
        return os.system, ("exit 1",)


@pytest.mark.parametrize(
    "data", [pickle.dumps(Evil(), 2), pickle.dumps({b"data": Evil()}), b"cbuiltins\neval\n(S'1'\ntR.", b"cnumpy\nload\n."]
)
def test_a_pickle_with_code_is_not_loaded(data):
    with pytest.raises(
        DataError, match=r"some.pkl cannot be unpickled: it asks for \w+\.\w+, which could run code, so fmbench does not load it"
    ):
        cifar.unpickle(data, "some.pkl")


@pytest.mark.parametrize("data", [b"", b"\x80", b"garbage", b"\x80\x02}q\x01(U\x04da"])
def test_a_damaged_pickle(data):
    with pytest.raises(DataError, match=r"some.pkl cannot be unpickled: .*cs\.toronto\.edu"):
        cifar.unpickle(data, "some.pkl")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": np.zeros((ROWS, 3071), np.uint8)}, r"found shape \(23, 3071\) of uint8 and 23 labels"),
        ({"data": np.zeros((ROWS, 3072), np.int64)}, "of int64"),
        ({"data": [1, 2]}, "found shape None of list"),
        ({"labels": [0] * 22}, "and 22 labels"),
        ({"labels": [10] * ROWS}, r"expected labels from 0 to 9, found \['10'\]"),
        ({"labels": None}, r"expected a dictionary with b'data' and b'labels', found \[\"b'batch_label'\", \"b'data'\""),
    ],
)
def test_a_batch_of_the_wrong_kind(monkeypatch, changes, said):
    monkeypatch.setattr(cifar, "ROWS", ROWS)
    with pytest.raises(DataError, match=said):
        cifar.read_batch(batch("a", 0, **changes)[0], "a")


def test_cifar10_with_a_missing_or_changed_batch(cifar_folder):
    folder, _, _ = cifar_folder
    (folder / "data_batch_2").write_bytes(b"other")
    with pytest.raises(DataError, match=r"data_batch_2 \(5 bytes\) has the md5 .*, expected .*cifar-10-python.tar.gz"):
        make("cifar10", {"path": str(folder)})
    (folder / "data_batch_2").unlink()
    with pytest.raises(DataError, match="data_batch_2 missing, found data_batch_1, data_batch_3"):
        make("cifar10", {"path": str(folder)})


@pytest.mark.parametrize("kept", [0, 5, 1000, -5000])
def test_a_truncated_archive(cifar_folder, kept):
    path = pack(cifar_folder[0])
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"cifar-10-python.tar.gz.*(truncated|missing)"):
        make("cifar10", {"path": str(path)})


def test_missing_cifar10_names_its_source(tmp_path):
    with pytest.raises(DataError, match=r"CIFAR-10 is not in .*cache/cifar10.*https://www.cs.toronto.edu"):
        make("cifar10", {"download": False})
