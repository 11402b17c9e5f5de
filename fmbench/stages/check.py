"""Stage ``check``: builds every method and every network once, so that a config that cannot work fails before any training.

It is not a job of the DAG; the Snakefile runs it when Snakemake reads it. A job would have to be an input of every training that
never causes a rerun, and Snakemake does not look at the params of jobs downstream of a job that runs.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fmbench.config.datasets import MAYBE_UNLABELLED, sample_shape
from fmbench.config.hashing import settings_hash
from fmbench.config.names import NETWORKS
from fmbench.config.plugins import RAISED, is_dotted, reason, resolve
from fmbench.data.conditions import UNCONDITIONAL, Condition
from fmbench.data.prepared import DataSet, read
from fmbench.data.sources import bound, shape_in_file
from fmbench.errors import ConfigError, DataError
from fmbench.flow.objectives import Objective
from fmbench.flow.regression import Loss
from fmbench.metrics.extractor_weights import problem
from fmbench.metrics.extractors import make_extractor
from fmbench.stages.shared.classifier import unlearnable
from fmbench.stages.shared.comparison import comparison_problems
from fmbench.stages.shared.initial_network import expected_condition, initial_network
from fmbench.stages.shared.method_checks import check_methods, condition_problems, solver_problems
from fmbench.store.documents import write_document
from fmbench.system.progress import Console

LARGE = 20_000_000
"""Networks of fmbench with more parameters are tried without storage: on a processor they would take minutes."""


@dataclass
class DataSetCheck:
    """What the check of one data set found."""

    problems: list[str] = field(default_factory=list)  # what cannot work; each starts with its place in the data set's settings
    notes: list[str] = field(default_factory=list)  # what a user should know, likewise
    parameters: int | None = None  # of the network; None if it was not built
    complete: bool = True  # whether nothing was left for when the data are prepared


def run(spec: dict[str, Any], data: dict[str, Path], out: Path, console: Console, key: str = "") -> None:
    """Try every method on every data set's network with a batch of two.

    Args:
        data: where each data set is or will be prepared. The sample shape of a plug-in's data may be known only once they are
            prepared. Until then the names of its network and extractors must be importable, and the rest is not tried.
        out: a JSON file with ``key`` and the number of parameters of each network.

    Raises:
        ConfigError: one line for each thing that cannot be built or combined.
    """
    checks = try_all(spec, data)
    for name, found in checks.items():
        for note in found.notes:
            console.say(f"note: settings.{name}.{note}")
    # Without its key the check runs again, when the data are there.
    passed = (key or settings_hash(spec)) if all(found.complete for found in checks.values()) else ""
    parameters = {name: found.parameters for name, found in checks.items() if found.parameters is not None}
    write_document(out, {"key": passed, "parameters": parameters, "methods": [m["name"] for m in spec["methods"]]})
    counts = ", ".join(f"{name} {count:,}" for name, count in parameters.items())
    built = f"{len(spec['methods'])} methods on {len(data)} data set{'s' if len(data) != 1 else ''} can be built"
    console.say(f"{built}{'; network parameters: ' if counts else ''}{counts} -> {out}")


def try_all(spec: dict[str, Any], data: dict[str, Path], code: bool = True) -> dict[str, DataSetCheck]:
    """Build every method, grid and network of a spec, and return what was found on each data set.

    Args:
        data: as in :func:`run`.
        code: whether to run plug-ins of data sets. Without it they are neither imported nor tried.

    Raises:
        ConfigError: one line for each thing that cannot be built or combined.
    """
    objectives, problems = check_methods(spec)
    checks = {name: check_data_set(spec["datasets"][name], folder, objectives, code) for name, folder in data.items()}
    problems += [f"settings.{name}.{text}" for name, found in checks.items() for text in found.problems]
    problems += solver_problems(spec["solvers"]) if code else []
    if problems:
        raise ConfigError("this config cannot work:\n" + "\n".join(f"  {line}" for line in problems))
    return checks


def check_data_set(settings: dict[str, Any], folder: Path, objectives: list[tuple[str, Loss]], code: bool = True) -> DataSetCheck:
    """Check one data set with its network and feature extractors.

    Args:
        folder: where the data set is or will be prepared.
        code: whether to run plug-ins.
    """
    found = DataSetCheck()
    source, parameters = settings["data"]["source"], settings["data"]["parameters"]
    try:
        if code or not is_dotted(source):
            bound(source, parameters)
    except RAISED as error:
        found.problems.append(f"data: {reason(error)}")
    shape, dataset = sample_shape(source, parameters), None
    if shape is None and not found.problems:
        shape = shape_in_file(source, parameters)
    if shape is None or source in MAYBE_UNLABELLED:
        try:
            dataset = read(folder)
        except DataError:
            found.complete = False
        else:
            shape = shape or dataset.shape
            found.problems += label_problems(settings, dataset)
            found.notes += [f"data: {text}" for key in ("notes", "warnings") for text in dataset.manifest.get(key, [])]
    if shape is None:
        found.problems += import_problems(settings) if code else []
        found.notes.append("network is tried once its data are prepared, because their shape is not known before")
        return found
    found.problems += comparison_problems(settings, shape, folder)
    if len(shape) == 3:
        tried = [part for part in settings["extractors"] if code or not is_dotted(part["extractor"])]
        reasons = [extractor_problem(part["extractor"], part["options"], shape) for part in tried]
        found.problems += [f"evaluation.features: {reason}" for reason in reasons if reason]
        unused = unused_attention(settings["network"], shape)
        found.notes += [f"network: {unused}"] if unused else []
    if is_dotted(settings["network"]["kind"]) and not code:
        return found
    condition = expected_condition(settings.get("condition"), source, dataset)
    found.problems += condition_problems(objectives, condition)
    problems, found.parameters = network_problems(settings["network"], shape, objectives, condition)
    found.problems += [f"network{text}" for text in problems]
    return found


def label_problems(settings: dict[str, Any], dataset: DataSet) -> list[str]:
    """Why the labels of prepared images cannot train a classifier that the settings ask for."""
    if not dataset.is_images or all(part["extractor"] != "classifier" for part in settings["extractors"]):
        return []
    try:
        reason = unlearnable(dataset)
    except DataError as error:
        reason = str(error)
    return [f"data: {reason}"] if reason else []


def import_problems(settings: dict[str, Any]) -> list[str]:
    """The plug-in networks and extractors that cannot be imported: all that can be checked before the sample shape is known."""
    wanted = [("network", "network", settings["network"]["kind"])]
    wanted += [("evaluation.features", "extractor", part["extractor"]) for part in settings["extractors"]]
    problems = []
    for where, what, name in wanted:
        try:
            if is_dotted(name):
                resolve({}, what, name)
        except RAISED as error:
            problems.append(f"{where}: {reason(error)}")
    return problems


def network_problems(
    settings: dict[str, Any],
    shape: tuple[int, ...],
    objectives: list[tuple[str, Loss]],
    condition: Condition = UNCONDITIONAL,
) -> tuple[list[str], int]:
    """Why a network does not work on samples of ``shape`` or with a method, and its number of parameters.

    If a method learns to jump, the network is one that is given spans. The other methods ignore them.
    """
    spans = any(isinstance(objective, Objective) and objective.jumps is not None for _, objective in objectives)
    try:
        if settings["kind"] in NETWORKS:
            with torch.device("meta"):
                network = initial_network(settings, shape, 0, condition, spans)
            count = sum(p.numel() for p in network.parameters())
            if count > LARGE and not _try_network(network, shape, objectives, condition, "meta"):
                return [], count
            # An operation may fail only for want of storage, so the network is tried with it.
        network = initial_network(settings, shape, 0, condition, spans)
        count = sum(p.numel() for p in network.parameters())
    except RAISED as error:
        return [f": {reason(error)}"], 0
    return _try_network(network, shape, objectives, condition, "cpu"), count


def _try_network(
    network: nn.Module, shape: tuple[int, ...], objectives: list[tuple[str, Loss]], condition: Condition, device: str
) -> list[str]:
    x1 = torch.linspace(-1, 1, 2 * math.prod(shape)).reshape(2, *shape).to(device)
    times = torch.tensor([0.25, 0.75]).to(device)
    given = condition.example(2, shape, device)

    def conditioned(t: Tensor, x: Tensor) -> Tensor:
        out: Tensor = network(t, x, *given)
        return out

    try:
        found = conditioned(times, x1).shape
    except RAISED:
        found = x1.shape  # the losses below report what is wrong
    if found != x1.shape:  # the loss might broadcast it silently
        return [f": returns shape {tuple(found)} for samples of shape {tuple(x1.shape)}; it must return their shape"]
    problems = []
    for method, objective in objectives:
        try:
            objective.loss(conditioned, x1.flip(0), x1, times)
        except RAISED as error:
            problems.append(f" with method {method}: {reason(error)}")
    return problems


def unused_attention(settings: dict[str, Any], shape: tuple[int, ...]) -> str:
    """A note on attention resolutions that a U-Net on samples of ``shape`` never reaches; empty if it reaches all."""
    if settings["kind"] != "unet" or len(shape) != 3:
        return ""
    heights = [shape[1] >> level for level in range(len(settings["channels_multiple"]))]
    missed = [r for r in settings["attention_resolutions"] if r not in heights]
    if not missed:
        return ""
    return (
        f"attention_resolutions has {', '.join(map(str, missed))}, but the heights of this network are "
        f"{', '.join(map(str, heights))}; there is no attention there"
    )


def extractor_problem(name: str, options: dict[str, Any], shape: tuple[int, ...]) -> str:
    """Why an extractor does not work on images of ``shape``, with the remedy; empty if it does. A plug-in is tried."""
    if name == "classifier":
        return ""
    if not is_dotted(name):
        if shape[0] not in (1, 3):
            return f"{name} takes images of 1 or 3 channels, not of {shape[0]}; choose extractor: classifier"
        return problem(name, options)
    try:
        make_extractor(name, "cpu", **options)(torch.zeros(2, *shape, dtype=torch.uint8))
    except RAISED as error:
        return f"{name} cannot be used: {reason(error)}"
    return ""
