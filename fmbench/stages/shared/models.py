"""A trained model, or an oracle, as the stages that evaluate it see it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fmbench.config.hashing import settings_hash
from fmbench.config.method_settings import method_from_values
from fmbench.data.prepared import DataSet
from fmbench.errors import DataError
from fmbench.flow.fields import CountingField, Field, FieldOfAll, guided, velocity_field
from fmbench.flow.mean_velocity import jump_field
from fmbench.flow.objectives import Objective, build
from fmbench.flow.regression import NO_FLOW, Regression, build_loss, one_evaluation, prediction
from fmbench.flow.solvers.adaptive import dopri5
from fmbench.flow.solvers.solution import AdaptiveSolution
from fmbench.stages import oracles
from fmbench.stages.oracles import OracleOfSamples
from fmbench.stages.shared.batching import base_noise
from fmbench.stages.shared.initial_network import new_network
from fmbench.stages.shared.job import Job, check_data, split_hashes
from fmbench.stages.shared.pair_files import NO_PAIRS
from fmbench.store.codehash import plugin_code
from fmbench.store.documents import read_document
from fmbench.store.provenance import versions
from fmbench.store.shapes import ModelConfig
from fmbench.store.weights import fit, load_weights, open_tensors


@dataclass(frozen=True)
class Sampler:
    """How the stage ``sample`` makes samples: by the adaptive solver, or by one evaluation without any tolerance."""

    solve: Callable[..., AdaptiveSolution] = dopri5
    name: str = "dopri5"
    shared: str = "dopri5_shared"  # the name with one step size for a batch
    adaptive: bool = True  # whether it solves to a tolerance

    def columns(self, rtol: float, atol: float) -> dict[str, Any]:
        """The columns of a row about such a solve with a step size for each sample."""
        return {"solver": self.name, **({"rtol": rtol, "atol": atol} if self.adaptive else {})}


PREDICTOR = Sampler(one_evaluation, "one evaluation", "one evaluation", adaptive=False)


@dataclass(frozen=True)
class Model:
    """A trained model, or an oracle, with the conditions of the test split.

    Sample i has the condition of test sample i, and after the last one those of the first again.

    Attributes:
        velocity: the sampling field. With a condition it differs by sample (:class:`fmbench.flow.fields.FieldOfAll`).
    """

    velocity: Field
    objective: Objective | Regression
    dataset: DataSet
    device: torch.device
    sha256: str  # the digits in the seal of the weights
    code: str  # hash of the plug-in modules that the model needs; empty if it needs none
    data: str  # hash of all splits
    reason: str = ""  # "training diverged: " and the cause; empty if the training ended well
    no_flow: str = ""  # why there is nothing but a sampler to measure; empty for a flow
    oracle: OracleOfSamples | None = None
    guidance: float = 1.0  # the scale of classifier-free guidance; 1 for none
    sampler: Sampler = Sampler()
    mean_velocity: Field | None = None  # of times (t, r), for samples by jumps; None for a method that does not learn it

    @property
    def unsolvable(self) -> str:
        """Why the flow cannot be solved; empty if it can."""
        return self.reason or self.no_flow

    @property
    def no_density(self) -> str:
        """Why the samples of a flow have no density, given a condition; empty if they have one."""
        return "" if self.objective.start.std else "the source has no noise, so the samples given a condition have no density"

    @property
    def cost(self) -> int:
        """Evaluations of the network in one of the field."""
        return 1 if self.guidance == 1 else 2

    def flow(self) -> Objective:
        """The objective of a model that is a flow."""
        assert isinstance(self.objective, Objective)
        return self.objective

    def field(self) -> CountingField[Tensor]:
        """A sampling field that counts its evaluations, from 0. Its ``rows`` are the fields of samples."""
        ends = (self.objective.t_min, self.objective.t_max)
        return CountingField(self.velocity, *ends, self.cost)

    def jumping_field(self) -> CountingField[Tensor]:
        """The mean velocity as a field that counts its evaluations, from 0."""
        assert self.mean_velocity is not None
        return CountingField(self.mean_velocity, self.objective.t_min, self.objective.t_max, self.cost)

    def start(self, seed: int, indices: range) -> Tensor:
        """Where these samples start, (len(indices), *): the same for every method with the same start, solver and batch size."""
        noise = base_noise(seed, indices, self.dataset.shape, self.objective.noise_std, self.device)
        return self.objective.start.place(noise, *self.dataset.conditions(indices, self.device))

    def start_mean(self, indices: range) -> Tensor | float:
        """The mean of what these samples start from."""
        return self.objective.start.mean(*self.dataset.conditions(indices, self.device))


def model_of(job: Job, folder: Path, dataset: DataSet) -> Model:
    """The model that a job evaluates, with the guidance of its spec; raises as :func:`load_model`."""
    return load_model(folder, dataset, job.device, job.spec["model"], guidance_of(job))


def guidance_of(job: Job) -> float:
    """The guidance scale of a job's samples; 1 means none."""
    return float(job.spec.get("guidance", 1.0))


def load_model(folder: Path, dataset: DataSet, device: torch.device, expected: str | None = None, guidance: float = 1.0) -> Model:
    """The model in a folder that the stage ``train`` wrote.

    Args:
        expected: the hash that the training's spec must have.
        guidance: the scale of classifier-free guidance by the label; 1 for none.

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
        return _oracle(spec, weights, dataset, device, guidance)
    network = new_network(spec, dataset)
    digest = load_weights(weights, network)
    reason = config["reason"]
    if reason:
        reason = f"not trained: {reason}" if reason.startswith(NO_PAIRS) else f"training diverged: {reason}"
    return _trained(spec, network.to(device), digest, dataset, device, guidance, reason)


def _oracle(spec: dict[str, Any], weights: Path, dataset: DataSet, device: torch.device, guidance: float) -> Model:
    objective = build(method_from_values(spec["method"]))
    holder = oracles.weights(0.0)
    digest = load_weights(weights, holder)
    oracle = oracles.oracle_of(spec["method"]["oracle"], float(holder.get_buffer("bandwidth")), dataset, device)

    def bind(*log_weights: Tensor) -> Field:
        return partial(oracle.bound(*log_weights).velocity, objective.path)

    velocity = _of_samples(dataset, bind, lambda *_: bind(), oracle.log_weights, guidance)
    about = (digest, plugin_code(spec), _data_hash(dataset))
    return Model(velocity, objective, dataset, device, *about, oracle=oracle, guidance=guidance)


# Many parameters: what a model is made from.
def _trained(
    spec: dict[str, Any],
    network: nn.Module,
    digest: str,
    dataset: DataSet,
    device: torch.device,
    guidance: float = 1.0,
    reason: str = "",
) -> Model:
    objective = build_loss(method_from_values(spec["method"]), dataset.model_std)
    network.eval().requires_grad_(False)

    def of_samples(made: Callable[[Field], Field]) -> Field:
        """The field of all samples, made from the network given the condition."""

        def bind(*condition: Tensor) -> Field:
            def conditioned(t: Tensor, x: Tensor) -> Tensor:
                out: Tensor = network(t, x, *condition)
                return out

            return made(conditioned)

        def untold(*condition: Tensor) -> Field:
            where = torch.ones(len(condition[0]), dtype=torch.bool, device=device)
            return bind(*dataset.condition.dropped(where, *condition))

        return _of_samples(dataset, bind, untold, lambda indices: dataset.conditions(indices, device), guidance)

    about = (digest, plugin_code(spec), _data_hash(dataset), reason)
    if isinstance(objective, Regression):
        model = Model(of_samples(prediction), objective, dataset, device, *about, guidance=guidance)
        return replace(model, no_flow=NO_FLOW, sampler=PREDICTOR)
    velocity = of_samples(lambda net: velocity_field(net, objective.path, objective.prediction))
    mean = None if objective.jumps is None else of_samples(jump_field)
    return Model(velocity, objective, dataset, device, *about, guidance=guidance, mean_velocity=mean)


def _of_samples(
    dataset: DataSet,
    told: Callable[..., Field],
    untold: Callable[..., Field],
    read: Callable[[Sequence[int]], tuple[Tensor, ...]],
    guidance: float,
) -> Field:
    """The field of all samples.

    Args:
        told, untold: from what ``read`` returns of samples to their field given the condition, and without it.
    """
    if not dataset.condition.arrays:
        return told()
    if guidance == 1:
        return FieldOfAll(told, read)
    return FieldOfAll(lambda *values: guided(told(*values), untold(*values), guidance), read)


def _data_hash(dataset: DataSet) -> str:
    return settings_hash(split_hashes(dataset))


def cache_key(model: Model, job: Job) -> dict[str, Any]:
    """Everything that a number measured of a model depends on, besides the settings of the measurement."""
    return {
        "weights": model.sha256,
        "guidance": model.guidance,
        "plugin code": model.code,
        "data": model.data,
        "code": job.code_hash,
        "seed": job.spec["seed"],
        "device": job.device_name,
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def load_snapshots(folder: Path, dataset: DataSet, device: torch.device, guidance: float = 1.0) -> Iterator[tuple[int, Model]]:
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
            yield step, _trained(spec, network.to(device), f"{digest}/{step}", dataset, device, guidance)
