"""The evaluator of samples: what it measures, on which extractors, and what it keeps of the reference."""

import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sealed_files import change_document, content_of
from user_code import colours, command, tall_images

from fmbench.config import execution, specs
from fmbench.config.hashing import canonical
from fmbench.config.plugins import plugins_in
from fmbench.config.reading import parse
from fmbench.data import writer
from fmbench.data.points import checkerboard
from fmbench.data.prepared import DataSet, read
from fmbench.errors import ConfigError, DataError
from fmbench.metrics.density_coverage import density_coverage
from fmbench.metrics.extractor_weights import default_weights, problem
from fmbench.metrics.fid_infinity import frechet_infinity
from fmbench.metrics.frechet import feature_statistics, frechet_distance
from fmbench.metrics.inception_score import inception_score
from fmbench.metrics.kid import kernel_distance
from fmbench.metrics.memorisation import memorisation
from fmbench.metrics.mmd import gaussian_kernel, unbiased_mmd
from fmbench.metrics.points import energy_distance
from fmbench.metrics.precision_recall import precision_recall
from fmbench.metrics.sampling_error import frechet_stderr
from fmbench.stages.evaluators import extraction, image_metrics
from fmbench.stages.evaluators.base import UNITS
from fmbench.stages.evaluators.extraction import Extraction
from fmbench.stages.evaluators.loading import load_evaluator
from fmbench.stages.evaluators.references import make_reference, read_reference, reference_file, write_reference
from fmbench.stages.shared.classifier_training import add_accuracy
from fmbench.stages.shared.job import Job
from fmbench.store.documents import write_document
from fmbench.store.files import read_json
from fmbench.store.records import read_rows
from fmbench.system.progress import Console
from fmbench.system.rng import generator
from fmbench.workflow.preflight import preflight

CPU = torch.device("cpu")
MINE = "user_code:colours"


def config(source: str, features: dict, **parameters):
    network = {"kind": "mlp", "width": 4, "depth": 1} if source == "checkerboard" else {"kind": "unet", "channels": 8}
    entry = {"data": {"source": source, "parameters": parameters}, "network": network, "evaluation": {"features": features}}
    return parse({"datasets": ["set"], "methods": ["fm_ot"], "seeds": [3], "settings": {"set": entry}})


class Evaluated:
    """A prepared data set and the stage ``features`` run on it."""

    def __init__(self, root: Path, raw, source: str, features: dict, **parameters) -> None:
        self.config = config(source, features, **parameters)
        self.data, self.folder = root / "data", root / "features"
        writer.write(raw, self.data, specs.prepare(self.config, "set"))
        self.run()

    def run(self) -> None:
        spec = canonical(specs.features(self.config, "set"))
        said = command("features", "--spec", spec, "--data", self.data, "--out", self.folder, "--progress", "none")
        assert said.code == 0, said.err

    def dataset(self) -> DataSet:
        return read(self.data)

    def evaluator(self):
        return load_evaluator(self.folder, self.dataset(), CPU)

    def rows(self) -> dict:
        return {r["metric"]: r for r in read_rows([self.folder / "rows.parquet"]).to_pylist()}


@pytest.fixture(scope="module")
def tall(tmp_path_factory) -> Evaluated:
    """Images of three colours and five levels, with the classifier and a plug-in extractor."""
    features = {
        "epochs": 6,
        "batch_size": 8,
        "width": 4,
        "more_extractors": [{"extractor": MINE, "options": {"scale": 0.5}}],
        "kid": {"subsets": 7, "size": 9},
        "max_samples": 30,
        "splits": 4,
        "infinity_sizes": 5,
        "batch": 7,
    }
    raw = tall_images(train=60, test=20)
    return Evaluated(tmp_path_factory.mktemp("tall"), raw, "user_code:tall_images", features, train=60, test=20)


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    """Samples in model space, between the levels and beyond the ends."""
    g = np.random.default_rng(1)
    return g.uniform(-1.2, 1.2, (40, 3, 6, 4)).astype(np.float32)


def test_every_metric_equals_its_function_of_the_features(tall, samples):
    data, evaluator = tall.dataset(), tall.evaluator()
    found = {m.metric: m for m in evaluator.measure(samples)}
    assert list(found) == [m.metric for m in evaluator.metrics()]
    extractor = colours(CPU, 0.5)

    def features(levels):  # five levels spread over 0 to 255
        return extractor(torch.from_numpy(np.rint(np.asarray(levels) / 4 * 255).astype(np.uint8))).float().numpy()

    mine, real = features(data.to_data(samples)), features(data.train)
    kept = real[torch.randperm(60, generator=generator(0, "reference")).numpy()[:30]]
    reference = feature_statistics(real)

    def check(metric, value, n):
        assert found[f"{metric}/{MINE}"].value == pytest.approx(value, rel=1e-6, abs=1e-9), metric
        assert found[f"{metric}/{MINE}"].n == n
        assert found[f"{metric}/{MINE}"].features == "colours(6 features, 0.5)"

    check("frechet", frechet_distance(feature_statistics(mine), reference), 40)
    check("frechet_stderr", frechet_stderr(mine, feature_statistics(mine), reference), 40)
    check("frechet_at_floor_n", frechet_distance(feature_statistics(mine[:20]), reference), 20)
    kid = kernel_distance(mine[:30], kept, generator(0, "kid"), 7, 9)
    check("kid", kid.mean, 30)
    check("kid_std", kid.std, 30)
    covered = precision_recall(kept, mine[:30], 3)
    check("precision", covered.precision, 30)
    check("recall", covered.recall, 30)
    held = density_coverage(kept, mine[:30], 3)
    check("density", held.density, 30)
    check("coverage", held.coverage, 30)
    fresh = features(data.test)[torch.randperm(20, generator=generator(0, "reference/test")).numpy()]
    for metric, value in memorisation(real, fresh, mine[:30])._asdict().items():
        check(metric, value, 30)
    assert found["c_t"].reference.endswith("; 60 of them, 20 test images")
    fit = frechet_infinity(mine, reference, generator(0, "frechet_infinity"), 5, 4)
    check("frechet_infinity", fit.intercept, 40)
    check("frechet_infinity_slope", fit.slope, 40)
    check("frechet_infinity_error", fit.error, 40)
    assert found["kid"].reference.endswith("; 7 subsets of 9 out of 30")
    assert found["frechet"].reference == f"train, n = 60, sha256 {data.manifest['splits']['train']['sha256'][:12]}"


def test_as_many_samples_as_test_images_have_the_floor_n(tall, samples):
    """The case of the default run."""
    found = {m.metric: m for m in tall.evaluator().measure(samples[:20])}
    assert found["frechet_at_floor_n"] == found["frechet"]._replace(metric="frechet_at_floor_n")
    assert "frechet_at_floor_n" not in {m.metric for m in tall.evaluator().measure(samples[:19])}


def test_real_data_may_be_sorted_by_class(tall):
    """The first images, or consecutive parts, would be of one class. So they are drawn at random."""
    data, evaluator = tall.dataset(), tall.evaluator()
    values = np.asarray(data.train)[np.argsort(data.labels("train"), kind="stable")]
    found = {m.metric: m for m in evaluator.measure_data(values)}
    first = evaluator.comparisons[0]
    features = first.extractor(torch.from_numpy(values))
    order = torch.randperm(60, generator=generator(0, "places"))
    expected = inception_score(first.extractor.logits(features[order]), 4)
    assert found["classifier_score"].value == pytest.approx(expected.mean, rel=1e-6) and expected.mean > 1.3
    some, kept = features[order[:30]], first.reference.features[:30]
    assert found["kid"].value == pytest.approx(kernel_distance(some, kept, generator(0, "kid"), 7, 9).mean, rel=1e-6)
    assert found["recall"].value == precision_recall(kept, some, 3).recall
    # More than the reference has: all are taken, and 60 drawn.
    evaluator.settings = evaluator.settings.model_copy(update={"max_samples": 120})
    found = {m.metric: m for m in evaluator.measure_data(np.concatenate([values, values]), ["kid", "recall"])}
    features, kept = torch.cat([features, features]), first.reference.features
    some = features[torch.randperm(120, generator=generator(0, "places"))[:60]]
    assert found["kid"].value == pytest.approx(kernel_distance(features, kept, generator(0, "kid"), 7, 9).mean, rel=1e-6)
    assert found["recall"].value == precision_recall(kept, some, 3).recall


def test_a_score_is_the_inception_score_of_inception_only(tall, samples):
    data, evaluator = tall.dataset(), tall.evaluator()
    names = [m.metric for m in evaluator.metrics()]
    assert "classifier_score" in names and not any(n.startswith("inception") for n in names)
    assert f"classifier_score/{MINE}" not in names  # it is no classifier
    extractor = evaluator.comparisons[0].extractor
    logits = extractor.logits(extractor(torch.from_numpy(data.to_data(samples))))
    expected = inception_score(logits, 4)
    found = {m.metric: m.value for m in evaluator.measure(samples, ["classifier_score", "classifier_score_std"])}
    assert found == pytest.approx({"classifier_score": expected.mean, "classifier_score_std": expected.std}, rel=1e-6)


def test_only_the_chosen_metrics_are_computed(tall, samples, monkeypatch):
    evaluator = tall.evaluator()
    whole = {m.metric: m for m in evaluator.measure(samples)}
    monkeypatch.setattr(image_metrics, "kernel_distance", lambda *_: pytest.fail("KID was not asked for"))
    monkeypatch.setattr(image_metrics, "precision_recall", lambda *_: pytest.fail("precision was not asked for"))
    asked = []
    plain = extraction.extract
    monkeypatch.setattr(
        extraction, "extract", lambda extractor, *a, **k: asked.append(extractor.name) or plain(extractor, *a, **k)
    )
    assert evaluator.primary == "frechet"
    (found,) = evaluator.measure(samples, only=("frechet",))
    assert found == whole["frechet"] and asked == [evaluator.features]
    (found,) = evaluator.measure(samples, only=(f"frechet/{MINE}",))
    assert found == whole[f"frechet/{MINE}"] and asked[1:] == ["colours(6 features, 0.5)"]
    with pytest.raises(ValueError, match="unknown metric fid; this evaluator measures frechet, frechet_stderr, "):
        evaluator.measure(samples, only=("fid",))


def test_samples_that_cannot_be_evaluated_are_an_error(tall, samples):
    evaluator = tall.evaluator()
    spoilt = samples.copy()
    spoilt[37, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="not all finite"):
        evaluator.measure(spoilt)
    with pytest.raises(ValueError, match=r"two or more samples of \(3, 6, 4\), not 1 of"):
        evaluator.measure(samples[:1])
    with pytest.raises(ValueError, match=r"not 40 of \(6, 4\)"):
        evaluator.measure(samples[:, 0])


def test_few_samples_have_fewer_metrics_and_no_wrong_ones(tall, samples):
    found = {m.metric for m in tall.evaluator().measure(samples[:3])}
    assert found == {"frechet", "frechet_stderr", f"frechet/{MINE}", f"frechet_stderr/{MINE}"}
    assert {m.metric for m in tall.evaluator().measure(samples[:2])} == {"frechet", f"frechet/{MINE}"}
    assert {m.metric for m in tall.evaluator().measure(samples[:4])} - found == {
        *("kid", "kid_std", "precision", "recall", "density", "coverage", "classifier_score", "classifier_score_std"),
        *(f"{m}/{MINE}" for m in ("kid", "kid_std", "precision", "recall", "density", "coverage")),
    }
    nine, ten = ({m.metric for m in tall.evaluator().measure(samples[:k])} for k in (9, 10))
    assert {"c_t", "train_distance_ratio", "authenticity", f"c_t/{MINE}"} <= ten - nine


def test_floors_are_the_metrics_of_the_test_split(tall):
    rows, evaluator = tall.rows(), tall.evaluator()
    found = {m.metric: m for m in evaluator.measure_data(tall.dataset().test)}
    for metric in ("frechet", "kid", "precision", "recall", "classifier_score", f"frechet/{MINE}", f"recall/{MINE}"):
        name, slash, rest = metric.partition("/")
        row = rows[f"{name}_floor{slash}{rest}"]
        assert row["value"] == found[metric].value and row["n"] == found[metric].n
        assert (row["features"], row["reference"]) == (found[metric].features, found[metric].reference)
    assert set(UNITS) >= {m.metric.partition("/")[0] for m in evaluator.metrics()}


def test_a_floor_with_too_few_test_images_is_a_skipped_row(tmp_path):
    raw, features = tall_images(train=12, test=3), {"epochs": 1, "batch_size": 4, "width": 4}
    rows = Evaluated(tmp_path, raw, "user_code:tall_images", features, train=12, test=3).rows()
    assert rows["frechet_floor"]["status"] == "ok" and rows["frechet_floor"]["n"] == 3
    for metric in ("kid", "kid_std", "precision", "recall", "density", "coverage", "classifier_score", "classifier_score_std"):
        row = rows[f"{metric}_floor"]
        assert (row["status"], row["value"], row["n"], row["unit"]) == ("skipped", None, 3, UNITS[metric])
        assert row["reason"] == "3 samples, or the samples of the reference, are too few"
    assert "frechet_at_floor_n_floor" not in rows
    for metric in ("c_t", "train_distance_ratio", "authenticity"):
        row = rows[f"{metric}_floor"]
        assert (row["status"], row["value"], row["n"], row["unit"]) == ("skipped", None, 1, UNITS[metric])


def test_the_floor_of_memorisation_is_one_half_of_the_test_split_against_the_other(tall):
    """On any data, the floor is that of a model that draws fresh data."""
    kept = tall.evaluator().comparisons[0].reference
    assert len(kept.features) == 60
    found = memorisation(kept.features, kept.test[10:], kept.test[:10])
    for metric, value in found._asdict().items():
        row = tall.rows()[f"{metric}_floor"]
        assert (row["value"], row["n"], row["status"]) == (pytest.approx(value, rel=1e-9), 10, "ok")
        assert row["reference"].endswith("; 60 of them, 10 test images")


def test_copies_of_training_images_are_found_in_the_features_of_each_extractor(tall):
    data = tall.dataset()
    found = {m.metric: m.value for m in tall.evaluator().measure_data(np.asarray(data.train)[:30])}
    assert found["c_t"] < -3 and found["authenticity"] < 0.5 and found["train_distance_ratio"] < 0.5


def test_the_accuracy_does_not_depend_on_the_batch(tall):
    """With more test images than a batch, each with its own label."""
    job = Job({"stage": "features", "dataset": "set"}, Console("features", "none"), CPU, "code")
    add_accuracy(job, tall.dataset(), tall.evaluator().comparisons[0].extractor, 7)
    (row,) = job.rows
    assert row.value == tall.rows()["classifier_accuracy"]["value"] > 0.7 and row.n == 20


def test_the_classifier_does_not_depend_on_the_metrics(tall, tmp_path):
    features = {"epochs": 6, "batch_size": 8, "width": 4, "kid": {"subsets": 3}}
    other = Evaluated(tmp_path, tall_images(train=60, test=20), "user_code:tall_images", features, train=60, test=20)
    names = [read_json(j.folder / "extractor.json")["name"] for j in (tall, other)]
    assert names[0] == names[1] == tall.evaluator().features


def test_the_reference_is_computed_once_and_read_again(tall, tmp_path, monkeypatch):
    files = sorted(p.name for p in tall.folder.glob("reference-*"))
    assert files == sorted(part["reference"] for part in read_json(tall.folder / "extractor.json")["extractors"])
    before = {p.name: p.read_bytes() for p in tall.folder.iterdir()}
    (tall.folder / "reference-0000.safetensors").write_bytes(b"of settings that are no more")
    monkeypatch.setattr("fmbench.stages.features.make_reference", lambda *_: pytest.fail("made again"))
    tall.run()
    assert {p.name: p.read_bytes() for p in tall.folder.iterdir() if p.name != "rows.parquet"} == {
        name: content for name, content in before.items() if name != "rows.parquet"
    }


def test_a_reference_depends_on_data_extractor_and_number(tall):
    data, settings = tall.dataset(), tall.config.dataset("set").evaluation.features
    part = {"extractor": MINE, "options": {"scale": 0.5}}

    def name(extractor=None, changed=None, dataset=data, seed=3, **update):
        return reference_file(extractor or colours(CPU), changed or part, dataset, settings.model_copy(update=update), seed)

    manifest = json.loads(json.dumps(data.manifest))
    manifest["splits"]["train"]["sha256"] = "0" * 64
    names = [
        name(),
        name(colours(CPU, 2.0)),
        name(changed=part | {"options": {}}),
        name(dataset=DataSet(data.folder, manifest)),
        name(seed=4),
        name(reference_n=50),
        name(max_samples=29),
    ]
    assert len(set(names)) == len(names) and name() == names[0] == name(epochs=99, neighbours=7)


@pytest.mark.parametrize("n", [None, 25])
def test_a_reference_of_some_images_is_a_random_choice_kept_in_random_order(tall, n, tmp_path):
    data = tall.dataset()
    settings = tall.config.dataset("set").evaluation.features.model_copy(update={"reference_n": n, "max_samples": 10})
    reference = make_reference(colours(CPU), data, settings, 3, 7, Extraction(CPU))
    order = torch.randperm(60, generator=generator(3, "reference")).numpy()
    features = colours(CPU)(torch.from_numpy(np.rint(np.asarray(data.train) / 4 * 255).astype(np.uint8))).float().numpy()
    expected = feature_statistics(features[order[:n]])
    assert reference.statistics.n == (n or 60)
    np.testing.assert_allclose(reference.statistics.mean, expected.mean, rtol=1e-6)
    np.testing.assert_allclose(reference.statistics.covariance, expected.covariance, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(reference.features, features[order[: n or 60]])
    assert reference.name.startswith("train, n = 60," if n is None else "train, 25 random of n = 60,")
    write_reference(tmp_path / "r.safetensors", reference)
    again = read_reference(tmp_path / "r.safetensors", reference.name)
    np.testing.assert_array_equal(again.features, reference.features)
    np.testing.assert_array_equal(again.statistics.covariance, reference.statistics.covariance)
    assert again.statistics.n == reference.statistics.n and again.name == reference.name


def test_a_small_reference_keeps_the_factor_that_its_distance_needs(tall, tmp_path):
    settings = tall.config.dataset("set").evaluation.features.model_copy(update={"reference_n": 5})
    reference = make_reference(colours(CPU), tall.dataset(), settings, 3, 7, Extraction(CPU))
    write_reference(tmp_path / "r.safetensors", reference)
    again = read_reference(tmp_path / "r.safetensors", reference.name)
    np.testing.assert_array_equal(again.statistics.factor, reference.statistics.factor)


def test_a_damaged_evaluator_is_an_error_with_a_remedy(tall, tmp_path):
    folder = tmp_path / "features"
    folder.mkdir()
    for file in tall.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (reference,) = {p["reference"] for p in read_json(folder / "extractor.json")["extractors"] if p["extractor"] == MINE}
    (folder / reference).write_bytes((folder / reference).read_bytes()[:100])
    with pytest.raises(DataError, match=r"cannot be used: .*checksum.*delete .*features and run snakemake again"):
        load_evaluator(folder, tall.dataset(), CPU)
    extractors = content_of(tall.folder / "extractor.json")["extractors"]
    extractors[1]["options"] = {"scale": 3.0}
    change_document(folder / "extractor.json", extractors=extractors)
    with pytest.raises(DataError, match=r"made with colours.*0.5.*, but user_code:colours is now colours.*3"):
        load_evaluator(folder, tall.dataset(), CPU)
    write_document(folder / "extractor.json", {"name": "old", "floor_n": 14, "width": 4, "classes": 2})
    with pytest.raises(DataError, match=r"not a EvaluatorOfImages of this version of fmbench \(seed: Field required\)"):
        load_evaluator(folder, tall.dataset(), CPU)


def test_efficientnet_needs_no_classifier(tmp_path):
    """It evaluates images without labels."""
    raw = tall_images(train=12, test=6, labels=False)
    features = {"extractor": "efficientnet_lite0", "options": {"size": 32}, "max_samples": 10}
    evaluated = Evaluated(tmp_path, raw, "user_code:tall_images", features, train=12, test=6, labels=False)
    evaluator, rows = evaluated.evaluator(), evaluated.rows()
    assert evaluator.features.startswith("EfficientNet-Lite0(ImageNet, 1280 features, 32 px, ")
    assert "classifier_accuracy" not in rows and rows["frechet_floor"]["features"] == evaluator.features
    assert not list(evaluated.folder.glob("classifier*"))
    data = evaluated.dataset()
    (same,) = evaluator.measure_data(data.train, ["frechet"])
    (other,) = evaluator.measure_data(data.test, ["frechet"])
    assert same.value == pytest.approx(0, abs=1e-6) and other.value > 0.01
    assert (same.unit, same.n) == ("squared features", 12)


@pytest.fixture(scope="module")
def board(tmp_path_factory) -> Evaluated:
    parameters = {"train": 300, "test": 200}
    return Evaluated(
        tmp_path_factory.mktemp("board"), checkerboard(**parameters), "checkerboard", {"projections": 32}, **parameters
    )


def test_points_by_hand(board):
    data, evaluator = board.dataset(), board.evaluator()
    samples = np.random.default_rng(0).normal(size=(150, 2)).astype(np.float32)
    found = {m.metric: m for m in evaluator.measure(samples)}
    assert evaluator.primary == "energy_distance" and set(found) == {
        *("energy_distance", "energy_distance_stderr", "sliced_wasserstein", "mmd", "off_support", "off_support_stderr"),
        *("density", "coverage", "c_t", "train_distance_ratio", "authenticity"),
    }
    assert "energy_distance_stderr" not in {m.metric for m in evaluator.measure(samples[:2])}
    points, test = data.to_data(samples).astype(np.float64), np.asarray(data.test, np.float64)
    assert found["energy_distance"].value == energy_distance(points, test)
    some = np.sort(torch.randperm(300, generator=generator(0, "floor")).numpy()[:200])
    pooled = np.concatenate([test, np.asarray(data.train[some], np.float64)])
    median = float(np.median(np.linalg.norm(pooled[:, None] - pooled, axis=2)[np.triu_indices(400, 1)]))
    expected = unbiased_mmd(points, test, gaussian_kernel([median * b for b in (0.25, 0.5, 1, 2, 4)]))
    assert found["mmd"].value == pytest.approx(expected, rel=1e-6)
    evaluator.settings = evaluator.settings.model_copy(update={"max_samples": 60})
    (few,) = evaluator.measure(samples, ["mmd"])
    sides = [
        x[np.sort(torch.randperm(len(x), generator=generator(0, f"mmd/{name}")).numpy()[:60])]
        for x, name in ((points, "samples"), (test, "test"))
    ]
    expected = unbiased_mmd(*sides, gaussian_kernel([median * b for b in (0.25, 0.5, 1, 2, 4)]))
    assert few.n == 60 and few.value == pytest.approx(expected, rel=1e-6)
    # Against a shift by v the sliced distance is |v| / sqrt(2) in the plane, up to the choice of directions.
    moved = (test + np.array([0.6, 0.8])) * data.manifest["scale"]
    (sliced,) = evaluator.measure(moved.astype(np.float32), ["sliced_wasserstein"])
    assert sliced.value == pytest.approx(math.sqrt(0.5), rel=0.2) and sliced.reference == "test, n = 200; 32 directions"
    floors = board.rows()
    assert {"energy_distance_floor", "sliced_wasserstein_floor", "mmd_floor", "off_support_floor"} <= set(floors)
    assert abs(floors["mmd_floor"]["value"]) < found["mmd"].value / 10


# What must be there before any training


def test_missing_inception_weights_are_an_error_before_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    entry = {"data": "digits", "network": {"kind": "unet", "channels": 8}, "evaluation": {"features": {"extractor": "inception"}}}
    values = {"results_dir": str(tmp_path), "datasets": ["digits"], "methods": ["fm_ot"], "settings": {"digits": entry}}
    with pytest.raises(ConfigError, match=r"settings.digits.*weights .*6726825d.pth are missing; download https://github.com/"):
        preflight(parse(values))
    said = command(
        *("check", "--spec", canonical(specs.check(parse(values))), "--data", tmp_path, "--out", tmp_path / "checked.json")
    )
    assert said.code == 2 and "are missing; download https://" in said.err
    elsewhere = tmp_path / "copy.pth"
    entry["evaluation"]["features"]["options"] = {"weights": str(elsewhere)}
    with pytest.raises(ConfigError, match=f"weights {elsewhere} are missing"):
        preflight(parse(values))
    entry["evaluation"]["features"] = {"more_extractors": ["inception"]}
    with pytest.raises(ConfigError, match="are missing; download"):
        preflight(parse(values))


def test_points_need_no_extractor(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    entry = {"data": "checkerboard", "network": {"kind": "mlp"}, "evaluation": {"features": {"extractor": "inception"}}}
    preflight(parse({"results_dir": str(tmp_path), "datasets": ["b"], "methods": ["fm_ot"], "settings": {"b": entry}}))


@pytest.mark.parametrize(
    ("source", "part", "message"),
    [
        ("user_code:tall_images", "user_code:nobody", "user_code:nobody cannot be used: .*nobody"),
        ("user_code:tall_images", {"extractor": MINE, "options": {"colour": 1}}, "does not take the options"),
        ("user_code:tall_images", "user_code:not_a_data_set", "does not take the options|must return an Extractor"),
    ],
)
def test_a_plug_in_extractor_is_tried_before_any_training(source, part, message, tall, tmp_path):
    settings = config(source, {"more_extractors": [part]}, train=60, test=20)
    spec = canonical(specs.check(settings))
    (tmp_path / "set").symlink_to(tall.data)  # its shape is known once it is prepared
    said = command("check", "--spec", spec, "--data", tmp_path, "--out", tmp_path / "checked.json")
    assert said.code == 2 and re.search(message, said.err), said.err


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (
            {"extractor": "inzeption"},
            "unknown extractor 'inzeption'; known: classifier, inception, efficientnet_lite0, "
            "efficientnet_lite2, dinov2, clip_mmd; or",
        ),
        ({"extractor": "inception", "options": {"weight": "x"}}, "inception has no option weight: it takes weights"),
        ({"options": {"width": 3}}, "classifier has no option width: it takes none; set epochs, width, ... beside it"),
        ({"extractor": MINE, "more_extractors": ["classifier", MINE]}, f"the extractor {MINE} is listed more than once"),
        ({"infinity_sizes": 2}, "must be at least 3, not 2"),
    ],
)
def test_an_impossible_choice_is_a_config_error(features, message):
    with pytest.raises(ConfigError, match=message):
        config("digits", features)


def test_classifier_settings_without_a_classifier_change_nothing():
    one, two = (specs.features(config("digits", {"extractor": "inception", "epochs": e}), "set") for e in (3, 4))
    assert one == two and specs.features(config("digits", {"epochs": 3}), "set") != specs.features(config("digits", {}), "set")


def test_the_code_of_a_plug_in_extractor_counts_for_sample_quality():
    settings = config("digits", {"more_extractors": [MINE]})
    of = {s: plugins_in(execution.code_specs(s, settings, "set", "fm_ot", 3)) for s in ("sample_quality", "sample")}
    assert of == {"sample_quality": (MINE,), "sample": ()}


def test_the_weights_are_looked_for_where_torch_keeps_them(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    for name, value in (("TORCH_HOME", str(tmp_path / "t")), ("TORCH_HOME", None), ("XDG_CACHE_HOME", str(tmp_path / "x"))):
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
        assert default_weights().parent.parent == Path(torch.hub.get_dir()), (name, os.environ.get(name))
    assert problem("classifier", {}) == problem("efficientnet_lite0", {}) == problem(MINE, {}) == ""
