"""What all stages share: the job they do, the rows they write, the model they load."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fmbench.config import method_from_values, settings_hash
from fmbench.data.prepared import DataSet
from fmbench.errors import DataError
from fmbench.fields import CountingField, Field, velocity_field
from fmbench.files import read_json
from fmbench.likelihood import LogLikelihood, log_likelihood
from fmbench.networks import build_network
from fmbench.objectives import Objective, build
from fmbench.oracle import FiniteOracle
from fmbench.progress import Console
from fmbench.provenance import commit, device_name, versions
from fmbench.records import DIVERGED, OK, SKIPPED, Row
from fmbench.rng import generator, indexed_normal
from fmbench.stages import oracles


@dataclass
class Job:
    """A stage at work: its spec, where it speaks, what it computes on, and the rows it has made."""

    spec: dict[str, Any]
    console: Console
    device: torch.device
    code_hash: str
    rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.config_hash = settings_hash(self.spec)
        self.device_name = device_name(str(self.device))

    def add(self, metric: str, value: float | None, unit: str, **columns: Any) -> None:
        """Add a row, stamped with its provenance. A value that is not finite becomes a row ``diverged``."""
        if columns.get("status", OK) == OK and (value is None or not abs(value) < float("inf")):
            columns |= {"status": DIVERGED, "reason": columns.get("reason") or f"{metric} is {value}"}
            value = None
        spec = self.spec
        defaults = {
            "dataset": spec["dataset"],
            "method": spec["method"] if isinstance(spec.get("method"), str) else spec.get("method", {}).get("name", ""),
            "seed": spec.get("seed"),
            "stage": spec["stage"],
            "config_hash": self.config_hash,
            "code_hash": self.code_hash,
            "commit": commit(),
            "versions": versions(),
            "device": self.device_name,
            "threads": torch.get_num_threads(),
        }
        self.rows.append(Row(metric=metric, value=value, unit=unit, **(defaults | columns)))

    def skip(self, metric: str, unit: str, reason: str, **columns: Any) -> None:
        """Add a row for what could not be measured."""
        self.add(metric, None, unit, status=SKIPPED, reason=reason, **columns)


@dataclass(frozen=True)
class Model:
    """A trained model, or an oracle. ``reason`` says why its training failed; empty if it did not."""

    velocity: Field
    objective: Objective
    sha256: str
    reason: str = ""
    oracle: FiniteOracle | None = None

    def field(self) -> CountingField[torch.Tensor]:
        """A fresh counting sampling field."""
        return CountingField(self.velocity, self.objective.t_min, self.objective.t_max)

    def log_likelihood(
        self, x1: torch.Tensor, probes: torch.Tensor | None, rtol: float, atol: float, mode: str = "reverse"
    ) -> tuple[LogLikelihood, int]:
        """log p of data under the sampling field, and the evaluations it took; an oracle's divergence is always exact."""
        o = self.objective
        field = self.field()
        closed_form = None
        if self.oracle is not None:
            oracle = self.oracle
            closed_form = CountingField(lambda t, x: oracle.velocity_and_divergence(o.path, t, x), o.t_min, o.t_max)
        result = log_likelihood(
            field,
            x1,
            o.t_min,
            o.t_max,
            base_std=o.path.base_std,
            probes=probes,
            divergence=closed_form,
            mode=mode,
            rtol=rtol,
            atol=atol,
        )
        return result, (closed_form or field).calls


def new_network(spec: dict[str, Any], dataset: DataSet) -> nn.Module:
    """The network of a training spec with its initial weights, a function of the seed and of nothing else."""
    return initial_network(spec["network"], dataset.shape, spec["seed"])


def initial_network(settings: dict[str, Any], shape: tuple[int, ...], seed: int) -> nn.Module:
    """A network for samples of ``shape`` with its initial weights.

    Raises:
        ValueError: the settings do not go with each other or with the shape.
    """
    settings = dict(settings)
    kind = settings.pop("kind")
    parameters = settings.pop("parameters", settings)
    # torch initialises layers from the global generator only; seed it for just that.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, "network").initial_seed())
        network = build_network(kind, shape, parameters)
    if len(shape) == 3:
        network = network.to(memory_format=torch.channels_last)
    return network


def check_data(spec: dict[str, Any], dataset: DataSet) -> None:
    """Hold a job to the data set its spec was made for.

    Raises:
        DataError: the folder holds another data set.
    """
    found = dataset.manifest["spec"]
    if settings_hash(found) != spec["data"]:
        raise DataError(
            f"{dataset.folder} holds {found['dataset']} prepared from {found['source']} with {found['parameters']}, which is not "
            f"what this job's spec was made for; give the folder of {spec['dataset']}, or prepare it again"
        )


def load_model(folder: Path, dataset: DataSet, device: torch.device, expected: str | None = None) -> Model:
    """A model from the folder its training wrote; ``expected`` is the hash of the training's spec that it must have.

    Raises:
        DataError, CheckpointError: something is missing, truncated, or not what its config or the spec says.
    """
    from fmbench.checkpoint import load_weights
    from fmbench.files import sha256

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
    parameters = config["spec"]["method"]["oracle"]
    if parameters is not None:
        holder = oracles.weights(0.0)
        load_weights(weights, holder)
        oracle = oracles.oracle_of(parameters, float(holder.get_buffer("bandwidth")), dataset, device)

        def closed_form(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return oracle.velocity(objective.path, t, x)

        return Model(closed_form, objective, sha256(weights), oracle=oracle)
    network = new_network(config["spec"], dataset)
    load_weights(weights, network)
    network.to(device).eval().requires_grad_(False)
    field = velocity_field(network, objective.path, objective.prediction)
    return Model(field, objective, sha256(weights), config["reason"])


def base_noise(seed: int, indices: range, shape: tuple[int, ...], std: float, device: torch.device) -> torch.Tensor:
    """The noise that samples ``indices`` start from: the same for every method, solver and batch size."""
    noise = indexed_normal(seed, "sample", indices, shape).to(device) * std
    return noise.to(memory_format=torch.channels_last) if noise.ndim == 4 else noise


def batches(n: int, size: int) -> Iterator[range]:
    """Index ranges of at most ``size`` that cover n samples."""
    for start in range(0, n, size):
        yield range(start, min(start + size, n))
