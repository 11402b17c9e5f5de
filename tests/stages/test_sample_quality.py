"""The stages `sample_quality` and `features`: distances and their floors, against the metrics by hand."""

import math

import numpy as np
import pytest
import torch
from sealed_files import save_samples
from tiny_benchmark import OF_IMAGES, by_metric
from user_code import command

from fmbench.config.hashing import canonical
from fmbench.metrics.frechet import feature_statistics, frechet_distance
from fmbench.metrics.points import energy_distance, on_checkerboard
from fmbench.metrics.sampling_error import energy_distance_stderr, frechet_stderr
from fmbench.stages.shared.classifier import Classifier, to_images
from fmbench.store.files import read_json
from fmbench.store.seal import check_seal
from fmbench.store.weights import load_weights
from fmbench.system.rng import generator


def test_the_quality_of_points(bench):
    samples = np.load(bench.folder("sample", "board", "fm_ot") / "samples.npy").astype(np.float64) / 2
    test = np.asarray(bench.data("board").test, np.float64)
    distance, off = (bench.row("sample_quality", "board", "fm_ot", m) for m in ("energy_distance", "off_support"))
    assert distance["value"] == pytest.approx(energy_distance(samples, test), rel=1e-5)
    assert off["value"] == pytest.approx(1 - on_checkerboard(samples).mean())
    assert distance["n"] == off["n"] == 30
    errors = [bench.row("sample_quality", "board", "fm_ot", f"{m}_stderr")["value"] for m in ("energy_distance", "off_support")]
    of_mean = (~on_checkerboard(samples)).std(ddof=1) / math.sqrt(30)
    assert errors == pytest.approx([energy_distance_stderr(samples, test), of_mean], rel=1e-5)
    assert (distance["features"], distance["reference"]) == ("coordinates", "test, n = 50")


def tall_classifier(bench):
    """The classifier, built by hand from its weights."""
    folder = bench.results / "features" / "tall"
    width, classes = (read_json(folder / "extractor.json")["extractors"][0][k] for k in ("width", "classes"))
    classifier = Classifier(bench.data("tall").shape, classes, width)
    load_weights(folder / "classifier.safetensors", classifier)
    return classifier.eval()


def test_the_quality_of_images_is_a_frechet_distance_on_named_features(bench):
    data = bench.data("tall")
    extractor, classifier = read_json(bench.results / "features" / "tall" / "extractor.json"), tall_classifier(bench)
    samples = data.to_data(np.load(bench.folder("sample", "tall", "fm_ot") / "samples.npy"))
    with torch.no_grad():
        features, reference = (classifier.features(to_images(data, v)).numpy() for v in (samples, data.train))
    whole, at_floor = (bench.row("sample_quality", "tall", "fm_ot", m) for m in ("frechet", "frechet_at_floor_n"))
    expected = frechet_distance(feature_statistics(features), feature_statistics(reference))
    assert whole["value"] == pytest.approx(expected, rel=1e-4)
    assert (whole["n"], at_floor["n"]) == (16, 14)
    error = bench.row("sample_quality", "tall", "fm_ot", "frechet_stderr")
    expected = frechet_stderr(features, feature_statistics(features), feature_statistics(reference))
    assert (error["value"], error["n"]) == (pytest.approx(expected, rel=1e-3), 16)
    expected = frechet_distance(feature_statistics(features[:14]), feature_statistics(reference))
    assert at_floor["value"] == pytest.approx(expected, rel=1e-4)
    digest = check_seal(bench.results / "features" / "tall" / "classifier.safetensors")[:8]
    for row in (whole, at_floor):
        assert row["features"] == extractor["name"] == f"classifier(tall, 64 features, {digest})"
        assert "inception" not in row["features"] and "fid" not in row["metric"]
        assert row["reference"] == f"train, n = 40, sha256 {data.manifest['splits']['train']['sha256'][:12]}"


def test_a_metric_with_too_few_samples_is_a_skipped_row(bench, tmp_path):
    """Fewer samples than test images are a choice, so a missing frechet_at_floor_n has no row."""
    samples = np.load(bench.folder("sample", "tall", "fm_ot") / "samples.npy")
    (tmp_path / "samples").mkdir()
    save_samples(tmp_path / "samples" / "samples.npy", samples[:3])
    folders = ["--data", bench.results / "data/tall", "--features", bench.results / "features/tall", "--out", tmp_path / "out"]
    spec = canonical(bench.spec("sample_quality", "tall", "fm_ot"))
    said = command("sample-quality", "--spec", spec, "--samples", tmp_path / "samples", *folders, "--progress", "lines")
    rows = by_metric(tmp_path / "out")
    assert said.code == 0 and "3 samples are too few for frechet_at_floor_n, kid, kid_std, precision" in said.err
    assert {m: (r["status"], r["n"]) for m, r in rows.items()} == {
        "frechet": ("ok", 3),
        "frechet_stderr": ("ok", 3),
        **{m: ("skipped", 3) for m in OF_IMAGES if not m.startswith("frechet")},
    }
    assert rows["recall"]["reason"] == "3 samples, or the samples of the reference, are too few"


def test_the_floor_of_images(bench):
    rows = {r["metric"]: r for r in bench.rows("features", "tall")}
    assert set(rows) == {"data_std", "classifier_accuracy", *(f"{m}_floor" for m in OF_IMAGES)}
    assert 0.7 < rows["classifier_accuracy"]["value"] <= 1
    data = bench.data("tall")
    classifier = tall_classifier(bench)
    with torch.no_grad():
        test, train = (feature_statistics(classifier.features(to_images(data, v)).numpy()) for v in (data.test, data.train))
    assert rows["frechet_floor"]["value"] == pytest.approx(frechet_distance(test, train), rel=1e-4)
    assert rows["frechet_floor"]["value"] < bench.row("sample_quality", "tall", "fm_ot", "frechet_at_floor_n")["value"]
    assert rows["frechet_floor"]["n"] == 14
    x = (bench.data("tall").train + 0.5) * 2 / 5 - 1
    assert rows["data_std"]["value"] == pytest.approx(x.std(ddof=1), rel=1e-5)


def test_the_floor_of_points(bench):
    rows = {r["metric"]: r for r in bench.rows("features", "board")}
    assert rows["nll_floor"]["value"] == pytest.approx(math.log(8))
    assert rows["off_support_floor"]["value"] == 0
    data = bench.data("board")
    some = np.sort(torch.randperm(300, generator=generator(0, "floor")).numpy()[:50])
    expected = energy_distance(np.asarray(data.train[some], np.float64), np.asarray(data.test, np.float64))
    assert rows["energy_distance_floor"]["value"] == pytest.approx(expected)
