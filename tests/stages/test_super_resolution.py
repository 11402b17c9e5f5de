"""The stages ``baselines`` and ``super_resolution``: upsampled digits beside their originals."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sealed_files import save_samples
from skimage.metrics import peak_signal_noise_ratio
from tiny_benchmark import by_metric
from user_code import command

from fmbench.config import specs
from fmbench.config.config import Config
from fmbench.config.evaluation_settings import EvaluationSettings
from fmbench.config.hashing import canonical, settings_hash
from fmbench.config.reading import parse
from fmbench.data.prepared import DataSet, read
from fmbench.data.resizing import low_resolution
from fmbench.errors import ConfigError
from fmbench.metrics.consistency import consistency
from fmbench.metrics.frechet import feature_statistics, frechet_distance
from fmbench.stages.check import check_data_set
from fmbench.stages.evaluators.loading import load_evaluator
from fmbench.store.previews import read_previews
from fmbench.store.records import Row, read_rows, write_rows

CPU = torch.device("cpu")
N, TEST, WINDOW = 20, 30, 7
OF_FIDELITY = ["psnr", "ssim", "consistency"]


def config(condition: Any = None, test: int = TEST, **evaluation: Any) -> Config:
    features = {"epochs": 1, "kid": {"size": 5, "subsets": 2}, "splits": 2}
    wanted = {"features": features, "sample": {"n": N}, "super_resolution": {"window": WINDOW}} | evaluation
    digits = {
        "data": {"source": "digits", "parameters": {"test": test}},
        "condition": condition or {"low_resolution": {"factor": 4}},
        "network": {"kind": "unet", "channels": 8},
        "evaluation": wanted,
    }
    return parse({"datasets": ["digits"], "methods": ["fm_ot"], "seeds": [3], "settings": {"digits": digits}})


class Upsampled:
    """Digits with their features and baselines, and the rows of any samples."""

    def __init__(self, root: Path) -> None:
        self.root, self.config = root, config()
        self.run("prepare", specs.prepare(self.config, "digits"), out="data")
        self.run("features", specs.features(self.config, "digits"), "data", out="features")
        self.run("baselines", specs.baselines(self.config, "digits"), "data", "features", out="baselines")

    def run(self, stage: str, spec: dict[str, Any], *folders: str, out: str) -> str:
        options = [text for name in folders for text in (f"--{name}", self.root / name)]
        said = command(stage, "--spec", canonical(spec), *options, "--out", self.root / out, "--progress", "lines")
        assert said.code == 0, said.err
        return str(said.err)

    @property
    def dataset(self) -> DataSet:
        return read(self.root / "data")

    def rows_of(self, samples: np.ndarray, name: str) -> dict[str, dict[str, Any]]:
        """The rows of samples in model space, as the stage ``sample`` would have written them."""
        folder = self.root / "samples"
        folder.mkdir(exist_ok=True)
        save_samples(folder / "samples.npy", samples.astype(np.float32))
        solve = {"solver": "dopri5", "nfe": 42.5, "rtol": 1e-5, "atol": 1e-6}
        write_rows(folder / "rows.parquet", [Row("digits", "fm_ot", 3, "sample", "nfe", 42.5, "evaluations", **solve)])
        spec = specs.evaluate("super_resolution", self.config, "digits", "fm_ot", 3)
        self.run("super-resolution", spec, "data", "samples", "features", "baselines", out=name)
        return by_metric(self.root / name)

    def baseline(self, method: str) -> dict[str, dict[str, Any]]:
        rows = read_rows([self.root / "baselines" / "rows.parquet"]).to_pylist()
        return {row["metric"]: row for row in rows if row["method"] == method}


@pytest.fixture(scope="module")
def upsampled(tmp_path_factory) -> Upsampled:
    return Upsampled(tmp_path_factory.mktemp("upsampled"))


def in_model_space(images: np.ndarray) -> np.ndarray:
    return (images + 0.5) * (2 / 17) - 1


def by_pillow(image: np.ndarray, side: int) -> np.ndarray:
    """A digit, resized and clipped to its 17 levels after each axis."""
    wide = np.asarray(Image.fromarray(image).resize((side, image.shape[0]), Image.Resampling.BICUBIC)).clip(0, 16)
    return np.asarray(Image.fromarray(wide).resize((side, side), Image.Resampling.BICUBIC)).clip(0, 16)


def ssim_by_windows(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2004, eq. 13, window by window."""
    line = np.exp(-((np.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * 1.5**2))
    weights = np.outer(line, line) / line.sum() ** 2
    c1, c2 = (0.01 * 16) ** 2, (0.03 * 16) ** 2
    found = []
    for top, left in itertools.product(range(8 - WINDOW + 1), repeat=2):
        x, y = (image[top : top + WINDOW, left : left + WINDOW].astype(float) for image in (a, b))
        mx, my = (weights * x).sum(), (weights * y).sum()
        vx, vy, vxy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum(), (weights * (x - mx) * (y - my)).sum()
        found.append((2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return float(np.mean(found))


def test_bicubic_is_measured_as_by_pillow_and_by_hand(upsampled):
    originals = np.asarray(upsampled.dataset.test[:N, 0])
    small = [by_pillow(image, 2) for image in originals]
    large = [by_pillow(image, 8) for image in small]
    psnr = [peak_signal_noise_ratio(a, b, data_range=16) for a, b in zip(originals, large, strict=True)]
    ssim = [ssim_by_windows(a, b) for a, b in zip(originals, large, strict=True)]
    again = [np.mean((by_pillow(b, 2) / 16.0 - c / 16.0) ** 2) for b, c in zip(large, small, strict=True)]
    found = upsampled.baseline("bicubic")
    for name, values in (("psnr", psnr), ("ssim", ssim), ("consistency", again)):
        row, error = found[name], found[f"{name}_stderr"]
        assert (row["n"], row["seed"], row["status"], row["stage"]) == (N, 0, "ok", "baselines")
        assert row["value"] == pytest.approx(np.mean(values), rel=1e-9)
        assert error["value"] == pytest.approx(np.std(values, ddof=1) / math.sqrt(N), rel=1e-9)
    sha256 = upsampled.dataset.manifest["splits"]["test"]["sha256"][:12]
    assert found["psnr"]["reference"] == f"test, the first {N} of n = {TEST}, sha256 {sha256}"
    assert found["psnr"]["features"] == "grey, rounded to 17 levels, range 16"
    assert found["ssim"]["features"].endswith("Gaussian window 7 x 7, sigma 1.5, inside the image")
    assert "reduced by 4, antialiased bicubic (a = -1/2), rounded" in found["consistency"]["features"]
    assert not any(name.endswith("_y") for name in found)  # grey images have no Y


def test_the_baselines_have_the_metrics_of_samples(upsampled):
    evaluator = load_evaluator(upsampled.root / "features", upsampled.dataset, CPU)
    names = {m.metric for m in evaluator.metrics() if m.metric != "frechet_at_floor_n"}
    reference, bicubic = upsampled.baseline("reference"), upsampled.baseline("bicubic")
    assert set(reference) == names
    fidelity = {name + end for name in OF_FIDELITY for end in ("", "_stderr")}
    assert set(bicubic) == names | fidelity | {"frechet_test", "frechet_test_stderr"}
    assert bicubic["frechet"]["value"] > reference["frechet"]["value"]
    measured = evaluator.measure_data(upsampled.dataset.test[:N], ["frechet"])
    assert reference["frechet"]["value"] == measured[0].value


def test_previews_show_what_models_are_given_and_its_interpolation(upsampled):
    shown = read_previews(upsampled.root / "baselines" / "previews.parquet").to_pylist()
    (low,) = upsampled.dataset.stored_condition("test")
    for method, shape in (("low_resolution", [1, 2, 2]), ("bicubic", [1, 8, 8])):
        mine = [row for row in shown if row["method"] == method]
        assert [row["index"] for row in mine] == list(range(N)) and {tuple(row["shape"]) for row in mine} == {tuple(shape)}
    np.testing.assert_array_equal(np.array(shown[0]["values"]), low[0].ravel())
    np.testing.assert_array_equal(np.array(shown[N]["values"]).reshape(8, 8), by_pillow(low[0, 0], 8))


def test_a_model_that_returns_the_interpolation_has_the_rows_of_bicubic(upsampled):
    (low,) = upsampled.dataset.stored_condition("test")
    images = np.stack([by_pillow(image[0], 8)[None] for image in low[:N]])
    noise = np.random.default_rng(0).uniform(-0.4, 0.4, images.shape)  # is rounded away
    found, bicubic = upsampled.rows_of(in_model_space(images + noise), "interpolated"), upsampled.baseline("bicubic")
    for name, row in found.items():
        assert row["value"] == pytest.approx(bicubic[name]["value"], rel=1e-6), name
        assert (row["method"], row["seed"], row["n"]) == ("fm_ot", 3, N)
        assert all(row[c] == bicubic[name][c] for c in ("unit", "features", "reference"))
    assert set(found) == {name for name in bicubic if name.startswith((*OF_FIDELITY, "frechet_test"))}
    assert [found["psnr"][c] for c in ("solver", "nfe", "rtol", "atol")] == ["dopri5", 42.5, 1e-5, 1e-6]


def test_the_distance_to_the_test_images_is_to_all_of_them(upsampled):
    originals = np.array(upsampled.dataset.test)
    found = upsampled.rows_of(in_model_space(originals[:N][::-1]), "reversed")
    evaluator = load_evaluator(upsampled.root / "features", upsampled.dataset, CPU)
    (comparison,) = evaluator.comparisons
    some, whole = (comparison.extractor(torch.from_numpy(np.array(x))).numpy() for x in (originals[:N], originals))
    expected = frechet_distance(feature_statistics(some), feature_statistics(whole))
    assert found["frechet_test"]["value"] == pytest.approx(expected, rel=1e-4)
    assert found["frechet_test"]["reference"].startswith(f"test, n = {TEST}, sha256 ")
    swapped = torch.from_numpy(originals[:N][::-1].copy())
    again = consistency(*(low_resolution(x, 4, levels=17) for x in (swapped, torch.from_numpy(originals[:N]))), levels=17)
    assert found["consistency"]["value"] == pytest.approx(float(again.mean()))


def test_equal_images_have_no_psnr_and_the_row_says_so(upsampled):
    images = np.array(upsampled.dataset.test[:N])
    images[3:] = images[3:] // 2
    found = upsampled.rows_of(in_model_space(images), "equal")
    assert found["psnr"]["status"] == found["psnr_stderr"]["status"] == "skipped"
    assert found["psnr"]["reason"] == f"3 of {N} images equal their originals, so their psnr is infinite"
    assert found["ssim"]["status"] == "ok" and 0 < found["ssim"]["value"] < 1


def test_samples_that_are_not_finite_are_skipped_rows(upsampled):
    samples = in_model_space(np.array(upsampled.dataset.test[:N], np.float32))
    samples[4] = np.nan
    found = upsampled.rows_of(samples, "lost")
    names = {name + end for name in [*OF_FIDELITY, "frechet_test"] for end in ("", "_stderr")}
    assert set(found) == names
    assert {(row["status"], row["reason"], row["n"]) for row in found.values()} == {
        ("skipped", f"1 of {N} samples are not finite", N)
    }


def test_more_samples_than_test_images_are_compared_as_far_as_there_are_originals(upsampled):
    samples = in_model_space(np.tile(np.asarray(upsampled.dataset.test[:, :, ::-1], np.float32), (2, 1, 1, 1)))
    assert upsampled.rows_of(samples, "twice")["ssim"]["n"] == TEST


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        ({"super_resolution": {}}, "SSIM's window of 11 pixels does not fit into images of 8 x 8; give a smaller one, such as 7"),
        ({"sample": {"n": 31}}, "there are 30 test images, not 31; give 30, or fewer"),
        ({"sample": {"n": 9}, "features": {"splits": 10}}, "9 samples are too few for the score of 10 splits"),
        ({"sample": {"n": 2}, "features": {"splits": 1}}, "give 3 or more"),
    ],
)
def test_what_cannot_be_compared_is_an_error_before_any_training(evaluation, message, tmp_path):
    spec = specs.check(config(**evaluation))["datasets"]["digits"]
    problems = check_data_set(spec, tmp_path / "nowhere", []).problems
    assert len(problems) == 1 and problems[0].startswith("evaluation.") and message in problems[0]
    assert check_data_set(specs.check(config())["datasets"]["digits"], tmp_path / "nowhere", []).problems == []


def test_too_few_test_images_of_a_source_that_does_not_say_how_many_stop_the_baselines(upsampled, tmp_path):
    spec = canonical(specs.baselines(upsampled.config, "digits") | {"n": TEST + 1})
    folders = [word for name in ("data", "features") for word in (f"--{name}", upsampled.root / name)]
    said = command("baselines", "--spec", spec, *folders, "--out", tmp_path / "out", "--progress", "none")
    assert (
        said.code and f"settings.digits.evaluation.sample.n: sample i is made from test image i, and there are {TEST}" in said.err
    )


def test_other_data_sets_have_neither_stage_nor_setting():
    upsampled, plain = config(), config(condition="label")
    assert "super_resolved" not in specs.collect(plain) and specs.collect(upsampled)["super_resolved"] == ["digits"]
    assert "comparison" not in specs.check(plain)["datasets"]["digits"]
    assert "super_resolution" in plain.dataset("digits").evaluation.model_dump()  # as it is set
    assert "super_resolution" not in EvaluationSettings().model_dump()
    spec = specs.evaluate("super_resolution", upsampled, "digits", "fm_ot", 3)
    assert spec["baselines"] == settings_hash(specs.baselines(upsampled, "digits"))
    assert {"samples", "features"} <= set(spec)


@pytest.mark.parametrize("name", ["reference", "bicubic", "low_resolution", "Bicubic"])
def test_no_method_may_have_the_name_of_a_baseline(name):
    values = {"datasets": ["d"], "methods": [{"name": name, "use": "fm_ot"}], "settings": {}}
    with pytest.raises(ConfigError, match=f"a method cannot be called {name.casefold()}"):
        parse(values)
