"""Stage ``check``: builds every method and every network once, so that what cannot work is said before any training.

It is not a job of the DAG: the Snakefile runs it while it is read. As a job it would have to be an input of every training
that never makes one run again, and Snakemake does not look at the params of jobs downstream of a job that runs.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from fmbench.config.datasets import MAYBE_UNLABELLED, sample_shape
from fmbench.config.hashing import settings_hash
from fmbench.config.method_settings import method_from_values
from fmbench.config.names import NETWORKS
from fmbench.config.plugins import is_dotted, resolve
from fmbench.data.prepared import read
from fmbench.data.sources import bound
from fmbench.errors import ConfigError, DataError
from fmbench.flow.objectives import Objective, build
from fmbench.flow.solvers.grids import GRIDS
from fmbench.metrics.extractors import make_extractor
from fmbench.metrics.weights import problem
from fmbench.stages.classifier import unlearnable
from fmbench.stages.initial_network import initial_network
from fmbench.store.files import write_json
from fmbench.system.progress import Console

LARGE = 20_000_000
"""Parameters of a network that is tried without storage."""


def run(spec: dict[str, Any], data: dict[str, Path], out: Path, console: Console, key: str = "") -> None:
    """Try every method on every data set's network with a batch of two.

    Args:
        data: where each data set is or will be prepared. The shape of a data set of one's own may be known only once it
            is prepared; until then its network and extractors need only be there.
        out: a JSON file with ``key`` and the number of parameters of each network.

    Raises:
        ConfigError: one line for each thing that cannot be built or combined.
    """
    problems: list[str] = []
    notes: list[str] = []
    parameters: dict[str, int] = {}
    objectives = []
    whole = True
    for values in spec["methods"]:
        try:
            objective = build(method_from_values(values))
            objective.check_ends()
            for grid, steps in spec["grids"]:
                GRIDS[grid](objective.path, objective.t_min, objective.t_max, steps)
            if values["oracle"] is not None:
                check_oracle(values["oracle"], objective)
            else:
                objectives.append((values["name"], objective))
        except Exception as error:  # a plug-in may fail in any way; each is a line of the message
            problems.append(f"  methods.{values['name']}: {error}")
    for name, folder in data.items():
        settings = spec["datasets"][name]
        source = settings["data"]["source"]
        try:
            bound(source, settings["data"]["parameters"])
        except Exception as error:  # as of methods
            problems.append(f"  settings.{name}.data: {error}")
        shape = sample_shape(source, settings["data"]["parameters"])
        if shape is None or source in MAYBE_UNLABELLED:
            try:
                dataset = read(folder)
            except DataError:
                whole = False
                if shape is None:
                    problems += [f"  settings.{name}.{found_one}" for found_one in unimportable(settings)]
                    notes.append(f"settings.{name}.network is tried once its data are prepared, which tells their shape")
                    continue
            else:
                shape = shape or dataset.shape
                if dataset.is_images and any(part["extractor"] == "classifier" for part in settings["extractors"]):
                    try:
                        reason = unlearnable(dataset)
                    except DataError as error:
                        reason = str(error)
                    if reason:
                        problems.append(f"  settings.{name}.data: {reason}")
        if len(shape) == 3:
            for part in settings["extractors"]:
                reason = extractor_problem(part["extractor"], part["options"], shape)
                if reason:
                    problems.append(f"  settings.{name}.evaluation.features: {reason}")
        found, parameters[name] = network_problems(settings["network"], shape, objectives)
        problems += [f"  settings.{name}.network{found_one}" for found_one in found]
        nowhere = attention_nowhere(settings["network"], shape)
        if nowhere:
            notes.append(f"settings.{name}.network: {nowhere}")
    if problems:
        raise ConfigError("the config asks for what cannot work:\n" + "\n".join(problems))
    for note in notes:
        console.say(f"note: {note}")
    # Without its key the check is done again, when the data are there.
    passed = (key or settings_hash(spec)) if whole else ""
    write_json(out, {"key": passed, "parameters": parameters, "methods": [m["name"] for m in spec["methods"]]})
    counts = ", ".join(f"{name} {count:,}" for name, count in parameters.items())
    console.say(f"{len(spec['methods'])} methods on {len(data)} data sets can be built; network parameters: {counts} -> {out}")


def unimportable(settings: dict[str, Any]) -> list[str]:
    """The dotted names of a data set's network and extractors that lead nowhere: what can be said before its shape is known."""
    wanted = [("network", "network", settings["network"]["kind"])]
    wanted += [("evaluation.features", "extractor", part["extractor"]) for part in settings["extractors"]]
    problems = []
    for where, what, name in wanted:
        try:
            if is_dotted(name):
                resolve({}, what, name)
        except Exception as error:  # somebody else's code
            problems.append(f"{where}: {error}")
    return problems


def network_problems(
    settings: dict[str, Any], shape: tuple[int, ...], objectives: list[tuple[str, Objective]]
) -> tuple[list[str], int]:
    """What keeps a network from samples of ``shape`` or from the methods, and its number of parameters.

    Networks of fmbench that are large are tried without storage: on a processor they would take minutes.
    """
    if settings["kind"] in NETWORKS:
        try:
            with torch.device("meta"):
                network = initial_network(settings, shape, 0)
        except Exception as error:
            return [f": {error}"], 0
        count = sum(p.numel() for p in network.parameters())
        if count > LARGE and not _try_network(network, shape, objectives, "meta"):
            return [], count  # what fails there may only lack a way to do without numbers, so it is tried with them
    try:
        network = initial_network(settings, shape, 0)
    except Exception as error:
        return [f": {error}"], 0
    return _try_network(network, shape, objectives, "cpu"), sum(p.numel() for p in network.parameters())


def attention_nowhere(settings: dict[str, Any], shape: tuple[int, ...]) -> str:
    """What to know of attention resolutions that a U-Net on samples of ``shape`` does not come to; empty if nothing."""
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


def _try_network(network: nn.Module, shape: tuple[int, ...], objectives: list[tuple[str, Objective]], device: str) -> list[str]:
    x1 = torch.linspace(-1, 1, 2 * network_inputs(shape)).reshape(2, *shape).to(device)
    times = torch.tensor([0.25, 0.75]).to(device)
    try:
        found = network(times, x1).shape
    except (RuntimeError, TypeError, ValueError):
        found = x1.shape  # the loss below says what is wrong
    if found != x1.shape:  # it might broadcast without a word
        return [f": puts out the shape {tuple(found)} for {tuple(x1.shape)}"]
    problems = []
    for method, objective in objectives:
        try:
            objective.loss(network, x1.flip(0), x1, times)
        except Exception as error:
            problems.append(f" with method {method}: {error}")
    return problems


def extractor_problem(name: str, options: dict[str, Any], shape: tuple[int, ...]) -> str:
    """What keeps an extractor from images of ``shape``, with the remedy; empty if nothing. One of one's own is tried."""
    if name == "classifier":
        return ""
    if shape[0] not in (1, 3):
        return f"{name} takes images of 1 or 3 channels, these have {shape[0]}; choose extractor: classifier"
    if not is_dotted(name):
        return problem(name, options)
    try:
        make_extractor(name, "cpu", **options)(torch.zeros(2, *shape, dtype=torch.uint8))
    except Exception as error:  # somebody else's code
        return f"{name} cannot be used: {error}"
    return ""


def check_oracle(parameters: dict[str, Any], objective: Objective) -> None:
    """Hold an oracle to a field that is finite at the end of its path.

    Raises:
        ValueError: a finite set without bandwidth has none where s = 0.
    """
    s = objective.path.coefficients(torch.tensor(objective.t_max, dtype=torch.float64)).s
    if parameters["bandwidth"] == 0 and s == 0:
        raise ValueError(
            f"the field of a finite set is infinite at t = {objective.t_max:g}, where this path has no noise left; "
            "give the oracle a bandwidth, or a t_max before that"
        )


def network_inputs(shape: tuple[int, ...]) -> int:
    """How many numbers one sample has."""
    return int(torch.Size(shape).numel())
