"""Networks with their initial weights: for every method the same, a function of the seed and of nothing else."""

from typing import Any

import torch
from torch import nn

from fmbench.config.datasets import CLASSES
from fmbench.data.conditions import UNCONDITIONAL, Condition, make_condition
from fmbench.data.prepared import DataSet
from fmbench.networks import build_network
from fmbench.system.rng import generator


def new_network(spec: dict[str, Any], dataset: DataSet) -> nn.Module:
    """The network of a training spec with its initial weights."""
    spans = spec["method"].get("jumps") is not None
    return initial_network(spec["network"], dataset.shape, spec["seed"], dataset.condition, spans)


def expected_condition(settings: dict[str, Any] | str | None, source: str, dataset: DataSet | None) -> Condition:
    """The condition of a data set of a config, for networks that are tried or counted before a training.

    Args:
        settings: the entry ``condition`` of the data set's spec.
        dataset: if it is prepared. If not, the classes are those of the source, or one where these are not known.
    """
    if dataset is None:
        return make_condition(settings, 256, CLASSES.get(source))
    return make_condition(settings, dataset.levels, dataset.manifest["classes"])


def initial_network(
    settings: dict[str, Any],
    shape: tuple[int, ...],
    seed: int,
    condition: Condition = UNCONDITIONAL,
    spans: bool = False,
) -> nn.Module:
    """A network for samples of ``shape`` with its initial weights.

    Args:
        spans: whether its times may have spans (:mod:`fmbench.flow.mean_velocity`).

    Raises:
        ValueError: the settings contradict each other, or do not fit the shape.
    """
    settings = dict(settings)
    kind = settings.pop("kind")
    parameters = settings.pop("parameters", settings)
    # torch initialises layers from the global generator only. Seed it here, and restore it afterwards.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, "network").initial_seed())
        network = build_network(kind, shape, parameters, condition.arguments(shape) | ({"spans": True} if spans else {}))
    if len(shape) == 3:
        network = network.to(memory_format=torch.channels_last)
    return network
