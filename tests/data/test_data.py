"""The built-in sources, what a preparation writes and refuses, and the way to model space and back."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.datasets import load_digits
from user_code import tall_images

from fmbench.config import datasets
from fmbench.data.prepared import DataSet, read, resident
from fmbench.data.sources import SOURCES, RawData, checkerboard, digits, make
from fmbench.data.writer import write
from fmbench.errors import DataError
from fmbench.metrics.points import on_checkerboard
from fmbench.stages import prepare
from fmbench.store.files import read_json, sha256
from fmbench.system.progress import Console
from fmbench.system.rng import indexed_uniform

POINTS = RawData(
    train=np.array([[0.5, -1.25], [3.0, 2.0], [1.0, 1.0]], np.float32),
    test=np.array([[1.5, 0.25], [-2.0, 0.5]], np.float32),
    description="a few points",
    scale=2.0,
)
SPEC = {"stage": "prepare", "dataset": "some", "source": "x", "parameters": {}}


def images(levels: int = 17, shape: tuple[int, ...] = (2, 3, 5), n: int = 4, labels: bool = True) -> RawData:
    g = np.random.default_rng(0)
    train, test = (g.integers(0, levels, (n, *shape)).astype(np.uint8) for _ in range(2))
    train[0].flat[:2] = 0, levels - 1
    y = np.arange(n) % 3
    return RawData(train, test, "noise", levels=levels, train_labels=y if labels else None, test_labels=y if labels else None)


def prepared(raw: RawData, folder) -> DataSet:
    write(raw, folder, SPEC)
    return read(folder)


def dataset(levels: int | None, shape: tuple[int, ...] = (1, 1, 1), scale: float = 1.0) -> DataSet:
    return DataSet(None, {"shape": list(shape), "levels": levels, "scale": scale})  # type: ignore[arg-type]


# The checkerboard


@pytest.fixture(scope="module")
def board() -> RawData:
    return checkerboard(train=40_000, test=4_000)


def test_the_checkerboard_stays_on_its_eight_squares(board):
    for points in (board.train, board.test):
        assert points.dtype == np.float32
        assert np.abs(points).max() <= 2
        assert on_checkerboard(points).all()


def test_the_checkerboard_fills_its_squares_evenly(board):
    corners, counts = np.unique(np.floor(board.train), axis=0, return_counts=True)
    assert sorted(map(tuple, corners)) == [(x, y) for x in range(-2, 2) for y in range(-2, 2) if (x + y) % 2 == 0]
    expected = len(board.train) / 8
    assert ((counts - expected) ** 2 / expected).sum() < 24.3  # chi^2 with 7 degrees of freedom: p = 0.001


def test_the_checkerboard_is_uniform_within_a_square(board):
    within = board.train - np.floor(board.train)
    counts = np.histogram2d(*within.T, bins=4, range=[[0, 1], [0, 1]])[0]
    expected = len(within) / 16
    assert ((counts - expected) ** 2 / expected).sum() < 37.7  # 15 degrees of freedom: p = 0.001


def test_the_moments_of_the_checkerboard(board):
    """Each coordinate is uniform on [-2, 2]: variance 4/3; E[xy] is 1/4 by counting squares."""
    x = board.train.astype(np.float64)
    error = 5 / math.sqrt(len(x))
    assert np.abs(x.mean(0)).max() < error * math.sqrt(4 / 3)
    assert np.abs(x.var(0) - 4 / 3).max() < error * 1.2
    centres = np.array([(i + 0.5, j + 0.5) for i in range(-2, 2) for j in range(-2, 2) if (i + j) % 2 == 0])
    assert centres.prod(1).mean() == pytest.approx(0.25)
    assert abs(x.prod(1).mean() - 0.25) < error * 1.4


def test_the_entropy_of_the_checkerboard_is_log_of_its_area(board):
    """The density is 1/8 on an area of 8; a nearest-neighbour estimate of the entropy sees the same."""
    assert board.entropy == pytest.approx(math.log(8))
    x = board.test[:2000].astype(np.float64)
    distances = cdist(x, x)
    np.fill_diagonal(distances, np.inf)
    n = len(x)
    estimate = 2 * np.log(distances.min(1)).mean() + math.log(math.pi) + math.log(n - 1) + np.euler_gamma
    assert estimate == pytest.approx(board.entropy, abs=0.1)


def test_splits_of_the_checkerboard_are_disjoint_and_repeatable(board):
    again = checkerboard(train=40_000, test=4_000)
    assert np.array_equal(again.train, board.train) and np.array_equal(again.test, board.test)
    assert not {tuple(p) for p in board.train} & {tuple(p) for p in board.test}


# Digits


@pytest.fixture(scope="module")
def eights() -> RawData:
    return digits()


def test_digits_are_all_of_scikit_learns_each_once(eights):
    assert (eights.train.shape, eights.test.shape) == ((1437, 1, 8, 8), (360, 1, 8, 8))
    together = np.concatenate([eights.train, eights.test]).reshape(-1, 64)
    bunch = load_digits()
    assert sorted(map(bytes, together)) == sorted(map(bytes, bunch.data.astype(np.uint8)))


def test_digits_keep_their_labels(eights):
    bunch = load_digits()
    known = {bytes(image): label for image, label in zip(bunch.data.astype(np.uint8), bunch.target, strict=True)}
    for values, labels in ((eights.train, eights.train_labels), (eights.test, eights.test_labels)):
        assert [known[bytes(v.reshape(64))] for v in values] == list(labels)
        assert set(labels) == set(range(10))


def test_digits_have_17_levels(eights):
    assert eights.levels == 17
    assert set(np.unique(eights.train)) == set(range(17))
    assert eights.train.dtype == np.uint8


def test_the_split_of_the_digits_is_fixed(eights):
    again = digits()
    assert np.array_equal(again.train, eights.train) and np.array_equal(again.test, eights.test)
    smaller = digits(test=100)
    assert np.array_equal(smaller.test, eights.test[:100])
    assert len(smaller.train) == 1697


@pytest.mark.parametrize(
    ("test", "bound"), [(0, "at least 2"), (-1, "at least 2"), (1796, "at most 1795"), (5000, "at most 1795")]
)
def test_digits_leave_something_on_each_side(test, bound):
    with pytest.raises(ValueError, match=rf"data source 'digits': test: .*{bound}.*, not {test}"):
        make("digits", {"test": test})


# Sources by name


def test_every_name_has_a_source_of_its_shape():
    assert tuple(SOURCES) == datasets.DATASETS
    for name in (*datasets.POINT_SETS, "digits"):
        assert make(name, {"test": 5}).train.shape[1:] == datasets.sample_shape(name, {"test": 5})


def test_a_plug_in_source():
    raw = make("user_code:tall_images", {"train": 6, "test": 4, "height": 5})
    assert raw.train.shape == (6, 3, 5, 4)


def test_an_unknown_source():
    with pytest.raises(ValueError, match=r"unknown data set 'mnist'; known: checkerboard, .*, digits, .*hf_parquet"):
        make("mnist", {})
    with pytest.raises(ValueError, match="data set 'user_code:nothing' cannot be imported"):
        make("user_code:nothing", {})


def test_a_parameter_that_a_source_does_not_take():
    with pytest.raises(ValueError, match=r"data source 'digits' does not take the parameters \{'train': 3\}"):
        make("digits", {"train": 3})


def test_a_source_that_returns_something_else():
    with pytest.raises(ValueError, match="data source 'user_code:not_a_data_set' must return a RawData, not a dict"):
        make("user_code:not_a_data_set", {})


# Written and read


@pytest.mark.parametrize("raw", [POINTS, images(), tall_images()], ids=["points", "images", "tall"])
def test_a_written_data_set_is_read_back(tmp_path, raw):
    found = prepared(raw, tmp_path)
    assert np.array_equal(found.train, raw.train) and np.array_equal(found.test, raw.test)
    assert found.train.dtype == raw.train.dtype
    assert found.shape == raw.train.shape[1:]
    assert found.dimensions == raw.train[0].size
    assert found.is_images == (raw.levels is not None)
    if raw.train_labels is not None:
        assert np.array_equal(found.labels("train"), raw.train_labels)
        assert np.array_equal(found.labels("test"), raw.test_labels)
    assert torch.equal(resident(found.train, torch.device("cpu")), torch.from_numpy(raw.train))


def test_splits_are_memory_mapped(tmp_path):
    assert isinstance(prepared(POINTS, tmp_path).train, np.memmap)


def test_the_manifest_describes_the_arrays(tmp_path):
    raw = tall_images(train=30, test=10)
    returned = write(raw, tmp_path, SPEC)
    manifest = read_json(tmp_path / "manifest.json")
    assert manifest.pop("seal").startswith("fmbench-sha256:") and manifest == returned
    assert (manifest["shape"], manifest["levels"], manifest["classes"]) == ([3, 6, 4], 5, 2)
    assert (manifest["dataset"], manifest["spec"]) == ("some", SPEC)
    for split, n in (("train", 30), ("test", 10)):
        entry = manifest["splits"][split]
        assert entry["n"] == n
        assert entry["sha256"] == sha256(tmp_path / f"{split}.npy")
        assert entry["labels_sha256"] == sha256(tmp_path / f"{split}_labels.npy")
        values = getattr(raw, split)
        assert (entry["mean"], entry["std"]) == (pytest.approx(values.mean()), pytest.approx(values.std()))


def test_preparing_again_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write(tall_images(), tmp_path / name, SPEC)
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert len(files) == 5
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
@pytest.mark.parametrize("file", ["train", "test_labels"])
def test_a_truncated_array(tmp_path, file, kept):
    found = prepared(images(), tmp_path)
    path = tmp_path / f"{file}.npy"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=rf"{file}\.npy is damaged or was changed: .*; delete .* and run snakemake again"):
        found.labels("test") if file == "test_labels" else found.train


def test_a_missing_array(tmp_path):
    found = prepared(POINTS, tmp_path)
    (tmp_path / "test.npy").unlink()
    with pytest.raises(DataError, match=r"test\.npy cannot be read"):
        found.test  # noqa: B018


@pytest.mark.parametrize("array", [np.zeros((4, 2, 5, 3), np.uint8), np.zeros((5, 2, 3, 5), np.uint8)])
def test_an_array_of_another_shape_than_in_the_manifest(tmp_path, array):
    found = prepared(images(), tmp_path)
    np.save(tmp_path / "test.npy", array)
    found.manifest["splits"]["test"]["sha256"] = sha256(tmp_path / "test.npy")
    with pytest.raises(DataError, match=r"test\.npy has shape .*, its manifest says 4 samples of \(2, 3, 5\)"):
        found.test  # noqa: B018


def test_a_pickled_array_is_not_loaded(tmp_path):
    found = prepared(POINTS, tmp_path)
    np.save(tmp_path / "test.npy", np.array([{"a": 1}, {}], dtype=object), allow_pickle=True)
    found.manifest["splits"]["test"]["sha256"] = sha256(tmp_path / "test.npy")
    with pytest.raises(DataError, match="cannot be read"):
        found.test  # noqa: B018


def test_a_missing_manifest(tmp_path):
    with pytest.raises(DataError, match=r"manifest\.json is missing; run the stage that makes it"):
        read(tmp_path)


def test_data_without_labels_have_no_labels_to_read(tmp_path):
    with pytest.raises(DataError, match="some has no labels, so no classifier can be trained on it"):
        prepared(images(labels=False), tmp_path).labels("train")


# Bad data of a plug-in


@pytest.mark.parametrize(
    ("raw", "fragments"),
    [
        (
            dataclasses.replace(POINTS, train=POINTS.train.astype(np.int64)),
            ["train: expected points (N, D) of floats", "int64; convert them to float64 first"],
        ),
        (dataclasses.replace(POINTS, test=POINTS.test.reshape(-1)), ["test: expected points (N, D)", "found shape (4,)"]),
        (dataclasses.replace(POINTS, test=POINTS.test[:1]), ["test: shape (1, 2)"]),
        (dataclasses.replace(POINTS, test=np.zeros((4, 3), np.float32)), ["test: shape (4, 3) does not match train's (3, 2)"]),
        (dataclasses.replace(POINTS, train=POINTS.train * np.float32("nan")), ["train: some points are not finite"]),
        (dataclasses.replace(images(), train=images().train.astype(np.int64)), ["train: expected images (N, C, H, W) of uint8"]),
        (dataclasses.replace(images(), train=images().train[:, 0]), ["train: expected images", "found shape (4, 3, 5)"]),
        (
            dataclasses.replace(images(), test=np.full((4, 2, 3, 5), 17, np.uint8)),
            ["test: a pixel has the value 17", "17 levels"],
        ),
        (dataclasses.replace(images(), levels=None), ["train: expected points"]),
    ],
)
def test_data_that_break_their_promises_are_refused(tmp_path, raw, fragments):
    with pytest.raises(DataError) as caught:
        write(raw, tmp_path, SPEC)
    for fragment in fragments:
        assert fragment in str(caught.value)
    assert not (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize(
    "raw",
    [
        dataclasses.replace(images(), train_labels=np.arange(3)),
        dataclasses.replace(images(), test_labels=None),
        dataclasses.replace(images(), train_labels=np.array([0.0, 1.0, np.nan, 1.0])),
        dataclasses.replace(images(), levels=300),
        dataclasses.replace(images(), levels=16.0),
        dataclasses.replace(images(), scale=2.0),
        dataclasses.replace(images(), shift=1.0),
        dataclasses.replace(POINTS, scale=0.0),
        dataclasses.replace(POINTS, scale=[1.0, 2.0, 3.0]),
        dataclasses.replace(POINTS, scale=3e38),
        dataclasses.replace(POINTS, shift=float("nan")),
        dataclasses.replace(POINTS, shift=[1.0, 2.0, 3.0]),
        dataclasses.replace(POINTS, shift="1"),
        dataclasses.replace(POINTS, support="checkerboard", shift=1.0),
        dataclasses.replace(POINTS, train=torch.zeros(4, 2)),
        dataclasses.replace(images(), train_labels=[0, 1, 2, 0]),
    ],
)
def test_data_that_would_break_a_later_stage_are_refused(tmp_path, raw):
    with pytest.raises(DataError):
        write(raw, tmp_path, SPEC)


def test_an_unknown_support_is_found_when_prepared(tmp_path):
    spec = SPEC | {"source": "user_code:two_points", "parameters": {"support": "chessboard"}}
    with pytest.raises((DataError, ValueError), match="chessboard"):
        prepare.run(spec, tmp_path, Console("prepare", "none"))


# Model space and back


@pytest.mark.parametrize("levels", [2, 5, 16, 17, 256])
def test_every_level_comes_back_whatever_the_uniform(levels):
    """Truncation instead of rounding would move levels; so would an offset of half a level."""
    data = dataset(levels)
    k = torch.arange(levels, dtype=torch.uint8).reshape(-1, 1)
    u = torch.cat([torch.linspace(1e-3, 1 - 1e-3, 201), torch.tensor([1e-4, 0.5, 1 - 1e-4])])
    x = data.to_model(k.expand(-1, len(u)), u)
    assert x.dtype == torch.float32
    back = data.to_data(x.numpy())
    assert back.dtype == np.uint8
    assert np.array_equal(back, k.expand(-1, len(u)).numpy())


@pytest.mark.parametrize("levels", [2, 5, 17, 256])
def test_level_k_owns_the_interval_from_k_to_k_plus_1(levels):
    """At u = 0 too: the uniforms are drawn from [0, 1)."""
    data = dataset(levels)
    k = torch.arange(levels, dtype=torch.float64)
    x = k * (2 / levels) - 1  # to_model in float64, so that only the interval is tested
    assert np.array_equal(data.to_data((x + 1e-9).numpy()), k.numpy())
    assert np.array_equal(data.to_data((x + 2 / levels - 1e-9).numpy()), k.numpy())


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_dequantised_images_fill_minus_1_to_1(levels):
    data = dataset(levels)
    k = torch.arange(levels, dtype=torch.uint8)
    low, high = data.to_model(k, torch.zeros(levels)), data.to_model(k, torch.full((levels,), 1 - 2**-24))
    assert low[0] == -1
    assert low.min() == -1 and high.max() <= 1
    assert torch.allclose(low[1:], high[:-1], atol=1e-6)  # no gap and no overlap between levels
    assert torch.allclose(high - low, torch.full((levels,), 2 / levels), atol=1e-6)


def test_dequantising_is_uniform_within_a_level():
    data = dataset(17)
    u = indexed_uniform(0, "dequantise", range(20_000), ())
    x = data.to_model(torch.full((20_000,), 3, dtype=torch.uint8), u).double()
    level = (x + 1) * 17 / 2
    assert level.mean() == pytest.approx(3.5, abs=0.01)
    assert level.var() == pytest.approx(1 / 12, abs=0.003)


def test_samples_beyond_the_levels_are_clamped():
    assert dataset(17).to_data(np.array([-50.0, -1.001, 1.001, 50.0])).tolist() == [0, 0, 16, 16]


def test_images_of_any_shape_keep_it(tmp_path):
    found = prepared(tall_images(), tmp_path)
    x = found.to_model(
        torch.from_numpy(np.array(found.train)), torch.rand(60, 3, 6, 4, generator=torch.Generator().manual_seed(0))
    )
    assert x.shape == (60, 3, 6, 4)
    assert np.array_equal(found.to_data(x.numpy()), found.train)


def test_points_are_scaled_and_back():
    data = dataset(None, (2,), scale=2.0)
    x = data.to_model(torch.from_numpy(POINTS.train), torch.zeros(()))
    assert torch.equal(x, torch.from_numpy(POINTS.train * 2))
    assert np.array_equal(data.to_data(x.numpy()), POINTS.train)


def test_columns_have_scales_of_their_own():
    data = dataset(None, (2,), scale=[2.0, 0.25])  # type: ignore[arg-type]
    x = data.to_model(torch.from_numpy(POINTS.train), torch.zeros(()))
    assert x.dtype == torch.float32 and np.array_equal(x.numpy(), POINTS.train * np.float32([2, 0.25]))
    back = data.to_data(x.numpy())
    assert back.dtype == np.float32 and np.array_equal(back, POINTS.train)
    assert data.log_density_change() == pytest.approx(math.log(0.5))


def test_the_standard_deviation_in_model_space_is_that_of_what_networks_see(tmp_path):
    """Of images with every offset of the dequantisation, by a fine grid of offsets; of points within their columns."""
    images = prepared(tall_images(), tmp_path / "images")
    offsets = (torch.arange(500, dtype=torch.float64) + 0.5) / 500
    values = torch.from_numpy(np.array(images.train)).double().flatten()[:, None] + offsets
    seen = values * (2 / images.levels) - 1
    assert images.model_std == pytest.approx(float(seen.std(correction=0)), rel=1e-5)
    x = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32) * [3.0, 0.5] + [1.0, 9.0]
    points = prepared(dataclasses.replace(POINTS, train=x.astype(np.float32), scale=[0.5, 4.0]), tmp_path / "points")
    variances = np.square(x.std(0) * [0.5, 4.0])
    assert points.model_std == pytest.approx(math.sqrt(variances.mean()), rel=1e-5)


@pytest.mark.parametrize(("scale", "dimensions"), [(2.0, 2), (0.5, 3), (1.0, 5)])
def test_the_density_in_data_space_integrates_the_scale(scale, dimensions):
    """A standard normal in model space, seen in data space, is N(0, 1/scale^2): compare log densities at a point."""
    data = dataset(None, (dimensions,), scale=scale)
    x = np.linspace(-1, 1, dimensions)
    in_model = -0.5 * ((scale * x) ** 2).sum() - dimensions / 2 * math.log(2 * math.pi)
    in_data = -0.5 * ((scale * x) ** 2).sum() - dimensions * (0.5 * math.log(2 * math.pi) - math.log(scale))
    assert in_model + data.log_density_change() == pytest.approx(in_data)
