"""A trained model, or an oracle, as the stages that evaluate it see it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fmbench.config.hashing import settings_hash
from fmbench.config.method_settings import method_from_values
from fmbench.data.prepared import DataSet
from fmbench.errors import DataError
from fmbench.flow.fields import CountingField, Field, velocity_field
from fmbench.flow.objectives import Objective, build
from fmbench.flow.oracle import FiniteOracle
from fmbench.stages import oracles
from fmbench.stages.shared.initial_network import new_network
from fmbench.stages.shared.job import Job, check_data, split_hashes
from fmbench.store.codehash import plugin_code
from fmbench.store.documents import read_document
from fmbench.store.provenance import versions
from fmbench.store.shapes import ModelConfig
from fmbench.store.weights import fit, load_weights, open_tensors


@dataclass(frozen=True)
class Model:
    """A trained model, or an oracle."""

    velocity: Field
    objective: Objective
    sha256: str  # the digits in the seal of the weights
    code: str  # hash of the plug-in modules that the model needs; empty if it needs none
    data: str  # hash of all splits
    reason: str = ""  # "training diverged: " and the cause; empty if the training ended well
    oracle: FiniteOracle | None = None

    def field(self) -> CountingField[torch.Tensor]:
        """A sampling field that counts its evaluations, from 0."""
        return CountingField(self.velocity, self.objective.t_min, self.objective.t_max)


def load_model(folder: Path, dataset: DataSet, device: torch.device, expected: str | None = None) -> Model:
    """The model in a folder that the stage ``train`` wrote.

    Args:
        expected: the hash that the training's spec must have.

    Raises:
        DataError, CheckpointError: a file is missing or truncated, or does not agree with its config or the spec.
    """
    config = read_document(folder / "config.json", ModelConfig)
    spec = config["spec"]
    if tuple(config["shape"]) != dataset.shape:
        raise DataError(f"{folder} was trained on samples of {config['shape']}, the data set has {list(dataset.shape)}; retrain")
    if expected is not None and config["spec_hash"] != expected:
        raise DataError(
            f"{folder} holds {spec['method']['name']} on {spec['dataset']}, seed {spec['seed']} (spec "
            f"{config['spec_hash']}), not the model of this job's spec ({expected}); give that model's folder, or retrain"
        )
    check_data(spec, dataset)
    weights = folder / "model.safetensors"
    if spec["method"]["oracle"] is not None:
        return _oracle(spec, weights, dataset, device)
    network = new_network(spec, dataset)
    digest = load_weights(weights, network)
    reason = f"training diverged: {config['reason']}" if config["reason"] else ""
    return _trained(spec, network.to(device), digest, dataset, reason)


def _oracle(spec: dict[str, Any], weights: Path, dataset: DataSet, device: torch.device) -> Model:
    objective = build(method_from_values(spec["method"]))
    holder = oracles.weights(0.0)
    digest = load_weights(weights, holder)
    oracle = oracles.oracle_of(spec["method"]["oracle"], float(holder.get_buffer("bandwidth")), dataset, device)

    def closed_form(t: Tensor, x: Tensor) -> Tensor:
        return oracle.velocity(objective.path, t, x)

    return Model(closed_form, objective, digest, plugin_code(spec), _data_hash(dataset), oracle=oracle)


def _trained(spec: dict[str, Any], network: nn.Module, digest: str, dataset: DataSet, reason: str = "") -> Model:
    objective = build(method_from_values(spec["method"]))
    network.eval().requires_grad_(False)
    field = velocity_field(network, objective.path, objective.prediction)
    return Model(field, objective, digest, plugin_code(spec), _data_hash(dataset), reason)


def _data_hash(dataset: DataSet) -> str:
    return settings_hash(split_hashes(dataset))


def cache_key(model: Model, job: Job) -> dict[str, Any]:
    """Everything that a number measured of a model depends on, besides the settings of the measurement."""
    return {
        "weights": model.sha256,
        "plugin code": model.code,
        "data": model.data,
        "code": job.code_hash,
        "seed": job.spec["seed"],
        "device": job.device_name,
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def load_snapshots(folder: Path, dataset: DataSet, device: torch.device) -> Iterator[tuple[int, Model]]:
    """(iteration, model) for each snapshot of the averaged weights that a training kept; an oracle has no snapshots.

    Only one snapshot at a time is in memory. The ``reason`` of each is empty, because its weights are good even if the training
    diverged later.

    Raises:
        DataError, CheckpointError: a file is missing or truncated, or does not agree with its config.
    """
    spec = read_document(folder / "config.json", ModelConfig)["spec"]
    check_data(spec, dataset)
    path = folder / "snapshots.safetensors"
    with open_tensors(path) as (file, metadata, digest):
        for step in metadata["steps"]:
            prefix = f"{step:08d}/"
            tensors = {n.removeprefix(prefix): file.get_tensor(n) for n in file.keys() if n.startswith(prefix)}  # noqa: SIM118
            network = new_network(spec, dataset)
            fit(path, network, tensors, f"snapshot {step} in")
            yield step, _trained(spec, network.to(device), f"{digest}/{step}", dataset)
