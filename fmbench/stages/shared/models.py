"""A trained model, or an oracle, as the stages that evaluate it see it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from fmbench.config.hashing import settings_hash
from fmbench.config.method_settings import method_from_values
from fmbench.data.prepared import DataSet
from fmbench.errors import CheckpointError, DataError
from fmbench.flow.fields import CountingField, Field, velocity_field
from fmbench.flow.objectives import Objective, build
from fmbench.flow.oracle import FiniteOracle
from fmbench.stages import oracles
from fmbench.stages.shared.initial_network import new_network
from fmbench.stages.shared.job import Job, check_data, split_hashes
from fmbench.store.codehash import plugin_code
from fmbench.store.files import read_json, sha256
from fmbench.store.provenance import versions
from fmbench.store.weights import load_weights


@dataclass(frozen=True)
class Model:
    """A trained model, or an oracle."""

    velocity: Field
    objective: Objective
    sha256: str  # hash of the weights
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
    config = read_json(folder / "config.json")
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
    load_weights(weights, network)
    reason = f"training diverged: {config['reason']}" if config["reason"] else ""
    return _trained(spec, network.to(device), sha256(weights), dataset, reason)


def _oracle(spec: dict[str, Any], weights: Path, dataset: DataSet, device: torch.device) -> Model:
    objective = build(method_from_values(spec["method"]))
    holder = oracles.weights(0.0)
    load_weights(weights, holder)
    oracle = oracles.oracle_of(spec["method"]["oracle"], float(holder.get_buffer("bandwidth")), dataset, device)

    def closed_form(t: Tensor, x: Tensor) -> Tensor:
        return oracle.velocity(objective.path, t, x)

    return Model(closed_form, objective, sha256(weights), plugin_code(spec), _data_hash(dataset), oracle=oracle)


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
    spec = read_json(folder / "config.json")["spec"]
    check_data(spec, dataset)
    path = folder / "snapshots.safetensors"
    steps = _snapshot_steps(path)
    digest = sha256(path) if steps else ""
    for step in steps:
        network = new_network(spec, dataset)
        try:
            network.load_state_dict(_snapshot(path, step))
        except RuntimeError as error:
            raise CheckpointError(
                f"the snapshot {step} in {path} does not fit the network described beside it: {error}"
            ) from None
        yield step, _trained(spec, network.to(device), f"{digest}/{step}", dataset)


def _snapshot_steps(path: Path) -> list[int]:
    try:
        with safe_open(path, framework="pt") as file:
            steps: list[int] = json.loads((file.metadata() or {})["fmbench"])["steps"]
    except FileNotFoundError:
        raise CheckpointError(f"the snapshots {path} are missing; rerun the training that makes them") from None
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"the snapshots {path} cannot be read ({error}); delete the file and rerun the training") from None
    return steps


def _snapshot(path: Path, step: int) -> Mapping[str, Tensor]:
    prefix = f"{step:08d}/"
    with safe_open(path, framework="pt") as file:
        return {name.removeprefix(prefix): file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118
