"""Sources of data on files that these tests write in the exact formats of the originals, and on Fashion-MNIST itself."""

import contextlib
import errno
import gzip
import hashlib
import http.server
import importlib.util
import io
import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fmbench.config import names
from fmbench.data import arrays, cifar, download, folders, idx, imagenet, points, writer
from fmbench.data.arrays import array
from fmbench.data.images import Item, Recipe, decode, decoded
from fmbench.data.prepared import DataSet, read
from fmbench.data.raw import RawData, Stream
from fmbench.data.sources import SOURCES, bound, make
from fmbench.data.writer import Histogram, Moments, write
from fmbench.errors import DataError, LockedError
from fmbench.stages import prepare
from fmbench.store.files import sha256
from fmbench.system.progress import Console

SPEC = {"stage": "prepare", "dataset": "some", "source": "x", "parameters": {}}
G = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def nothing_from_elsewhere(tmp_path, monkeypatch):
    """No test sees the files, or the cache, of the machine it runs on."""
    monkeypatch.setenv("FMBENCH_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(idx, "DEBIAN", tmp_path / "debian")


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """So small that every array is in many pieces, and no number of rows fits."""
    monkeypatch.setattr(writer, "PIECE_BYTES", 7000)


def prepared(source: str, folder: Path, **parameters) -> DataSet:
    write(make(source, parameters), folder, SPEC | {"source": source, "parameters": parameters})
    return read(folder)


# Points


@pytest.mark.parametrize("name", names.POINT_SETS[1:])
def test_the_entropy_is_that_of_the_points_drawn(name):
    """The mean of -log p over the set's own points is the entropy: density, draws and integral agree."""
    raw = make(name, {"train": 10_000, "test": 100})
    density = points.Pinwheel() if name == "pinwheel" else points.noisy_curve(name, _noise(name))
    surprise = -density.log_density(raw.train)
    assert surprise.mean() == pytest.approx(raw.entropy, abs=4 * surprise.std() / 100)
    assert raw.train.dtype == np.float32
    assert raw.train.std(0).min() > 0.6 and raw.train.std(0).max() < 1.3
    assert np.abs(raw.train.mean(0)).max() < 0.06
    again = make(name, {"train": 50, "test": 100})
    assert np.array_equal(again.test, raw.test) and not {*map(tuple, raw.test)} & {*map(tuple, raw.train)}


def _noise(name: str) -> float:
    return SOURCES[name].__defaults__[-1]


@pytest.mark.parametrize("name", points.CURVES)
def test_a_density_integrates_to_one_and_more_nodes_change_nothing(name):
    noise = _noise(name)
    curve, nodes = points.CURVES[name]
    density = points.noisy_curve(name, noise)
    grid = np.arange(-3.5, 3.5, 0.05)
    p = np.exp(density.log_density(np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)))
    assert p.sum() * 0.05**2 == pytest.approx(1, abs=1e-6)
    finer = points.NoisyCurve(curve((np.arange(4 * nodes) + 0.5) / (4 * nodes)), noise)
    assert finer.entropy() == pytest.approx(density.entropy(), abs=2e-4)


def test_entropies_in_closed_form():
    """One Gaussian has log(2 pi e s^2); eight far apart log 8 more; a pinwheel of one blade that of its Gaussian."""
    one = np.log(2 * np.pi * np.e * 0.3**2)
    assert points.NoisyCurve(np.zeros((1, 2)), 0.3).entropy() == pytest.approx(one, abs=1e-9)
    assert points.NoisyCurve(100 * np.arange(16.0).reshape(8, 2), 30.0 / 30).entropy() == pytest.approx(
        np.log(8 * 2 * np.pi * np.e), abs=1e-9
    )
    blade = np.log(2 * np.pi * np.e * 0.35 * 0.1)
    assert points.Pinwheel(1).entropy() == pytest.approx(blade, abs=1e-9)


def test_the_twist_of_the_pinwheel_is_undone_and_keeps_areas():
    wheel, x = points.Pinwheel(), G.standard_normal((50, 2))
    assert wheel.turn(wheel.turn(x), -1.0) == pytest.approx(x)
    h = 1e-6
    columns = [(wheel.turn(x + h * e) - wheel.turn(x - h * e)) / (2 * h) for e in np.eye(2)]
    assert np.linalg.det(np.stack(columns, -1)) == pytest.approx(1, abs=1e-6)


def test_shapes_of_the_curves():
    u = np.linspace(0, 1, 4001)[:-1]
    curves = {name: curve(u) for name, (curve, _) in points.CURVES.items()}
    assert np.hypot(*curves["eight_gaussians"].T) == pytest.approx(1.5)
    assert len(np.unique(curves["eight_gaussians"].round(6), axis=0)) == 8
    assert sorted(set(np.hypot(*curves["rings"].T).round(9))) == [0.5, 1, 1.5, 2]
    arms = curves["spirals"].reshape(2, -1, 2)
    assert arms[0] == pytest.approx(-arms[1])
    moons = curves["two_moons"].reshape(2, -1, 2)
    assert moons[0][:, 1].min() >= -0.35 - 1e-9 and moons[1][:, 1].max() <= 0.35 + 1e-9


@pytest.mark.parametrize(("name", "noise"), [("rings", 0.0), ("two_moons", -1.0), ("spirals", 1e-3), ("eight_gaussians", 2.0)])
def test_a_noise_without_a_density(name, noise):
    with pytest.raises(ValueError, match=rf"'{name}': noise: Input should be .* than or equal to (0\.01|1), not {noise}"):
        make(name, {"noise": noise})


# Parameters


@pytest.mark.parametrize(
    ("source", "parameters", "said"),
    [
        ("fashion_mnist", {"pad": "32"}, "pad: Input should be a valid integer, not '32'"),
        ("fashion_mnist", {"pad": 27}, "pad: .*greater than or equal to 28, not 27"),
        ("folder", {"path": "x", "size": 0, "test_share": 0.5}, None),
        ("folder", {"path": "x", "resize": "nearest"}, "resize: Input should be 'area' or 'antialias'"),
        ("imagenet_downsampled", {"size": 32}, "does not take the parameters"),
        ("imagenet_downsampled", {"variant": "new"}, "variant: Input should be 'chrabaszcz2017' or 'antialiased'"),
        ("array", {"path": "x", "layout": "WHC"}, "layout: Input should be"),
        ("imagenet_downsampled", {"variant": "antialiased", "size": 48}, "size: Input should be 32 or 64, not 48"),
        ("pinwheel", {"blades": 0}, "blades: .*greater than or equal to 1, not 0"),
        ("folder", {"path": "x", "test_share": 1.0}, "test_share.*less than 1, not 1.0"),
        *((name, {split: 1}, f"{split}: .* 2, not 1") for name in names.POINT_SETS for split in ("train", "test")),
        ("rings", {"tset": 100}, "unexpected keyword argument 'tset'; it takes train, test, noise"),
        ("user_code:two_points", {"m": 3}, "unexpected keyword argument 'm'; it takes n, support"),
        ("user_code:not_a_data_set", {"m": 3}, "it takes none"),
        ("math:pi", {}, "'math:pi' is a float, not a function that returns a RawData"),
    ],
)
def test_parameters_that_a_source_does_not_take(source, parameters, said):
    with pytest.raises((ValueError, DataError), match=said):
        make(source, parameters)
    if said is not None:  # and that is known without any data
        with pytest.raises(ValueError, match=said):
            bound(source, parameters)


def test_parameters_are_bound_without_reading_data(tmp_path):
    for source in ("folder", "array", "hf_parquet", "user_code:not_a_data_set"):
        bound(source, {} if ":" in source else {"path": str(tmp_path / "nowhere")})
    assert bound("rings", {"train": 3, "test": 2, "noise": 1})().train.shape == (3, 2)


@pytest.mark.parametrize(
    ("source", "parameters", "shape"),
    [
        ("rings", {}, (2,)),
        ("fashion_mnist", {}, (1, 28, 28)),
        ("fashion_mnist", {"pad": 32}, (1, 32, 32)),
        ("fashion_mnist", {"pad": "32"}, None),
        ("imagenet_downsampled", {"variant": "antialiased", "size": 64}, (3, 64, 64)),
        ("imagenet", {}, (3, 64, 64)),
        ("imagenet", {"size": 256}, (3, 256, 256)),
        ("folder", {"path": "x"}, None),
        ("folder", {"path": "x", "size": 48, "channels": 1}, (1, 48, 48)),
        ("hf_parquet", {"path": "x", "size": 16}, (3, 16, 16)),
        ("array", {"path": "x"}, None),
        ("user_code:tall_images", {"size": 3}, None),
    ],
)
def test_shapes_known_before_anything_is_prepared(source, parameters, shape):
    assert names.sample_shape(source, parameters) == shape


# IDX and Fashion-MNIST


def idx_bytes(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.astype(np.uint8).tobytes()


@pytest.fixture
def fashion(tmp_path, monkeypatch):
    """The four files, with 41 and 12 images, two of them compressed."""
    arrays_ = {}
    for name in idx.FILES:
        n = 41 if name.startswith("train") else 12
        arrays_[name] = G.integers(0, 256, (n, 28, 28), np.uint8) if "images" in name else np.arange(n, dtype=np.uint8) % 10
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


def test_fashion_mnist_from_files(fashion, tmp_path):
    folder, original = fashion
    found = prepared("fashion_mnist", tmp_path / "out", path=str(folder))
    for split, prefix in (("train", "train"), ("test", "t10k")):
        assert np.array_equal(getattr(found, split)[:, 0], original[f"{prefix}-images-idx3-ubyte"])
        assert np.array_equal(found.labels(split), original[f"{prefix}-labels-idx1-ubyte"])
    assert found.manifest["class_names"][9] == "Ankle boot" and found.manifest["preprocessing"] == "none"


@pytest.mark.parametrize(("pad", "before"), [(32, 2), (33, 2), (28, 0)])
def test_padding_is_of_zeros_around_the_image(fashion, pad, before):
    folder, original = fashion
    images = make("fashion_mnist", {"path": str(folder), "pad": pad}).train
    assert images.shape == (41, 1, pad, pad)
    inside = slice(before, before + 28)
    assert np.array_equal(images[:, 0, inside, inside], original["train-images-idx3-ubyte"])
    assert images.sum() == original["train-images-idx3-ubyte"].sum(dtype=int)


@pytest.mark.parametrize("place", ["cache/fashion_mnist", "debian"])
def test_fashion_mnist_where_it_is_by_custom(fashion, tmp_path, place):
    folder, _ = fashion
    (tmp_path / place).parent.mkdir(exist_ok=True)
    folder.rename(tmp_path / place)
    assert len(make("fashion_mnist", {"download": False}).train) == 41


def test_fashion_mnist_that_is_nowhere(tmp_path):
    with pytest.raises(DataError, match=r"neither in .*cache.* nor in .*debian.*dataset-fashion-mnist"):
        make("fashion_mnist", {"download": False})
    with pytest.raises(DataError, match=r"nowhere: expected the four IDX files .*it does not exist.*github.com"):
        make("fashion_mnist", {"path": str(tmp_path / "nowhere")})
    with pytest.raises(DataError, match="none of them is there"):
        make("fashion_mnist", {"path": str(tmp_path)})


def test_fashion_mnist_with_a_file_missing(fashion):
    folder, _ = fashion
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte is missing, with \.gz or without.*github"):
        make("fashion_mnist", {"path": str(folder)})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d[:-1], r"expected 9424 bytes for the shape \(12, 28, 28\), found 9423: truncated"),
        (lambda d: d[:10], "truncated"),
        (lambda d: b"", r"starts with b''"),
        (lambda d: b"\0\0\x09" + d[3:], r"is no IDX file of bytes in 3 dimensions: starts with b'\\x00\\x00\\t"),
        (lambda d: d[:-1] + bytes([d[-1] ^ 1]), "has the sha256 .*, expected .*dataset-fashion-mnist"),
    ],
)
def test_an_idx_file_that_is_damaged(fashion, change, said):
    folder, _ = fashion
    path = folder / "t10k-images-idx3-ubyte"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=f"t10k-images-idx3-ubyte.*{said}"):
        make("fashion_mnist", {"path": str(folder)})


@pytest.mark.parametrize("kept", [0, 20, -8])
def test_a_compressed_idx_file_that_is_truncated(fashion, kept):
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
def test_fashion_mnist_whole(tmp_path, monkeypatch):
    """Its published mean and standard deviation are 0.2860 and 0.3530."""
    monkeypatch.setattr(writer, "PIECE_BYTES", 4_000_000)
    found = prepared("fashion_mnist", tmp_path, path=str(REAL))
    assert (found.train.shape, found.test.shape) == ((60_000, 1, 28, 28), (10_000, 1, 28, 28))
    entry = found.manifest["splits"]["train"]
    assert (round(entry["mean"] / 255, 4), round(entry["std"] / 255, 4)) == (0.2860, 0.3530)
    for split, n in (("train", 6000), ("test", 1000)):
        assert np.bincount(found.labels(split)).tolist() == [n] * 10
    padded = make("fashion_mnist", {"path": str(REAL), "pad": 32})
    assert np.array_equal(padded.train[:, :, 2:-2, 2:-2], found.train)


# CIFAR-10


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
    """The archive, batches in the order of the original: not sorted."""
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
    if protocol == 5:  # in-band arrays of protocol 5 go by _frombuffer, which no original does
        with pytest.raises(DataError, match="_frombuffer, which is not loaded"):
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
        DataError, match=r"some.pkl cannot be unpickled: it asks for \w+\.\w+, which is not loaded: it could run code"
    ):
        cifar.unpickle(data, "some.pkl")


@pytest.mark.parametrize("data", [b"", b"\x80", b"garbage", b"\x80\x02}q\x01(U\x04da"])
def test_a_pickle_that_is_damaged(data):
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


def test_cifar10_with_a_batch_missing_or_changed(cifar_folder):
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


def test_cifar10_that_is_nowhere(tmp_path):
    with pytest.raises(DataError, match=r"CIFAR-10 is not in .*cache/cifar10.*https://www.cs.toronto.edu"):
        make("cifar10", {"download": False})


# Downloads


@contextlib.contextmanager
def server(answers: list[tuple[int, bytes]]):
    """A server that gives these answers in turn, the last one for ever; yields its address and the paths asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, body = answers[min(len(asked), len(answers) - 1)]
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    http_server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http_server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http_server.server_port}", asked
    finally:
        http_server.shutdown()
        http_server.server_close()


@pytest.fixture
def patient(monkeypatch):
    """Local, and without the waits between tries."""
    pytest.importorskip("pooch")
    import pooch.core

    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pooch.core.time, "sleep", lambda seconds: None)


def test_a_download_is_tried_again_checked_and_kept(patient, tmp_path):
    with server([(500, b""), (200, b"trunc"), (200, b"content")]) as (url, asked):
        remote = download.Remote("a.bin", f"{url}/a.bin", f"sha256:{hashlib.sha256(b'content').hexdigest()}")
        place = download.fetch("some", [remote])
        assert place == tmp_path / "cache" / "some" and (place / "a.bin").read_bytes() == b"content"
        assert len(asked) == 3
        download.fetch("some", [remote])
        assert len(asked) == 3
        (place / "a.bin").write_bytes(b"damaged")
        download.fetch("some", [remote])
        assert len(asked) == 4 and (place / "a.bin").read_bytes() == b"content"


def test_a_download_with_a_wrong_hash_leaves_nothing(patient, tmp_path):
    with server([(200, b"other")]) as (url, asked):
        with pytest.raises(DataError, match=r"a.bin could not be fetched: .*hash.*Expected http://127.*with md5:0+\. Without"):
            download.fetch("some", [download.Remote("a.bin", f"{url}/a.bin", "md5:" + 32 * "0")])
        assert len(asked) == 4
    assert not list((tmp_path / "cache" / "some").glob("*"))


def test_a_download_without_a_server(patient):
    remote = download.Remote("a.bin", "http://127.0.0.1:9/a.bin", "md5:" + 32 * "0")
    with pytest.raises(DataError, match=r"a.bin could not be fetched: .*Without a connection: .*parameter path"):
        download.fetch("some", [remote])


def test_fashion_mnist_is_downloaded_where_nothing_is_found_or_when_asked(fashion, patient, monkeypatch, tmp_path):
    folder, _ = fashion
    bodies = {f"{name}.gz": gzip.compress((gzip.decompress if p.suffix == ".gz" else bytes)(p.read_bytes()))
              for name in idx.FILES for p in folder.glob(f"{name}*")}  # fmt: skip
    with server([(200, bodies[r.name]) for r in idx.REMOTES]) as (url, asked):
        remotes = [download.Remote(n, f"{url}/{n}", f"md5:{hashlib.md5(b).hexdigest()}") for n, b in bodies.items()]
        monkeypatch.setattr(idx, "REMOTES", sorted(remotes, key=lambda r: [q.name for q in idx.REMOTES].index(r.name)))
        folder.rename(tmp_path / "debian")
        assert len(make("fashion_mnist", {}).train) == 41 and not asked
        assert len(make("fashion_mnist", {"download": True}).train) == 41 and len(asked) == 4
        (tmp_path / "debian").rename(tmp_path / "elsewhere")
        assert len(make("fashion_mnist", {}).train) == 41 and len(asked) == 4  # from the cache
        # A download that was interrupted goes on, and what is asked for is fetched whatever damaged file lies beside it.
        cached, name = tmp_path / "cache" / "fashion_mnist", idx.REMOTES[-1].name
        (cached / name).unlink()
        with pytest.raises(DataError, match="the four files of Fashion-MNIST are neither in"):
            make("fashion_mnist", {"download": False})
        by_hand = cached / idx.REMOTES[0].name  # and compressed differently: it is as good, and not fetched
        fetched = by_hand.read_bytes()
        by_hand.write_bytes(gzip.compress(gzip.decompress(fetched), 1, mtime=1))
        assert len(make("fashion_mnist", {}).train) == 41 and asked[4:] == [f"/{name}"]
        by_hand.write_bytes(fetched)
        (cached / name.removesuffix(".gz")).write_bytes(b"damaged")
        with pytest.raises(DataError, match=r"is no IDX file.*download: true fetches it"):
            make("fashion_mnist", {})
        assert len(make("fashion_mnist", {"download": True}).train) == 41 and len(asked) == 5


def test_the_hashes_and_addresses_of_what_is_downloaded():
    for remote in (*idx.REMOTES, cifar.ARCHIVE):
        kind, value = remote.hash.split(":")
        assert len(value) == {"md5": 32, "sha256": 64}[kind] and remote.url.endswith(remote.name)


# Downsampled ImageNet


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
        (resave(labels=np.array([{}] * 7, dtype=object)), "Python objects, which are not loaded"),
        (resave(data=np.asfortranarray(np.zeros((7, 3072), np.uint8))), "Fortran"),
    ],
)
def test_downsampled_imagenet_that_is_not_whole(downsampled, tmp_path, apply, said):
    apply(downsampled)
    with pytest.raises(DataError, match=said):
        prepared("imagenet_downsampled", tmp_path / "out", path=str(downsampled), variant="antialiased")
    assert not list((tmp_path / "out").glob("*"))


# Images


def picture(height: int = 30, width: int = 20, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Smooth colours, so that JPEG changes little."""
    g = np.random.default_rng(seed)
    small = Image.fromarray(g.integers(0, 256, (3, 4, 3), np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def saved(image: Image.Image, path: Path, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "RGB"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    image = picture(mode=mode)
    path = saved(image, tmp_path / ("a.tif" if mode == "CMYK" else "a.png"))
    found = decode(Item(str(path)), Recipe(30, 20, 3, None))
    assert found.shape == (3, 30, 20) and found.dtype == np.uint8
    assert np.array_equal(found.transpose(1, 2, 0), np.asarray(image.convert("RGB")))
    if mode in ("L", "1", "LA"):
        assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_jpegs_of_every_kind_are_the_picture(tmp_path, mode):
    """CMYK JPEGs are stored inverted; read wrongly they are negatives."""
    path = saved(picture(mode=mode), tmp_path / "a.JPEG", quality=95)
    found = decode(Item(str(path)), Recipe(30, 20, 3, None)).astype(int)
    expected = np.asarray(picture(mode=mode).convert("RGB")).transpose(2, 0, 1)
    assert np.abs(found - expected).mean() < 4


def test_luma_of_a_colour_image(tmp_path):
    path = saved(picture(), tmp_path / "a.png")
    assert np.array_equal(decode(Item(str(path)), Recipe(30, 20, 1, None))[0], np.asarray(picture().convert("L")))


def test_area_resizing_averages_the_centred_square():
    """From 26 x 16 to 4 x 4: rows 5 to 20, each pixel the mean of 4 x 4."""
    values = G.integers(0, 256, (26, 16, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    found = decode(Item("a", None, stream.getvalue()), Recipe(4, 4, 3, "area"))
    means = values[5:21].reshape(4, 4, 4, 4, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(found - means).max() <= 1.01  # rows and columns are rounded one after the other


def test_antialiased_resizing_leaves_no_stripes():
    """Stripes finer than the new pixels must become grey, not other stripes."""
    values = np.zeros((64, 64, 3), np.uint8)
    values[:, ::3] = 255
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    for resize in ("area", "antialias"):
        found = decode(Item("a", None, stream.getvalue()), Recipe(8, 8, 3, resize))
        assert np.abs(found[..., 1:-1].astype(int) - 85).max() < 24  # nearest pixels would be 0 or 255


def test_images_that_cannot_be_used(tmp_path):
    good = saved(picture(200, 200), tmp_path / "good.jpg").read_bytes()
    for name, data in (("half.jpg", good[: len(good) // 2]), ("empty.jpg", b""), ("text.jpg", b"no image")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=rf"{name} cannot be read as an image"):
            decode(Item(str(tmp_path / name)), Recipe(8, 8))
    deep = saved(Image.fromarray(np.full((5, 5), 40_000, np.uint16)), tmp_path / "deep.png")
    with pytest.raises(DataError, match=r"deep.png: expected 8 bits a channel, found PIL's mode I;16"):
        decode(Item(str(deep)), Recipe(5, 5))


def deep_png(colour: int, channels: int) -> bytes:
    """4 x 4 pixels of 16 bits a channel, which PIL does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(4 * (1 + 4 * 2 * channels))))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


def deep_tiff() -> bytes:
    """4 x 4 pixels of RGB, uncompressed: a header, ten entries, the three depths and the pixels."""
    entries = {256: (4, 1), 257: (4, 1), 258: (134, 3), 259: (1, 1), 262: (2, 1), 273: (140, 1), 277: (3, 1), 278: (4, 1),
               279: (96, 1), 284: (1, 1)}  # fmt: skip
    body = b"".join(struct.pack("<HHII", tag, 3, count, value) for tag, (value, count) in entries.items())
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4) + struct.pack("<3H", 16, 16, 16) + bytes(96)


@pytest.mark.parametrize(
    "data",
    [deep_png(2, 3), deep_png(4, 2), deep_png(6, 4), deep_tiff(), b"P6 4 4 65535\n" + bytes(96), b"P6 4 4 300\n" + bytes(96)],
    ids=["RGB", "LA", "RGBA", "TIFF", "PPM", "9 bits"],
)
def test_deep_colours_are_refused_rather_than_cut(data):
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode in ("RGB", "RGBA")  # as those of 8 bits
    with pytest.raises(DataError, match=r"a: expected 8 bits a channel, found (16|9); convert it first"):
        decode(Item("a", None, data), Recipe(4, 4))
    assert decode(Item("a", None, b"P6 4 4 15\n" + bytes(48)), Recipe(4, 4)).shape == (3, 4, 4)


def test_processes_give_the_same_in_the_same_order(tmp_path):
    items = [Item(str(saved(picture(seed=i), tmp_path / f"{i}.png")), i) for i in range(23)]
    alone = list(decoded(items, Recipe(8, 8), 1, 3))
    together = list(decoded(items, Recipe(8, 8), 2, 3))
    assert [len(p) for p, _ in together] == [3] * 7 + [2]
    for (a, la), (b, lb) in zip(alone, together, strict=True):
        assert np.array_equal(a, b) and np.array_equal(la, lb)
    (tmp_path / "7.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"7\.png cannot be read"):
        list(decoded(items, Recipe(8, 8), 2, 3))


# Folders and ILSVRC


def tree(root: Path, files: dict[str, int]) -> Path:
    """So many images for each folder, with different sizes and contents."""
    for k, (name, n) in enumerate(files.items()):
        for i in range(n):
            saved(picture(20 + i, 24, seed=100 * k + i), root / name / f"{i:03}.png")
    return root


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


def test_a_folder_split_by_a_hash_of_names(tmp_path):
    root = tree(tmp_path / "all", {"": 40})
    first = make("folder", {"path": str(root), "size": 8, "test_share": 0.25})
    assert first.train.n + first.test.n == 40 and 4 <= first.test.n <= 16
    before = {f for f, _ in folders.listing(root) if folders.in_test(f, 0.25)}
    tree(root, {"": 50})
    after = {f for f, _ in folders.listing(root) if folders.in_test(f, 0.25)}
    assert before == {f for f in after if int(f[:3]) < 40}
    found = prepared("folder", tmp_path / "out", path=str(root), size=8, test_share=0.25)
    assert found.manifest["classes"] is None and found.manifest["class_names"] is None
    assert np.mean([folders.in_test(f"{i}", 0.25) for i in range(4000)]) == pytest.approx(0.25, abs=0.03)


def test_images_of_one_size_keep_it(tmp_path):
    for i in range(30):
        saved(picture(5, 7, seed=i), tmp_path / "same" / f"{i}.png")
    assert prepared("folder", tmp_path / "out", path=str(tmp_path / "same"), test_share=0.5, channels=1).shape == (1, 5, 7)
    saved(picture(6, 7), tmp_path / "same" / "other.png")
    with pytest.raises(DataError, match=r"\d x 7 pixels, others \d x 7; give the parameter size"):
        prepared("folder", tmp_path / "out", path=str(tmp_path / "same"), test_share=0.5)


def test_folders_that_do_not_hold_a_data_set(tmp_path):
    with pytest.raises(DataError, match="expected a folder of images, found nothing"):
        make("folder", {"path": str(tmp_path / "no"), "test_share": 0.5})
    with pytest.raises(DataError, match=r"expected the folders train and test \(or val\); to split one folder, give test_share"):
        make("folder", {"path": str(tmp_path)})
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: expected two images or more for train, found 0 in a test share of 0.5 \(.jpg"):
        make("folder", {"path": str(tmp_path / "empty"), "test_share": 0.5})
    mixed = tree(tmp_path / "mixed", {"": 6, "cat": 6})
    with pytest.raises(DataError, match=r"mixed: \d+.png is in no class, but there are the folders cat"):
        make("folder", {"path": str(mixed), "test_share": 0.5})
    other = tree(tmp_path / "other", {"train/cat": 3, "test/horse": 3})
    with pytest.raises(DataError, match=r"other/test: its classes \('horse',\) are not those of train: \('cat',\)"):
        make("folder", {"path": str(other)})
    for flat, said in (("test", r"\(none\) are not those of train: \('cat',"), ("train", r"\('cat',\) are not .*: \(none\)")):
        root = tree(tmp_path / f"flat-{flat}", {s if s == flat else f"{s}/cat": 3 for s in ("train", "test")})
        with pytest.raises(DataError, match=rf"flat-{flat}/test: its classes {said}"):
            make("folder", {"path": str(root)})


def test_images_that_were_replaced_are_decoded_again(tmp_path):
    """Without compression all have one size; a preparation that was interrupted must not go on with the old ones."""

    def fill(level: int) -> None:
        for split in ("train", "test"):
            for i in range(40):
                path = saved(Image.new("RGB", (8, 8), (level, level, level)), tmp_path / "all" / split / f"{i}.bmp")
                os.utime(path, (level, level))

    fill(1)
    last = tmp_path / "all" / "train" / folders.listing(tmp_path / "all" / "train")[-1][0]
    last.write_bytes(bytes(last.stat().st_size))
    with pytest.raises(DataError, match="cannot be read as an image"):
        prepared("folder", tmp_path / "out", path=str(tmp_path / "all"))
    assert json.loads((tmp_path / "out" / ".partial" / "train.json").read_text())["n"] > 0
    fill(200)
    assert np.unique(prepared("folder", tmp_path / "out", path=str(tmp_path / "all")).train).tolist() == [200]


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
    order = [Path(name).stem for name, _ in folders.listing(ilsvrc / "val")]
    assert [classes[k] for k in found.labels("test")] == [labels[stem] for stem in order]
    (ilsvrc / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *lines[1:]]))
    with pytest.raises(DataError, match=r"LOC_val_solution.csv: expected the class of every image of val, and has none for"):
        make("imagenet", {"path": str(ilsvrc)})
    for data in (b"id,label\nx,y\n", b"ImageId,PredictionString\nx\n", b"ImageId,PredictionString\nx,\xff\n"):
        (ilsvrc / "LOC_val_solution.csv").write_bytes(data)
        with pytest.raises(DataError, match=r"LOC_val_solution.csv: expected the columns ImageId and PredictionString in UTF-8"):
            make("imagenet", {"path": str(ilsvrc)})


def test_imagenet_that_is_not_whole(ilsvrc, tmp_path):
    with pytest.raises(
        DataError, match=r"cache/imagenet: expected the folders train and val, and train is not there.*image-net.org"
    ):
        make("imagenet", {})
    one = next(ilsvrc.glob("train/*/*.JPEG"))
    outside = one.rename(ilsvrc / "train" / one.name)
    with pytest.raises(DataError, match=rf"train: {one.name} is in no class, but there are the folders n01440764"):
        make("imagenet", {"path": str(ilsvrc)})
    outside.rename(one)
    data = one.read_bytes()
    one.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=rf"{one.name} cannot be read as an image: .*; replace it or take it away"):
        prepared("imagenet", tmp_path / "out", path=str(ilsvrc), size=8)
    one.unlink()
    with pytest.raises(DataError, match=r"train: expected 21 images, found 20; .* source folder.*image-net.org"):
        make("imagenet", {"path": str(ilsvrc)})
    saved(picture(), ilsvrc / "train" / "n99999999" / "a.JPEG")
    with pytest.raises(DataError, match="expected 3 folders, one for each class, found 4"):
        make("imagenet", {"path": str(ilsvrc)})


# Arrays


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
        ({"train": np.zeros((5, 3, 4, 4), np.uint8), "test": np.zeros((5, 3, 4, 5), np.uint8)}, "does not go with train's"),
        ({"train": np.zeros((5, 3, 4, 4), np.uint8)}, "has no array 'test'; it has train"),
        ({"train": np.zeros((5, 2)), "test": np.full((5, 2), np.nan)}, "test: some points are not finite"),
        ({"train": np.array([{}], dtype=object)}, "Python objects"),
        ({"train": np.zeros((5, 0)), "test": np.zeros((5, 0))}, r"train: samples of shape \(0,\) have no numbers"),
        ({"train": np.zeros((5, 3, 4, 0), np.uint8)} | {"test": np.zeros((5, 3, 4, 0), np.uint8)}, r"\(3, 4, 0\) have no"),
    ],
)
def test_arrays_that_are_no_data_set(tmp_path, values, said):
    np.savez(tmp_path / "a.npz", **values)
    with pytest.raises(DataError, match=said):
        prepared("array", tmp_path / "out", path=str(tmp_path / "a.npz"))


def test_files_of_arrays_that_are_missing_or_damaged(tmp_path):
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


# Parquet of the Hugging Face hub


def hub(root: Path, split: str, counts: list[int], column: str = "img", label: str | None = "label", size=(9, 9)) -> list:
    """Shards as the hub writes them: a struct of bytes and path, and the features in the schema's metadata."""
    originals = []
    root.mkdir(parents=True, exist_ok=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for k, n in enumerate(counts):
        values, labels = [], []
        for _ in range(n):
            pixels = G.integers(0, 256, (*size, 3), np.uint8)
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, "PNG")
            values.append({"bytes": stream.getvalue(), "path": None})
            labels.append(len(originals) % 3)
            originals.append(pixels)
        table = {column: pa.array(values, kind)} | ({label: pa.array(labels, pa.int64())} if label else {})
        features = {column: {"_type": "Image"}, "label": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}
        schema = pa.table(table).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pq.write_table(schema, root / f"{split}-{k:05}-of-{len(counts):05}.parquet", row_group_size=10)
    return originals


def test_parquet_of_the_hub(tmp_path):
    train, test = hub(tmp_path / "d/data", "train", [70, 33]), hub(tmp_path / "d/data", "test", [11])
    found = prepared("hf_parquet", tmp_path / "out", path=str(tmp_path / "d"))
    assert np.array_equal(found.train, np.stack(train).transpose(0, 3, 1, 2))
    assert np.array_equal(found.test, np.stack(test).transpose(0, 3, 1, 2))
    assert np.array_equal(found.labels("train"), np.arange(103) % 3)
    assert found.manifest["class_names"] == ["a", "b", "c"]
    small = prepared("hf_parquet", tmp_path / "small", path=str(tmp_path / "d"), size=4, channels=1)
    assert small.shape == (1, 4, 4)


def test_parquet_without_labels_under_another_pattern(tmp_path):
    hub(tmp_path / "d", "train", [5], "image", None)
    hub(tmp_path / "d", "validation", [5], "image", None)
    found = prepared("hf_parquet", tmp_path / "out", path=str(tmp_path / "d"), test="validation-*.parquet")
    assert found.manifest["classes"] is None and len(found.test) == 5


def test_parquet_that_is_not_whole(tmp_path):
    root = tmp_path / "d"
    with pytest.raises(DataError, match=r"d: expected files train\*.parquet, found no parquet file"):
        make("hf_parquet", {"path": str(root)})
    hub(root, "train", [5, 5, 5])
    with pytest.raises(DataError, match=r"expected files test\*.parquet, found train-00000"):
        make("hf_parquet", {"path": str(root)})
    hub(root, "test", [5])
    hub(tmp_path / "none", "train", [0])
    hub(tmp_path / "none", "test", [5])
    with pytest.raises(DataError, match=r"train-00000-of-00001.parquet: expected two images or more for train, found none"):
        make("hf_parquet", {"path": str(tmp_path / "none")})
    with pytest.raises(DataError, match="expected a column pixels, found img, label"):
        make("hf_parquet", {"path": str(root), "image": "pixels"})
    path = root / "train-00001-of-00003.parquet"
    data = path.read_bytes()
    path.write_bytes(data[:-20])
    with pytest.raises(DataError, match=r"train-00001-of-00003.parquet \(\d+ bytes\) is truncated or no parquet file"):
        make("hf_parquet", {"path": str(root)})
    path.write_bytes(data[:200] + bytes(1000) + data[1200:])
    with pytest.raises(DataError, match=r"train-00001-of-00003.parquet"):
        prepared("hf_parquet", tmp_path / "out", path=str(root))
    path.unlink()
    with pytest.raises(DataError, match=r"train-00001-of-00003.parquet missing \(1 of 3 files\)"):
        make("hf_parquet", {"path": str(root)})


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"img": [None, None]}, "row 0: expected an encoded image, found NoneType"),
        ({"img": [b"no", b"image"]}, "row 0 cannot be read as an image"),
        ({"other": [1, 2]}, "expected a column img or image, found other"),
    ],
)
def test_parquet_of_something_else(tmp_path, table, said):
    for split in ("train", "test"):
        pq.write_table(pa.table(table), tmp_path / f"{split}.parquet")
    with pytest.raises(DataError, match=said):
        prepared("hf_parquet", tmp_path / "out", path=str(tmp_path))


# Writing in pieces


def slow_images(n: int = 300, stop: int | None = None, started: list[int] | None = None, version: str = "1") -> RawData:
    """A stream of numbered images that can start anywhere, and stops before image ``stop``."""

    def pieces(start, workers):
        if started is not None:
            started.append(start)
        for i in range(start, n, 7):
            k = np.arange(i, min(i + 7, n))
            if stop is not None and k[-1] >= stop:
                raise KeyboardInterrupt
            yield np.broadcast_to((k % 256).astype(np.uint8)[:, None, None, None], (len(k), 3, 4, 5)), k % 9

    prefix = lambda k: f"{version}/{k}"  # noqa: E731
    return RawData(Stream(pieces, n, prefix), Stream(pieces, n, prefix), "numbers", levels=256)


def test_a_stream_is_what_the_array_would_be(tmp_path):
    write(slow_images(), tmp_path / "a", SPEC)
    k = np.arange(300)
    images = np.broadcast_to((k % 256).astype(np.uint8)[:, None, None, None], (300, 3, 4, 5))
    write(RawData(images, images, "numbers", levels=256, train_labels=k % 9, test_labels=k % 9), tmp_path / "b", SPEC)
    np.save(tmp_path / "train.npy", np.ascontiguousarray(images))
    for name in ("train.npy", "test.npy", "train_labels.npy", "test_labels.npy", "manifest.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a" / "train.npy").read_bytes() == (tmp_path / "train.npy").read_bytes()


def test_an_interrupted_stream_goes_on_with_the_same_bytes(tmp_path):
    write(slow_images(), tmp_path / "whole", SPEC)
    for stop in (100, 200):
        with pytest.raises(KeyboardInterrupt):
            write(slow_images(stop=stop), tmp_path / "cut", SPEC)
        assert [p.name for p in (tmp_path / "cut").iterdir()] == [".partial"]  # nothing that looks like data
    started: list[int] = []
    write(slow_images(started=started), tmp_path / "cut", SPEC)
    assert started == [196, 0]
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "cut" / path.name).read_bytes()
    assert not (tmp_path / "cut" / ".partial").exists()


@pytest.mark.parametrize("stop", [21, 22], ids=["values", "labels"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "full")], ids=["ctrl-c", "full"])
def test_what_was_written_survives_an_end_inside_a_write(tmp_path, monkeypatch, stop, error):
    """Of the eleventh piece's values or labels: the ten before it are gone on from."""
    append, calls = writer.ArrayFile.append, []

    def stopped(self, rows):
        calls.append(len(rows))
        if len(calls) == stop:
            raise error
        append(self, rows)

    monkeypatch.setattr(writer.ArrayFile, "append", stopped)
    with pytest.raises(type(error)):
        write(slow_images(), tmp_path / "cut", SPEC)
    monkeypatch.setattr(writer.ArrayFile, "append", append)
    started: list[int] = []
    write(slow_images(started=started), tmp_path / "cut", SPEC)
    assert started == [70, 0]
    write(slow_images(), tmp_path / "whole", SPEC)
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "cut" / path.name).read_bytes()


@pytest.mark.parametrize("change", ["version", "spec", "code", "cut", "labels"])
def test_what_was_interrupted_with_other_settings_is_not_gone_on_with(tmp_path, change):
    with pytest.raises(KeyboardInterrupt):
        write(slow_images(stop=100), tmp_path, SPEC)
    if change == "cut":
        path = tmp_path / ".partial" / "train.npy"
        path.write_bytes(path.read_bytes()[:-1])
    if change == "labels":
        (tmp_path / ".partial" / "train_labels.npy").unlink()
    started: list[int] = []
    spec = SPEC | {"parameters": {"a": 1}} if change == "spec" else SPEC
    raw = slow_images(started=started, version="2" if change == "version" else "1")
    write(raw, tmp_path, spec, "other" if change == "code" else "")
    assert started == [0, 0]
    assert np.array_equal(read(tmp_path).labels("train"), np.arange(300) % 9)


def test_a_failed_preparation_leaves_what_was_there_before(tmp_path):
    before = prepared("digits", tmp_path).manifest
    bad = RawData(np.zeros((900, 2), np.float32), np.full((900, 2), np.nan, np.float32), "bad")
    with pytest.raises(DataError, match="not finite"):
        write(bad, tmp_path, SPEC)
    assert read(tmp_path).manifest == before
    assert sha256(tmp_path / "train.npy") == before["splits"]["train"]["sha256"]
    assert not (tmp_path / ".partial").exists()


def test_labels_of_an_earlier_preparation_do_not_stay(tmp_path):
    prepared("digits", tmp_path)
    write(RawData(np.ones((5, 2), np.float32), np.ones((5, 2), np.float32), "points"), tmp_path, SPEC)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["manifest.json", "test.npy", "train.npy"]


def test_only_one_process_prepares_a_folder(tmp_path):
    def pieces(start, workers):
        with pytest.raises(LockedError, match="another process is preparing"):
            write(slow_images(), tmp_path, SPEC)
        yield np.zeros((3, 2), np.float32), None

    write(RawData(Stream(pieces, 3), Stream(pieces, 3), "points"), tmp_path, SPEC)


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        (Stream(lambda s, w: [(np.zeros((3, 2), np.float32), None)], 4), "said that there are 4 samples, and gave 3"),
        (Stream(lambda s, w: []), "at least two samples"),
        (
            Stream(lambda s, w: [(np.zeros((3, k), np.float32), None) for k in (2, 3)]),
            r"samples of shape \(3,\) after 3 of \(2,\)",
        ),
        (
            Stream(lambda s, w: [(np.zeros((3, 2), np.float32), y) for y in (None, np.zeros(3, int))]),
            "for all samples or for none",
        ),
        (Stream(lambda s, w: [(np.zeros((3, 2), np.float32), -np.ones(3, int))]), "expected 3 integers from 0, .* from -1"),
        (Stream(lambda s, w: [(np.zeros((3, 2), np.float32), None)], 10**15), "need 8000000.0 GB, and the disk has"),
    ],
)
def test_streams_that_are_not_as_promised(tmp_path, stream, said):
    with pytest.raises(DataError, match=said):
        write(RawData(stream, np.zeros((3, 2), np.float32), "points"), tmp_path, SPEC)
    assert not list(tmp_path.iterdir())


def test_statistics_do_not_depend_on_the_pieces():
    images = G.integers(0, 256, (50, 3, 6, 5), np.uint8)
    far = (1e4 + G.standard_normal((5000, 3))).astype(np.float32)
    for kind, values in ((Histogram, images), (Moments, far)):
        whole_, parts = kind(), kind()
        whole_.add(values)
        for part in np.array_split(values, 7):
            parts.add(part)
        a, b = whole_.summary(), parts.summary()
        assert a.keys() == b.keys() and all(a[k] == pytest.approx(b[k], rel=1e-12) for k in a)
        assert (a["mean"], a["std"]) == (pytest.approx(values.mean(dtype=float)), pytest.approx(values.std(dtype=float)))


RUN = """
    import sys, numpy as np
    from pathlib import Path
    from fmbench.data.raw import RawData, Stream
    from fmbench.data import writer
    def peak():
        return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) // 1024
    n, delay, out = int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])
    def pieces(start, workers):
        import time
        for i in range(start, n, 256):
            k = np.arange(i, min(i + 256, n))
            time.sleep(delay)
            yield np.broadcast_to((k % 251).astype(np.uint8)[:, None, None, None], (len(k), 3, 64, 64)), k % 10
    writer.SAVE_EVERY = 0.05
    before = peak()
    stream = Stream(pieces, n, str) if delay else Stream(pieces)
    raw = RawData(stream, Stream(lambda s, w: [next(pieces(s, 1))][s:], None, str), "numbers", levels=256)
    manifest = writer.write(raw, out, {"dataset": "big", "source": "x"})
    print(peak() - before, manifest["splits"]["train"]["n"])
"""


def script(tmp_path: Path) -> Path:
    (tmp_path / "run.py").write_text(textwrap.dedent(RUN))
    return tmp_path / "run.py"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_the_data(tmp_path):
    """600 MB of images of unknown number in less than 100 MB over what the imports take."""
    arguments = [sys.executable, str(script(tmp_path)), "50000", "0", str(tmp_path / "big")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    extra, n = map(int, done.stdout.split())
    assert n == 50_000 and (tmp_path / "big" / "train.npy").stat().st_size > 600e6
    assert extra < 100


def test_a_killed_preparation_leaves_nothing_that_looks_whole_and_is_gone_on_with(tmp_path):
    out = tmp_path / "cut"
    process = subprocess.Popen([sys.executable, str(script(tmp_path)), "9000", "0.1", str(out)])
    note = out / ".partial" / "train.json"
    deadline = time.monotonic() + 60
    while not note.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert note.exists() and [p.name for p in out.iterdir()] == [".partial"]
    there = json.loads(note.read_text())["n"]
    assert 0 < there < 9000
    for folder in (out, tmp_path / "whole"):
        subprocess.run([sys.executable, str(script(tmp_path)), "9000", "0.001", str(folder)], check=True, capture_output=True)
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in (tmp_path / "whole").iterdir())
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (out / path.name).read_bytes()


# The stage


def test_the_stage_decodes_in_processes_and_goes_on(ilsvrc, tmp_path):
    parameters = {"path": str(ilsvrc), "size": 16}
    spec = SPEC | {"source": "imagenet", "parameters": parameters}
    console = Console("prepare", "none", tmp_path / "log")
    one = sorted(ilsvrc.glob("train/*/*.JPEG"))[0]
    data = one.read_bytes()
    one.write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read"):
        prepare.run(spec, tmp_path / "out", console, workers=2)
    one.write_bytes(data)
    prepare.run(spec, tmp_path / "out", console, workers=2)
    prepare.run(spec, tmp_path / "alone", console)
    for path in (tmp_path / "alone").iterdir():
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()
    assert "samples were there already" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(("labels", "found"), [([0, 0, 1, 1, 3], True), ([0, 1, 1, 0, 3], False), ([2, 2, 2, 2, 2], False)])
def test_a_split_that_is_sorted_by_class_is_said(tmp_path, labels, found):
    images = G.integers(0, 256, (5, 3, 40, 40), np.uint8)  # a piece each
    np.savez(tmp_path / "a.npz", train=images, test=images, y=[3, 0, 1, 0, 2], z=labels)
    parameters = {"path": str(tmp_path / "a.npz"), "train_labels": "y", "test_labels": "z"}
    spec = SPEC | {"source": "array", "parameters": parameters}
    prepare.run(spec, tmp_path / "out", Console("prepare", "none", tmp_path / "log"))
    splits = read(tmp_path / "out").manifest["splits"]
    assert [splits[s]["sorted_by_class"] for s in ("train", "test")] == [False, found]
    assert ("warning: the test samples are sorted by class" in (tmp_path / "log").read_text()) == found


def test_importing_the_sources_imports_no_decoder():
    """Those of one source are not the cost of all."""
    code = "import sys, fmbench.data.sources; print([m for m in ('PIL', 'sklearn', 'pooch', 'pyarrow') if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_pooch_is_there():
    assert importlib.util.find_spec("pooch") is not None, "pip install pooch: it is a dependency"
