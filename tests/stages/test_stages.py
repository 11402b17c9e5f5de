"""Every stage, through the command line in this process, on tiny data; and what goes wrong between stages."""

import csv
import dataclasses
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from snakemake.exceptions import WorkflowError
from torch import nn
from user_code import Said, command, tall_images

from fmbench.config import specs
from fmbench.config.config import Config
from fmbench.config.hashing import canonical, settings_hash
from fmbench.config.methods import Method, Part
from fmbench.config.names import FIGURES, GATHERED
from fmbench.config.reading import parse
from fmbench.data.prepared import DataSet, read
from fmbench.errors import ConfigError, DataError
from fmbench.flow.fields import CountingField, velocity_field
from fmbench.flow.likelihood import LogLikelihood, bits_per_dimension, log_likelihood
from fmbench.flow.objectives import build
from fmbench.flow.oracle import FiniteOracle
from fmbench.flow.paths import VarianceExploding
from fmbench.flow.prediction import EPSILON
from fmbench.flow.solvers.adaptive import dopri5
from fmbench.flow.solvers.ddim import ddim
from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.grids import GRIDS, uniform_grid
from fmbench.flow.solvers.tableaux import FIXED
from fmbench.metrics.frechet import feature_statistics, frechet_distance
from fmbench.metrics.points import energy_distance, on_checkerboard
from fmbench.stages import check
from fmbench.stages.adaptive_solve import Adaptive
from fmbench.stages.classifier import Classifier, to_images
from fmbench.stages.evaluators.loading import load_evaluator
from fmbench.stages.initial_network import new_network
from fmbench.stages.job import Job
from fmbench.stages.models import Model, cache_key, load_model
from fmbench.store.codehash import stage_hash
from fmbench.store.files import read_json, sha256, write_json
from fmbench.store.parquet import read_table, write_table
from fmbench.store.previews import FEW_STEP_PREVIEWS, NFE, TRAJECTORY
from fmbench.store.provenance import versions
from fmbench.store.records import read_rows
from fmbench.store.weights import load_weights
from fmbench.system.progress import Console
from fmbench.system.rng import generator, indexed_normal, indexed_rademacher, indexed_uniform
from fmbench.workflow import configure, preflight

SEED = 3
CPU = torch.device("cpu")
QUIET = Console("test", "none")
MODEL_FILES = ("model.safetensors", "snapshots.safetensors", "averages.safetensors", "loss_curve.parquet", "config.json")
TRAINED = ["fm_ot", "ddpm", "mine"]
ORACLES = ["oracle_ot", "near"]
METHODS = [*TRAINED, *ORACLES]
GOOD = ["fm_ot", "mine"]
STAGES = ["sample", "likelihood", "sweep", "sample_quality"]
FOR_FIGURES = ["learning_curve", "few_step", "trajectory"]
BOARD = {"rtol": 1e-3, "atol": 1e-3}
TALL = {"rtol": 1e-2, "atol": 1e-2}

VALUES: dict[str, Any] = {
    "seeds": [SEED],
    "datasets": ["board", "tall"],
    "methods": [
        "fm_ot",
        {"name": "ddpm", "training": {"learning_rate": 1e30}},  # diverges at its second iteration
        {"name": "mine", "path": "cosine_vp", "prediction": "velocity"},
        "oracle_ot",
        {"name": "near", "path": {"name": "ve", "sigma_max": 20.0}, "oracle": {"points": 20, "bandwidth": 0.3}},
    ],
    "settings": {
        "board": {
            "data": {"source": "checkerboard", "parameters": {"train": 300, "test": 50}},
            "network": {"kind": "mlp", "width": 24, "depth": 2},
            "training": {"iterations": 60, "batch_size": 64, "learning_rate": 0.01, "checkpoint_every": 25, "log_every": 10},
            "evaluation": {
                "sample": {"n": 30, "batch": 30, "shared_batch": 8, "rtol": 1e-3, "atol": 1e-3},
                "likelihood": {"batch": 20, "rtol": 1e-4, "atol": 1e-4},
                "sweep": {
                    "n": 10,
                    "batch": 4,
                    "nfe": [4, 8],
                    "solvers": ["euler", "midpoint", "heun", "rk4", "ddim", {"name": "midpoint", "grid": "karras", "nfe": [8]}],
                    "reference_solver": "rk4",
                    "reference_nfe": 40,
                    "reference_check_n": 6,
                },
                "learning_curve": {"n": 30, "batch": 30, **BOARD},
                "few_step": {"n": 20, "batch": 12, "nfe": [4, 200], "solvers": ["euler", "rk4"]},
                "trajectory": {"n": 30, "batch": 30, "times": [0.0, 0.25, 1.0], **BOARD},
            },
        },
        "tall": {
            "data": {"source": "user_code:tall_images", "parameters": {"train": 40, "test": 14}},
            "network": {"kind": "unet", "channels": 8, "channels_multiple": [1, 2], "depth": 1, "head_channels": 8},
            "training": {"iterations": 12, "batch_size": 8, "checkpoint_every": 5, "log_every": 3},
            "evaluation": {
                "sample": {"n": 16, "batch": 6, "shared_batch": 5, "rtol": 1e-2, "atol": 1e-2},
                "likelihood": {"batch": 5, "rtol": 1e-3, "atol": 1e-3, "probes": 2},
                "sweep": {"n": 4, "nfe": [4], "solvers": ["euler", {"name": "heun", "nfe": [6]}], "reference_nfe": 60},
                "dequantisation": {"n": 5, "draws": [1, 3], "probes": 2, "batch": 3, "rtol": 1e-2, "atol": 1e-2},
                "features": {"epochs": 6, "batch_size": 8, "width": 4},
                "learning_curve": {"n": 8, "batch": 5, **TALL},
                "few_step": {"n": 20, "nfe": [4], "solvers": ["midpoint", {"name": "euler", "grid": "karras"}], "shown": 3},
                "trajectory": {"n": 5, "batch": 3, "times": [0.5, 1.0], **TALL},
            },
        },
    },
}


class Bench:
    """A results folder, and the stages that fill it, laid out as the Snakefile does it."""

    def __init__(self, results: Path, values: dict[str, Any] = VALUES) -> None:
        self.results, self.config = results, parse(values)

    def folder(self, stage: str, dataset: str, method: str) -> Path:
        return self.results / specs.model_folder("models" if stage == "train" else stage, dataset, method, SEED)

    def spec(self, stage: str, dataset: str, method: str) -> dict[str, Any]:
        if stage == "train":
            return specs.train(self.config, dataset, method, SEED)
        return specs.evaluate(stage, self.config, dataset, method, SEED)

    def run(self, stage: str, dataset: str, method: str, code: str = "", **changes: Any) -> Said:
        """Run a stage of one model; ``changes`` replace entries of its spec."""
        spec = self.spec(stage, dataset, method) | changes
        out = self.folder(stage, dataset, method)
        data = self.results / "data" / dataset
        extra = {
            "train": ["--checkpoints", self.results / "checkpoints", "--tracking-uri", "off"],
            "sample_quality": [
                "--samples",
                self.folder("sample", dataset, method),
                "--features",
                self.results / "features" / dataset,
            ],
        }.get(stage, ["--model", self.folder("train", dataset, method)])
        if stage in ("learning_curve", "few_step"):
            extra += ["--features", self.results / "features" / dataset]
        if stage == "few_step":
            extra += ["--samples", self.folder("sample", dataset, method)]
        if stage in ("sweep", "few_step", "dequantisation", "learning_curve"):
            extra += ["--cache", self.results / "cache" / stage / dataset / method]
        extra += ["--code", code, "--progress", "lines"]
        return command(stage.replace("_", "-"), "--spec", canonical(spec), "--data", data, "--out", out, *extra)

    def whole(self, stage: str, *extra: Any) -> Said:
        """Run a stage of all results."""
        return command(stage, "--spec", canonical(getattr(specs, stage)(self.config)), *extra, "--progress", "lines")

    def everything(self) -> "Bench":
        results = self.results
        said = []
        for dataset in self.config.datasets:
            data, features = results / "data" / dataset, results / "features" / dataset
            said.append(command("prepare", "--spec", canonical(specs.prepare(self.config, dataset)), "--out", data))
            spec = canonical(specs.features(self.config, dataset))
            said.append(command("features", "--spec", spec, "--data", data, "--out", features))
        said.append(self.whole("check", "--data", results / "data", "--out", results / "checked.json"))
        for dataset in self.config.datasets:
            for method in self.config.methods:
                said += [self.run(stage, dataset, method.name) for stage in ("train", *STAGES)]
                said += [self.run(stage, dataset, method.name) for stage in FOR_FIGURES]
                if dataset == "tall" and method.name in specs.table4(self.config)["methods"]:
                    said.append(self.run("dequantisation", dataset, method.name))
        said.append(self.whole("collect", "--results", results, "--tracking-uri", "off"))
        for kind in GATHERED:
            spec = canonical(specs.gather(kind, self.config))
            said.append(command("gather", "--spec", spec, "--results", results, "--progress", "lines"))
        said.append(self.whole("table1", "--records", results / "records.parquet", "--out", results / "table1.csv"))
        failed = [s.err for s in said if s.code]
        assert not failed, failed
        return self

    def data(self, dataset: str) -> DataSet:
        return read(self.results / "data" / dataset)

    def model(self, dataset: str, method: str) -> Model:
        return load_model(self.folder("train", dataset, method), self.data(dataset), CPU)

    def network(self, dataset: str, method: str) -> nn.Module:
        """The trained network itself."""
        network = new_network(self.spec("train", dataset, method), self.data(dataset))
        load_weights(self.folder("train", dataset, method) / "model.safetensors", network)
        return network.eval().requires_grad_(False)

    def rows(self, stage: str, dataset: str, method: str = "") -> list[dict[str, Any]]:
        folder = self.results / "features" / dataset if stage == "features" else self.folder(stage, dataset, method)
        return read_rows([folder / "rows.parquet"]).to_pylist()

    def cells(self, dataset: str, method: str) -> list[dict[str, Any]]:
        """The rows of the sweep, without the one of its reference."""
        return [r for r in self.rows("sweep", dataset, method) if r["metric"] == "mse"]

    def row(self, stage: str, dataset: str, method: str, metric: str) -> dict[str, Any]:
        (row,) = [r for r in self.rows(stage, dataset, method) if r["metric"] == metric]
        return row


def evaluated(bench: Bench, stage: str, dataset: str, method: str, out: Path, **settings: Any) -> Said:
    """A stage of a model into another folder, ``settings`` in place of the config's."""
    spec = bench.spec(stage, dataset, method)
    spec["settings"] |= settings
    folders = ["--data", bench.results / "data" / dataset, "--model", bench.folder("train", dataset, method), "--out", out]
    if stage == "dequantisation":
        folders += ["--cache", out.parent / "cache"]
    return command(stage.replace("_", "-"), "--spec", canonical(spec), "--progress", "lines", *folders)


def by_metric(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["metric"]: row for row in read_rows([folder / "rows.parquet"]).to_pylist()}


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    """The whole benchmark, run once."""
    return Bench(tmp_path_factory.mktemp("results")).everything()


@pytest.fixture(scope="module")
def healthy(tmp_path_factory) -> Bench:
    """The same without the diverging method: one data set, one method, for tests that spoil files."""
    values = json.loads(json.dumps(VALUES))
    values |= {"methods": ["fm_ot"], "datasets": ["board"]}
    return Bench(tmp_path_factory.mktemp("healthy"), values).everything()


@pytest.fixture
def spoilable(healthy, tmp_path) -> Bench:
    shutil.copytree(healthy.results, tmp_path / "results")
    copy = Bench.__new__(Bench)
    copy.results, copy.config = tmp_path / "results", healthy.config
    return copy


# Rows of all stages


METRICS: dict[str, set[str]] = {
    "train": {"final_loss", "iterations", "parameters", "images_seen", "train_seconds"},
    "sample": {"nfe", "nfe_std_over_samples", "nfe_max", "sample_std", "nfe_shared", "sample_seconds"},
    "likelihood": {"nll", "nll_stderr", "nfe_likelihood"},
    "sweep": {"mse", "seconds", "reference_mse"},
}


OF_POINTS = {"energy_distance", "sliced_wasserstein", "mmd"}
OF_IMAGES = {"frechet", "kid", "kid_std", "precision", "recall", "classifier_score", "classifier_score_std"}


def expected_metrics(stage: str, dataset: str, method: str) -> set[str]:
    if stage == "sample_quality":
        return OF_POINTS | {"off_support"} if dataset == "board" else OF_IMAGES | {"frechet_at_floor_n"}
    more: set[str] = set()
    if method in ORACLES:
        more = {"train": {"bandwidth"}, "likelihood": {"nll_own", "nll_own_closed_form"}}.get(stage, more)
    elif stage == "likelihood" and dataset == "tall" and method in GOOD:
        more = {"nll_probe_std"}  # of two probes
    return METRICS[stage] | more


@pytest.mark.parametrize("dataset", VALUES["datasets"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("stage", ["train", *STAGES])
def test_every_stage_writes_every_metric_of_every_method(bench, stage, method, dataset):
    """A diverged training too: its rows are there, with a status."""
    rows = bench.rows(stage, dataset, method)
    assert {r["metric"] for r in rows} == expected_metrics(stage, dataset, method)
    for row in rows:
        assert (row["dataset"], row["method"], row["seed"], row["stage"]) == (dataset, method, SEED, stage)


def test_rows_carry_where_they_come_from(bench):
    for stage, method in ((stage, method) for stage in ("train", *STAGES) for method in ("fm_ot", "near")):
        spec = bench.spec(stage, "tall", method)
        for row in bench.rows(stage, "tall", method):
            assert row["config_hash"] == settings_hash(spec)
            assert row["code_hash"] == stage_hash(specs.code_stage(spec), specs.plugins(spec))
            assert json.loads(row["versions"])["torch"].split("+")[0] == torch.__version__.split("+")[0]
            assert re.fullmatch(r"[0-9a-f]{40}(\+dirty)?|unknown", row["commit"])
            assert row["device"].startswith("cpu (")
            assert row["threads"] == 1


def test_records_are_all_rows_of_all_files(bench):
    records = read_rows([bench.results / "records.parquet"]).to_pylist()
    found = sorted(p for p in bench.results.rglob("rows.parquet"))
    apart = {"dequantisation", "learning_curve", "few_step"}  # the main job does without these
    files = [p for p in found if not apart & set(p.parts)]
    assert len(files) == 2 + 2 * len(METHODS) * 5
    assert len(found) - len(files) == len(TRAINED) + 2 * 2 * len(METHODS)
    parts = [row for file in files for row in read_rows([file]).to_pylist()]
    assert sorted(map(str, records)) == sorted(map(str, parts))


def test_every_stage_says_where_its_output_went(bench, healthy):
    for stage in ("train", "sample", "likelihood", "sweep"):
        said = healthy.run(stage, "board", "fm_ot")
        assert str(healthy.folder(stage, "board", "fm_ot")) in said.err


# Training


def test_a_training_leaves_what_the_next_stages_need(bench):
    folder = bench.folder("train", "board", "fm_ot")
    config, spec = read_json(folder / "config.json"), bench.spec("train", "board", "fm_ot")
    assert (config["spec"], config["spec_hash"]) == (spec, settings_hash(spec))
    assert (config["step"], config["reason"], config["shape"]) == (60, "", [2])
    curve = read_table(folder / "loss_curve.parquet").to_pylist()
    assert [entry["step"] for entry in curve] == [10, 20, 30, 40, 50, 60]
    assert curve[-1]["loss"] < curve[0]["loss"]
    values = {r["metric"]: r["value"] for r in bench.rows("train", "board", "fm_ot")}
    assert values["final_loss"] == curve[-1]["loss"]
    assert values["images_seen"] == 60 * 64
    assert values["parameters"] == sum(p.numel() for p in bench.network("board", "fm_ot").parameters())


def test_checkpoints_are_kept_by_settings_code_data_versions_and_device(bench):
    folders = {p.name for p in (bench.results / "checkpoints").iterdir()}
    expected = set()
    for dataset in bench.config.datasets:
        for method in TRAINED:
            spec = bench.spec("train", dataset, method)
            content = [entry["sha256"] for entry in bench.data(dataset).manifest["splits"].values()]
            code = stage_hash("train", specs.plugins(spec))
            expected.add(f"{settings_hash(spec)}-{settings_hash([code, content, versions(), 'cpu'])}")
    assert folders == expected


def test_training_again_gives_the_same_bytes(spoilable, bench):
    folder = spoilable.folder("train", "board", "fm_ot")
    before = {name: (folder / name).read_bytes() for name in MODEL_FILES}
    shutil.rmtree(folder)
    shutil.rmtree(spoilable.results / "checkpoints")
    assert spoilable.run("train", "board", "fm_ot").code == 0
    assert {name: (folder / name).read_bytes() for name in before} == before
    # And the same as in the other results folder, whose methods and data sets are more.
    assert before["model.safetensors"] == (bench.folder("train", "board", "fm_ot") / "model.safetensors").read_bytes()


def test_a_killed_training_run_again_gives_the_same_bytes(spoilable, monkeypatch):
    from fmbench.training import loop

    folder = spoilable.folder("train", "board", "fm_ot")
    before = {name: (folder / name).read_bytes() for name in MODEL_FILES}
    shutil.rmtree(folder)
    shutil.rmtree(spoilable.results / "checkpoints")

    class Killed(Exception):
        pass

    def killed(step: int, *arguments: Any) -> float:
        if step == 37:
            raise Killed
        return original(step, *arguments)

    original = loop.learning_rate
    monkeypatch.setattr(loop, "learning_rate", killed)
    with pytest.raises(Killed):
        spoilable.run("train", "board", "fm_ot")
    assert not folder.exists()
    monkeypatch.undo()
    said = spoilable.run("train", "board", "fm_ot")
    assert "resumed from the checkpoint at iteration 25" in said.err
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_a_second_trainer_of_the_same_thing_stops(spoilable):
    from fmbench.store.checkpoint import CheckpointFolder

    (folder,) = (spoilable.results / "checkpoints").iterdir()
    with CheckpointFolder(folder):
        said = spoilable.run("train", "board", "fm_ot")
    assert said.code == 4
    assert "another process is training into" in said.err


# Samples


def noise(dataset: DataSet, model: Model, n: int) -> torch.Tensor:
    return indexed_normal(SEED, "sample", range(n), dataset.shape) * model.objective.path.base_std


@pytest.mark.parametrize(
    ("dataset", "method"), [("board", "fm_ot"), ("board", "mine"), ("tall", "fm_ot"), ("board", "oracle_ot"), ("tall", "near")]
)
def test_nfe_is_what_a_counter_of_ones_own_sees(bench, dataset, method):
    """Each sample alone, counted by hand: the rows are the mean, the spread and the maximum over samples."""
    data, model = bench.data(dataset), bench.model(dataset, method)
    settings = bench.config.settings[dataset].evaluation.sample
    field, calls = model.field(), []

    def counted(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        calls[-1] += 1
        return field(t, x)

    with torch.no_grad():
        for x0 in noise(data, model, settings.n):
            calls.append(0)
            dopri5(counted, x0[None], model.objective.t_min, model.objective.t_max, rtol=settings.rtol, atol=settings.atol)
    assert all(c % 6 == 2 for c in calls)
    row = bench.row("sample", dataset, method, "nfe")
    # A step may be accepted on one side of 1 in a batch and on the other alone: allow one sample one step.
    assert row["value"] == pytest.approx(np.mean(calls), abs=6.01 / settings.n)
    assert row["nfe"] == row["value"]
    assert (row["n"], row["rtol"], row["solver"]) == (settings.n, settings.rtol, "dopri5")
    assert bench.row("sample", dataset, method, "nfe_max")["value"] == pytest.approx(max(calls), abs=6)
    assert bench.row("sample", dataset, method, "nfe_std_over_samples")["value"] == pytest.approx(np.std(calls, ddof=1), abs=0.5)


@pytest.mark.parametrize("dataset", ["board", "tall"])
def test_the_shared_nfe_is_the_calls_of_one_solve(bench, dataset):
    data, model = bench.data(dataset), bench.model(dataset, "fm_ot")
    settings = bench.config.settings[dataset].evaluation.sample
    field = model.field()
    with torch.no_grad():
        x0 = noise(data, model, settings.shared_batch)
        dopri5(field, x0, model.objective.t_min, model.objective.t_max, rtol=settings.rtol, atol=settings.atol, per_sample=False)
    row = bench.row("sample", dataset, "fm_ot", "nfe_shared")
    assert row["value"] == field.calls
    assert row["n"] == row["batch"] == settings.shared_batch
    assert row["solver"] == "dopri5_shared"


@pytest.mark.parametrize("dataset", ["board", "tall"])
def test_samples_are_the_end_of_the_flow_from_their_own_noise(bench, dataset):
    data, model = bench.data(dataset), bench.model(dataset, "fm_ot")
    samples = np.load(bench.folder("sample", dataset, "fm_ot") / "samples.npy")
    settings = bench.config.settings[dataset].evaluation.sample
    assert samples.shape == (settings.n, *data.shape) and samples.dtype == np.float32
    grid = uniform_grid(model.objective.t_min, model.objective.t_max, 30)
    with torch.no_grad():
        fine = integrate(model.field(), noise(data, model, settings.n), grid, FIXED["rk4"]).numpy()
    assert np.abs(samples - fine).max() < 20 * settings.rtol
    assert bench.row("sample", dataset, "fm_ot", "sample_std")["value"] == pytest.approx(samples.std(), rel=1e-5)


@pytest.mark.parametrize("batch", [1, 7, 16])
def test_samples_do_not_depend_on_the_batch(bench, tmp_path, batch):
    """To rounding, that is: another batch multiplies its matrices in another order."""
    settings = bench.config.settings["tall"].evaluation.sample.model_dump() | {"batch": batch}
    spec = bench.spec("sample", "tall", "fm_ot") | {"settings": settings}
    folders = {"--data": bench.results / "data" / "tall", "--model": bench.folder("train", "tall", "fm_ot"), "--out": tmp_path}
    said = command("sample", "--spec", canonical(spec), *(x for pair in folders.items() for x in pair))
    assert said.code == 0
    found, before = (np.load(p / "samples.npy") for p in (tmp_path, bench.folder("sample", "tall", "fm_ot")))
    np.testing.assert_allclose(found, before, atol=1e-4)
    (nfe,) = [r for r in read_rows([tmp_path / "rows.parquet"]).to_pylist() if r["metric"] == "nfe"]
    assert nfe["value"] == pytest.approx(bench.row("sample", "tall", "fm_ot", "nfe")["value"], abs=6.01 / 16)
    assert nfe["batch"] == batch


def test_methods_start_from_the_same_noise(bench):
    """The distance between two methods' samples from the same noise is less than from other noise."""
    one, other = (np.load(bench.folder("sample", "board", m) / "samples.npy") for m in GOOD)
    assert np.abs(one - other).mean() < 0.6 * np.abs(one - np.roll(other, 1, 0)).mean()


@pytest.mark.parametrize("dataset", ["board", "tall"])
def test_previews_are_the_first_samples_in_data_space(bench, dataset):
    data = bench.data(dataset)
    samples = np.load(bench.folder("sample", dataset, "fm_ot") / "samples.npy")
    preview = read_table(bench.folder("sample", dataset, "fm_ot") / "preview.parquet").to_pylist()
    assert [p["index"] for p in preview] == list(range(len(samples)))
    found = np.array([p["values"] for p in preview]).reshape(samples.shape)
    np.testing.assert_array_equal(found, data.to_data(samples))
    assert all(p["shape"] == list(data.shape) for p in preview)


def test_previews_of_all_models_and_of_the_data_are_collected(bench):
    rows = read_table(bench.results / "previews.parquet").to_pylist()
    counts: dict[tuple, int] = {}
    for row in rows:
        key = (row["dataset"], row["method"], row["seed"])
        counts[key] = counts.get(key, 0) + 1
    assert counts == {
        ("board", "fm_ot", SEED): 30,
        ("board", "mine", SEED): 30,
        ("board", "oracle_ot", SEED): 30,
        ("board", "near", SEED): 30,
        ("board", "data", None): 50,
        ("tall", "fm_ot", SEED): 16,
        ("tall", "mine", SEED): 16,
        ("tall", "oracle_ot", SEED): 16,
        ("tall", "near", SEED): 16,
        ("tall", "data", None): 14,
    }
    real = [r["values"] for r in rows if (r["dataset"], r["method"]) == ("tall", "data")]
    np.testing.assert_array_equal(np.array(real).reshape(14, 3, 6, 4), bench.data("tall").test)


def test_a_solve_that_fails_is_a_row_and_not_a_number(spoilable):
    settings = spoilable.config.settings["board"].evaluation.sample.model_dump() | {"max_nfe": 9}
    said = spoilable.run("sample", "board", "fm_ot", settings=settings)
    assert said.code == 0
    for metric in ("nfe", "nfe_max", "nfe_shared"):
        row = spoilable.row("sample", "board", "fm_ot", metric)
        assert (row["status"], row["value"]) == ("diverged", None)
        assert "dopri5 failed" in row["reason"]
    assert "30 of 30 samples" in spoilable.row("sample", "board", "fm_ot", "nfe")["reason"]
    assert spoilable.row("sample", "board", "fm_ot", "nfe")["nfe"] == 8


def test_samples_of_a_failed_solve_have_no_quality(spoilable):
    """Samples that stopped on the way are no samples of the model; their distance must not stand as one of it."""
    settings = spoilable.config.settings["board"].evaluation.sample.model_dump() | {"max_nfe": 9}
    spoilable.run("sample", "board", "fm_ot", settings=settings)
    assert spoilable.run("sample_quality", "board", "fm_ot").code == 0
    assert {r["status"] for r in spoilable.rows("sample_quality", "board", "fm_ot")} != {"ok"}


# Likelihood


@pytest.mark.parametrize("method", GOOD)
def test_nll_of_points_is_the_exact_one_of_every_test_point(bench, method):
    data, model = bench.data("board"), bench.model("board", method)
    x = torch.from_numpy(np.array(data.test)).double()
    field = velocity_field(bench.network("board", method).double(), model.objective.path, model.objective.prediction)
    result = log_likelihood(field, 2 * x, model.objective.t_min, model.objective.t_max, rtol=1e-7, atol=1e-7)
    nll = -(result.log_p + 2 * math.log(2))  # the network sees twice the coordinates
    row, error = (bench.row("likelihood", "board", method, m) for m in ("nll", "nll_stderr"))
    assert row["value"] == pytest.approx(float(nll.mean()), abs=2e-3)
    assert error["value"] == pytest.approx(float(nll.std()) / math.sqrt(50), rel=1e-2)
    assert (row["n"], row["batch"], row["unit"]) == (50, 20, "nats")
    assert row["solver"] == "dopri5_shared, exact divergence"
    assert row["rtol"] == row["atol"] == 1e-4


def test_a_density_of_points_integrates_to_one(bench):
    """exp(log p) of the model on a grid over the plane."""
    model = bench.model("board", "fm_ot")
    axis = torch.linspace(-12, 12, 97)
    grid = torch.cartesian_prod(axis, axis)
    result = log_likelihood(model.field(), grid, 0.0, 1.0, rtol=1e-4, atol=1e-4)
    assert float(result.log_p.exp().sum()) * 0.25**2 == pytest.approx(1, abs=0.03)


def test_nll_of_images_is_in_bits_and_of_every_test_image(bench):
    """14 images in batches of 5: the last one is not dropped. Exact divergence, the same dequantisation: the estimate agrees."""
    data, model = bench.data("tall"), bench.model("tall", "fm_ot")
    u = indexed_uniform(SEED, "dequantise", range(14), data.shape)
    x1 = data.to_model(torch.from_numpy(np.array(data.test)), u)
    result = log_likelihood(model.field(), x1, 0.0, 1.0, rtol=1e-2, atol=1e-2)
    exact = bits_per_dimension(result.log_p, 72, 5)
    row, error = (bench.row("likelihood", "tall", "fm_ot", m) for m in ("nll", "nll_stderr"))
    assert (row["n"], row["batch"], row["unit"]) == (14, 5, "bits/dim")
    assert row["solver"] == "dopri5_shared, hutchinson rademacher x2"
    assert row["value"] == pytest.approx(float(exact.mean()), abs=0.05)
    assert error["value"] > 0


def test_nll_does_not_depend_on_the_batch_beyond_the_tolerance(bench, tmp_path):
    spec = bench.spec("likelihood", "tall", "fm_ot")
    spec["settings"] |= {"batch": 14}
    folders = {"--data": bench.results / "data" / "tall", "--model": bench.folder("train", "tall", "fm_ot"), "--out": tmp_path}
    assert command("likelihood", "--spec", canonical(spec), *(x for pair in folders.items() for x in pair)).code == 0
    (row,) = [r for r in read_rows([tmp_path / "rows.parquet"]).to_pylist() if r["metric"] == "nll"]
    assert row["value"] == pytest.approx(bench.row("likelihood", "tall", "fm_ot", "nll")["value"], abs=0.01)


def test_the_nfe_of_the_likelihood_is_its_own(bench):
    row = bench.row("likelihood", "tall", "fm_ot", "nfe_likelihood")
    assert row["value"] == row["nfe"] >= 8
    # A mean over batches of 5, 5 and 4 of counts that are 2 + 6 k.
    assert (row["value"] * 14) % 1 == pytest.approx(0, abs=1e-6)


# The sweep


def test_the_sweep_spends_what_it_says(bench):
    cells = [(r["solver"], r["nfe"]) for r in bench.cells("board", "fm_ot")]
    whole = [(s, float(n)) for s in ("euler", "midpoint", "heun", "rk4", "ddim") for n in (4, 8)]
    assert cells == [*whole, ("midpoint/karras", 8.0)]
    assert [(r["solver"], r["nfe"]) for r in bench.cells("tall", "fm_ot")] == [("euler", 4.0), ("heun", 6.0)]


@pytest.mark.parametrize(("solver", "nfe"), [("euler", 4), ("midpoint", 8), ("heun", 8), ("rk4", 4)])
def test_the_error_of_a_cell_is_the_one_by_hand(bench, solver, nfe):
    data, model = bench.data("board"), bench.model("board", "mine")
    x0 = noise(data, model, 10)
    with torch.no_grad():
        ends = []
        for name, steps in ((solver, nfe // FIXED[solver].stages), ("rk4", 10)):
            grid = uniform_grid(model.objective.t_min, model.objective.t_max, steps)
            ends.append(integrate(model.field(), x0, grid, FIXED[name]).double())
    (row,) = [r for r in bench.cells("board", "mine") if (r["solver"], r["nfe"]) == (solver, nfe)]
    assert row["value"] == pytest.approx(float((ends[0] - ends[1]).square().mean()), rel=1e-3)
    assert (row["n"], row["batch"], row["reference"]) == (10, 4, "rk4 at 40 NFE")


def test_the_reference_has_an_error_of_its_own(bench):
    """Against the same samples at a far finer grid, here; against dopri5 at 1e-7, there."""
    data, model = bench.data("board"), bench.model("board", "mine")
    with torch.no_grad():
        coarse, fine = (
            integrate(
                model.field(), noise(data, model, 6), uniform_grid(model.objective.t_min, model.objective.t_max, n), FIXED["rk4"]
            )
            for n in (10, 200)
        )
    row = bench.row("sweep", "board", "mine", "reference_mse")
    assert row["value"] == pytest.approx(float((coarse.double() - fine).square().mean()), rel=0.5, abs=1e-11)
    assert row["value"] < min(r["value"] for r in bench.cells("board", "mine"))
    # The solve's columns are the reference's own; dopri5's are said where it is named.
    columns = ("n", "batch", "solver", "nfe", "rtol", "atol")
    assert [row[c] for c in columns] == [6, 4, "rk4 at 40 NFE", 40.0, None, None]
    counted = model.field()
    with torch.no_grad():
        dopri5(counted, noise(data, model, 6), model.objective.t_min, model.objective.t_max, rtol=1e-7, atol=1e-7)
    assert row["reference"] == f"dopri5 at 1e-07, {counted.evaluations / 6:.1f} NFE" and counted.evaluations / 6 != 40


def test_more_steps_mean_less_error(bench):
    for solver in ("euler", "midpoint", "heun", "rk4"):
        errors = [r["value"] for r in bench.cells("board", "fm_ot") if r["solver"] == solver]
        assert errors == sorted(errors, reverse=True)


def test_a_sweep_run_again_computes_nothing_and_one_more_nfe_computes_one_cell_each(spoilable):
    before = spoilable.rows("sweep", "board", "fm_ot")
    said = spoilable.run("sweep", "board", "fm_ot")
    assert "0 cells computed, 11 from the cache" in said.err
    assert spoilable.rows("sweep", "board", "fm_ot") == before

    settings = spoilable.config.settings["board"].evaluation.sweep.model_dump()
    more = settings | {"solvers": ["ddim", *settings["solvers"], {"name": "rk4", "nfe": [4, 8, 12]}]}
    said = spoilable.run("sweep", "board", "fm_ot", settings=more)
    assert "1 cells computed, 11 from the cache" in said.err
    after = {(r["metric"], r["solver"], r["nfe"]): r["value"] for r in spoilable.rows("sweep", "board", "fm_ot")}
    assert len(after) == 2 * 12 + 1
    assert all(after[r["metric"], r["solver"], r["nfe"]] == r["value"] for r in before)  # the seconds too
    assert after["mse", "rk4", 12.0] < after["mse", "rk4", 8.0]

    grids = settings | {"solvers": [{"name": "midpoint", "grid": grid, "nfe": [8]} for grid in ("karras", "cosine", "uniform")]}
    said = spoilable.run("sweep", "board", "fm_ot", settings=grids)
    assert "1 cells computed, 2 from the cache" in said.err
    values = [r["value"] for r in spoilable.cells("board", "fm_ot")]
    assert len(set(values)) == 3 and values[::2] == [after["mse", s, 8.0] for s in ("midpoint/karras", "midpoint")]


def test_the_cache_does_not_answer_for_other_weights_settings_or_code(spoilable):
    settings = spoilable.config.settings["board"].evaluation.sweep.model_dump()
    for change in ({"n": 9}, {"batch": 5}, {"reference_nfe": 44}, {"reference_solver": "heun"}):
        said = spoilable.run("sweep", "board", "fm_ot", settings=settings | change)
        assert "11 cells computed" in said.err, change
    assert "11 cells computed" in spoilable.run("sweep", "board", "fm_ot", seed=4).err
    assert "11 cells computed" in spoilable.run("sweep", "board", "fm_ot", code="0123456789abcdef").err
    shutil.copytree(spoilable.folder("train", "board", "fm_ot"), spoilable.results / "old")
    weights = spoilable.folder("train", "board", "fm_ot") / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    assert "11 cells computed" in spoilable.run("sweep", "board", "fm_ot").err


def test_what_is_cached_is_of_this_machine_and_these_versions_too(healthy, monkeypatch):
    model, spec = healthy.model("board", "fm_ot"), healthy.spec("sweep", "board", "fm_ot")
    job = Job(spec, QUIET, CPU, "c0de")
    keys = [cache_key(model, job)]
    assert cache_key(model, Job(spec, QUIET, CPU, "c0de")) == keys[0]
    keys += [cache_key(replace(model, **{name: "another"}), job) for name in ("sha256", "code", "data")]
    keys += [cache_key(model, Job(spec, QUIET, CPU, "another")), cache_key(model, Job(spec | {"seed": 4}, QUIET, CPU, "c0de"))]
    with monkeypatch.context() as patch:
        patch.setattr("fmbench.stages.models.torch.get_num_threads", lambda: 77)
        keys.append(cache_key(model, job))
    with monkeypatch.context() as patch:
        patch.setattr("fmbench.stages.models.versions", lambda: "another")
        keys.append(cache_key(model, job))
    job.device_name = "another"
    keys.append(cache_key(model, job))
    assert len({settings_hash(key) for key in keys}) == len(keys) == 9


def test_a_damaged_cache_is_computed_anew(spoilable):
    before = spoilable.rows("sweep", "board", "fm_ot")
    for entry in (spoilable.results / "cache").rglob("*.*"):
        entry.write_bytes(entry.read_bytes()[:20])
    said = spoilable.run("sweep", "board", "fm_ot")
    assert "11 cells computed" in said.err
    after = spoilable.rows("sweep", "board", "fm_ot")
    assert [r for r in after if r["metric"] != "seconds"] == [r for r in before if r["metric"] != "seconds"]
    assert len(after) == len(before)


# The sweep's grids and DDIM


@pytest.fixture(scope="module")
def noise_predicting(healthy, tmp_path_factory) -> Bench:
    """A network that predicts noise, on the VP path, with a sweep of DDIM and grids."""
    values = json.loads(json.dumps(VALUES))
    sweep = {"n": 10, "batch": 4, "nfe": [6], "reference_solver": "rk4", "reference_nfe": 80, "reference_check_n": 4}
    sweep["solvers"] = ["ddim", *({"name": "heun", "grid": grid} for grid in GRIDS), {"name": "ddim", "grid": "karras"}]
    values["settings"]["board"]["evaluation"]["sweep"] = sweep
    values |= {"methods": [{"name": "eps", "use": "ddpm"}], "datasets": ["board"]}
    bench = Bench(tmp_path_factory.mktemp("eps"), values)
    shutil.copytree(healthy.results / "data", bench.results / "data")
    for stage in ("train", "sweep"):
        said = bench.run(stage, "board", "eps")
        assert said.code == 0, said.err
    return bench


def reference_of(bench: Bench, method: str, nfe: int) -> torch.Tensor:
    data, model = bench.data("board"), bench.model("board", method)
    grid = uniform_grid(model.objective.t_min, model.objective.t_max, nfe // 4)
    with torch.no_grad():
        return integrate(model.field(), noise(data, model, 10), grid, FIXED["rk4"]).double()


@pytest.mark.parametrize("grid", ["uniform", "karras"])
def test_a_cell_of_ddim_is_ddim_of_the_networks_own_prediction(noise_predicting, grid):
    """By hand from what the network puts out, which is noise; the stage goes by way of the velocity."""
    data, model = noise_predicting.data("board"), noise_predicting.model("board", "eps")
    network, objective = noise_predicting.network("board", "eps"), model.objective
    times = GRIDS[grid](objective.path, objective.t_min, objective.t_max, 6)
    assert objective.prediction is EPSILON
    calls = []

    def predicts(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        calls.append(t)
        return network(t.float().expand(len(x)), x)

    with torch.no_grad():
        end = ddim(predicts, noise(data, model, 10), times, objective.path, EPSILON)
    assert len(calls) == 6
    label = "ddim" if grid == "uniform" else f"ddim/{grid}"
    (row,) = [r for r in noise_predicting.cells("board", "eps") if r["solver"] == label]
    expected = float((end.double() - reference_of(noise_predicting, "eps", 80)).square().mean())
    assert row["value"] == pytest.approx(expected, rel=2e-3)
    assert row["nfe"] == 6


def test_a_cell_of_a_grid_is_the_solver_on_that_grid(noise_predicting):
    data, model = noise_predicting.data("board"), noise_predicting.model("board", "eps")
    objective, errors = model.objective, {}
    for name, grid in GRIDS.items():
        times = grid(objective.path, objective.t_min, objective.t_max, 3)
        with torch.no_grad():
            end = integrate(model.field(), noise(data, model, 10), times, FIXED["heun"]).double()
        errors["heun" if name == "uniform" else f"heun/{name}"] = float(
            (end - reference_of(noise_predicting, "eps", 80)).square().mean()
        )
    found = {r["solver"]: r["value"] for r in noise_predicting.cells("board", "eps") if r["solver"].startswith("heun")}
    assert list(found) == ["heun", "heun/karras", "heun/log_snr", "heun/cosine"]
    assert found == pytest.approx(errors, rel=1e-3)
    assert len({f"{value:.3e}" for value in found.values()}) == 4


def test_ddim_on_the_straight_path_is_euler_but_for_rounding(bench):
    """a = t and s = 1 - (1 - sigma_min) t are linear in t; on the cosine path they are not."""
    for method, same in (("fm_ot", True), ("oracle_ot", True), ("mine", False)):
        errors = {(r["solver"], r["nfe"]): r["value"] for r in bench.cells("board", method)}
        for nfe in (4.0, 8.0):
            assert (errors["ddim", nfe] == pytest.approx(errors["euler", nfe], rel=1e-3)) == same


def test_ddim_may_be_the_reference(noise_predicting):
    settings = noise_predicting.config.settings["board"].evaluation.sweep.model_dump()
    settings |= {"reference_solver": "ddim", "reference_nfe": 6, "solvers": [{"name": "ddim", "grid": "uniform", "nfe": [6]}]}
    assert noise_predicting.run("sweep", "board", "eps", settings=settings).code == 0
    (row,) = noise_predicting.cells("board", "eps")
    assert (row["value"], row["reference"]) == (0, "ddim at 6 NFE")
    assert noise_predicting.run("sweep", "board", "eps").code == 0
    assert len(noise_predicting.cells("board", "eps")) == 6


# Oracles


def points_of(bench: Bench, dataset: str, method: str) -> np.ndarray:
    """What an oracle knows, in model space, by hand: points scaled, images in the middle of their levels."""
    train = np.asarray(bench.data(dataset).train, np.float64)
    if method == "near":
        train = train[np.sort(torch.randperm(len(train), generator=generator(0, "oracle/points")).numpy()[:20])]
    return (2 * train if dataset == "board" else (train + 0.5) * 2 / 5 - 1).reshape(len(train), -1)


def log_density_by_hand(x: np.ndarray, points: np.ndarray, variance: float) -> np.ndarray:
    squares = ((x.reshape(len(x), 1, -1) - points) ** 2).sum(2)
    dimensions = points.shape[1]
    exponents = -squares / (2 * variance) - dimensions / 2 * np.log(2 * np.pi * variance)
    top = exponents.max(1)
    return top + np.log(np.exp(exponents - top[:, None]).mean(1))


def test_an_oracle_has_rows_of_a_training_and_no_parameters(bench):
    for dataset, n in (("board", 300), ("tall", 40)):
        for method in ORACLES:
            values = {r["metric"]: r["value"] for r in bench.rows("train", dataset, method)}
            assert values["parameters"] == values["iterations"] == 0
            assert values["images_seen"] == (20 if method == "near" else n)
            assert values["final_loss"] > 0
            config = read_json(bench.folder("train", dataset, method) / "config.json")
            assert (config["parameters"], config["step"], config["reason"]) == (0, 0, "")
            curve = read_table(bench.folder("train", dataset, method) / "loss_curve.parquet")
            assert curve.num_rows == 0 and curve.column_names == ["step", "loss", "learning_rate"]
            assert {r["step"] for r in bench.rows("train", dataset, method)} == {0}


def test_the_bandwidth_of_an_oracle(bench):
    """Of images the spread within a level; of points one that makes left-out points likely; or what the config says."""
    assert bench.row("train", "tall", "oracle_ot", "bandwidth")["value"] == pytest.approx(2 / 5 / math.sqrt(12), rel=1e-12)
    for dataset in ("board", "tall"):
        assert bench.row("train", dataset, "near", "bandwidth")["value"] == 0.3
    points = points_of(bench, "board", "oracle_ot")
    squares = ((points[:, None] - points) ** 2).sum(2)
    np.fill_diagonal(squares, np.inf)

    def left_out(h: float) -> float:
        return float((np.log(np.exp(-squares[:200] / (2 * h**2)).sum(1)) - 2 * np.log(h)).sum())

    best = bench.row("train", "board", "oracle_ot", "bandwidth")["value"]
    step = 1000 ** (1 / 24)
    assert left_out(best) > max(left_out(best * step), left_out(best / step))


def test_the_loss_of_an_oracle_is_what_is_left_when_nothing_is_left_to_learn(bench):
    """E |u_t(x_t) - (x1 - x0)|^2 a coordinate, over other draws than the stage's 1000."""
    model = bench.model("board", "oracle_ot")
    assert model.oracle is not None
    g = torch.Generator().manual_seed(0)
    n = 500
    x1, x0 = model.oracle.sample(n, g), torch.randn(n, 2, generator=g).double()
    t = torch.rand(n, generator=g).double()
    x_t = t[:, None] * x1 + (1 - t[:, None]) * x0
    velocity = torch.cat([model.velocity(at, x[None]) for at, x in zip(t, x_t, strict=True)])
    loss = (velocity - (x1 - x0)).square().mean(1)
    found = bench.row("train", "board", "oracle_ot", "final_loss")["value"]
    assert found == pytest.approx(float(loss.mean()), abs=4 * float(loss.std()) * math.sqrt(1 / n + 1 / 1000))


@pytest.mark.parametrize("dataset", ["board", "tall"])
@pytest.mark.parametrize("method", ORACLES)
def test_the_nll_of_an_oracle_is_the_closed_form_of_the_test_points(bench, dataset, method):
    data, bandwidth = bench.data(dataset), bench.row("train", dataset, method, "bandwidth")["value"]
    x = torch.from_numpy(np.array(data.test))
    x1 = data.to_model(x, indexed_uniform(SEED, "dequantise", range(len(x)), data.shape)).double().numpy()
    # At the end of both paths a = 1; of the noise there is sigma_min left.
    variance = bandwidth**2 + {"oracle_ot": 0.0, "near": 0.01}[method] ** 2
    log_p = log_density_by_hand(x1, points_of(bench, dataset, method), variance)
    nll = -(log_p + 2 * math.log(2)) if dataset == "board" else math.log2(5 / 2) - log_p / (72 * math.log(2))
    row, error = (bench.row("likelihood", dataset, method, metric) for metric in ("nll", "nll_stderr"))
    assert row["value"] == pytest.approx(nll.mean(), rel=1e-6)
    assert error["value"] == pytest.approx(nll.std(ddof=1) / math.sqrt(len(nll)), rel=1e-5)
    assert (row["n"], row["solver"], row["nfe"]) == (len(x), "closed form", None)
    assert row["draws"] == error["draws"] == {"board": None, "tall": 1}[dataset]  # as of a network
    assert bench.row("likelihood", dataset, method, "nll_own_closed_form")["draws"] is None
    assert row["unit"] == {"board": "nats", "tall": "bits/dim"}[dataset]


@pytest.mark.parametrize("dataset", ["board", "tall"])
@pytest.mark.parametrize(("method", "off"), [("oracle_ot", 1e-4), ("near", 2e-3)])
def test_an_oracles_solve_finds_its_own_closed_form(bench, tmp_path, dataset, method, off):
    """At a fine tolerance; the VE path's start is the base only to a few parts in (data / sigma_max)^2.

    There the log densities of base and marginal differ by m x / sigma_max^2 with the points' mean m, which over n draws
    leaves a deviation of |m| / (sigma_max sqrt(n)).
    """
    assert evaluated(bench, "likelihood", dataset, method, tmp_path, rtol=1e-6, atol=1e-6).code == 0
    rows = by_metric(tmp_path)
    own, closed = rows["nll_own"], rows["nll_own_closed_form"]
    if method == "near":
        unit = 1 if dataset == "board" else 72 * math.log(2)
        off += 3 * float(np.linalg.norm(points_of(bench, dataset, method).mean(0))) / (20 * math.sqrt(own["n"])) / unit
    assert own["value"] == pytest.approx(closed["value"], abs=off)
    assert own["solver"] == "dopri5_shared, exact divergence" and closed["solver"] == "closed form"
    assert own["nfe"] == rows["nfe_likelihood"]["value"] > bench.row("likelihood", dataset, method, "nll_own")["nfe"]
    assert rows["nll"]["value"] == bench.row("likelihood", dataset, method, "nll")["value"]  # no solver in it


def test_an_oracles_likelihood_evaluates_the_closed_form_and_counts_it(bench, tmp_path, monkeypatch):
    seen = []
    original = FiniteOracle.velocity_and_divergence

    def counted(self: FiniteOracle, path: Any, t: torch.Tensor, x: torch.Tensor) -> Any:
        seen.append(len(x))
        return original(self, path, t, x)

    monkeypatch.setattr(FiniteOracle, "velocity_and_divergence", counted)
    assert evaluated(bench, "likelihood", "tall", "near", tmp_path).code == 0
    row = bench.row("likelihood", "tall", "near", "nfe_likelihood")
    # Batches of 5, 5 and 4: each evaluation of the pair counts for every sample in it.
    assert set(seen) == {5, 4} and row["value"] == row["nfe"] == pytest.approx(sum(seen) / 14, rel=1e-12)


@pytest.mark.parametrize("dataset", ["board", "tall"])
@pytest.mark.parametrize("method", ORACLES)
def test_samples_of_an_oracle_lie_about_the_points_it_knows(bench, dataset, method):
    samples = np.load(bench.folder("sample", dataset, method) / "samples.npy").astype(np.float64)
    points = points_of(bench, dataset, method)
    bandwidth = bench.row("train", dataset, method, "bandwidth")["value"]
    nearest = ((samples.reshape(len(samples), 1, -1) - points) ** 2).sum(2).min(1)
    # The squared distance to the point it belongs to is bandwidth^2 times chi squared.
    dimensions = points.shape[1]
    assert nearest.max() < bandwidth**2 * (dimensions + 5 * math.sqrt(2 * dimensions))
    if dataset == "tall":
        assert nearest.mean() == pytest.approx(bandwidth**2 * dimensions, rel=0.2)
    (row,) = [r for r in bench.rows("sample", dataset, method) if r["metric"] == "sample_std"]
    assert row["status"] == "ok"


def test_a_sweep_of_an_oracle_is_of_its_closed_form_field(bench):
    data, model = bench.data("board"), bench.model("board", "near")
    assert model.oracle is not None and model.objective.path.base_std == 20
    x0 = indexed_normal(SEED, "sample", range(10), (2,)) * 20
    oracle, path = model.oracle, model.objective.path
    field: CountingField[torch.Tensor] = CountingField(lambda t, x: oracle.velocity(path, t, x), 0.0, 1.0)
    ends = [integrate(field, x0, uniform_grid(0.0, 1.0, n), FIXED["rk4"]).double() for n in (2, 10)]
    row = next(r for r in bench.cells("board", "near") if (r["solver"], r["nfe"]) == ("rk4", 8.0))
    assert row["value"] == pytest.approx(float((ends[0] - ends[1]).square().mean()), rel=1e-3)
    assert field.calls == 48 and data.shape == (2,)


@pytest.mark.parametrize("change", ["points", "weights"])
def test_an_oracle_is_what_its_data_and_its_weights_say(bench, tmp_path, change):
    """Its field is in the data, so that the hash of its weights, which the cache goes by, must tell other data apart."""
    values = json.loads(json.dumps(VALUES)) | {"datasets": ["board"], "methods": [VALUES["methods"][4]]}
    if change == "points":
        values["settings"]["board"]["data"]["parameters"]["train"] = 200
    else:
        values["methods"][0]["oracle"]["bandwidth"] = 0.31
    other = Bench(tmp_path, values)
    command("prepare", "--spec", canonical(specs.prepare(other.config, "board")), "--out", other.results / "data" / "board")
    assert other.run("train", "board", "near").code == 0
    assert other.model("board", "near").sha256 != bench.model("board", "near").sha256
    folder, wanted = other.folder("train", "board", "near"), settings_hash(bench.spec("train", "board", "near"))
    with pytest.raises(DataError, match="not the model of this job's spec"):
        load_model(folder, other.data("board"), CPU, wanted)


def test_an_oracle_trained_again_is_the_same_bytes(bench, tmp_path):
    folders = ["--data", bench.results / "data/tall", "--checkpoints", tmp_path / "none", "--out", tmp_path / "again"]
    said = command("train", "--spec", canonical(bench.spec("train", "tall", "near")), "--progress", "lines", *folders)
    assert said.code == 0
    assert "no training: 20 points, bandwidth 0.3, least loss" in said.err and not (tmp_path / "none").exists()
    for name in MODEL_FILES:
        assert (tmp_path / "again" / name).read_bytes() == (bench.folder("train", "tall", "near") / name).read_bytes()


def test_an_oracle_of_another_data_set_is_refused(bench, tmp_path):
    folders = ["--data", bench.results / "data/board", "--checkpoints", tmp_path, "--out", tmp_path / "out"]
    said = command("train", "--spec", canonical(bench.spec("train", "tall", "near")), *folders)
    assert said.code == 3 and "which is not what this job's spec was made for" in said.err
    assert not (tmp_path / "out").exists()


def test_points_that_are_all_the_same_have_no_bandwidth_of_their_own(tmp_path):
    values = VALUES | {"datasets": ["board"], "methods": [{"name": "one", "path": "ot", "oracle": {"points": 1}}]}
    one = Bench(tmp_path, values)
    command("prepare", "--spec", canonical(specs.prepare(one.config, "board")), "--out", one.results / "data" / "board")
    said = one.run("train", "board", "one")
    assert said.code == 2 and "needs at least two different points; give one" in said.err


# NLL over dequantisation draws


def drawn_by_hand(bench: Bench, method: str, draws: int, probes: int) -> torch.Tensor:
    """log p of each draw, probe and image, shape (draws, probes, 5), in batches of 3 and 2."""
    data, model = bench.data("tall"), bench.model("tall", method)
    found = []
    for k in range(draws):
        pieces = []
        for indices in (range(3), range(3, 5)):
            u = indexed_uniform(SEED, "dequantise" if k == 0 else f"dequantise/{k}", indices, data.shape)
            z = torch.stack([indexed_rademacher(SEED, f"draws/{k}/probe/{m}", indices, data.shape) for m in range(probes)])
            x1 = (torch.from_numpy(np.array(data.test[indices.start : indices.stop])) + u) * 2 / 5 - 1
            o = model.objective
            solved = log_likelihood(model.field(), x1, o.t_min, o.t_max, probes=z, rtol=1e-2, atol=1e-2)
            pieces.append(solved.by_probe)
        found.append(torch.cat(pieces, 1))
    return torch.stack(found)


def in_bits(log_p: torch.Tensor) -> torch.Tensor:
    """Of log p of K draws, shape (K, 5): eq. 47, then 72 pixels of five levels."""
    return -torch.log(log_p.exp().mean(0)) / (72 * math.log(2)) + math.log2(5 / 2)


@pytest.mark.parametrize("method", GOOD)
def test_draws_have_rows_for_every_k_and_estimator(bench, method):
    rows = bench.rows("dequantisation", "tall", method)
    metrics = ["nll_averaged", "nll_averaged_stderr", "nll_paper", "nll_paper_stderr"]
    metrics += ["nll_probe_bias", "nll_probe_std", "nll_probe_variance"]
    assert sorted((r["metric"], r["draws"]) for r in rows) == [(metric, k) for metric in metrics for k in (1, 3)]
    for row in rows:
        assert row["probes"] == (1 if "paper" in row["metric"] else 2)
        unit = "nats^2" if row["metric"] == "nll_probe_variance" else "bits/dim"
        assert (row["status"], row["unit"], row["n"], row["batch"]) == ("ok", unit, 5, 3)
        assert (row["stage"], row["solver"], row["rtol"]) == ("dequantisation", "dopri5_shared", 1e-2)
        assert row["nfe"] >= 8


@pytest.mark.parametrize("method", GOOD)
def test_both_estimators_are_those_by_hand(bench, method):
    """log (1/K) sum exp(log p), with the first probe alone or with the mean of both; at K = 1 with those of Table 1's draw."""
    log_p = drawn_by_hand(bench, method, 3, 2) - 0.0
    shift = float(log_p.max())  # exp(log p) itself is out of range in 72 dimensions
    values = {(r["metric"], r["draws"]): r["value"] for r in bench.rows("dequantisation", "tall", method)}
    for k in (1, 3):
        for metric, used in (("nll_paper", log_p[:k, 0]), ("nll_averaged", log_p[:k].mean(1))):
            expected = in_bits(used - shift) - shift / (72 * math.log(2))
            assert values[metric, k] == pytest.approx(float(expected.mean()), rel=1e-6)
            assert values[f"{metric}_stderr", k] == pytest.approx(float(expected.std()) / math.sqrt(5), rel=1e-4)
    assert values["nll_probe_bias", 1] == 0
    w = torch.softmax(log_p.mean(1), 0)
    variance = (log_p[:, 0] - log_p[:, 1]) ** 2 / 4  # of the mean of two
    bias = (w * (1 - w) * variance).sum(0) / 2 / (72 * math.log(2))
    assert values["nll_probe_bias", 3] == pytest.approx(-float(bias.mean()), rel=1e-4) and values["nll_probe_bias", 3] < 0
    for k in (1, 3):
        spread = math.sqrt(float(variance[:k].mean())) / (72 * math.log(2))
        assert values["nll_probe_std", k] == pytest.approx(spread, rel=1e-4)
        assert values["nll_probe_variance", k] == pytest.approx(float(variance[:k].mean()), rel=1e-4)
    for metric in ("nll_paper", "nll_averaged"):
        # Jensen: eq. 47 is above the mean of log p over the same draws, and above its first less log K.
        used = log_p[:, 0] if metric == "nll_paper" else log_p.mean(1)
        assert values[metric, 3] < float(in_bits((used.mean(0) - shift)[None]).mean()) - shift / (72 * math.log(2))
        assert values[metric, 3] < values[metric, 1] + math.log(3) / (72 * math.log(2))


def test_a_low_dimension_has_the_exact_divergence_in_place_of_averaged_probes(bench, tmp_path):
    """And its first draw is the one of Table 1: the same images, uniforms and solver."""
    exact = {"exact_up_to": 72, "n": 2, "batch": 2, "rtol": 1e-2, "atol": 1e-2}
    said = evaluated(bench, "dequantisation", "tall", "fm_ot", tmp_path / "draws", draws=[1], **exact)
    assert said.code == 0 and "nll_exact at K = 1" in said.err
    rows = by_metric(tmp_path / "draws")
    assert set(rows) == {"nll_exact", "nll_exact_stderr", "nll_paper", "nll_paper_stderr"}
    assert (rows["nll_exact"]["probes"], rows["nll_paper"]["probes"]) == (0, 1)
    assert rows["nll_exact"]["nfe"] >= 8 and rows["nll_exact"]["value"] != rows["nll_paper"]["value"]
    assert evaluated(bench, "likelihood", "tall", "fm_ot", tmp_path / "nll", **exact).code == 0
    table1 = by_metric(tmp_path / "nll")
    assert rows["nll_exact"]["value"] == pytest.approx(table1["nll"]["value"], rel=1e-12)
    assert rows["nll_exact_stderr"]["value"] == pytest.approx(table1["nll_stderr"]["value"], rel=1e-12)
    assert (table1["nll"]["draws"], table1["nll"]["probes"]) == (1, 0)


def test_a_draw_is_solved_once(bench, tmp_path):
    """Killed or asked for more, the stage goes on with what it has; a damaged entry, or one of other settings, is not used."""
    out, cache = tmp_path / "draws", tmp_path / "cache"

    def said(**settings: Any) -> str:
        found = evaluated(bench, "dequantisation", "tall", "fm_ot", out, **settings)
        assert found.code == 0, found.err
        return found.err

    def same() -> bool:
        found, expected = read_rows([out / "rows.parquet"]).to_pylist(), bench.rows("dequantisation", "tall", "fm_ot")
        shown = ("metric", "draws", "value", "nfe")
        return [[row[c] for c in shown] for row in found] == [[row[c] for c in shown] for row in expected]

    assert "2 solves and 0 from the cache" in said(draws=[1, 2])
    assert "1 solves and 2 from the cache" in said() and same()
    assert "0 solves and 3 from the cache" in said() and same()
    arrays = sorted(cache.glob("*.npy"))
    arrays[0].write_bytes(arrays[0].read_bytes()[:-9])
    assert "1 solves and 2 from the cache" in said() and same()
    assert "3 solves and 0 from the cache" in said(rtol=2e-2)


def test_a_draw_that_failed_takes_nothing_from_those_before_it(bench, tmp_path, monkeypatch):
    """Numbers, failures and evaluations at K are of the first K draws; a batch's evaluations count for its images."""
    solves: list[int] = []

    def solved(field: Any, x1: torch.Tensor, *_: Any, **__: Any) -> LogLikelihood:
        draw = len(solves) // 2  # batches of 3 and 2
        solves.append(draw)
        field.calls += (10 if len(x1) == 3 else 30) * (draw + 1)
        g = torch.Generator().manual_seed(len(solves))
        failed = torch.tensor([draw == 2 and len(x1) == 2] + [False] * (len(x1) - 1))
        return LogLikelihood(torch.randn(2, len(x1), generator=g).double(), torch.zeros(len(x1)), failed, 2)

    monkeypatch.setattr("fmbench.stages.likelihood_solve.log_likelihood", solved)
    runs = []
    for _ in range(2):  # the second from the cache
        assert evaluated(bench, "dequantisation", "tall", "fm_ot", tmp_path / "out", draws=[1, 2, 3]).code == 0
        runs.append((tmp_path / "out" / "rows.parquet").read_bytes())
    assert runs[0] == runs[1] and solves == [0, 0, 1, 1, 2, 2]
    rows = {(r["metric"], r["draws"]): r for r in read_rows([tmp_path / "out" / "rows.parquet"]).to_pylist()}
    for (metric, k), row in rows.items():
        assert row["status"] == ("diverged" if k == 3 else "ok"), metric
        assert row["nfe"] == pytest.approx({1: 18.0, 2: 27.0, 3: 36.0}[k], rel=1e-12)
        if k == 3:
            assert row["reason"] == "dopri5 failed on 1 of 15 solves (step size vanished or 20000 NFE spent)"


def exploding(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The field of N(0, I) data on a VE path: x_t is N(0, (1 + s^2) I)."""
    c = VE.coefficients(t)
    return (c.ds * c.s / (1 + c.s**2)).to(x.dtype) * x


VE = VarianceExploding(0.1, 5.0)


@pytest.mark.parametrize("stage", ["likelihood", "dequantisation"])
def test_the_nll_starts_from_the_paths_own_noise(bench, tmp_path, monkeypatch, stage):
    """In closed form: a Gaussian of the base's width, 5, and not 1, taken along by the flow."""
    objective = build(Method("m", Part("ve", {"sigma_min": 0.1, "sigma_max": 5.0}), Part("velocity")))

    def replaced(*arguments: Any) -> Model:
        return dataclasses.replace(load_model(*arguments), velocity=exploding, objective=objective)

    monkeypatch.setattr(f"fmbench.stages.{stage}.load_model", replaced)
    changes = {"n": 4, "batch": 4, "exact_up_to": 72, "rtol": 1e-6, "atol": 1e-6} | (
        {"draws": [1]} if stage == "dequantisation" else {}
    )
    assert evaluated(bench, stage, "tall", "fm_ot", tmp_path, **changes).code == 0
    data = bench.data("tall")
    x1 = data.to_model(torch.from_numpy(np.array(data.test[:4])), indexed_uniform(SEED, "dequantise", range(4), data.shape))
    width = 5.0 * math.sqrt((1 + 0.1**2) / (1 + 5.0**2))
    log_p = torch.distributions.Normal(0.0, width).log_prob(x1.double()).flatten(1).sum(1)
    found = by_metric(tmp_path)["nll" if stage == "likelihood" else "nll_exact"]["value"]
    assert found == pytest.approx(float(bits_per_dimension(log_p, 72, 5).mean()), abs=1e-4)


def test_a_batchs_evaluations_count_for_its_own_samples(bench, tmp_path, monkeypatch):
    """And what failed says why it may have."""

    def solved(field: Any, x1: torch.Tensor, *_: Any, **__: Any) -> LogLikelihood:
        field.calls += 10 if len(x1) == 5 else 30  # batches of 5, 5 and 4
        return LogLikelihood(torch.zeros(2, len(x1)).double(), torch.zeros(len(x1)), torch.arange(len(x1)) == 4, 2)

    monkeypatch.setattr("fmbench.stages.likelihood_solve.log_likelihood", solved)
    assert evaluated(bench, "likelihood", "tall", "fm_ot", tmp_path).code == 0
    row = by_metric(tmp_path)["nll"]
    assert row["nfe"] == pytest.approx((10 * 10 + 30 * 4) / 14, rel=1e-12)
    assert row["reason"] == "dopri5 failed on 2 of 14 test samples (step size vanished or 20000 NFE spent)"


def test_a_cached_draw_is_of_these_data_and_this_code(bench, tmp_path, monkeypatch):
    """By hand, too, where no hash of the plug-ins is given: of test images prepared again, and of a network that was edited."""
    for name in ("data", "models"):
        shutil.copytree(bench.results / name, tmp_path / name)
    spec = bench.spec("dequantisation", "tall", "fm_ot")
    spec["settings"] |= {"draws": [1]}
    data, model = tmp_path / "data" / "tall", tmp_path / bench.folder("train", "tall", "fm_ot").relative_to(bench.results)
    folders = ["--data", data, "--model", model, "--out", tmp_path / "out", "--cache", tmp_path / "cache"]

    def said() -> str:
        return command("dequantisation", "--spec", canonical(spec), "--progress", "lines", *folders).err

    assert "1 solves and 0 from the cache" in said() and "0 solves and 1 from the cache" in said()
    manifest = read_json(data / "manifest.json")
    manifest["splits"]["test"]["sha256"] = "another"
    write_json(data / "manifest.json", manifest)
    assert "1 solves and 0 from the cache" in said()
    monkeypatch.setattr("fmbench.stages.models.plugin_code", lambda spec: "edited")
    assert "1 solves and 0 from the cache" in said()


def test_the_own_code_of_a_model_is_that_of_its_plug_ins(tmp_path):
    module = tmp_path / "a_module_of_ones_own.py"

    def found(text: str, kind: str = "a_module_of_ones_own:A") -> str:
        module.write_text(text)
        code = f"from fmbench.store.codehash import plugin_code\nprint(plugin_code({{'network': {{'kind': {kind!r}}}}}))"
        environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parent.parent.parent}"}
        return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout

    before = found("A = 1\n")
    assert before.strip() and found("A = 1  # as before\n") == before != found("A = 2\n")
    assert found("A = 1\n", "unet") == "\n"


@pytest.mark.parametrize("changes", [{"probe": "gaussian"}, {"mode": "forward"}])
def test_draws_with_other_probes_or_another_way_to_apply_them(bench, tmp_path, changes):
    """Other probes are another number; applied in another way they are the same."""
    said = evaluated(bench, "dequantisation", "tall", "fm_ot", tmp_path, draws=[1], **changes)
    assert said.code == 0, said.err
    found = by_metric(tmp_path)["nll_averaged"]
    (expected,) = [r for r in bench.rows("dequantisation", "tall", "fm_ot") if (r["metric"], r["draws"]) == ("nll_averaged", 1)]
    assert (found["value"] == pytest.approx(expected["value"], rel=1e-5)) == ("mode" in changes)
    assert found["value"] == pytest.approx(expected["value"], rel=0.05)


def test_a_snapshot_is_sampled_once(bench, tmp_path):
    """Killed and started again, the stage goes on with what is in its cache; rows are the same."""
    shutil.copytree(bench.results / "cache" / "learning_curve" / "tall" / "fm_ot", tmp_path / "cache")
    folders = ["--data", bench.results / "data" / "tall", "--model", bench.folder("train", "tall", "fm_ot"), "--out", tmp_path]
    folders += ["--features", bench.results / "features" / "tall", "--cache", tmp_path / "cache"]

    def said() -> str:
        found = command(
            "learning-curve", "--spec", canonical(bench.spec("learning_curve", "tall", "fm_ot")), "--progress", "lines", *folders
        )
        assert found.code == 0, found.err
        return found.err

    entries = sorted((tmp_path / "cache").iterdir())
    assert f"{len(entries)} snapshots, {len(entries)} from the cache" in said() and len(entries) > 1
    entries[0].unlink()
    assert f"{len(entries)} snapshots, {len(entries) - 1} from the cache" in said()
    rows = read_rows([tmp_path / "rows.parquet"]).to_pylist()
    assert [(r["metric"], r["step"], r["value"]) for r in rows] == [
        (r["metric"], r["step"], r["value"]) for r in bench.rows("learning_curve", "tall", "fm_ot")
    ]


def test_the_spread_of_nfe_along_training_is_that_of_a_sample(bench, tmp_path, monkeypatch):
    """n - 1 below the root, as in the stage ``sample``."""
    spent = np.array([8, 14, 14, 20, 38, 8, 14, 26])

    def solved(model: Model, dataset: DataSet, *_: Any, **__: Any) -> Adaptive:
        return Adaptive(np.zeros((8, *dataset.shape), np.float32), spent, np.zeros(8, bool))

    monkeypatch.setattr("fmbench.stages.learning_curve.adaptive", solved)
    folders = ["--data", bench.results / "data" / "tall", "--model", bench.folder("train", "tall", "fm_ot"), "--out", tmp_path]
    folders += ["--features", bench.results / "features" / "tall", "--cache", tmp_path / "cache"]
    said = command(
        "learning-curve", "--spec", canonical(bench.spec("learning_curve", "tall", "fm_ot")), "--progress", "lines", *folders
    )
    assert said.code == 0, said.err
    rows = by_metric(tmp_path)
    assert rows["nfe"]["value"] == spent.mean()
    assert rows["nfe_std_over_samples"]["value"] == pytest.approx(statistics.stdev(spent.tolist()), rel=1e-12)


def test_a_budget_need_not_keep_pictures(bench, tmp_path):
    spec = bench.spec("few_step", "tall", "fm_ot")
    spec["settings"]["shown"] = 0
    folders = ["--data", bench.results / "data" / "tall", "--model", bench.folder("train", "tall", "fm_ot"), "--out", tmp_path]
    folders += ["--samples", bench.folder("sample", "tall", "fm_ot"), "--features", bench.results / "features" / "tall"]
    said = command("few-step", "--spec", canonical(spec), "--progress", "lines", "--cache", tmp_path / "cache", *folders)
    assert said.code == 0, said.err
    assert read_table(tmp_path / "previews.parquet").num_rows == 0
    assert read_rows([tmp_path / "rows.parquet"]).num_rows == len(bench.rows("few_step", "tall", "fm_ot"))


def test_points_have_no_draws(bench, tmp_path):
    """Of a source of one's own it is known only now, so it stops nothing."""
    said = evaluated(bench, "dequantisation", "board", "fm_ot", tmp_path)
    assert said.code == 0 and "no rows: points are not dequantised" in said.err
    assert read_rows([tmp_path / "rows.parquet"]).num_rows == 0


def test_draws_of_an_oracle_are_refused(bench, tmp_path):
    said = evaluated(bench, "dequantisation", "tall", "oracle_ot", tmp_path / "out")
    assert said.code == 3 and "is an oracle, whose likelihood is a closed form" in said.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "metrics"), [({}, {"nll_averaged", "nll_paper"}), ({"exact_up_to": 72}, {"nll_exact", "nll_paper"})]
)
def test_draws_of_a_diverged_training_are_skipped(bench, tmp_path, changes, metrics):
    assert evaluated(bench, "dequantisation", "tall", "ddpm", tmp_path, **changes).code == 0
    rows = read_rows([tmp_path / "rows.parquet"]).to_pylist()
    assert {(r["metric"], r["draws"]) for r in rows} == {(metric, k) for metric in metrics for k in (1, 3)}
    reason = read_json(bench.folder("train", "tall", "ddpm") / "config.json")["reason"]
    for row in rows:
        assert (row["status"], row["value"], row["reason"]) == ("skipped", None, f"training diverged: {reason}")


def test_table_4_of_these_results(bench, tmp_path):
    """Through the command line: the diverged method has its rows and its reason, oracles and points have none."""
    files = [bench.folder("dequantisation", "tall", method) / "rows.parquet" for method in TRAINED]
    gathered = tmp_path / "dequantisation.parquet"
    options = ["--out", tmp_path / "table4.csv", "--gathered", gathered]
    said = bench.whole("table4", *(x for file in files for x in ("--rows", file)), *options)
    assert said.code == 0, said.err
    assert read_rows([gathered]).equals(read_rows(files))
    table = list(csv.DictReader((tmp_path / "table4.csv").read_text().splitlines()))
    assert [(r["method"], r["estimator"], r["k"]) for r in table] == [
        (method, estimator, k) for method in TRAINED for estimator in ("averaged", "paper") for k in ("1", "3")
    ]
    for row in table:
        assert row["dataset"] == "tall" and row["paper_nll"] == ""
        if row["method"] == "ddpm":
            assert row["nll_mean"] == "" and row["seeds"] == "0" and row["status"].startswith(f"seed {SEED}: training diverged")
        else:
            values = {(r["metric"], str(r["draws"])): r["value"] for r in bench.rows("dequantisation", "tall", row["method"])}
            assert float(row["nll_mean"]) == pytest.approx(values[f"nll_{row['estimator']}", row["k"]], rel=1e-5)
    text = (tmp_path / "table4.md").read_text()
    assert "## tall" in text and " nan" not in text.replace("became nan", "")
    assert (tmp_path / "table4.tex").read_text().count(r"\toprule") == 1


def test_settings_and_table_3_are_of_what_was_trained(bench, tmp_path):
    """Through the command line: every model's own config.json is in settings.parquet, and the table is made from that alone."""
    settings = read_table(bench.results / "settings.parquet").to_pandas()
    for dataset in bench.config.datasets:
        n = len(bench.data(dataset).train)
        for method in bench.config.methods:
            mine = settings[(settings.dataset == dataset) & (settings.method == method.name) & (settings.seed == SEED)]
            values = {key: json.loads(value) for key, value in zip(mine.key, mine.value, strict=True)}
            config = read_json(bench.folder("train", dataset, method.name) / "config.json")
            assert (values["parameters"], values["step"], values["data.train"]) == (config["parameters"], config["step"], n)
            training = {key: value for key, value in values.items() if key.startswith("training.")}
            assert training == {f"training.{k}": v for k, v in config["spec"].get("training", {}).items()}
    said = command("table3", "--settings", bench.results / "settings.parquet", "--out", tmp_path / "table3.csv")
    assert said.code == 0, said.err
    rows = {(r["dataset"], r["setting"]): r for r in csv.DictReader((tmp_path / "table3.csv").read_text().splitlines())}
    for dataset in bench.config.datasets:
        training = bench.config.dataset(dataset).training
        epochs = training.iterations * training.batch_size / len(bench.data(dataset).train)
        if not rows[dataset, "epochs"]["by_method"]:
            assert float(rows[dataset, "epochs"]["ours"]) == pytest.approx(epochs, rel=1e-3)
        assert str(training.batch_size) in rows[dataset, "effective_batch_size"]["ours"]


def test_claims_on_these_results(bench, tmp_path):
    """One seed and a diverged method: nothing is beyond doubt, and every verdict has its reason."""
    said = command("claims", "--results", bench.results, "--out", tmp_path / "claims.csv", "--progress", "lines")
    assert said.code == 0, said.err
    rows = list(csv.DictReader((tmp_path / "claims.csv").read_text().splitlines()))
    whole = {row["claim"]: row for row in rows if row["about"] == "overall"}
    assert [*whole] == [str(k) for k in range(1, 11)] and all(row["why"] for row in rows)
    assert whole["1"]["verdict"] == whole["4"]["verdict"] == "inconclusive" and whole["3"]["verdict"] != "holds"
    nfe = [row for row in rows if row["claim"] == "1" and row["part"] == "NFE" and row["about"] == "trained"]
    assert nfe and all(row["seeds"] in ("0", "1") for row in nfe)


# How the probes are applied


def test_probes_applied_in_forward_mode_find_the_same(bench, tmp_path):
    found = {}
    for mode in ("forward", "reverse"):
        said = evaluated(bench, "likelihood", "tall", "fm_ot", tmp_path / mode, mode=mode, n=2, rtol=1e-2, atol=1e-2)
        assert said.code == 0, said.err
        found[mode] = {metric: row["value"] for metric, row in by_metric(tmp_path / mode).items()}
    # A forward pass for each probe is an evaluation for each; behind one, all probes are taken backwards.
    assert found["forward"].pop("nfe_likelihood") == 2 * found["reverse"].pop("nfe_likelihood")
    assert found["forward"] == pytest.approx(found["reverse"], rel=1e-4)
    assert set(found["forward"]) == {"nll", "nll_stderr", "nll_probe_std"}


def test_the_spread_by_the_probes_alone_is_what_two_probes_show(bench):
    data, model = bench.data("tall"), bench.model("tall", "mine")
    variances = []
    for indices in (range(5), range(5, 10), range(10, 14)):
        x1 = data.to_model(
            torch.from_numpy(np.array(data.test[indices.start : indices.stop])),
            indexed_uniform(SEED, "dequantise", indices, data.shape),
        )
        z = torch.stack([indexed_rademacher(SEED, f"probe/{k}", indices, data.shape) for k in range(2)])
        o = model.objective
        by_probe = log_likelihood(model.field(), x1, o.t_min, o.t_max, probes=z, rtol=1e-3, atol=1e-3).by_probe
        variances.append((by_probe[0] - by_probe[1]) ** 2 / 4)
    expected = math.sqrt(float(torch.cat(variances).mean())) / (72 * math.log(2))
    row = bench.row("likelihood", "tall", "mine", "nll_probe_std")
    assert row["value"] == pytest.approx(expected, rel=1e-5)
    assert (row["draws"], row["probes"], row["unit"]) == (1, 2, "bits/dim")


# Quality and its floors


def test_the_quality_of_points(bench):
    samples = np.load(bench.folder("sample", "board", "fm_ot") / "samples.npy").astype(np.float64) / 2
    test = np.asarray(bench.data("board").test, np.float64)
    distance, off = (bench.row("sample_quality", "board", "fm_ot", m) for m in ("energy_distance", "off_support"))
    assert distance["value"] == pytest.approx(energy_distance(samples, test), rel=1e-5)
    assert off["value"] == pytest.approx(1 - on_checkerboard(samples).mean())
    assert distance["n"] == off["n"] == 30
    assert (distance["features"], distance["reference"]) == ("coordinates", "test, n = 50")


def tall_classifier(bench):
    """The classifier from its weights alone."""
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
    expected = frechet_distance(feature_statistics(features[:14]), feature_statistics(reference))
    assert at_floor["value"] == pytest.approx(expected, rel=1e-4)
    digest = sha256(bench.results / "features" / "tall" / "classifier.safetensors")[:8]
    for row in (whole, at_floor):
        assert row["features"] == extractor["name"] == f"classifier(tall, 64 features, {digest})"
        assert "inception" not in row["features"] and "fid" not in row["metric"]
        assert row["reference"] == f"train, n = 40, sha256 {data.manifest['splits']['train']['sha256'][:12]}"


def test_too_few_samples_for_a_metric_are_a_row(bench, tmp_path):
    """But not those that are fewer than the test images, which is a choice."""
    samples = np.load(bench.folder("sample", "tall", "fm_ot") / "samples.npy")
    (tmp_path / "samples").mkdir()
    np.save(tmp_path / "samples" / "samples.npy", samples[:3])
    folders = ["--data", bench.results / "data/tall", "--features", bench.results / "features/tall", "--out", tmp_path / "out"]
    spec = canonical(bench.spec("sample_quality", "tall", "fm_ot"))
    said = command("sample-quality", "--spec", spec, "--samples", tmp_path / "samples", *folders, "--progress", "lines")
    rows = by_metric(tmp_path / "out")
    assert said.code == 0 and "3 samples are too few for frechet_at_floor_n, kid, kid_std, precision" in said.err
    assert {m: (r["status"], r["n"]) for m, r in rows.items()} == {
        "frechet": ("ok", 3),
        **{m: ("skipped", 3) for m in OF_IMAGES if m not in ("frechet", "frechet_at_floor_n")},
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


# A training that diverges


@pytest.mark.parametrize("dataset", ["board", "tall"])
def test_a_diverged_training_is_rows_with_status_and_reason_to_the_end(bench, dataset):
    config = read_json(bench.folder("train", dataset, "ddpm") / "config.json")
    assert re.match(r"the loss became (nan|inf) at iteration 1 \(learning rate", config["reason"])
    assert config["step"] == 0
    for metric in ("final_loss", "iterations"):
        row = bench.row("train", dataset, "ddpm", metric)
        assert (row["status"], row["reason"], row["value"]) == ("diverged", config["reason"], None)
    for stage in STAGES:
        rows = bench.rows(stage, dataset, "ddpm")
        for row in rows:
            assert row["status"] == "skipped" and row["value"] is None and row["reason"]
    assert config["reason"] in bench.row("likelihood", dataset, "ddpm", "nll")["reason"]


def test_a_diverged_training_keeps_its_last_good_weights(bench):
    """Those of iteration 0 here: the initial network, the same for every method."""
    initial = new_network(bench.spec("train", "board", "fm_ot"), bench.data("board")).state_dict()
    kept = bench.network("board", "ddpm").state_dict()
    assert all(torch.equal(initial[name], kept[name]) for name in initial)


RAISING = """
import torch
calls = 0

def weight(t, path, prediction):
    global calls
    calls += len(t) == 64
    if len(t) == 64 and calls > 30:
        raise {error}
    return torch.ones_like(t, dtype=torch.float64)
"""


def raising(bench: Bench, folder: Path, monkeypatch: pytest.MonkeyPatch, error: str) -> Bench:
    """With a weighting that raises in the 31st iteration."""
    module = f"raising_{re.sub('[^a-z]', '_', error.lower())}"
    (folder / f"{module}.py").write_text(RAISING.format(error=error))
    monkeypatch.syspath_prepend(folder)
    odd = {"name": "odd", "path": "ot", "prediction": "velocity", "weighting": f"{module}:weight"}
    bench.config = parse(VALUES | {"datasets": ["board"], "methods": [odd]})
    return bench


def test_a_part_of_ones_own_that_raises_in_training_is_rows_too(spoilable, tmp_path, monkeypatch):
    own = raising(spoilable, tmp_path, monkeypatch, "KeyError('a|b_')")
    said = own.run("train", "board", "odd")
    assert said.code == 0 and said.err.count("Traceback (most recent call last)") == 1 and "DIVERGED: raising" in said.err
    config = read_json(own.folder("train", "board", "odd") / "config.json")
    assert re.match(
        r"raising_\w+\.py, line 9, raised KeyError: 'a\|b_', so the loss became nan at iteration 30 ", config["reason"]
    )
    assert config["step"] == 25
    row = own.row("train", "board", "odd", "final_loss")
    assert (row["status"], row["reason"]) == ("diverged", config["reason"])
    assert own.run("likelihood", "board", "odd").code == 0
    assert own.row("likelihood", "board", "odd", "nll")["reason"] == f"training diverged: {config['reason']}"


@pytest.mark.parametrize(
    "error",
    ["OSError(5, 'no answer')", "MemoryError", "RuntimeError('cannot allocate')", "torch.OutOfMemoryError", "KeyboardInterrupt"],
)
def test_what_may_be_the_machines_doing_stays_an_error(spoilable, tmp_path, monkeypatch, error):
    own = raising(spoilable, tmp_path, monkeypatch, error)
    with pytest.raises((MemoryError, RuntimeError, SystemExit)):
        sys.exit(own.run("train", "board", "odd").code)
    assert not (own.folder("train", "board", "odd") / "config.json").exists()


def test_an_error_of_fmbench_on_a_method_of_ones_own_stays_one(spoilable, tmp_path, monkeypatch):
    own = raising(spoilable, tmp_path, monkeypatch, "Exception")
    monkeypatch.setattr("fmbench.flow.objectives.Objective.loss", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        own.run("train", "board", "odd")


def test_the_table_has_a_row_for_it_and_the_others_are_whole(bench):
    table = list(csv.DictReader((bench.results / "table1.csv").read_text().splitlines()))
    assert [(r["dataset"], r["method"]) for r in table] == [(d, m) for d in ("board", "tall") for m in METHODS]
    for row in table:
        if row["method"] == "ddpm":
            assert row["status"].startswith(f"seed {SEED} diverged: the loss became")
            assert row["seeds"] == "0"
            assert row["nll_mean"] == row["fid_mean"] == row["nfe_mean"] == row["sample_std"] == ""
        else:
            assert (row["status"], row["seeds"]) == ("ok", "1")
            assert all(float(row[k]) for k in ("nll_mean", "nfe_mean", "sample_std"))
            assert bool(row["fid_mean"]) == (row["dataset"] == "tall")
        assert row["nll_unit"] == {"board": "nats", "tall": "bits/dim"}[row["dataset"]]
    assert all((bench.results / f"table1.{kind}").exists() for kind in ("md", "tex"))


def test_the_table_of_the_records_is_the_same_bytes_again(bench, tmp_path):
    bench.whole("table1", "--records", bench.results / "records.parquet", "--out", tmp_path / "t.csv")
    for kind in ("csv", "md", "tex"):
        assert (tmp_path / f"t.{kind}").read_bytes() == (bench.results / f"table1.{kind}").read_bytes()


@pytest.mark.parametrize("name", [name for name, files in FIGURES.items() if "theory" not in str(files)])
def test_every_figure_is_drawn_from_these_results(bench, tmp_path, name):
    said = command("figure", name, "--results", bench.results, "--out", tmp_path / "f.png", "--data", tmp_path / "f.parquet")
    assert said.code == 0, said.err
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    assert read_table(tmp_path / "f.parquet").num_rows > 0


# What cannot work is said before any training


def checked(bench: Bench, tmp_path: Path, **changes: Any) -> Config:
    values = json.loads(json.dumps(VALUES)) | changes
    config = parse(values)
    data = {d: bench.results / "data" / d for d in config.datasets}
    check.run(specs.check(config), data, tmp_path / "checked.json", Console("check", "none"))
    return config


def settings_with(dataset: str, **changes: Any) -> dict[str, Any]:
    settings = json.loads(json.dumps(VALUES["settings"]))
    settings[dataset] |= changes
    return settings


def test_the_check_counts_parameters(bench):
    values = read_json(bench.results / "checked.json")
    assert values["key"] == settings_hash(specs.check(bench.config))
    assert values["methods"] == METHODS
    for dataset in bench.config.datasets:
        expected = bench.row("train", dataset, "fm_ot", "parameters")["value"]
        assert values["parameters"][dataset] == expected


@pytest.mark.parametrize(
    ("method", "fragments"),
    [
        (
            {"path": "ot", "prediction": "velocity", "weighting": "likelihood"},
            ["the loss weight is not finite at an end of the interval", "narrow it with t_min and t_max"],
        ),
        ({"path": {"name": "ot", "sigma_max": 1.0}, "prediction": "v"}, ["path 'ot' does not take the parameters", "sigma_max"]),
        ({"path": {"name": "ot", "sigma_min": 2.0}, "prediction": "velocity"}, ["sigma_min must be in [0, 1), not 2.0"]),
        ({"path": "vp", "prediction": "score", "t_max": 1.5}, ["[0.0, 1.5] is not within the path's"]),
        ({"path": "ot", "prediction": "velocity", "time": "log_snr"}, ["the density of t"]),
        ({"path": "no_such_module:P", "prediction": "velocity"}, ["path 'no_such_module:P' cannot be imported"]),
        *(
            (
                {"path": path, "oracle": {"bandwidth": 0.0}},
                ["field of a finite set is infinite at t = 1", "give the oracle a bandwidth, or a t_max before that"],
            )
            for path in ("cosine_vp", {"name": "ot", "sigma_min": 0.0})
        ),
        ({"path": {"name": "ve", "sigma_maxx": 9.0}, "oracle": {}}, ["path 've' does not take the parameters", "sigma_maxx"]),
    ],
)
def test_a_method_that_cannot_be(bench, tmp_path, method, fragments):
    with pytest.raises(ConfigError) as caught:
        checked(bench, tmp_path, methods=["fm_ot", {"name": "odd", **method}])
    for fragment in ("methods.odd: ", *fragments):
        assert fragment in str(caught.value)
    assert not (tmp_path / "checked.json").exists()


def test_a_grid_that_a_path_does_not_have_is_found_before_any_training(bench, tmp_path, monkeypatch):
    """Every grid of the sweep is made once for every method, at its steps; the uniform one always exists."""
    made = []

    def grid(path: Any, t_min: float, t_max: float, steps: int) -> None:
        made.append((type(path).__name__, t_min, t_max, steps))
        if steps == 6:
            raise ValueError("6 steps are too many for this grid")

    monkeypatch.setitem(GRIDS, "karras", grid)  # type: ignore[arg-type]
    for nfe in (8, 12):
        evaluation = {"sweep": {"solvers": ["euler", {"name": "heun", "grid": "karras", "nfe": [nfe]}]}}
        settings = settings_with("board", evaluation=evaluation)
        arguments: dict[str, Any] = {"methods": ["ddpm", "oracle_ot"], "datasets": ["board"], "settings": settings}
        if nfe == 8:
            checked(bench, tmp_path, **arguments)
            continue
        with pytest.raises(ConfigError) as caught:
            checked(bench, tmp_path / "wrong", **arguments)
        for method in ("ddpm", "oracle_ot"):
            assert f"methods.{method}: 6 steps are too many for this grid" in str(caught.value)
    vp, ot = ("VariancePreserving", 0.0, 1 - 1e-5), ("OptimalTransport", 0.0, 1.0)
    assert made == [(*vp, 4), (*ot, 4), (*vp, 6), (*ot, 6)]


@pytest.mark.parametrize(
    "method",
    [
        {"path": "cosine_vp", "t_max": 0.99, "oracle": {"bandwidth": 0.0}},
        {"path": "cosine_vp", "oracle": {"bandwidth": 1e-3}},
        {"path": "vp", "oracle": {"bandwidth": 0.0}},
        {"path": "ve", "oracle": {"bandwidth": 0.0}},
        {"path": "ot", "oracle": {}},
    ],
)
def test_an_oracle_that_can_be(bench, tmp_path, method):
    """The remedies that the error names are some; and an end with noise left needs none."""
    checked(bench, tmp_path, methods=[{"name": "odd", **method}])
    assert read_json(tmp_path / "checked.json")["methods"] == ["odd"]


@pytest.mark.parametrize(
    ("dataset", "network", "fragments"),
    [
        ("board", {"kind": "unet"}, ["a U-Net works on images of shape (C, H, W), not on (2,)", "'mlp' for points"]),
        ("tall", {"kind": "mlp"}, ["an MLP works on points of shape (D,), not on (3, 6, 4)", "'unet' for images"]),
        ("board", {"kind": "user_code:Lines", "parameters": {"bais": True}}, ["does not take the parameters", "bais"]),
        ("board", {"kind": "user_code:NoSuch"}, ["network 'user_code:NoSuch' cannot be imported"]),
        ("board", {"kind": "user_code:narrow"}, ["with method fm_ot"]),
        ("tall", {"kind": "unet", "channels": 14, "channels_multiple": [1], "head_channels": 4}, ["14 channels", "heads of 4"]),
    ],
)
def test_a_network_that_cannot_be(bench, tmp_path, dataset, network, fragments):
    with pytest.raises(ConfigError) as caught:
        checked(bench, tmp_path, settings=settings_with(dataset, network=network))
    for fragment in (f"settings.{dataset}.network", *fragments):
        assert fragment in str(caught.value)


def test_three_levels_on_images_of_6_by_6(tmp_path):
    data = {"source": "user_code:tall_images", "parameters": {"height": 6, "width": 6}}
    network = {"kind": "unet", "channels": 8, "channels_multiple": [1, 2, 2]}
    settings = settings_with("tall", data=data, network=network)
    config = parse(VALUES | {"settings": settings, "datasets": ["tall"]})
    command("prepare", "--spec", canonical(specs.prepare(config, "tall")), "--out", tmp_path / "tall")
    with pytest.raises(ConfigError, match=r"settings\.tall\.network: 3 levels halve .* divisible by 4, not 6 x 6"):
        check.run(specs.check(config), {"tall": tmp_path / "tall"}, tmp_path / "checked.json", Console("check", "none"))


def test_dotted_names_are_looked_up_before_the_shape_of_samples_is_known(tmp_path, capsys):
    """And what is not tried yet is said."""

    def check_of(**changes: Any) -> None:
        config = parse(VALUES | {"settings": settings_with("tall", **changes), "datasets": ["tall"]})
        check.run(specs.check(config), {"tall": tmp_path / "nowhere"}, tmp_path / "checked.json", Console("check", "lines"))

    source = {"source": "user_code:tall_images"}
    check_of(data=source, network={"kind": "user_code:Lines"})
    assert "settings.tall.network is tried once its data are prepared" in capsys.readouterr().err
    features = {"extractor": "classifier", "more_extractors": [{"extractor": "user_code:NO_FACTORY"}]}
    with pytest.raises(ConfigError) as caught:
        check_of(data={"source": "user_code:nothing"}, network={"kind": "user_code:NoNet"}, evaluation={"features": features})
    for line in ("tall.data: data set 'user_code:nothing'", "tall.network: network 'user_code:NoNet'"):
        assert f"settings.{line} cannot be imported" in str(caught.value)
    assert "settings.tall.evaluation.features: extractor 'user_code:NO_FACTORY'" in str(caught.value)


def test_a_network_whose_output_would_broadcast(bench, tmp_path):
    with pytest.raises(ConfigError, match="shape"):
        checked(bench, tmp_path, settings=settings_with("board", network={"kind": "user_code:Mean"}))


@pytest.mark.parametrize("labels", [None, 0, 3], ids=["none", "one class", "the fourth alone"])
def test_labels_that_teach_no_classifier_are_found_before_it_is_trained(tmp_path, labels):
    raw = tall_images()
    np.savez(tmp_path / "a.npz", train=raw.train, test=raw.test, y=np.full(60, labels or 0), z=np.full(20, labels or 0))
    parameters = {"path": str(tmp_path / "a.npz")} | ({} if labels is None else {"train_labels": "y", "test_labels": "z"})
    data = {"source": "array", "parameters": parameters}
    config = parse(VALUES | {"settings": settings_with("tall", data=data), "datasets": ["tall"]})
    command("prepare", "--spec", canonical(specs.prepare(config, "tall")), "--out", tmp_path / "tall")
    what = "the images have no labels" if labels is None else "the training images are of one class only"
    with pytest.raises(ConfigError, match=f"tall.data: {what}, .*; choose another extractor under evaluation.features"):
        check.run(specs.check(config), {"tall": tmp_path / "tall"}, tmp_path / "checked.json", Console("check", "none"))
    spec = canonical(specs.features(config, "tall"))
    said = command("features", "--spec", spec, "--data", tmp_path / "tall", "--out", tmp_path / "features")
    assert (
        said.code == 3
        and f"tall: {what}, so the extractor classifier cannot be trained" in said.err
        and not (tmp_path / "features").exists()
    )


def test_a_network_of_ones_own_passes_the_check(bench, tmp_path):
    network = {"kind": "user_code:Lines", "parameters": {"bias": False}}
    checked(bench, tmp_path, settings=settings_with("tall", network=network))
    assert read_json(tmp_path / "checked.json")["parameters"]["tall"] == 72 * 73


def test_everything_impossible_is_said_at_once(bench, tmp_path):
    methods = [{"name": "odd", "path": "ot", "prediction": "velocity", "weighting": "likelihood"}, "fm_ot"]
    with pytest.raises(ConfigError) as caught:
        checked(bench, tmp_path, methods=methods, settings=settings_with("board", network={"kind": "unet"}))
    assert "methods.odd: " in str(caught.value) and "settings.board.network: " in str(caught.value)


def test_attention_where_no_level_is_is_said():
    settings: dict[str, Any] = {"kind": "unet", "channels_multiple": [1, 2], "attention_resolutions": [8, 16, 5]}
    assert check.attention_nowhere(settings, (1, 8, 8)) == (
        "attention_resolutions has 16, 5, but the heights of this network are 8, 4; there is no attention there"
    )
    assert check.attention_nowhere(settings | {"attention_resolutions": [8, 4]}, (1, 8, 8)) == ""
    assert check.attention_nowhere({"kind": "mlp"}, (2,)) == ""


# The same check, when the Snakefile is read


@pytest.fixture
def elsewhere(tmp_path) -> Config:
    return parse(VALUES | {"results_dir": str(tmp_path / "results"), "datasets": ["board"]})


def test_the_check_before_the_dag_is_done_once_for_the_same_settings_and_code(elsewhere, capsys, monkeypatch):
    passed = Path(elsewhere.results_dir) / "checked.json"
    preflight(elsewhere)
    assert "5 methods on 1 data sets can be built" in capsys.readouterr().err
    before = passed.stat().st_mtime_ns
    preflight(elsewhere)
    assert passed.stat().st_mtime_ns == before
    longer = VALUES | {"results_dir": elsewhere.results_dir, "datasets": ["board"], "methods": ["fm_ot", "scoreflow"]}
    preflight(parse(longer))
    assert read_json(passed)["methods"] == ["fm_ot", "scoreflow"]
    before = passed.stat().st_mtime_ns
    monkeypatch.setattr("fmbench.workflow.stage_hash", lambda stage, plugins: f"edited {stage}")
    preflight(parse(longer))
    assert passed.stat().st_mtime_ns > before and read_json(passed)["key"].endswith("-edited check")


@pytest.mark.parametrize("below", ["", "below"])
def test_a_results_folder_that_can_be_none(elsewhere, below):
    Path(elsewhere.results_dir).write_text("a file")
    config = parse(elsewhere.model_dump() | {"results_dir": str(Path(elsewhere.results_dir) / below)})
    with pytest.raises(
        ConfigError, match=r"results_dir: .* cannot be a folder, because .* is a file; choose another results_dir"
    ):
        preflight(config)


def test_where_nothing_may_be_written_the_check_is_made_all_the_same(elsewhere, monkeypatch, capsys):
    """As for a plan, or a look at a config that is somebody else's."""

    def refuse(path: Path, values: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(check, "write_json", refuse)
    preflight(elsewhere)
    said = capsys.readouterr().err
    assert (
        f"warning: {elsewhere.results_dir} cannot be written (" in said
        and "a run needs write permission, or another results_dir" in said
    )
    impossible = {"name": "odd", "path": "ot", "prediction": "velocity", "weighting": "likelihood"}
    with pytest.raises(ConfigError, match=r"methods\.odd"):
        preflight(parse(elsewhere.model_dump() | {"methods": [impossible]}))
    monkeypatch.setattr(check, "read", lambda folder: refuse(folder / "manifest.json", None))
    unread = VALUES | {"results_dir": elsewhere.results_dir, "datasets": ["tall"]}
    with pytest.raises(PermissionError):  # no reason to go on unchecked
        preflight(parse(unread))


@pytest.fixture
def environment(monkeypatch) -> pytest.MonkeyPatch:
    """That of the jobs, which may be changed and is put back."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    return monkeypatch


def test_jobs_are_told_of_mlflow_by_the_environment(elsewhere, environment):
    values = elsewhere.model_dump() | {"tracking": {"uri": "http://server", "live_after": 7.5}}
    configure(values, Path("sources"))
    assert (os.environ["FMBENCH_TRACKING_URI"], os.environ["FMBENCH_TRACKING_LIVE_AFTER"]) == ("http://server", "7.5")
    assert os.environ["PYTHONPATH"].split(os.pathsep)[0] == "sources"
    configure(values | {"tracking": {"enabled": False}}, Path("sources"))
    assert os.environ["FMBENCH_TRACKING_URI"] == "off"


def test_a_full_disk_stops_snakemake_with_the_remedy(elsewhere, environment):
    def full(path: Path, values: Any) -> None:
        raise OSError(28, "No space left on device", str(path))

    environment.setattr(check, "write_json", full)
    with pytest.raises(WorkflowError, match=r"No space left on device: .*checked\.json.*Remove the cause .* and start again"):
        configure(elsewhere.model_dump(), Path("sources"))


@pytest.mark.parametrize("path", ["no_such_module:P", "no_such_package.module:P"])
def test_a_part_that_cannot_be_imported_is_an_error_of_the_config(elsewhere, path):
    methods = [{"name": "odd", "path": path, "prediction": "velocity"}]
    config = parse(VALUES | {"results_dir": elsewhere.results_dir, "datasets": ["board"], "methods": methods})
    with pytest.raises(ConfigError, match=rf"methods\.odd: path '{path}' cannot be imported"):
        preflight(config)
    assert not (Path(config.results_dir) / "checked.json").exists()


def test_what_could_not_be_checked_yet_is_checked_once_it_can(tmp_path):
    """The shape of somebody's own data is known when they are prepared."""
    settings = settings_with("tall", network={"kind": "unet", "channels_multiple": [1, 2, 2]})  # 6 x 4 is not divisible by 4
    config = parse(VALUES | {"results_dir": str(tmp_path), "datasets": ["tall"], "settings": settings})
    preflight(config)
    command("prepare", "--spec", canonical(specs.prepare(config, "tall")), "--out", tmp_path / "data" / "tall")
    with pytest.raises(ConfigError, match=r"settings\.tall\.network: 3 levels"):
        preflight(config)


# Outputs of earlier stages that are missing, cut short or of something else


@pytest.mark.parametrize("stage", ["sample", "likelihood", "sweep"])
@pytest.mark.parametrize(("kept", "message"), [(None, "are missing; rerun the training"), (100, "cannot be read")])
def test_weights_missing_or_truncated(spoilable, stage, kept, message):
    weights = spoilable.folder("train", "board", "fm_ot") / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink() if kept is None else weights.write_bytes(content[:kept])
    said = spoilable.run(stage, "board", "fm_ot")
    assert said.code == 3
    assert f"fmbench: error: the weights {weights}" in said.err and message in said.err
    assert "rerun the training" in said.err


@pytest.mark.parametrize(("kept", "message"), [(None, "is missing; run the stage"), (40, "is not valid JSON")])
def test_a_models_config_missing_or_truncated(spoilable, kept, message):
    path = spoilable.folder("train", "board", "fm_ot") / "config.json"
    content = path.read_bytes()
    path.unlink() if kept is None else path.write_bytes(content[:kept])
    said = spoilable.run("sample", "board", "fm_ot")
    assert said.code == 3
    assert str(path) in said.err and message in said.err


@pytest.mark.parametrize("kept", [None, 0, 100, -1])
def test_samples_missing_or_truncated(spoilable, kept):
    path = spoilable.folder("sample", "board", "fm_ot") / "samples.npy"
    content = path.read_bytes()
    path.unlink() if kept is None else path.write_bytes(content[:kept])
    said = spoilable.run("sample_quality", "board", "fm_ot")
    assert said.code == 3
    assert f"{path} cannot be read" in said.err and "delete it and rerun the stage sample" in said.err


def test_samples_of_another_shape(spoilable):
    path = spoilable.folder("sample", "board", "fm_ot") / "samples.npy"
    np.save(path, np.zeros((30, 3), np.float32))
    said = spoilable.run("sample_quality", "board", "fm_ot")
    assert said.code == 3
    assert "holds samples of shape (3,), but the data set has (2,); rerun the stage sample" in said.err


def test_samples_that_are_not_finite_have_no_quality(spoilable):
    path = spoilable.folder("sample", "board", "fm_ot") / "samples.npy"
    samples = np.load(path)
    samples[[3, 7], 0] = np.nan, np.inf
    np.save(path, samples)
    assert spoilable.run("sample_quality", "board", "fm_ot").code == 0
    for row in spoilable.rows("sample_quality", "board", "fm_ot"):
        assert (row["status"], row["reason"]) == ("skipped", "2 of 30 samples are not finite")


@pytest.mark.parametrize("stage", ["train", "sample", "sample_quality"])
def test_data_missing_or_truncated(spoilable, stage):
    data = spoilable.results / "data" / "board"
    for name in ("train.npy", "test.npy"):
        (data / name).write_bytes((data / name).read_bytes()[:150])
    if stage == "train":
        shutil.rmtree(spoilable.results / "checkpoints")
    said = spoilable.run(stage, "board", "fm_ot")
    if stage != "sample":  # sampling reads the manifest alone
        assert said.code == 3
        assert "cannot be read" in said.err and "rerun to prepare it again" in said.err
    (data / "manifest.json").unlink()
    said = spoilable.run(stage, "board", "fm_ot")
    assert said.code == 3
    assert "manifest.json is missing; run the stage that makes it first" in said.err


def test_a_model_of_another_data_set(bench, tmp_path):
    spec = bench.spec("sample", "tall", "fm_ot")
    folders = {"--data": bench.results / "data" / "tall", "--model": bench.folder("train", "board", "fm_ot"), "--out": tmp_path}
    said = command("sample", "--spec", canonical(spec), *(x for pair in folders.items() for x in pair))
    assert said.code == 3
    assert "was trained on samples of [2], the data set has [3, 6, 4]; retrain" in said.err


@pytest.mark.parametrize("stage", ["models", "sample", "likelihood", "sweep", "sample_quality"])
def test_rows_missing_or_truncated_stop_the_collecting(spoilable, stage):
    path = spoilable.results / stage / "board" / "fm_ot" / str(SEED) / "rows.parquet"
    path.write_bytes(path.read_bytes()[:200])
    said = spoilable.whole("collect", "--results", spoilable.results, "--tracking-uri", "off")
    assert said.code == 3
    assert f"{path} is not a readable parquet file" in said.err
    path.unlink()
    said = spoilable.whole("collect", "--results", spoilable.results, "--tracking-uri", "off")
    assert said.code == 3
    assert f"{path} is missing" in said.err


def test_a_checkpoint_cut_short_is_told_and_survived(spoilable):
    folder = spoilable.folder("train", "board", "fm_ot")
    before = (folder / "model.safetensors").read_bytes()
    (checkpoints,) = (spoilable.results / "checkpoints").iterdir()
    newest = checkpoints / "checkpoint.pt"
    newest.write_bytes(newest.read_bytes()[:500])
    said = spoilable.run("train", "board", "fm_ot")
    assert said.code == 0
    assert f"{newest} cannot be used" in said.err and "resumed from the checkpoint at iteration 50" in said.err
    assert (folder / "model.safetensors").read_bytes() == before


def test_a_model_of_another_spec_is_refused(bench):
    folder = bench.folder("models", "board", "fm_ot")
    with pytest.raises(DataError, match=r"holds fm_ot on board, seed 3 .* not the model of this job's spec"):
        load_model(folder, bench.data("board"), CPU, expected="0123456789abcdef")


# What figures are drawn from: NFE of each sample, along training, at few evaluations, on the way from noise to data


@pytest.mark.parametrize(("dataset", "method"), [("tall", "mine"), ("board", "oracle_ot")])
def test_the_nfe_of_each_sample(bench, dataset, method):
    table = read_table(bench.folder("sample", dataset, method) / "nfe.parquet")
    assert table.schema.equals(NFE)
    rows, row = table.to_pylist(), bench.row("sample", dataset, method, "nfe")
    assert [r["index"] for r in rows] == list(range(row["n"]))
    assert {(r["dataset"], r["method"], r["seed"]) for r in rows} == {(dataset, method, SEED)}
    spent = [r["nfe"] for r in rows]
    model, settings = bench.model(dataset, method), bench.config.settings[dataset].evaluation.sample
    with torch.no_grad():
        x0 = noise(bench.data(dataset), model, settings.n)
        ends = (model.objective.t_min, model.objective.t_max)
        counted = dopri5(model.field(), x0, *ends, rtol=settings.rtol, atol=settings.atol).nfe.tolist()
    assert sum(a != b for a, b in zip(spent, counted, strict=True)) <= 1  # a step may be accepted on either side of 1
    assert all(n % 6 == 2 for n in spent) and (method != "oracle_ot" or len(set(spent)) > 3)
    assert np.mean(spent) == row["value"] and max(spent) == bench.row("sample", dataset, method, "nfe_max")["value"]


def test_the_nfe_of_a_failed_solve_is_not_known(bench, tmp_path):
    """With room for some samples and not for others."""
    folder = bench.folder("sample", "board", "oracle_ot")
    spent = read_table(folder / "nfe.parquet").column("nfe").to_pylist()
    enough = sorted(spent)[len(spent) // 2]
    settings = bench.spec("sample", "board", "oracle_ot")["settings"] | {"max_nfe": enough}
    assert evaluated(bench, "sample", "board", "oracle_ot", tmp_path, **settings).code == 0
    found = read_table(tmp_path / "nfe.parquet").column("nfe").to_pylist()
    assert found == [n if n <= enough else None for n in spent] and None in found
    assert read_table(bench.folder("sample", "board", "ddpm") / "nfe.parquet").num_rows == 0  # its training diverged


def snapshot(bench: Bench, dataset: str, method: str, step: int) -> CountingField[torch.Tensor]:
    """The field of a snapshot, from the file's tensors by their names alone."""
    folder = bench.folder("train", dataset, method)
    found = load_file(folder / "snapshots.safetensors")
    tensors = {name.split("/", 1)[1]: value for name, value in found.items() if name.startswith(f"{step:08d}/")}
    network = new_network(bench.spec("train", dataset, method), bench.data(dataset))
    network.load_state_dict(tensors)
    objective = bench.model(dataset, method).objective
    field = velocity_field(network.eval(), objective.path, objective.prediction)
    return CountingField(field, objective.t_min, objective.t_max)


def steps_of(bench: Bench, dataset: str, method: str) -> list[int]:
    with safe_open(bench.folder("train", dataset, method) / "snapshots.safetensors", "pt") as file:
        return json.loads(file.metadata()["fmbench"])["steps"]


@pytest.mark.parametrize(("dataset", "method"), [("board", "fm_ot"), ("board", "mine"), ("tall", "fm_ot")])
def test_along_training(bench, dataset, method):
    """Each snapshot's NFE, sample by sample, and its samples' distance, from the same noise as the samples."""
    data, model = bench.data(dataset), bench.model(dataset, method)
    settings = bench.config.settings[dataset].evaluation.learning_curve
    judge = load_evaluator(bench.results / "features" / dataset, data, CPU)
    rows = {(r["metric"], r["step"]): r for r in bench.rows("learning_curve", dataset, method)}
    steps = steps_of(bench, dataset, method)
    assert len(steps) > 1 and steps[-1] == bench.config.training(dataset, method).iterations
    assert set(rows) == {(m, s) for m in ("nfe", "nfe_std_over_samples", judge.primary) for s in steps}
    for step in steps:
        field = snapshot(bench, dataset, method, step)
        with torch.no_grad():
            x0 = noise(data, model, settings.n)
            solved = dopri5(field, x0, model.objective.t_min, model.objective.t_max, rtol=settings.rtol, atol=settings.atol)
        # A step may be accepted on one side of 1 in a batch and on the other in another: allow one sample one step.
        assert rows["nfe", step]["value"] == pytest.approx(solved.nfe.double().mean().item(), abs=6.01 / settings.n)
        spread = solved.nfe.double().std().item()
        assert rows["nfe_std_over_samples", step]["value"] == pytest.approx(spread, abs=1)
        (expected,) = judge.measure(solved.x.numpy(), only=(judge.primary,))
        row = rows[judge.primary, step]
        assert row["value"] == pytest.approx(expected.value, rel=0.02, abs=1e-4)
        assert (row["unit"], row["features"], row["reference"]) == (expected.unit, expected.features, expected.reference)
        assert (row["n"], row["rtol"], row["solver"], row["status"]) == (settings.n, settings.rtol, "dopri5", "ok")
    values = [rows[judge.primary, s]["value"] for s in steps]
    assert len(set(values)) > 2  # they are of different weights


def test_training_ends_where_the_samples_are_from(bench):
    """With the settings of the stage ``sample``, the last snapshot's numbers are the model's own."""
    last = {r["metric"]: r for r in bench.rows("learning_curve", "board", "fm_ot") if r["step"] == 60}
    for metric in ("nfe", "nfe_std_over_samples"):
        assert last[metric]["value"] == bench.row("sample", "board", "fm_ot", metric)["value"]
    assert last["energy_distance"]["value"] == bench.row("sample_quality", "board", "fm_ot", "energy_distance")["value"]


@pytest.mark.parametrize("dataset", VALUES["datasets"])
def test_nothing_is_trained_along_an_oracle_and_a_diverged_training_says_where_it_stopped(bench, dataset):
    assert bench.rows("learning_curve", dataset, "oracle_ot") == []
    rows, stopped = (
        bench.rows("learning_curve", dataset, "ddpm"),
        read_json(bench.folder("train", dataset, "ddpm") / "config.json"),
    )
    last = [r for r in rows if r["step"] == stopped["step"]]
    assert {r["metric"] for r in last if r["status"] == "skipped"} == {"nfe", "nfe_std_over_samples", *PRIMARY[dataset]}
    assert all(r["reason"] == f"training diverged: {stopped['reason']}" for r in last if r["status"] == "skipped")
    assert {r["step"] for r in rows} == {*steps_of(bench, dataset, "ddpm"), stopped["step"]}


PRIMARY = {"board": ("energy_distance",), "tall": ("frechet",)}


@pytest.mark.parametrize("damage", ["missing", "truncated", "others"])
def test_snapshots_that_cannot_be_used(spoilable, damage):
    path = spoilable.folder("train", "board", "fm_ot") / "snapshots.safetensors"
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    else:
        save_file({"00000060/weight": torch.zeros(3)}, path, metadata={"fmbench": json.dumps({"steps": [60]})})
    said = spoilable.run("learning_curve", "board", "fm_ot")
    assert said.code == 3 and str(path) in said.err
    assert {"missing": "are missing", "truncated": "cannot be read", "others": "does not fit"}[damage] in said.err


@pytest.mark.parametrize(("dataset", "method"), [("board", "fm_ot"), ("board", "near"), ("tall", "mine")])
def test_samples_at_few_evaluations(bench, dataset, method):
    """Every cell solved again by hand, from the noise that samples start from."""
    data, model = bench.data(dataset), bench.model(dataset, method)
    settings = bench.config.settings[dataset].evaluation.few_step
    judge = load_evaluator(bench.results / "features" / dataset, data, CPU)
    rows = [r for r in bench.rows("few_step", dataset, method) if r["solver"] != "dopri5"]
    cells = [(c.label, c.nfe) for c in settings.cells()]
    distances = {(r["solver"], r["nfe"]): r for r in rows if r["metric"] == judge.primary}
    seconds = {(r["solver"], r["nfe"]): r for r in rows if r["metric"] == "seconds"}
    assert list(distances) == list(seconds) == cells and len(rows) == 2 * len(cells)
    assert all(r["value"] > 0 and (r["unit"], r["n"]) == ("s", settings.n) for r in seconds.values())
    table = read_table(bench.folder("few_step", dataset, method) / "previews.parquet")
    assert table.schema.equals(FEW_STEP_PREVIEWS)
    shown = settings.shown or settings.n
    for cell in settings.cells():
        tableau = FIXED[cell.solver]
        objective = model.objective
        grid = GRIDS[cell.grid](objective.path, objective.t_min, objective.t_max, cell.nfe // tableau.stages)
        with torch.no_grad():
            samples = integrate(model.field(), noise(data, model, settings.n), grid, tableau).numpy()
        row = distances[cell.label, cell.nfe]
        (expected,) = judge.measure(samples, only=(judge.primary,))
        assert row["value"] == pytest.approx(expected.value, rel=1e-3, abs=1e-6)
        assert (row["n"], row["batch"]) == (settings.n, min(settings.batch, settings.n))
        assert (row["features"], row["reference"], row["unit"]) == (expected.features, expected.reference, expected.unit)
        pictures = [r for r in table.to_pylist() if (r["solver"], r["nfe"]) == (cell.label, cell.nfe)]
        assert [r["index"] for r in pictures] == list(range(shown))
        np.testing.assert_allclose([r["values"] for r in pictures], data.to_data(samples[:shown]).reshape(shown, -1), atol=1e-3)
        assert all((r["shape"], r["seed"]) == (list(data.shape), SEED) for r in pictures)


@pytest.mark.parametrize("method", ["fm_ot", "oracle_ot"])
def test_many_evaluations_come_to_what_the_adaptive_solve_finds(bench, method):
    """RK4 at 200 NFE ends where the samples are, Euler at 4 does not; the adaptive solve's distance is of as many samples."""
    data = bench.data("board")
    judge = load_evaluator(bench.results / "features" / "board", data, CPU)
    samples = np.load(bench.folder("sample", "board", method) / "samples.npy")[:20]
    rows = {(r["solver"], r["nfe"]): r["value"] for r in bench.rows("few_step", "board", method) if r["metric"] == judge.primary}
    (adaptive,) = [r for r in bench.rows("few_step", "board", method) if r["solver"] == "dopri5"]
    (expected,) = judge.measure(samples, only=(judge.primary,))
    assert (adaptive["value"], adaptive["n"], adaptive["rtol"]) == (expected.value, 20, 1e-3)
    spent = read_table(bench.folder("sample", "board", method) / "nfe.parquet").column("nfe").to_pylist()
    assert adaptive["nfe"] == np.mean(spent[:20])
    assert abs(rows["rk4", 200] - expected.value) < 0.2 * abs(rows["euler", 4] - expected.value)
    pictures: dict[tuple[str, int], list[Any]] = {}
    for row in read_table(bench.folder("few_step", "board", method) / "previews.parquet").to_pylist():
        pictures.setdefault((row["solver"], row["nfe"]), []).append(row["values"])
    np.testing.assert_array_equal(pictures["dopri5", 0], data.to_data(samples))
    far, near = (np.abs(np.subtract(pictures[k], pictures["dopri5", 0])).mean() for k in (("euler", 4), ("rk4", 200)))
    assert near < 0.1 * far and far > 0.02


def test_a_budget_of_more_than_there_are_samples_has_none_of_the_adaptive_solve(bench):
    (row,) = [r for r in bench.rows("few_step", "tall", "fm_ot") if r["solver"] == "dopri5"]
    assert row["status"] == "skipped" and row["reason"] == "the stage sample made 16 samples, and 20 are compared"


def test_a_diverged_training_has_no_budget_and_no_states(bench):
    rows = bench.rows("few_step", "board", "ddpm")
    assert len(rows) == 4 * 2 + 1 and {r["status"] for r in rows} == {"skipped"}
    for folder, file, schema in (("few_step", "previews", FEW_STEP_PREVIEWS), ("trajectory", "trajectory", TRAJECTORY)):
        table = read_table(bench.folder(folder, "board", "ddpm") / f"{file}.parquet")
        assert table.num_rows == 0 and table.schema.equals(schema)


def test_a_solve_that_leaves_the_numbers_is_a_row(spoilable):
    """One step of Euler over a field blown up."""
    path = spoilable.folder("train", "board", "fm_ot") / "model.safetensors"
    weights = load_file(path)
    save_file({name: value * 1e30 for name, value in weights.items()}, path)
    assert spoilable.run("few_step", "board", "fm_ot").code == 0
    rows = [
        r for r in spoilable.rows("few_step", "board", "fm_ot") if r["metric"] == "energy_distance" and r["solver"] != "dopri5"
    ]
    assert {r["status"] for r in rows} == {"diverged"}
    assert rows[0]["reason"] == "the samples of euler at 4 NFE, or their distance, are not finite"


def test_only_new_cells_of_a_budget_are_computed(spoilable):
    def said(**changes: Any) -> str:
        settings = spoilable.spec("few_step", "board", "fm_ot")["settings"] | changes
        done = spoilable.run("few_step", "board", "fm_ot", settings=settings)
        assert done.code == 0, done.err
        return done.err

    before = spoilable.rows("few_step", "board", "fm_ot")
    assert "0 cells computed, 4 from the cache" in said()
    assert spoilable.rows("few_step", "board", "fm_ot") == before  # seconds included
    assert "2 cells computed, 4 from the cache" in said(nfe=[4, 8, 200])
    previews = spoilable.folder("few_step", "board", "fm_ot") / "previews.parquet"
    many = read_table(previews).to_pylist()
    assert "0 cells computed, 4 from the cache" in said(shown=2)
    assert read_table(previews).to_pylist() == [row for row in many if row["index"] < 2 and row["nfe"] != 8]
    assert "4 cells computed, 0 from the cache" in said(n=19, shown=2)
    assert "4 cells computed, 0 from the cache" in said(n=19, shown=5)
    assert "0 cells computed, 4 from the cache" in said(n=19, shown=4)


@pytest.mark.parametrize(("dataset", "method"), [("board", "fm_ot"), ("board", "near"), ("tall", "mine")])
def test_states_on_the_way(bench, dataset, method):
    """From the samples' noise, along the flow, to the samples."""
    data, model = bench.data(dataset), bench.model(dataset, method)
    settings = bench.config.settings[dataset].evaluation.trajectory
    table = read_table(bench.folder("trajectory", dataset, method) / "trajectory.parquet")
    assert table.schema.equals(TRAJECTORY)
    found: dict[float, list[Any]] = {}
    for row in table.to_pylist():
        assert row["index"] == len(found.setdefault(row["t"], [])) and row["shape"] == list(data.shape)
        found[row["t"]].append(row["values"])
    assert list(found) == settings.times and {len(v) for v in found.values()} == {settings.n}
    objective = model.objective
    x0 = noise(data, model, settings.n)
    # One level of an image is 2 / 17 wide in model space, and a state at its border may fall to either side.
    close = {"atol": 1.01} if data.is_images else {"atol": 20 * settings.rtol, "rtol": 20 * settings.rtol}
    for t, states in found.items():
        expected = x0
        if t > objective.t_min:
            with torch.no_grad():
                grid = uniform_grid(objective.t_min, min(t, objective.t_max), 40 if data.is_images else 200)
                expected = integrate(model.field(), x0, grid, FIXED["rk4"])
        np.testing.assert_allclose(states, data.to_data(expected.numpy()).reshape(settings.n, -1), **close)
    if dataset == "board":
        np.testing.assert_array_equal(found[0.0], data.to_data(x0.numpy()))
    samples = data.to_data(np.load(bench.folder("sample", dataset, method) / "samples.npy")[: settings.n])
    apart = np.abs(np.array(found[1.0]) - samples.reshape(settings.n, -1))
    assert np.quantile(apart, 0.8) <= close["atol"]  # a coarse solve with stops is another coarse solve


def test_one_stop_at_the_end_is_the_stage_sample(bench, tmp_path):
    settings = bench.config.settings["board"].evaluation.trajectory.model_dump() | {"times": [1.0]}
    assert evaluated(bench, "trajectory", "board", "mine", tmp_path, **settings).code == 0
    states = [row["values"] for row in read_table(tmp_path / "trajectory.parquet").to_pylist()]
    samples = np.load(bench.folder("sample", "board", "mine") / "samples.npy")
    np.testing.assert_array_equal(states, bench.data("board").to_data(samples).astype(np.float32))


def test_what_is_joined_is_the_files_of_all_models(bench):
    for kind, (stage, file) in GATHERED.items():
        gathered = read_table(bench.results / f"{kind}.parquet")
        methods = TRAINED if kind == "learning_curve" else METHODS
        parts = [read_table(bench.folder(stage, d, m) / file) for d in VALUES["datasets"] for m in methods]
        assert gathered.num_rows > 0 and gathered.to_pylist() == [row for part in parts for row in part.to_pylist()]


def test_a_file_of_other_columns_is_not_joined(spoilable):
    path = spoilable.folder("trajectory", "board", "fm_ot") / "trajectory.parquet"
    write_table(path, read_table(path).drop_columns(["t"]))
    spec = canonical(specs.gather("trajectory", spoilable.config))
    said = command("gather", "--spec", spec, "--results", spoilable.results)
    assert said.code == 3 and str(path) in said.err and "rerun its stage" in said.err
