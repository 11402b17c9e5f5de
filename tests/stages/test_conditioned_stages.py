"""Conditions in every stage: low-resolution images and labels, regression, guidance, the start at the condition, oracles."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from conditioned_benchmark import FROM_LOW, LOW, by_label, super_resolution, values
from pyarrow.parquet import read_table
from tiny_benchmark import CPU, SEED, Bench, by_metric, evaluated
from torch import Tensor, nn
from user_code import command

from fmbench.config import specs
from fmbench.config.hashing import canonical
from fmbench.config.reading import parse
from fmbench.flow.fields import velocity_field
from fmbench.flow.likelihood import log_likelihood
from fmbench.flow.oracle import FiniteOracle
from fmbench.flow.regression import NO_FLOW
from fmbench.stages.shared.models import load_model
from fmbench.store.tracking import Mirror
from fmbench.system.rng import indexed_normal

TESTS = 14
"""Test samples of the data set with labels, so samples 14 and 15 have the labels of the first two again."""


@pytest.fixture(scope="module")
def low(tmp_path_factory) -> Bench:
    return Bench(tmp_path_factory.mktemp("low"), super_resolution()).everything()


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Bench:
    return Bench(tmp_path_factory.mktemp("labelled"), by_label()).everything()


def samples(bench: Bench, method: str) -> np.ndarray:
    return np.load(bench.folder("sample", "tall", method) / "samples.npy")


# The condition of a sample


def test_a_sample_is_solved_by_the_network_with_the_condition_of_its_test_sample(low):
    """By hand, sample by sample, from the network itself."""
    network, model, data = low.network("tall", "fm_ot"), low.model("tall", "fm_ot"), low.data("tall")
    found = samples(low, "fm_ot")
    assert len(found) == 16
    for i in (0, 3, 15):
        (condition,) = data.conditions([i], CPU)
        field = velocity_field(lambda t, x: network(t, x, condition), model.flow().path, model.flow().prediction)  # noqa: B023
        x0 = indexed_normal(SEED, "sample", [i], data.shape)
        with torch.no_grad():
            alone = model.sampler.solve(field, x0, 0.0, 1.0, rtol=1e-2, atol=1e-2)
        np.testing.assert_allclose(alone.x[0].numpy(), found[i], rtol=0, atol=2e-3)


@pytest.mark.parametrize("method", ["fm_ot", "from_low", "regression", "oracle_ot"])
def test_samples_do_not_depend_on_their_batch(low, tmp_path, method):
    spec = low.spec("sample", "tall", method)
    spec["settings"] |= {"batch": 16}
    folders = ["--data", low.results / "data" / "tall", "--model", low.folder("train", "tall", method), "--out", tmp_path]
    assert command("sample", "--spec", canonical(spec), *folders, "--progress", "none").code == 0
    np.testing.assert_allclose(np.load(tmp_path / "samples.npy"), samples(low, method), rtol=0, atol=2e-3)


def test_another_condition_makes_another_sample(low):
    """From the same noise, sample 0 is solved with the condition of test image 1. A prediction has no noise to differ in."""
    network, model, data = low.network("tall", "fm_ot"), low.model("tall", "fm_ot"), low.data("tall")
    (other,) = data.conditions([1], CPU)
    field = velocity_field(lambda t, x: network(t, x, other), model.flow().path, model.flow().prediction)
    with torch.no_grad():
        found = model.sampler.solve(field, indexed_normal(SEED, "sample", [0], data.shape), 0.0, 1.0, rtol=1e-2, atol=1e-2)
    assert not np.allclose(found.x[0].numpy(), samples(low, "fm_ot")[0], atol=1e-2)
    predicted = samples(low, "regression")
    assert not np.allclose(predicted[0], predicted[1], atol=1e-3)


def test_every_stage_has_rows_of_a_conditioned_method(low):
    for method in ("fm_ot", "ddpm", "from_low", "oracle_ot"):
        for stage in ("sample", "likelihood", "sweep", "sample_quality", "few_step", "trajectory"):
            rows = low.rows(stage, "tall", method)
            bad = [(r["metric"], r["reason"]) for r in rows if r["status"] != "ok" and not r["metric"].startswith("half_way")]
            bad = [
                b for b in bad if "too few" not in b[1] and "standard error needs" not in b[1] and "stage sample made" not in b[1]
            ]
            assert rows and not bad, (method, stage, bad)
    assert {r["metric"] for r in low.rows("learning_curve", "tall", "fm_ot")} >= {"nfe", "frechet"}


def test_sweeps_and_few_step_samples_are_of_the_same_conditions(low):
    """At many steps a cell of the sweep goes to the samples of the adaptive solve."""
    pictures = read_table(low.folder("few_step", "tall", "fm_ot") / "previews.parquet").to_pylist()
    adaptive = {p["index"]: p["values"] for p in pictures if p["solver"] == "dopri5"}
    coarse = {p["index"]: p["values"] for p in pictures if p["solver"] == "midpoint"}
    near = np.mean([np.abs(np.subtract(adaptive[i], coarse[i])).mean() for i in range(3)])
    far = np.mean([np.abs(np.subtract(adaptive[i], coarse[(i + 1) % 3])).mean() for i in range(3)])
    assert near < far / 2


# Likelihood


def test_the_nll_is_that_of_each_test_image_given_its_condition(low):
    """By hand with the exact divergence, against the stage's estimate."""
    network, model, data = low.network("tall", "fm_ot").double(), low.model("tall", "fm_ot"), low.data("tall")
    row = low.row("likelihood", "tall", "fm_ot", "nll")
    assert row["reference"] == "given its low-resolution image" and row["n"] == 16
    spec = low.spec("likelihood", "tall", "fm_ot")
    assert "guidance" not in spec
    from fmbench.stages.shared.job import Job
    from fmbench.stages.shared.likelihood_solve import dequantised_samples
    from fmbench.system.progress import Console

    job = Job(spec, Console("likelihood", "none"), CPU, "")
    x = dequantised_samples(job, data, range(16)).double()
    (condition,) = data.conditions(range(16), CPU)
    flow = model.flow()
    field = velocity_field(lambda t, x: network(t, x, condition.double()), flow.path, flow.prediction)
    found = log_likelihood(field, x, flow.t_min, flow.t_max, rtol=1e-4, atol=1e-4)
    wanted = float((-found.log_p / (72 * math.log(2)) + math.log2(5 / 2)).mean())
    assert row["value"] == pytest.approx(wanted, abs=0.05)
    shuffled = velocity_field(lambda t, x: network(t, x, condition.double().roll(1, 0)), flow.path, flow.prediction)
    other = log_likelihood(shuffled, x, flow.t_min, flow.t_max, rtol=1e-4, atol=1e-4)
    assert abs(float((other.log_p - found.log_p).abs().mean())) > 0


def test_a_flow_from_the_condition_has_a_likelihood_unless_it_starts_without_noise(low):
    assert low.row("likelihood", "tall", "from_low", "nll")["status"] == "ok"
    row = low.row("likelihood", "tall", "from_low_alone", "nll")
    assert row["status"] == "skipped" and row["reason"].startswith("the source has no noise")
    assert {r["status"] for r in low.rows("dequantisation", "tall", "from_low_alone")} == {"skipped"}
    data, model = low.data("tall"), low.model("tall", "from_low")
    (condition,) = data.conditions(range(16), CPU)
    noise = indexed_normal(SEED, "sample", range(16), data.shape)
    torch.testing.assert_close(model.start(SEED, range(16)), condition + 0.5 * noise)
    assert torch.equal(low.model("tall", "from_low_alone").start(SEED, range(16)), condition)


# Regression


def test_regression_predicts_by_one_evaluation(low):
    network, data = low.network("tall", "regression"), low.data("tall")
    (condition,) = data.conditions(range(16), CPU)
    x = torch.zeros(16, *data.shape)
    np.testing.assert_allclose(samples(low, "regression"), network(torch.zeros(16), x, condition).numpy(), rtol=0, atol=1e-5)
    rows = {r["metric"]: r for r in low.rows("sample", "tall", "regression")}
    assert rows["nfe"]["value"] == rows["nfe_max"]["value"] == rows["nfe_shared"]["value"] == 1
    assert rows["nfe"]["solver"] == "one evaluation" and rows["nfe"]["rtol"] is None and rows["nfe_stderr"]["value"] == 0
    assert read_table(low.folder("sample", "tall", "regression") / "nfe.parquet").column("nfe").to_pylist() == [1] * 16
    curve = [r for r in low.rows("learning_curve", "tall", "regression") if r["metric"] == "nfe"]
    assert len(curve) == 5 and {r["value"] for r in curve} == {1.0}


@pytest.mark.parametrize("stage", ["likelihood", "sweep", "few_step", "trajectory"])
def test_what_needs_a_flow_is_skipped_with_the_reason(low, stage):
    rows = low.rows(stage, "tall", "regression")
    assert rows and {(r["status"], r["reason"]) for r in rows} == {("skipped", NO_FLOW)}


# Labels, guidance


def test_guidance_is_counted_and_is_in_the_specs_of_samples_alone(labelled):
    for stage in ("sample", "sweep", "few_step", "learning_curve", "trajectory"):
        assert labelled.spec(stage, "tall", "fm_ot")["guidance"] == 2.0
    for stage in ("likelihood", "dequantisation", "sample_quality"):
        assert "guidance" not in labelled.spec(stage, "tall", "fm_ot")
    for method in ("fm_ot", "oracle_ot"):
        spent = read_table(labelled.folder("sample", "tall", method) / "nfe.parquet").column("nfe").to_numpy()
        assert (spent % 2 == 0).all()
        rows = {r["metric"]: r["value"] for r in labelled.rows("sample", "tall", method)}
        assert rows["nfe"] == pytest.approx(spent.mean()) and rows["nfe_shared"] % 2 == 0
        cells = [r for r in labelled.rows("sweep", "tall", method) if r["metric"] == "mse"]
        assert {(r["solver"], r["nfe"]) for r in cells} == {("euler", 8.0), ("heun", 12.0)}


def test_guidance_follows_the_network_with_and_without_the_label(labelled):
    network, data = labelled.network("tall", "fm_ot"), labelled.data("tall")
    folder = labelled.folder("train", "tall", "fm_ot")
    guided = load_model(folder, data, CPU, guidance=2.0)
    x, t = torch.randn(5, *data.shape), torch.tensor(0.3).double()
    (labels,) = data.conditions(range(2, 7), CPU)
    times = torch.full((5,), 0.3)
    told, untold = network(times, x, labels), network(times, x, torch.full_like(labels, 2))
    torch.testing.assert_close(guided.field().rows(range(2, 7))(t, x), untold + 2 * (told - untold))
    assert (told - untold).abs().max() > 0


def test_guidance_1_is_no_guidance_to_the_bit(labelled):
    data, folder = labelled.data("tall"), labelled.folder("train", "tall", "fm_ot")
    plain, one = load_model(folder, data, CPU), load_model(folder, data, CPU, guidance=1.0)
    x, t = torch.randn(5, *data.shape), torch.tensor(0.3).double()
    fields = [model.field() for model in (plain, one)]
    assert torch.equal(*(field.rows(range(5))(t, x) for field in fields))
    assert [field.calls for field in fields] == [1, 1]
    config = parse(values("label", ["fm_ot"], guidance=1.0))
    without = parse(values("label", ["fm_ot"]))
    assert specs.evaluate("sample", config, "tall", "fm_ot", 0) == specs.evaluate("sample", without, "tall", "fm_ot", 0)


# Oracles


def points_of(bench: Bench) -> Tensor:
    data = bench.data("tall")
    return data.to_model(torch.from_numpy(np.array(data.train)), torch.tensor(0.5))


def test_the_oracle_of_a_label_is_that_of_the_points_with_the_label(labelled):
    data, folder = labelled.data("tall"), labelled.folder("train", "tall", "oracle_ot")
    model = load_model(folder, data, CPU)
    x, t = torch.randn(9, *data.shape), torch.tensor(0.8).double()
    (labels,) = data.conditions(range(9), CPU)
    found = model.field().rows(range(9))(t, x)
    for label in (0, 1):
        rows = labels == label
        chosen = points_of(labelled)[torch.from_numpy(np.array(data.labels("train")) == label)]
        subset = FiniteOracle(chosen, 2 / 5 / math.sqrt(12))
        torch.testing.assert_close(found[rows], subset.velocity(model.flow().path, t, x[rows]))


def test_the_oracle_of_a_low_resolution_image_weighs_points_by_a_kernel(low):
    data, model = low.data("tall"), low.model("tall", "oracle_ot")
    width = low.row("train", "tall", "oracle_ot", "condition_bandwidth")["value"]
    assert width == pytest.approx(2 / 5 / math.sqrt(12))
    there, here = (torch.from_numpy(np.array(data.stored_condition(s)[0])).double().flatten(1) for s in ("train", "test"))
    squares = ((here[:, None] - there) * 2 / 5).square().sum(2)
    weights = torch.softmax(-squares / (2 * width**2), 1)
    x, t = torch.randn(16, *data.shape), torch.tensor(0.5).double()
    points, bandwidth = points_of(low).double().flatten(1), 2 / 5 / math.sqrt(12)
    c = model.flow().path.coefficients(t)
    variance = float(c.a**2 * bandwidth**2 + c.s**2)
    flat = x.double().flatten(1)
    mixture = torch.softmax(-((flat[:, None] - c.a * points) ** 2).sum(2) / (2 * variance) + weights.log(), 1)
    mean = mixture @ points
    score = -(flat - c.a * mean) / variance
    velocity = c.da * (mean - c.a * bandwidth**2 * score) + c.ds * (-c.s * score)
    torch.testing.assert_close(model.field().rows(range(16))(t, x).double().flatten(1), velocity, rtol=1e-4, atol=1e-4)


def test_samples_of_an_oracle_look_like_training_images_with_their_label(labelled, tmp_path):
    spec = labelled.spec("sample", "tall", "oracle_ot") | {"guidance": 1.0}
    folders = ["--data", labelled.results / "data" / "tall", "--model", labelled.folder("train", "tall", "oracle_ot")]
    assert command("sample", "--spec", canonical(spec), *folders, "--out", tmp_path, "--progress", "none").code == 0
    found = torch.from_numpy(np.load(tmp_path / "samples.npy")).flatten(1)
    nearest = torch.cdist(found, points_of(labelled).flatten(1)).argmin(1)
    data = labelled.data("tall")
    assert np.array_equal(np.array(data.labels("train"))[nearest], np.array(data.labels("test"))[np.arange(16) % TESTS])


def test_the_likelihood_of_an_oracle_is_given_the_condition(labelled):
    data, model = labelled.data("tall"), labelled.model("tall", "oracle_ot")
    rows = {r["metric"]: r for r in labelled.rows("likelihood", "tall", "oracle_ot")}
    assert rows["nll"]["reference"] == rows["nll_own"]["reference"] == "given its label"
    assert rows["nll_own"]["value"] == pytest.approx(rows["nll_own_closed_form"]["value"], abs=0.02)
    own = model.oracle.draw(model.flow().path, 1.0, TESTS, torch.Generator().manual_seed(0)).flatten(1).float()
    nearest = torch.cdist(own, points_of(labelled).flatten(1)).argmin(1)
    assert np.array_equal(np.array(data.labels("train"))[nearest], np.array(data.labels("test")))


def test_a_label_without_a_point_of_the_oracle_is_refused(labelled, tmp_path):
    spec = labelled.spec("train", "tall", "oracle_ot")
    spec["method"]["oracle"]["points"] = 1
    folders = ["--data", labelled.results / "data" / "tall", "--out", tmp_path / "m", "--checkpoints", tmp_path / "c"]
    said = command("train", "--spec", canonical(spec), *folders, "--tracking-uri", "off", "--progress", "none")
    assert said.code and "none of the oracle's 1 training points has the label of class" in said.err


# What cannot work


class Blind(nn.Module):
    """A network whose constructor takes a condition that its call does not."""

    def __init__(self, shape: tuple[int, ...], condition_channels: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.weight * x


def refused(tmp_path: Any, made: dict[str, Any]) -> str:
    """The message with which the check refuses a config, whose data are not prepared."""
    spec = canonical(specs.check(parse(made)))
    said = command("check", "--spec", spec, "--data", tmp_path / "data", "--out", tmp_path / "checked.json", "--progress", "none")
    assert said.code
    return said.err


def digits(condition: Any, methods: list[Any], network: dict[str, Any] | None = None) -> dict[str, Any]:
    made = json.loads(json.dumps(values(condition, methods)))
    made["settings"]["tall"]["data"] = "digits"
    if network is not None:
        made["settings"]["tall"]["network"] = network
    if condition is None:
        del made["settings"]["tall"]["condition"]
    return dict(made)


@pytest.mark.parametrize(
    ("condition", "methods", "network", "message"),
    [
        (
            None,
            ["regression"],
            None,
            "condition: regression works with low-resolution images, and there is no condition here",
        ),
        (
            "label",
            ["fm_ot", FROM_LOW],
            None,
            "from_low works with low-resolution images, and the condition here is its label",
        ),
        (LOW, ["ot_cfm"], None, "condition: ot_cfm has a coupling: a coupling exchanges noise between samples with the same"),
        (LOW, ["fm_ot"], {"kind": "user_code:Lines"}, "does not take the parameters {}"),
        (LOW, ["fm_ot"], {"kind": "user_code:Lines"}, "its data set needs the keyword condition_channels"),
        (LOW, ["fm_ot"], {"kind": "test_conditioned_stages:Blind"}, "takes 3 positional arguments but 4 were given"),
        ("label", ["fm_ot"], {"kind": "test_conditioned_stages:Blind"}, "its data set needs the keyword condition_classes"),
    ],
)
def test_what_cannot_have_the_condition_is_refused_before_any_training(tmp_path, condition, methods, network, message):
    assert message in refused(tmp_path, digits(condition, methods, network))


def test_mlflow_has_a_run_of_every_training_and_none_of_a_baseline(low, tmp_path):
    said = low.whole("collect", "--results", low.results, "--tracking", tmp_path / "mlflow")
    assert said.code == 0 and "warning" not in said.err
    store = Mirror(tmp_path / "mlflow", None)
    runs = store.client.search_runs([store.experiment("fmbench/tall")], f"tags.seed = '{SEED}'")
    assert sorted(run.data.tags["method"] for run in runs) == sorted(method.name for method in low.config.methods)


def test_rows_of_other_stages_do_not_change(low):
    """A data set with a condition has the same files otherwise."""
    assert evaluated(low, "trajectory", "tall", "fm_ot", low.results / "again").code == 0
    assert by_metric(low.results / "again").keys() == {"half_way", "half_way_stderr", "half_way_spacing"}
