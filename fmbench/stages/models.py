"""A trained model, or an oracle, as the stages that evaluate it see it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from fmbench.config.hashing import settings_hash
from fmbench.config.method_settings import method_from_values
from fmbench.data.prepared import DataSet
from fmbench.errors import CheckpointError, DataError
from fmbench.flow.fields import CountingField, Field, velocity_field
from fmbench.flow.objectives import Objective, build
from fmbench.flow.oracle import FiniteOracle
from fmbench.stages import oracles
from fmbench.stages.common import Job, check_data, new_network
from fmbench.store.checkpoint import load_weights
from fmbench.store.codehash import plugin_code
from fmbench.store.files import read_json, sha256
from fmbench.store.provenance import versions


@dataclass(frozen=True)
class Model:
    """A trained model, or an oracle.

    Attributes:
        sha256: of the weights; code: of the modules of somebody's own that it is made of; data: of all splits.
        reason: why its training failed; empty if it did not.
    """

    velocity: Field
    objective: Objective
    sha256: str
    code: str
    data: str
    reason: str = ""
    oracle: FiniteOracle | None = None

    def field(self) -> CountingField[torch.Tensor]:
        """A fresh counting sampling field."""
        return CountingField(self.velocity, self.objective.t_min, self.objective.t_max)


def load_model(folder: Path, dataset: DataSet, device: torch.device, expected: str | None = None) -> Model:
    """A model from the folder its training wrote; ``expected`` is the hash of the training's spec that it must have.

    Raises:
        DataError, CheckpointError: something is missing, truncated, or not what its config or the spec says.
    """
    config = read_json(folder / "config.json")
    if tuple(config["shape"]) != dataset.shape:
        raise DataError(f"{folder} was trained on samples of {config['shape']}, the data set has {list(dataset.shape)}; retrain")
    if expected is not None and config["spec_hash"] != expected:
        mine = config["spec"]
        raise DataError(
            f"{folder} holds {mine['method']['name']} on {mine['dataset']}, seed {mine['seed']} (spec "
            f"{config['spec_hash']}), not the model of this job's spec ({expected}); give that model's folder, or retrain"
        )
    check_data(config["spec"], dataset)
    objective = build(method_from_values(config["spec"]["method"]))
    weights = folder / "model.safetensors"
    whose = _whose(config["spec"], dataset)
    parameters = config["spec"]["method"]["oracle"]
    if parameters is not None:
        holder = oracles.weights(0.0)
        load_weights(weights, holder)
        oracle = oracles.oracle_of(parameters, float(holder.get_buffer("bandwidth")), dataset, device)

        def closed_form(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return oracle.velocity(objective.path, t, x)

        return Model(closed_form, objective, sha256(weights), *whose, oracle=oracle)
    network = new_network(config["spec"], dataset)
    load_weights(weights, network)
    network.to(device).eval().requires_grad_(False)
    field = velocity_field(network, objective.path, objective.prediction)
    return Model(field, objective, sha256(weights), *whose, config["reason"])


def _whose(spec: dict[str, Any], dataset: DataSet) -> tuple[str, str]:
    return plugin_code(spec), settings_hash([entry["sha256"] for entry in dataset.manifest["splits"].values()])


def cache_key(model: Model, job: Job) -> dict[str, Any]:
    """What every number of a model depends on, whoever starts the stage that measures it."""
    return {
        "weights": model.sha256,
        "own code": model.code,
        "data": model.data,
        "code": job.code_hash,
        "seed": job.spec["seed"],
        "device": job.device_name,
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def load_snapshots(folder: Path, dataset: DataSet, device: torch.device) -> Iterator[tuple[int, Model]]:
    """The averaged weights that a training kept on its way, as models, by iteration; none of an oracle.

    One at a time is in memory. The ``reason`` of a snapshot is empty: the training went on from there, or ended well.

    Raises:
        DataError, CheckpointError: something is missing, truncated, or not what its config says.
    """
    config = read_json(folder / "config.json")
    check_data(config["spec"], dataset)
    path = folder / "snapshots.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, Any] = json.loads((file.metadata() or {})["fmbench"])
            steps, names = metadata["steps"], file.keys()
    except FileNotFoundError:
        raise CheckpointError(f"the snapshots {path} are missing; rerun the training that makes them") from None
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"the snapshots {path} cannot be read ({error}); delete the file and rerun the training") from None
    if not steps:
        return
    objective = build(method_from_values(config["spec"]["method"]))
    digest, whose = sha256(path), _whose(config["spec"], dataset)
    for step in steps:
        prefix = f"{step:08d}/"
        network = new_network(config["spec"], dataset)
        with safe_open(path, framework="pt") as file:
            tensors = {name.removeprefix(prefix): file.get_tensor(name) for name in names if name.startswith(prefix)}
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            raise CheckpointError(
                f"the snapshot {step} in {path} does not fit the network described beside it: {error}"
            ) from None
        network.to(device).eval().requires_grad_(False)
        field = velocity_field(network, objective.path, objective.prediction)
        yield step, Model(field, objective, f"{digest}/{step}", *whose)
