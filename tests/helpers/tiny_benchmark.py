"""A benchmark of two tiny data sets and five methods, run stage by stage through the command line in this process."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from user_code import Said, command

from fmbench.config import selections, specs
from fmbench.config.hashing import canonical
from fmbench.config.reading import parse
from fmbench.config.stages import GATHERED
from fmbench.data.prepared import DataSet, read
from fmbench.stages.shared.initial_network import new_network
from fmbench.stages.shared.models import Model, load_model
from fmbench.store.records import read_rows
from fmbench.store.weights import load_weights
from fmbench.system.rng import indexed_normal

SEED = 3
CPU = torch.device("cpu")
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
    """A results folder with the layout of the Snakefile, and the stages that fill it."""

    def __init__(self, results: Path, values: dict[str, Any] = VALUES) -> None:
        self.results, self.config = results, parse(values)

    def folder(self, stage: str, dataset: str, method: str) -> Path:
        return self.results / specs.model_folder("models" if stage == "train" else stage, dataset, method, SEED)

    def spec(self, stage: str, dataset: str, method: str) -> dict[str, Any]:
        if stage == "train":
            return specs.train(self.config, dataset, method, SEED)
        return specs.evaluate(stage, self.config, dataset, method, SEED)

    def run(self, stage: str, dataset: str, method: str, code: str = "", **changes: Any) -> Said:
        """Run a stage on one model; ``changes`` replace entries of its spec."""
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
        if stage == "super_resolution":
            parts = {"samples": self.folder("sample", dataset, method)}
            parts |= {name: self.results / name / dataset for name in ("features", "baselines")}
            extra = [word for name, folder in parts.items() for word in (f"--{name}", folder)]
        if stage in ("learning_curve", "few_step"):
            extra += ["--features", self.results / "features" / dataset]
        if stage == "few_step":
            extra += ["--samples", self.folder("sample", dataset, method)]
        if stage in ("sweep", "few_step", "dequantisation", "learning_curve"):
            extra += ["--cache", self.results / "cache" / stage / dataset / method]
        extra += ["--code", code, "--progress", "lines"]
        return command(stage.replace("_", "-"), "--spec", canonical(spec), "--data", data, "--out", out, *extra)

    def whole(self, stage: str, *extra: Any) -> Said:
        """Run a stage on all results."""
        return command(stage, "--spec", canonical(getattr(specs, stage)(self.config)), *extra, "--progress", "lines")

    def gather(self, kind: str) -> Said:
        """Gather one file of every model."""
        spec = canonical(specs.gather(kind, self.config))
        return command("gather", "--spec", spec, "--results", self.results, "--progress", "lines")

    def everything(self) -> "Bench":
        """Run all stages, and the check of the whole config."""
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
        for dataset in selections.super_resolved(self.config):
            folders = [word for name in ("data", "features") for word in (f"--{name}", results / name / dataset)]
            out = ["--out", results / "baselines" / dataset, "--progress", "lines"]
            said.append(command("baselines", "--spec", canonical(specs.baselines(self.config, dataset)), *folders, *out))
            said += [self.run("super_resolution", dataset, method.name) for method in self.config.methods]
        said.append(self.whole("collect", "--results", results, "--tracking-uri", "off"))
        said += [self.gather(kind) for kind in GATHERED]
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
        """The rows of the sweep with the errors of cells."""
        return [r for r in self.rows("sweep", dataset, method) if r["metric"] == "mse"]

    def row(self, stage: str, dataset: str, method: str, metric: str) -> dict[str, Any]:
        (row,) = [r for r in self.rows(stage, dataset, method) if r["metric"] == metric]
        return row


def evaluated(bench: Bench, stage: str, dataset: str, method: str, out: Path, **settings: Any) -> Said:
    """Run a stage on a model, with output in another folder and ``settings`` in place of those of the config."""
    spec = bench.spec(stage, dataset, method)
    spec["settings"] |= settings
    folders = ["--data", bench.results / "data" / dataset, "--model", bench.folder("train", dataset, method), "--out", out]
    if stage == "dequantisation":
        folders += ["--cache", out.parent / "cache"]
    return command(stage.replace("_", "-"), "--spec", canonical(spec), "--progress", "lines", *folders)


def by_metric(folder: Path) -> dict[str, dict[str, Any]]:
    """The rows in a folder, by their metric."""
    return {row["metric"]: row for row in read_rows([folder / "rows.parquet"]).to_pylist()}


OF_BOTH = {"density", "coverage", "c_t", "train_distance_ratio", "authenticity"}
OF_IMAGES = OF_BOTH | {"frechet", "frechet_stderr", "kid", "kid_std", "precision", "recall"}
OF_IMAGES |= {"classifier_score", "classifier_score_std"}


def noise(dataset: DataSet, model: Model, n: int) -> torch.Tensor:
    return indexed_normal(SEED, "sample", range(n), dataset.shape) * model.objective.path.base_std


def settings_with(dataset: str, **changes: Any) -> dict[str, Any]:
    settings = json.loads(json.dumps(VALUES["settings"]))
    settings[dataset] |= changes
    return settings
